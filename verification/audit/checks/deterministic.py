"""Equal calls give equal values: no dropout, global counter or random number."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from deq.interop.pytree import map_tensors
from verification.audit import limits
from verification.audit.result import AuditVerdict, fails, holds, undecided
from verification.audit.shared import Shared


def check(shared: Shared) -> tuple[AuditVerdict, str, str, dict[str, Any]]:
    """Call f at the same point again and again, with another point and a call with grad between; states run on."""
    case = shared.case
    rows = case.few()
    z = case.start(rows)
    case.keeper.restore()
    values: list[Tensor] = []
    with torch.no_grad():
        other = 1.5 * z + 0.1
        for index in range(2 if case.frugal and rows is None else 4):
            values.append(_call(case, z, rows))
            if index == 1:
                _call(case, other, rows)
            if index == 2:
                with torch.enable_grad():
                    values.append(_call(case, z, rows).detach())
        size = max(float(torch.linalg.vector_norm(values[0])), 1e-300)
        gaps = _gaps(values, size)
        tolerance = limits.SAME_CALL * case.eps
        if max(gaps) <= tolerance:
            case.keeper.restore()
            return holds(f"{len(values)} calls agree to {max(gaps):.1e}", difference=max(gaps), tolerance=tolerance)
        for _ in range(8):
            values.append(_call(case, z, rows))
    gaps = _gaps(values, size)
    case.keeper.restore()
    case.stateful = True
    numbers = {"difference": max(gaps), "tolerance": tolerance, "last_difference": gaps[-1]}
    if max(gaps) < limits.SETTLING and max(gaps[-3:]) < 0.5 * max(gaps[:4]):
        return undecided(f"calls differ by {max(gaps):.1e} at first, by {gaps[-1]:.1e} in the end: f has a state that "
                         "settles (a power iteration?)", "put the module into eval mode, or let it settle before the "
                         "solve: while it moves, so does the equilibrium", **numbers)
    return fails(f"equal calls differ by {max(gaps):.1e} of |f(z)|", "switch off dropout, noise and counters inside f "
                 "(module.eval()), or draw them once a solve: no solver converges on a map that changes", **numbers)


def _call(case: Any, z: Tensor, rows: Tensor | None) -> Tensor:
    """F without any state put back."""
    inputs = case.inputs(rows)
    if case.protected:
        inputs = map_tensors(Tensor.clone, inputs)
    return case.layout.pack(case.subject.f(case.layout.unpack(z.clone()), *inputs)).double()


def _gaps(values: list[Tensor], size: float) -> list[float]:
    return [float(torch.linalg.vector_norm(b - a)) / size for a, b in pairwise(values)]
