"""Changing one sample changes no other: no statistics over the batch."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from deq.interop.pytree import map_tensors
from verification.audit import limits
from verification.audit.result import AuditVerdict, fails, holds, not_applicable
from verification.audit.shared import Shared


def check(shared: Shared) -> tuple[AuditVerdict, str, str, dict[str, Any]]:
    """Keep one sample, change all others, see whether its value moves; first and last sample."""
    case = shared.case
    batch = case.layout.batch
    if batch == 1:
        return not_applicable("the batch has one sample")
    rows = case.few()
    z = case.start(rows)
    given, batch = case.inputs(rows), len(z)
    spread = float(z.double().square().mean().sqrt()) or 1.0
    z = z + 0.5 * spread * case.random(z)
    worst = 0.0
    with torch.no_grad():
        before = case.call(z, rows).double()
        for kept in (0, batch - 1):
            others = torch.arange(batch) != kept
            moved = torch.where(others[:, None].to(z.device), z + 0.5 * spread * case.random(z), z)
            values = [case.call(moved, rows)]
            try:
                values.append(case.call(moved, inputs=map_tensors(partial(_changed, kept, others, case),
                                                                  given)))
            except Exception:  # inputs of a meaning of their own (indices, masks) need not bear a change
                case.notes.append("independence was looked at by changing z alone")
            for value in values:
                if bool(value[kept].isfinite().all()):
                    size = float(torch.linalg.vector_norm(before[kept]).clamp_min(1e-300))
                    worst = max(worst, float(torch.linalg.vector_norm(value[kept].double() - before[kept])) / size)
    tolerance = limits.SAME_CALL * case.eps
    if worst <= tolerance:
        return holds(f"a sample moves by {worst:.1e} when all others change", effect=worst, tolerance=tolerance)
    case.coupled = True
    return fails(f"a sample moves by {worst:.1e} of its size when the others change", "take statistics over the batch "
                 "out of f (BatchNorm in eval mode, or LayerNorm): else the answer to one sample depends on its "
                 "neighbours. If these are nodes of one graph, make them a batch of one (z[None])",
                 effect=worst, tolerance=tolerance)


def _changed(kept: int, others: Tensor, case: Any, leaf: Tensor) -> Tensor:
    """An input with all samples but one changed: floats moved, others set to the kept one's."""
    if not leaf.dim() or len(leaf) != len(others):
        return leaf
    mask = others.to(leaf.device).reshape(-1, *[1] * (leaf.dim() - 1))
    if leaf.dtype.is_floating_point:
        scale = leaf.detach().double().square().mean().sqrt().to(leaf.dtype)
        return torch.where(mask, leaf + scale * case.random(leaf), leaf)
    return torch.where(mask, leaf[kept:kept + 1], leaf)
