"""The jet of an equilibrium whose map was recorded: one factorisation, and pushes of the same tape for all the rest.

With A = I - df/dz: Dz = A^{-1} df/dx and Lz = A^{-1} C, C the Laplacian of f along (Dz, I) with none put in. Each
of z, Dz, Lz is then attached: evaluated once more with a graph, where it gives back its own value, and pulled through
A^{-T} on the way back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from deq.density.affine import refuse_second
from deq.density.jet import Jet, coordinate_jet
from deq.density.push import push
from deq.density.tape import Tape, record
from deq.linear.factorise import Factors, factorise, require_regular
from deq.linear.jacobian import as_rows

__all__ = ["recorded_jet"]
_PART = 2**18  # numbers in one temporary while a Jacobian is formed: 2 MiB in double precision


class _Attached(torch.autograd.Function):
    """The identity in value, A^{-1} in derivatives, on [batch, ...] or [k, batch, ...]."""

    @staticmethod
    def forward(ctx: Any, factors: Factors, value: Tensor) -> Tensor:  # type: ignore[override]
        ctx.factors = factors
        ctx.save_for_backward(value)
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        with torch.no_grad():
            pulled = _solve(ctx.factors, cotangent, transposed=True)
        return (None, *refuse_second((pulled,), cotangent, *ctx.saved_tensors))


def _solve(factors: Factors, right: Tensor, transposed: bool = False) -> Tensor:
    """A^{-1} or A^{-T} on each of [batch, ...] or [k, batch, ...]."""
    batch, n = factors.lu.shape[:2]
    rows = right.reshape(-1, batch, n)
    return factors.solve(rows.permute(1, 2, 0), transposed).permute(2, 0, 1).reshape(right.shape)


def recorded_jet(f: Callable[[Tensor, Tensor], Tensor], x: Tensor, z: Tensor) -> Jet:
    """The jet in x of the equilibrium z of f(z, x), right to its first derivative in x and whatever f closes over.

    Args:
        f: the map, z [batch, ...], x [batch, ...] -> z's shape; samples independent; evaluated once.
        x: [batch, ...].
        z: the equilibrium, detached; small enough for a matrix a sample.

    Raises:
        NotRecordable: see `deq.density.tape.record`.
        LinearSolveError: I - df/dz is singular.
        DerivativeOrderError: f holds an operation without second derivatives.
    """
    tape = record(f, (z, x))
    unit = coordinate_jet(x)
    with torch.no_grad():
        factors = _factorise(tape, x, z)
        still = push(tape, (z, Jet(x, unit.first, None)))
        first_star = _solve(factors, still.first)
    value = push(tape, (z, x))
    z = _Attached.apply(factors, value)
    first = _Attached.apply(factors, push(tape, (Jet(z, first_star, None), Jet(x, unit.first, None))).first)
    source = push(tape, (Jet(z, first, torch.zeros_like(z)), unit)).laplacian
    assert source is not None
    laplacian_star = _solve(factors, source.detach())
    moved = push(tape, (Jet(z, laplacian_star[None], None), x)).first[0]
    return Jet(z, first, _Attached.apply(factors, source + moved))


def _factorise(tape: Tape, x: Tensor, z: Tensor) -> Factors:
    batch, n = as_rows(z).shape
    unit = torch.eye(n, dtype=z.dtype, device=z.device).reshape(n, 1, *z.shape[1:])
    # Built transposed, so that LAPACK finds its columns in place; in parts, whose temporaries are used again.
    system = torch.empty((batch, n, n), dtype=z.dtype, device=z.device)
    for part in range(0, n, max(1, _PART // max(1, batch * n))):
        rows = slice(part, part + max(1, _PART // max(1, batch * n)))
        directions = unit[rows].expand(-1, *z.shape)
        moved = push(tape, (Jet(z, directions, None), x)).first.reshape(len(directions), batch, n)
        # One pass: a strided copy of a strided result takes ten times as long.
        torch.neg(moved.transpose(0, 1), out=system[:, rows])
    system.diagonal(dim1=1, dim2=2).add_(1)
    factors = factorise(system.mT, overwrite=True)
    require_regular(factors.defect, "I - df/dz at the equilibrium", ~as_rows(z).isfinite().all(1),
                    "the equilibrium has no derivative there. Make f a contraction (deq.operator_normalize) or check "
                    "the map for NaN")
    return factors
