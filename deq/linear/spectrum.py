"""Eigenvalues of a matrix that is known by its products: batched Arnoldi, and norms by Golub-Kahan."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Spectrum", "arnoldi", "dense_spectrum", "largest_singular_value"]


@dataclass(frozen=True)
class Spectrum:
    """What a Krylov space, or the whole matrix, says of eigenvalues.

    Attributes:
        values: Ritz values by row, complex [b, m]; NaN where a row's space ended sooner.
        radius: largest modulus by row, [b].
        error: residual |A v - lambda v| of the unit Ritz vector of that one, [b]; 0 from the whole matrix. For a matrix
            far from normal an eigenvalue may be further away than that.
        numerical_radius: largest |v^* A v| over unit vectors of the space, [b]: a bound from below.
        complete: whether the whole matrix was looked at.
    """

    values: Tensor
    radius: Tensor
    error: Tensor
    numerical_radius: Tensor
    complete: bool


@torch.no_grad()
def arnoldi(product: Callable[[Tensor], Tensor], start: Tensor, steps: int) -> Spectrum:
    """Ritz values of every row's matrix from `steps` products, [b, n] vectors, orthogonalised twice.

    Raises:
        ValueError: steps is below 1.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; it must be at least 1")
    batch, size = start.shape
    steps = min(steps, size)
    eps = torch.finfo(start.dtype).eps
    basis = start.new_zeros(batch, steps + 1, size)
    hessenberg = start.new_zeros(batch, steps + 1, steps)
    basis[:, 0] = start / torch.linalg.vector_norm(start, dim=1, keepdim=True).clamp_min(1e-30)
    length = torch.full((batch,), steps, dtype=torch.int64)
    scale = start.new_zeros(batch)
    for j in range(steps):
        image = product(basis[:, j])
        known = basis[:, :j + 1]
        for _ in range(2):
            part = torch.einsum("bkn,bn->bk", known, image)
            hessenberg[:, :j + 1, j] += part
            image = image - torch.einsum("bkn,bk->bn", known, part)
        height = torch.linalg.vector_norm(image, dim=1)
        scale = torch.maximum(scale, torch.linalg.vector_norm(hessenberg[:, :j + 1, j], dim=1))
        ended = height <= 50 * eps * scale.clamp_min(1e-30)
        height = torch.where(ended, torch.zeros_like(height), height)
        hessenberg[:, j + 1, j] = height
        length = torch.where(ended.cpu() & (length == steps), torch.tensor(j + 1), length)
        if bool(ended.all()):
            break
        basis[:, j + 1] = torch.where(ended[:, None], 0.0, image / height.clamp_min(1e-30)[:, None])
    rows = [_ritz(hessenberg[row, :int(length[row]) + 1, :int(length[row])].double().cpu()) for row in range(batch)]
    width = max(len(values) for values, _, _ in rows)
    values = torch.full((batch, width), complex(math.nan, math.nan), dtype=torch.complex128)
    for row, (found, _, _) in enumerate(rows):
        values[row, :len(found)] = found
    return Spectrum(values, values.abs().nan_to_num(0.0).amax(1), torch.tensor([error for _, error, _ in rows]),
                    torch.tensor([wide for _, _, wide in rows]), False)


def _ritz(hessenberg: Tensor) -> tuple[Tensor, float, float]:
    """Ritz values, the residual of the largest, and the numerical radius, from [m + 1, m]."""
    square = hessenberg[:-1]
    if not bool(square.isfinite().all()):
        return torch.full((len(square),), complex(math.nan, math.nan), dtype=torch.complex128), math.inf, math.nan
    values, vectors = torch.linalg.eig(square)
    top = int(values.abs().argmax())
    return values, float(hessenberg[-1, -1] * vectors[-1, top].abs()), numerical_radius(square)


def numerical_radius(matrix: Tensor, angles: int = 32) -> float:
    """Max |v^* A v| over unit vectors of a real matrix [m, m]: the largest eigenvalue of its rotated Hermitian parts.

    From below by at most the factor cos(pi / (2 angles)).
    """
    angles = angles if len(matrix) <= 64 else max(8, angles // 3)
    turns = torch.exp(1j * torch.linspace(0, math.pi, angles, dtype=torch.float64)).to(torch.complex128)
    rotated = turns[:, None, None] * matrix.to(torch.complex128)
    hermitian = (rotated + rotated.mH) / 2
    return float(torch.linalg.eigvalsh(hermitian).abs().amax())


@torch.no_grad()
def dense_spectrum(matrix: Tensor) -> Spectrum:
    """All eigenvalues of [b, n, n], one matrix at a time (batched factorisations are not safe on every torch)."""
    matrix = matrix.double().cpu()
    values = torch.stack([torch.linalg.eigvals(one) for one in matrix])
    return Spectrum(values, values.abs().amax(1), torch.zeros(len(matrix), dtype=torch.float64),
                    torch.tensor([numerical_radius(one) for one in matrix]), True)


@torch.no_grad()
def largest_singular_value(product: Callable[[Tensor], Tensor], transposed: Callable[[Tensor], Tensor], start: Tensor,
                           steps: int) -> Tensor:
    """|A|_2 of every row's matrix from below, [b], by Golub-Kahan with full orthogonalisation."""
    batch, size = start.shape
    steps = min(steps, size)
    tiny = torch.finfo(start.dtype).tiny ** 0.5
    right = [start / torch.linalg.vector_norm(start, dim=1, keepdim=True).clamp_min(tiny)]
    left: list[Tensor] = []
    upper = torch.zeros(batch, steps, steps, dtype=torch.float64)
    for j in range(steps):
        u = product(right[j])
        if j:
            u = u - upper[:, j - 1, j].to(u)[:, None] * left[j - 1]
            u = _apart(u, left)
        alpha = torch.linalg.vector_norm(u, dim=1)
        left.append(u / alpha.clamp_min(tiny)[:, None])
        upper[:, j, j] = alpha.double().cpu()
        if j + 1 == steps:
            break
        v = _apart(transposed(left[j]) - alpha[:, None] * right[j], right)
        beta = torch.linalg.vector_norm(v, dim=1)
        upper[:, j, j + 1] = beta.double().cpu()
        right.append(v / beta.clamp_min(tiny)[:, None])
    return torch.stack([torch.linalg.matrix_norm(one.nan_to_num(0.0), 2) for one in upper])


def _apart(vector: Tensor, known: list[Tensor]) -> Tensor:
    """The vector without its parts along orthonormal ones, [b, n]."""
    basis = torch.stack(known, 1)
    return vector - torch.einsum("bkn,bk->bn", basis, torch.einsum("bkn,bn->bk", basis, vector))
