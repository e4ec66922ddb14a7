"""Batches of small dense systems: LU factors, solves and inverses that are right on every machine, or raise.

torch 2.13 factorises the matrices of a batch on several CPU threads at once, and its library cannot do that from about
150 rows on: wrong pivots without a word, an error, or no return at all (pytorch issues 141358 and 142815; `deqproof
doctor` tries this machine). So nothing else in this project calls `torch.linalg.lu_factor`, `inv`, `solve` or a
determinant, and here the factorisation runs on one thread. At up to 128 rows several threads would gain a few
milliseconds a batch; matrix by matrix, the calls cost more than that at small sizes and gain nothing at large ones.

Every result is tried on one fixed vector p: the factors must give back p from A p to half the digits. The error of that
round trip is about cond(A) eps, so it sees singular and nearly singular matrices, NaN and a faulty library alike. It
costs three products with a vector beside the n^3 / 3 of a factorisation.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deq.status import LinearSolveError

__all__ = ["Factors", "factorise", "inverse", "one_thread", "require_regular", "solve", "try_inverse"]

_lock = threading.Lock()


def _fresh_lock() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_fresh_lock)  # another thread of the parent may have held it


@contextmanager
def one_thread(matrices: Tensor) -> Iterator[None]:
    """One CPU thread inside. torch's number of threads is shared by all of Python's, hence the lock."""
    if matrices.is_cuda or matrices.dim() == 2:
        yield
        return
    with _lock:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


@dataclass(frozen=True)
class Factors:
    """LU factors of matrices [..., n, n], and how well they solve.

    Attributes:
        lu: packed factors, [..., n, n].
        pivots: as `torch.linalg.lu_factor` gives them, int32 [..., n].
        defect: |A^{-1} (A p) - p| / |p| for a fixed vector p, [...]; infinite where a pivot is 0 or impossible.
    """

    lu: Tensor
    pivots: Tensor
    defect: Tensor

    def solve(self, right: Tensor, transposed: bool = False) -> Tensor:
        """A^{-1} right, or A^{-H} right, for columns [..., n, k]; same shape, no derivatives."""
        return torch.linalg.lu_solve(self.lu, self.pivots, right, adjoint=transposed)


def _probe(like: Tensor) -> Tensor:
    """The vector p as a column, [n, 1]."""
    n = like.shape[-1]
    real = torch.float64 if like.dtype in (torch.float64, torch.complex128) else torch.float32
    return torch.cos(torch.arange(n, dtype=real, device=like.device)).to(like.dtype).unsqueeze(1)


@torch.no_grad()
def factorise(matrices: Tensor, *, overwrite: bool = False) -> Factors:
    """LU factors with row exchanges. Never raises for a matrix that is singular: see `defect` and `require_regular`.

    Args:
        matrices: [..., n, n], float or complex, detached.
        overwrite: put the factors in the place of the matrices, which have to be transposes of contiguous ones.

    Example:
        >>> factors = factorise(torch.tensor([[[2.0, 1.0], [1.0, 1.0]]]))
        >>> factors.solve(torch.tensor([[[3.0], [2.0]]])).flatten().tolist()
        [1.0, 1.0]
    """
    n = matrices.shape[-1]
    p = _probe(matrices).expand(*matrices.shape[:-2], n, 1)
    image = matrices @ p
    if overwrite:
        lu = matrices
        pivots, info = (torch.empty(0, dtype=torch.int32, device=lu.device) for _ in range(2))
        with one_thread(lu):
            torch.linalg.lu_factor_ex(lu, out=(lu, pivots, info))
    else:
        with one_thread(matrices):
            lu, pivots, info = torch.linalg.lu_factor_ex(matrices)
    if not lu.numel():
        return Factors(lu, pivots, p.real.new_zeros(matrices.shape[:-2]))
    # A pivot is a row number from its own row on; anything else is a fault of the library, on which lu_solve raises.
    rows = torch.arange(1, n + 1, dtype=torch.int32, device=lu.device)
    void = (info != 0) | ((pivots < rows) | (pivots > n)).any(-1)
    pivots = torch.where(void.unsqueeze(-1), rows, pivots)
    back = torch.linalg.lu_solve(lu, pivots, image)
    defect = torch.linalg.vector_norm(back - p, dim=(-2, -1)) / torch.linalg.vector_norm(p[..., 0], dim=-1)
    return Factors(lu, pivots, defect.masked_fill(void, torch.inf))


def require_regular(defect: Tensor, what: str = "the matrix", exempt: Tensor | None = None, advice: str = "") -> None:
    """Raise unless every matrix was solved to half the digits of its dtype.

    Args:
        defect: of the factors or of an inverse, [...].
        what: names the matrix in the message.
        exempt: bool [...], samples that have been reported already.
        advice: the end of the message: what it means and what to do.

    Raises:
        LinearSolveError: names the first sample.
    """
    bad = ~(defect < torch.finfo(defect.dtype).eps ** 0.5)
    if exempt is not None:
        bad &= ~exempt
    if not bool(bad.any()):
        return
    place = bad.nonzero()[0].tolist()
    size = float(defect[tuple(place)])
    sample = place[0] if len(place) == 1 else tuple(place)
    where = f" of {int(bad.sum())} of {bad.numel()} samples (first: sample {sample}, relative defect {size:.2g})"
    where = where if place else ""
    raise LinearSolveError(f"{what}{where} is singular or nearly so{advice and '; ' + advice}")


@torch.no_grad()
def try_inverse(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """A^{-1}, [..., n, n], without derivatives, and its defect |A^{-1} (A p) - p| / |p|, [...].

    The defect is not finite where A is singular; nothing is raised.
    """
    n = matrices.shape[-1]
    factors = factorise(matrices)
    unit = torch.eye(n, dtype=matrices.dtype, device=matrices.device).expand(matrices.shape)
    if not matrices.numel():
        return matrices.clone(), factors.defect
    with one_thread(matrices):  # threads within a matrix lose below 256 rows
        found = factors.solve(unit)
    p = _probe(matrices)
    defect = torch.linalg.vector_norm(found @ (matrices @ p) - p, dim=(-2, -1)) / torch.linalg.vector_norm(p)
    return found, torch.maximum(defect, factors.defect)  # NaN where either is


def inverse(matrices: Tensor, what: str = "the matrix", exempt: Tensor | None = None, advice: str = "") -> Tensor:
    """A^{-1}, [..., n, n], without derivatives; arguments and errors as for `require_regular`.

    Example:
        >>> inverse(torch.tensor([[4.0, 0.0], [0.0, 2.0]])).tolist()
        [[0.25, 0.0], [0.0, 0.5]]
    """
    found, defect = try_inverse(matrices)
    require_regular(defect, what, exempt, advice)
    return found


class _Solve(torch.autograd.Function):
    """X = A^{-1} B; its derivatives are such solves with the same factors, so that every order is right."""

    @staticmethod
    def forward(ctx: Any, factors: Factors, transposed: bool, matrix: Tensor, right: Tensor) -> Tensor:  # type: ignore[override]
        value = factors.solve(right, transposed)
        ctx.factors, ctx.transposed = factors, transposed
        ctx.save_for_backward(matrix, value, right)
        return value

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        matrix, value, right = ctx.saved_tensors
        if torch.is_grad_enabled():  # `value` as a function of matrix and right, for the next derivative
            value = _Solve.apply(ctx.factors, ctx.transposed, matrix, right)
        pulled = _Solve.apply(ctx.factors, not ctx.transposed, matrix, cotangent)
        outer = -(value @ pulled.mH if ctx.transposed else pulled @ value.mH)
        return None, None, outer.sum_to_size(matrix.shape), pulled.sum_to_size(right.shape)


def solve(matrices: Tensor, right: Tensor, what: str = "the matrix") -> Tensor:
    """A^{-1} right, differentiable to any order in reverse mode (forward mode and `torch.func` transforms raise).

    Args:
        matrices: [..., n, n].
        right: columns [..., n, k], or vectors: [n], or the shape of matrices without its last dimension.
        what: names the matrix in the message.

    Raises:
        LinearSolveError: a matrix is singular, or nearly so.

    Example:
        >>> solve(torch.tensor([[2.0, 0.0], [0.0, 4.0]]), torch.tensor([1.0, 1.0])).tolist()
        [0.5, 0.25]
    """
    factors = factorise(matrices.detach())
    require_regular(factors.defect, what)
    vectors = right.dim() == 1 or right.shape == matrices.shape[:-1]  # torch's own rule
    columns = right.unsqueeze(-1) if vectors else right
    shape = torch.broadcast_shapes(matrices.shape[:-2], columns.shape[:-2])
    value = _Solve.apply(factors, False, matrices, columns.expand(*shape, *columns.shape[-2:]))
    return value.squeeze(-1) if vectors else value
