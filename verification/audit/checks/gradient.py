"""The owner's gradient equals the exact one, parameter by parameter; f's own derivative is the derivative of f."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from verification.audit import limits
from verification.audit.point import Gradient, compare, finite, flat_norm
from verification.audit.result import AuditVerdict, fails, holds, not_applicable, undecided
from verification.audit.shared import Shared

Outcome = tuple[AuditVerdict, str, str, dict[str, Any]]


def check(shared: Shared) -> Outcome:
    """Their gradient against an adjoint solve at the equilibrium near their z."""
    if not shared.solved:
        return undecided("there is no equilibrium whose gradient could be taken", "see `converged`")
    if not shared.parameters:
        return not_applicable("f's graph reaches no tensor that requires grad" if shared.case.subject.parameters is None
                              else "none of the given parameters requires grad", "give parameters=model to Subject, or "
                              "see whether f works under no_grad or on detached tensors")
    wrong = _derivative_of_f(shared)
    if wrong is not None:
        return wrong
    if shared.owner.tree is None:
        if shared.owner.problem:
            return undecided("forward() raised, so there is no gradient to look at", "see `converged`")
        return not_applicable("the subject has no forward: there is no gradient of the owner's to compare")
    own, problem = shared.owner_gradient
    if own is None:
        return fails(f"their backward raised {problem}", "the adjoint solve should end with a number")
    truth = shared.gradients
    if not bool(truth.reached.all()) and float(truth.residual.max()) > 1e-3:
        return undecided(f"the exact adjoint stops at a residual of {float(truth.residual.max()):.1e}", "see `adjoint`")
    if flat_norm(truth.exact) == 0:
        return undecided("the exact gradient is zero: this loss cannot tell gradients apart", "give the loss that your "
                         "training uses: Subject(loss=...)")
    return _verdict(shared, own, truth.exact)


def _verdict(shared: Shared, own: Gradient, exact: Gradient) -> Outcome:
    """Judge their gradient, as exact or as the phantom that it declares itself to be."""
    case = shared.case
    at_theirs = shared.gradients_at_owner
    spread = compare(at_theirs.exact, exact)[0]
    error, cosine = compare(own, exact)
    # Theirs may be right at their z: then what is wrong is the solve, which `converged` judges.
    own_error = min(error, compare(own, at_theirs.exact)[0])
    noise = 30 * case.eps * shared.amplification
    rows = _by_parameter(own, exact, at_theirs.exact)
    case.curves["gradient"] = rows
    numbers: dict[str, Any] = {"relative_error": error, "cosine": cosine, "error_at_their_z": own_error,
                               "due_to_their_solve": spread, "rounding": noise, "tolerance":
                               max(limits.GRADIENT_HOLDS, noise), "declared": case.subject.declared, "parameters": rows}
    if not finite(own):
        return fails("their gradient has NaN or infinite entries", "look for sqrt, log or norms at 0 in f or the loss",
                     **numbers)
    missing = [row["name"] for row in rows if row["missing"]]
    if missing and not case.subject.declared_steps:
        return fails(f"no gradient reaches {_listed(missing)} ({len(missing)} of {len(rows)}), though the equilibrium "
                     "depends on it", "attach the equilibrium to the graph: z = f(z*, x) with grad on and the adjoint "
                     "on its output, or deq.equilibrium(f, z0)", **numbers)
    if case.subject.declared_steps:
        return _declared(shared, own, numbers, missing)
    worst = max(rows, key=lambda row: row["excess"])
    local = worst["excess"]
    if own_error <= max(limits.GRADIENT_HOLDS, noise) and local <= max(4 * limits.GRADIENT_HOLDS, noise):
        return holds(f"relative error {error:.1e}, cosine {cosine:.6g} over {len(rows)} parameters", **numbers)
    text = (f"relative error {error:.1e}, cosine {cosine:.4g}; worst in {worst['name']}: "
            f"{worst['relative_error']:.1e}, {worst['sign_flips']:.0%} of its signs flipped")
    if shared.verdicts.get("converged") is AuditVerdict.FAILS:
        return undecided(text, "their z is no equilibrium, so this says little of the gradient's rule: mend the solve "
                         "first (`converged`)", **numbers)
    if own_error > max(limits.GRADIENT_FAILS, 3 * noise, spread) or local > max(0.2, 10 * noise, 3 * worst["spread"]):
        return fails(text, _advice(shared, own), **numbers)
    return undecided(text, "ten times tighter tolerances, forward and backward, would tell a loose solve from a wrong "
                     "term", **numbers)


def _declared(shared: Shared, own: Gradient, numbers: dict[str, Any], missing: list[str]) -> Outcome:
    """A phantom gradient is measured; only one that is not what it declares fails."""
    declared = shared.case.subject.declared_steps or 1
    known = shared.phantoms(tuple(range(1, declared + 3)))
    gaps = {k: compare(own, value)[0] for k, value in known.items()}
    nearest = min(gaps, key=lambda k: gaps[k])
    near = max(limits.GRADIENT_FAILS, 3 * numbers["rounding"], 3 * numbers["due_to_their_solve"])
    numbers |= {"nearest_phantom": nearest, "distance_to_it": gaps[nearest]}
    text = (f"declared phantom:{declared}; relative error {numbers['relative_error']:.1e}, "
            f"cosine {numbers['cosine']:.4g}")
    if gaps.get(declared, float("inf")) <= near or numbers["error_at_their_z"] <= near:
        return holds(f"{text}, measured and as declared", "see `phantom` for what more steps would give", **numbers)
    lost = [name for name in missing if (part := known[declared].get(name)) is not None and bool(part.any())]
    if lost:
        return fails(f"no gradient reaches {_listed(lost)}, not even a phantom one", "run the last steps of f with "
                     "grad on", **numbers)
    if shared.verdicts.get("converged") is AuditVerdict.FAILS:
        return undecided(text, "their z is no equilibrium: mend the solve first (`converged`)", **numbers)
    if numbers["cosine"] <= 0:
        return fails(f"{text}: it points away from the gradient", "this is no phantom gradient: look at signs and at "
                     "what is detached", **numbers)
    if gaps[nearest] <= near and abs(nearest - declared) > 1:
        return fails(f"{text}; but it is phantom:{nearest}", f"count the steps that run with grad on: {nearest}, not "
                     f"{declared}", **numbers)
    return undecided(f"{text}; nearest to phantom:{nearest}, {gaps[nearest]:.1e} from it", "a damped or otherwise "
                     "changed phantom gradient can only be measured", **numbers)


def _by_parameter(own: Gradient, exact: Gradient, at_theirs: Gradient) -> list[dict[str, Any]]:
    """Error, cosine and flipped signs of each parameter that the exact gradient reaches."""
    total = flat_norm(exact)
    rows = []
    for name, truth in exact.items():
        mine = own.get(name)
        if truth is None:
            if mine is not None and bool((mine != 0).any()):
                rows.append(_row(name, mine, torch.zeros_like(mine), torch.zeros_like(mine), total))
            continue
        other = at_theirs.get(name)
        rows.append(_row(name, mine, truth, truth if other is None else other, total))
    return rows


def _row(name: str, own: Tensor | None, truth: Tensor, other: Tensor, total: float) -> dict[str, Any]:
    wide = torch.complex128 if truth.is_complex() else torch.float64
    truth, other = truth.detach().to(wide), other.detach().to(wide)
    mine = torch.zeros_like(truth) if own is None else own.detach().to(wide)
    size = float(torch.linalg.vector_norm(truth))
    gap = float(torch.linalg.vector_norm(mine - truth))
    nearest = min(gap, float(torch.linalg.vector_norm(mine - other)))
    length = float(torch.linalg.vector_norm(mine))
    real = torch.view_as_real(truth) if truth.is_complex() else truth
    signs = torch.view_as_real(mine) if mine.is_complex() else mine
    large = real.abs() > 1e-3 * real.abs().max()
    flips = float(((real.sign() * signs.sign() < 0) & large).sum() / large.sum().clamp_min(1))
    # A parameter counts for itself only where it is no rounding error of the others.
    heard = max(size, 1e-3 * total)
    return {"name": name, "relative_error": gap / size if size else float("inf") if gap else 0.0,
            "excess": nearest / heard if heard else 0.0,
            "spread": float(torch.linalg.vector_norm(truth - other)) / heard if heard else 0.0,
            "cosine": float((truth.conj() * mine).sum().real) / (size * length) if size * length
            else 0.0, "norm": size, "sign_flips": flips,
            "missing": (own is None or length == 0) and size > 1e-6 * total}


def _advice(shared: Shared, own: Gradient) -> str:
    """What the error looks like."""
    for k, value in shared.phantoms(tuple(range(1, 7))).items():
        if compare(own, value)[0] < 0.02:
            return (f"it is the phantom gradient of {k} step{'s' * (k > 1)}, not the exact one: say so "
                    f"(declared='phantom:{k}'), or solve the adjoint (deq.Exact)")
    scale = _scale(own, shared.gradients.exact)
    if scale is not None:
        return f"it is {scale:.3g} times the exact one: look for a factor (damping, mean for sum, counted twice)"
    return "solve the adjoint (I - J^T) u = dL/dz at the returned z, or use deq.equilibrium(f, z0)"


def _scale(own: Gradient, exact: Gradient) -> float | None:
    size, length = flat_norm(own), flat_norm(exact)
    cosine = compare(own, exact)[1]
    return size / length * (1 if cosine > 0 else -1) if length and abs(cosine) > 0.9999 else None


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + ("" if len(names) < 4 else ", ...")


def _kinked(shared: Shared, v: Tensor, w: Tensor) -> bool:
    """Whether f has another slope ahead than behind (a ReLU at exactly 0): central differences mean nothing there."""
    line, case = shared.line, shared.case
    h = 1e-5 * torch.linalg.vector_norm(line.z.detach(), dim=1, keepdim=True).clamp_min(1.0)
    h = h / torch.linalg.vector_norm(v, dim=1, keepdim=True)
    with torch.no_grad():
        here = line.value.detach()
        ahead, behind = case.f(line.z.detach() + h * v) - here, here - case.f(line.z.detach() - h * v)
    return float(((ahead - behind).abs() * w.abs()).sum()) > 1e-2 * float((ahead.abs() * w.abs()).sum())


def _derivative_of_f(shared: Shared) -> Outcome | None:
    """Fails where f's backward is not the derivative of f: central differences along a random direction, at two steps.

    Only in float64, where differences are good to eight digits, and only where both steps agree (no kink, no rounding).
    """
    case, line = shared.case, shared.line
    if case.dtype != torch.float64:
        return None
    v, w = case.random(line.z.detach()), case.random(line.z.detach())
    found = float((line.transposed(w) * v).sum())
    measured = [float((line.difference(v, step) * w).sum()) for step in (1e-5, 3e-6)]
    if _kinked(shared, v, w):
        return None
    scale = float(torch.linalg.vector_norm(line.difference(v, 1e-5)) * w.square().mean().sqrt())
    if abs(measured[0] - measured[1]) > 1e-4 * scale or scale == 0:
        return None
    gap = abs(found - measured[1]) / max(scale, abs(measured[1]))
    if gap > 1e-2:
        return fails(f"f's own backward gives {found:.4g} along a direction where f changes by {measured[1]:.4g}",
                     "a detach, a no_grad or a custom backward inside f hides part of df/dz: no adjoint built on it "
                     "can be right", derivative=found, central_difference=measured[1], relative_error=gap,
                     tolerance=1e-2)
    return None
