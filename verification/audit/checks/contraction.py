"""The spectral radius of J = df/dz at the equilibrium is below 1."""

from __future__ import annotations

import math
from typing import Any

from verification.audit.result import AuditVerdict, fails, holds, undecided
from verification.audit.shared import Shared

#: Krylov steps at most.
MOST = 120


def check(shared: Shared) -> tuple[AuditVerdict, str, str, dict[str, Any]]:
    """Eigenvalues of J, all or by Krylov spaces that grow until the verdict is clear; norms beside it."""
    case = shared.case
    if not shared.solved:
        return undecided("there is no equilibrium at which J could be looked at", "see `converged`")
    spectrum = shared.spectrum
    radius, bar = _largest(spectrum, case.eps)
    steps = spectrum.values.shape[1]
    if not spectrum.complete and radius + bar < 1.1:
        growth = float(shared.growth.max())
        # A vector that shrinks for good at a rate below 1 tells more than the residual of a Ritz pair far from normal.
        if growth < 0.98 and radius < 0.98:
            radius, bar = max(radius, growth), min(bar, 0.9 * (1 - max(radius, growth)))
    while not spectrum.complete and abs(radius - 1) <= bar and steps < MOST and case.clock.left > 0.4 * \
            case.clock.budget:
        steps = min(MOST, 2 * steps)
        spectrum = shared.krylov(steps)
        radius, bar = _largest(spectrum, case.eps)
    kept = spectrum.values[int(spectrum.radius.argmax())]
    kept = kept[kept.abs().isfinite()]
    case.curves["eigenvalues"] = [[value.real, value.imag] for value in kept[:300].tolist()]
    case.curves["eigenvalues_complete"] = spectrum.complete
    numbers: dict[str, Any] = {"radius": radius, "error_bar": bar, "numerical_radius":
                               float(spectrum.numerical_radius.max()), "norm": shared.norm,
                               "whole_jacobian": spectrum.complete, "products": shared.line.products,
                               "systems": len(spectrum.radius), "certified": False}
    text = f"spectral radius {radius:.3g}" + ("" if spectrum.complete else f" +- {bar:.1g}") + \
        f", numerical radius {numbers['numerical_radius']:.3g}, |J| {numbers['norm']:.3g}"
    if not math.isfinite(radius):
        return undecided("J has entries that are not finite", "see `map`", **numbers)
    if radius - bar > 1:
        return fails(text, "plain iteration runs away from this equilibrium and phantom gradients grow with K: bound "
                     "the weights (deq.operator_normalize), add damping; an accelerated solver with an exact adjoint "
                     "is right all the same", **numbers)
    if radius + bar < 1:
        return holds(text, "" if numbers["norm"] < 1 else "|J| is above 1: convergence may be slow at first", **numbers)
    return undecided(text, "too near to 1 to tell: give more time (--budget), or keep more distance from 1", **numbers)


def _largest(spectrum: Any, eps: float) -> tuple[float, float]:
    row = int(spectrum.radius.argmax())
    rounding = max(1e-9, 10 * eps)  # weights are known to the owner's rounding
    return float(spectrum.radius[row]), max(2 * float(spectrum.error[row]), rounding)

