"""What K differentiated steps give instead of the exact gradient: bias, cosine, the K for 1 % and 10 %, the bound."""

from __future__ import annotations

import math
from typing import Any

from verification.audit import limits
from verification.audit.point import compare, flat_norm
from verification.audit.result import AuditVerdict, fails, holds, not_applicable, undecided
from verification.audit.shared import Shared

#: Largest K that is looked for.
MOST = 200


def check(shared: Shared) -> tuple[AuditVerdict, str, str, dict[str, Any]]:
    """Bias of the adjoint at every K and of the gradient at the K asked for."""
    case = shared.case
    declared = case.subject.declared_steps
    if not shared.solved:
        return undecided("there is no equilibrium at which the bias could be measured", "see `converged`")
    if not bool(shared.gradients.reached.all()) and float(shared.gradients.residual.max()) > 1e-3:
        return undecided("the exact adjoint was not found, so there is nothing to compare with", "see `adjoint`")
    truth, norm = shared.gradients, shared.norm
    steps = sorted({*case.steps, *((declared,) if declared else ())})
    biases = _biases(shared, max(steps))
    rows = []
    phantom = shared.phantoms(tuple(steps))
    for k in steps:
        if k not in phantom or flat_norm(truth.exact) == 0:
            continue
        error, cosine = compare(phantom[k], truth.exact)
        rows.append({"steps": k, "relative_error": error, "cosine": cosine, "adjoint_bias": biases.get(k),
                     "bound": norm**k if norm < 1 else None})
    least = {name: next((k for k in sorted(biases) if all(biases[j] <= level for j in biases if j >= k)), None)
             for name, level in (("1_percent", 0.01), ("10_percent", 0.1))}
    case.curves["bias"] = [{"steps": k, "bias": value, "bound": norm**k if norm < 1 else None}
                           for k, value in biases.items()]
    case.curves["phantom"] = rows
    numbers: dict[str, Any] = {"by_steps": rows, "least_steps": least, "norm": norm, "declared":
                               case.subject.declared, "bound": "adjoint bias <= |J|^K" if norm < 1 else
                               "none: |J| >= 1"}
    shown = "; ".join(f"K={row['steps']}: {row['relative_error']:.0%}, cos {row['cosine']:.3f}" for row in rows[:4])
    text = (f"error {shown or 'not measured (no parameters or zero gradient)'}; "
            f"K for 10 %: {least['10_percent'] or 'none'}")
    row = next((row for row in rows if row["steps"] == declared), None)
    if declared is None:
        if least["10_percent"] is None:
            return not_applicable(f"{text}: not used here, and no K up to {max(biases, default=0)} would do",
                                  "do not replace the exact gradient by a phantom one", **numbers)
        return holds(text, f"a phantom gradient of {least['10_percent']} steps would be within 10 %, of "
                     f"{least['1_percent']} within 1 %" if least["1_percent"] else "", **numbers)
    if row is None:
        return undecided(text, "give the loss and the parameters of your training", **numbers)
    remedy = (f"take {least['10_percent']} steps for 10 %, {least['1_percent'] or 'many'} for 1 %, or deq.Exact"
              if least["10_percent"] else "no K will do here: take deq.Exact, or let f contract")
    if row["relative_error"] <= limits.PHANTOM_ERROR_HOLDS and row["cosine"] >= limits.PHANTOM_COSINE_HOLDS:
        return holds(text, "" if row["relative_error"] < 0.1 else remedy, **numbers)
    if row["relative_error"] > limits.PHANTOM_ERROR_FAILS or row["cosine"] < limits.PHANTOM_COSINE_FAILS:
        return fails(f"the declared K={declared} has error {row['relative_error']:.0%}, cosine {row['cosine']:.3f}",
                     remedy, **numbers)
    return undecided(f"the declared K={declared} has error {row['relative_error']:.0%}, cosine {row['cosine']:.3f}",
                     f"whether training bears that is not known: {remedy}, or watch it (deq.watch)", **numbers)


def _biases(shared: Shared, at_least: int) -> dict[int, float]:
    """|(J^T)^K u| / |u| until 0.3 % is reached, worst system."""
    line, rest = shared.line, shared.gradients.adjoint
    length = rest.norm(dim=1).clamp_min(1e-30)
    out: dict[int, float] = {}
    limit = max(at_least, int(MOST * shared.case.effort))
    for k in range(1, limit + 1):
        rest = line.transposed(rest)
        out[k] = float((rest.norm(dim=1) / length).max())
        done = out[k] < 0.003 or not math.isfinite(out[k]) or out[k] > 1e6
        if k >= at_least and (done or shared.case.clock.left < 0.2 * shared.case.clock.budget):
            break
    return out

