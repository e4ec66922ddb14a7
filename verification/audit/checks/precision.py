"""The owner's dtype leaves room between its residual floor and the tolerance used."""

from __future__ import annotations

from typing import Any

from verification.audit import limits
from verification.audit.result import AuditVerdict, fails, holds, undecided
from verification.audit.shared import Shared
from verification.audit.tolerance import stated_tolerance


def check(shared: Shared) -> tuple[AuditVerdict, str, str, dict[str, Any]]:
    """The floor, what it costs in z, and the tolerance where one is stated or can be read off."""
    case = shared.case
    if not shared.solved:
        return undecided("there is no equilibrium at which the floor could be measured", "see `converged`")
    floor = shared.residual_floor()
    price = shared.amplification
    reach = floor * price
    found = stated_tolerance(case.subject)
    kind = str(case.layout.dtype).removeprefix("torch.")
    numbers: dict[str, Any] = {"floor": floor, "amplification": price, "reachable_error_of_z": reach,
                               "rounding_unit": case.eps, "tolerance": None, "tolerance_from": ""}
    if shared.owner.flat is not None:
        numbers["residual_reached"] = float(shared.owner_residual.max())
    text = f"{kind} leaves a residual of {floor:.1e}, so z is good to {reach:.1e} at best"
    if found is not None:
        tolerance, place = found
        numbers |= {"tolerance": tolerance, "tolerance_from": place}
        # A tolerance may be meant absolutely; the more generous reading counts.
        size = max(1.0, float(shared.scale.max()))
        met = "residual_reached" in numbers and numbers["residual_reached"] <= tolerance * size
        if floor > 4 * tolerance * size and not met:
            return fails(f"{text}, but the solver is asked for {tolerance:.0e} ({place})", "ask for no less than a few "
                         f"times {floor:.0e}, or solve in float64: until then each solve runs into its limit",
                         **numbers)
        return holds(f"{text}; the solver is asked for {tolerance:.0e}", **numbers)
    if reach <= limits.STATE_HOLDS:
        return holds(text, **numbers)
    if reach > 0.1 and floor > 1e-4:  # else it is I - J that costs the digits, which `adjoint` says
        return fails(text, "solve in a wider dtype (keep the state in float32 inside the loop), or let f contract more",
                     **numbers)
    return undecided(text, "no tolerance is stated (Subject(tol=...)): keep it well above that floor", **numbers)
