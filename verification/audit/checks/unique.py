"""Two solvers and several starts find the same equilibrium; else the distinct ones are listed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from deq.solvers import Anderson, Picard, solve
from verification.audit import limits
from verification.audit.point import newton, target
from verification.audit.result import AuditVerdict, fails, holds, undecided
from verification.audit.shared import Shared


def starts(shared: Shared) -> dict[str, Tensor]:
    """Where to start, as systems: theirs, zero, random ones of the size of z*, another sample's equilibrium."""
    case, best = shared.case, shared.found.z
    given = case.systems(case.start()[case.rows].to(case.dtype))
    size = best.square().mean().sqrt()
    size = size if bool(size > 0) and bool(size.isfinite()) else torch.ones_like(size)
    out = {"z0": given, "zero": torch.zeros_like(given), "random": size * case.random(given),
           "random, three times as large": 3 * size * case.random(given)}
    if len(best) > 1:
        out["another sample's"] = best.roll(1, 0)
    return out


def check(shared: Shared) -> tuple[AuditVerdict, str, str, dict[str, Any]]:
    """Solve from each start by acceleration, by damped iteration and by Newton; compare what converged."""
    case = shared.case
    goal = target(case)
    limit = max(30, int(200 * case.effort))
    reached: list[tuple[str, Tensor, Tensor]] = [("theirs", shared.found.z, shared.found.converged)]
    tried = 0
    for place, start in starts(shared).items():
        for name, solver in (("anderson", Anderson()), ("damped", Picard(damping=0.5)), ("newton", None)):
            if (name == "damped" and place not in ("z0", "random")) or (name == "newton" and place == "zero"):
                continue
            if case.clock.left < 0.5 * case.clock.budget and tried >= 2:
                continue
            tried += 1
            try:
                z = newton(case, start, goal)[0] if solver is None else \
                    solve(case.f, start, atol=goal * case.smallest, rtol=goal, max_iter=limit, solver=solver).z
                left = shared.left(z)
            except Exception:  # a start outside the domain of f
                continue
            reached.append((f"{name} from {place}", z, (left <= 10 * goal) & z.isfinite().all(1)))
    return _judge(shared, reached, tried)


def _judge(shared: Shared, reached: list[tuple[str, Tensor, Tensor]], tried: int) -> tuple[AuditVerdict, str, str,
                                                                                          dict[str, Any]]:
    """Cluster what converged, system by system; the system with most clusters decides."""
    price = shared.amplification
    radius = max(limits.DISTINCT, 100 * price * 10 * target(shared.case))
    most: list[tuple[str, Tensor]] = []
    own = shared.found.z
    apart = torch.zeros(len(own), dtype=torch.bool)
    for _, z, converged in reached:
        gap = torch.linalg.vector_norm(z - own, dim=1)
        size = torch.maximum(shared.scale, torch.linalg.vector_norm(z, dim=1))
        apart |= (converged & shared.found.converged & (gap > radius * size)).cpu()
    fewest = int(torch.stack([converged for _, _, converged in reached]).sum(0).min())
    # Where all runs agree there is nothing to list: clusters are formed in a few of the others.
    for row in [*apart.nonzero().flatten()[:4].tolist(), *(~shared.found.converged).nonzero().flatten()[:4].tolist()]:
        distinct: list[tuple[str, Tensor]] = []
        good = [(name, z[row]) for name, z, converged in reached if bool(converged[row])]
        for name, z in good:
            scale = max(float(shared.scale[row]), float(torch.linalg.vector_norm(z)))
            if all(float(torch.linalg.vector_norm(z - other)) > radius * scale for _, other in distinct):
                distinct.append((name, z))
        if len(distinct) > len(most):
            most = distinct
    most = most or [("theirs", own[0])]
    numbers: dict[str, Any] = {"runs": tried, "converged_runs_fewest": fewest, "distinct": len(most) if fewest else 0,
                               "tolerance": radius}
    if len(most) > 1:
        numbers["equilibria"] = [{"found_by": name, "norm": float(torch.linalg.vector_norm(z)), "distance_to_first":
                                  float(torch.linalg.vector_norm(z - most[0][1]))} for name, z in most]
        listed = "; ".join(f"{name}: |z| = {float(torch.linalg.vector_norm(z)):.3g}" for name, z in most[:4])
        return fails(f"{len(most)} equilibria of one sample ({listed})", "which one a solve finds depends on start and "
                     "solver: bound f (deq.operator_normalize), or fix both and say so", **numbers)
    if fewest >= 3:
        return holds(f"{fewest - 1} further solves end at the same equilibrium", **numbers)
    return undecided(f"only {fewest} of {tried + 1} solves converged, to one equilibrium" if fewest else
                     "no solve converged", "nothing speaks against one equilibrium but nothing for it either: see "
                     "`contraction` and `converged`", **numbers)
