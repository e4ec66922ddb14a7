"""An equilibrium with exact derivatives of any order, from products alone: chord-Newton steps at a known z*.

From z_0 = z* iterate z_k = z_(k-1) + M (f(z_(k-1)) - z_(k-1)) with M = (I - J)^{-1} held fixed: each step gains one
order. The value of M's argument is zero at z*, so nothing is solved in the forward pass; backward solves with I - J^T,
and the backward of that with I - J.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from deq.linear.linearization import Linearization
from verification.audit.case import Case
from verification.audit.point import linear_tolerance


class _Inverse(torch.autograd.Function):
    """v -> M v, or M^T v, with the other one as its derivative."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, line: Linearization, rtol: float, transposed: bool, skip: bool) -> Tensor:
        ctx.line, ctx.rtol, ctx.transposed = line, rtol, transposed
        if skip:  # the argument is zero by construction
            return torch.zeros_like(v)
        solution = (line.adjoint if transposed else line.solve)(v, rtol=rtol, max_iter=300)
        left = float((solution.residual / v.norm(dim=1).clamp_min(1e-30)).max())
        if not bool(solution.converged.all()) and left > 1e-3:
            raise RuntimeError("a linear solve of the audit did not converge")
        return solution.value

    @staticmethod
    def backward(ctx: Any, *c: Tensor) -> tuple[Tensor, None, None, None, None]:  # type: ignore[override]
        return _Inverse.apply(c[0], ctx.line, ctx.rtol, not ctx.transposed, False), None, None, None, None


def attached(case: Case, line: Linearization, order: int) -> Tensor:
    """z* as systems, with derivatives of total order up to `order` exact in all that f's graph reaches."""
    z = line.z.detach()
    for _ in range(order):
        z = z + _Inverse.apply(case.f(z) - z, line, linear_tolerance(case), False, True)
    return z
