"""The owner's z (else ours) is at an equilibrium, to the precision of its dtype."""

from __future__ import annotations

from typing import Any

import torch

from verification.audit import limits
from verification.audit.result import AuditVerdict, fails, holds, undecided
from verification.audit.shared import Shared

Outcome = tuple[AuditVerdict, str, str, dict[str, Any]]


def check(shared: Shared) -> Outcome:
    """Distance to the equilibrium nearest to their z; where none is near, their residual."""
    owner, case = shared.owner, shared.case
    if owner.problem:
        return fails(f"forward() raised {owner.problem}", "see whether f contracts (check `contraction`), and what the "
                     "solver does where it does not")
    if not owner.own:
        return _ours(shared)
    residual = shared.owner_residual
    worst = int(residual.nan_to_num(torch.inf).argmax())
    numbers: dict[str, Any] = {"residual": float(residual[worst]), "worst_sample": worst,
                               "residual_median": float(residual.nan_to_num(torch.inf).median()),
                               "evaluations_seen": owner.evaluations or None}
    if not bool(residual.isfinite().all()):
        return fails(f"forward() returned NaN or infinity in sample {worst}", "the solver ran away: see `contraction`; "
                     "stop it at the best iterate and raise", **numbers)
    found = shared.found
    if not bool(found.converged.all()):
        return _without_equilibrium(shared, float(residual[worst]), numbers)
    gap = torch.linalg.vector_norm(shared.begin - found.z, dim=1) / shared.scale
    # Samples beside the measured ones: by their residual, at the price that residuals have here.
    price = shared.amplification
    others = 0.0 if len(case.rows) == case.layout.batch else price * float(residual.max()) / 2
    error = max(float(gap.max()), others)
    floor = 4 * case.eps * price
    numbers |= {"error_of_z": error, "error_bar": float(found.residual.max()) * price, "amplification": price,
                "floor": floor, "tolerance": max(limits.STATE_HOLDS, floor)}
    if error <= max(limits.STATE_HOLDS, floor):
        return holds(f"z is within {error:.1e} of an equilibrium, residual {numbers['residual']:.1e}", **numbers)
    if error <= max(limits.STATE_FAILS, 2 * floor):
        return undecided(f"z is {error:.1e} from the equilibrium, residual {numbers['residual']:.1e}",
                         "tighten the tolerance by ten and see whether training changes", **numbers)
    return fails(f"z is {error:.1e} from the nearest equilibrium, residual {numbers['residual']:.1e} in sample {worst}",
                 _advice(shared, numbers), **numbers)


def _ours(shared: Shared) -> Outcome:
    """The subject has no forward: do our solvers find an equilibrium from its start?"""
    found = shared.found
    worst = float(found.residual.nan_to_num(torch.inf).max())
    count = int((~found.converged).sum())
    numbers: dict[str, Any] = {"residual": worst, "iterations": found.iterations, "systems": len(found.residual),
                               "failed": count}
    if not count:
        return holds(f"our solver finds an equilibrium, residual {worst:.1e} after {found.iterations} evaluations",
                     **numbers)
    if worst > limits.STATE_FAILS:
        return fails(f"no solver of ours finds an equilibrium from z0: residual {worst:.1e} at best in {count} of "
                     f"{len(found.residual)} systems", "f may have none, or none that attracts: see `contraction`; "
                     "bound its weights (deq.operator_normalize)", **numbers)
    return undecided(f"our solvers stop at a residual of {worst:.1e}", "give more time (--budget), or a start nearer "
                     "to the equilibrium", **numbers)


def _without_equilibrium(shared: Shared, residual: float, numbers: dict[str, Any]) -> Outcome:
    numbers["best_residual_of_ours"] = float(shared.found.residual.nan_to_num(torch.inf).max())
    if residual > max(limits.STATE_FAILS, 8 * shared.case.eps):
        return fails(f"residual {residual:.1e} in sample {numbers['worst_sample']}, and no equilibrium is near",
                     _advice(shared, numbers), **numbers)
    return undecided(f"residual {residual:.1e}, but no equilibrium was found nearby to measure the distance",
                     "give more time (--budget); a residual alone says little where f barely contracts", **numbers)


def _advice(shared: Shared, numbers: dict[str, Any]) -> str:
    z = shared.owner.flat
    if z is not None and not bool(z.any()):
        return ("it is all zeros: the solver accepted something else than a residual. Evaluate |f(z) - z| afresh at "
                "the end and refuse what misses the tolerance")
    if numbers["residual"] < 1e-3 and numbers.get("error_of_z", 0) > 5 * numbers["residual"]:
        return ("the residual is small, but f barely contracts: ask for a residual smaller by 1 - radius, or a solver "
                "that accelerates")
    return "give the solver more iterations or a sturdier method (deq.solve), and refuse what misses the tolerance"
