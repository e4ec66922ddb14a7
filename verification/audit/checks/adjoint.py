"""The exact adjoint solve reaches its tolerance; the condition of I - J."""

from __future__ import annotations

from typing import Any

import torch

from verification.audit.point import linear_tolerance
from verification.audit.result import AuditVerdict, fails, holds, undecided
from verification.audit.shared import Shared


def check(shared: Shared) -> tuple[AuditVerdict, str, str, dict[str, Any]]:
    """GMRES on I - J^T for the owner's cotangent and for a random one; condition, exact or estimated from below."""
    case = shared.case
    if not shared.solved:
        return undecided("there is no equilibrium at which it could be solved", "see `converged`")
    if not shared.line.differentiable:
        return fails("f's value carries no graph that reaches z", "f must be made of differentiable operations on z: "
                     "no no_grad, detach, item or numpy on the way")
    c = case.random(shared.found.z)
    probe = shared.line.adjoint(c, rtol=linear_tolerance(case), max_iter=max(60, int(240 * case.effort)))
    left = max(float((probe.residual / torch.linalg.vector_norm(c, dim=1)).max()),
               float(shared.gradients.residual.nan_to_num(torch.inf).max()))
    reached = bool(probe.converged.all()) and bool(shared.gradients.reached.all())
    condition, exact = _condition(shared, probe.value, c)
    numbers: dict[str, Any] = {"residual": left, "tolerance": linear_tolerance(case), "condition": condition,
                               "condition_is_exact": exact, "iterations": int(probe.iterations.max())}
    text = f"residual {left:.1e} after {numbers['iterations']} products, condition of I - J " \
           f"{'' if exact else 'at least '}{condition:.2g}"
    # Where rounding of the owner's weights alone moves the adjoint by a tenth, nothing computed from it is meant.
    hopeless = 0.1 / max(torch.finfo(torch.float32).eps if case.layout.dtype != torch.float64 else 1e-14, 1e-16)
    if condition > hopeless:
        return fails(text, "I - J is singular to working precision, so the gradient does not exist here: an eigenvalue "
                     "of J is 1 (a conserved mean, an identity path): subtract it or damp it", **numbers)
    if reached:
        return holds(text, "" if condition < 1e3 else "expect slow solves, and gradients good to few digits in float32",
                     **numbers)
    if left < 1e-4:
        return holds(f"{text} (rounding stops it there)", **numbers)
    return undecided(text, "give more time (--budget); if it stays, I - J is nearly singular", **numbers)


def _condition(shared: Shared, u: torch.Tensor, c: torch.Tensor) -> tuple[float, bool]:
    """Condition of I - J: from J where it is formed, else from below by what solves and products show."""
    if shared.jacobian is not None:
        worst = 0.0
        for one in shared.jacobian.double().cpu():
            values = torch.linalg.svdvals(torch.eye(len(one), dtype=one.dtype) - one)
            worst = max(worst, float(values[0] / values[-1].clamp_min(1e-300)))
        return worst, True
    up = max(float((a.norm(dim=1) / b.norm(dim=1).clamp_min(1e-30)).max())
             for a, b in ((u, c), (shared.gradients.adjoint, shared.gradients.cotangent)))
    w = shared.case.random(c)
    down = float(((w - shared.line.transposed(w)).norm(dim=1) / w.norm(dim=1)).max())
    return max(1.0, max(up, shared.amplification) * max(down, 1.0)), False
