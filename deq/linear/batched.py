"""The two products of every Krylov and secant method, batched, by the fastest of the routes that torch has."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["dots", "subtract"]

# On the CPU, bmm leaves its library for a plain loop below this many multiplications in a matrix, about 3 times slower
# than a reduction.
PLAIN_LOOP = 400


def dots(vectors: Tensor, vector: Tensor) -> Tensor:
    """Inner products of vectors [batch, k, n] with a vector [batch, n], as [batch, k]."""
    # Written as a row times a matrix: the transposed form walks through memory across its rows, 8 times slower.
    return torch.bmm(vector.unsqueeze(1), vectors.mT).squeeze(1)


def subtract(start: Tensor, weights: Tensor, vectors: Tensor) -> Tensor:
    """The vector start [batch, n] minus the sum of weights [batch, k] times vectors [batch, k, n]."""
    if vectors.is_cuda or vectors.shape[1] * vectors.shape[2] >= PLAIN_LOOP:
        return torch.baddbmm(start.unsqueeze(1), weights.unsqueeze(1), vectors, alpha=-1).squeeze(1)
    return start - torch.linalg.vecdot(vectors, weights.unsqueeze(2), dim=1)
