"""Norms of the samples of a batch that neither underflow nor overflow."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["far_from_one", "out_of_range", "power_of_two_scale", "row_norms"]


def out_of_range(norms: Tensor) -> Tensor:
    """Whether a 2-norm may have lost digits because squares left the range of the dtype, bool of the same shape.

    Zero counts: it may be a norm whose squares all vanished. NaN does not: no scaling helps it.
    """
    info = torch.finfo(norms.dtype)
    # Squares below tiny / eps lose digits; the largest norm is the root of the largest number.
    return (norms < math.sqrt(info.tiny / info.eps)) | (norms > 0.5 * math.sqrt(info.max))


def power_of_two_scale(rows: Tensor) -> Tensor:
    """The power of two next to the largest magnitude of each row [batch, n], as [batch, 1]; 1 for zero or NaN."""
    largest = rows.abs().amax(1, keepdim=True) if rows.shape[1] else rows.new_zeros((len(rows), 1))
    usable = (largest > 0) & largest.isfinite()
    exponent = torch.frexp(torch.where(usable, largest, 1.0))[1]
    # The reciprocal of the smallest numbers is infinite: they are brought up as far as it stays finite.
    lowest = round(math.log2(torch.finfo(rows.dtype).tiny)) + 1
    return torch.where(usable, torch.ldexp(torch.ones_like(largest), exponent.clamp(min=lowest)), 1.0)


def far_from_one(rows: Tensor) -> bool:
    """Whether some row [batch, n] is so large or small that inner products of what is to come of it lose digits."""
    largest = rows.abs().amax(1) if rows.shape[1] else rows.new_zeros(len(rows))
    limit = torch.finfo(rows.dtype).max ** 0.25
    return bool(((largest > limit) | (largest < 1 / limit) & (largest > 0)).any())


def row_norms(rows: Tensor) -> Tensor:
    """2-norms of the rows [batch, n], real floating point; right over the whole range of the dtype, [batch]."""
    norms = torch.linalg.vector_norm(rows, dim=1)
    if rows.numel() and bool(out_of_range(norms).any()):
        scale = power_of_two_scale(rows)
        return torch.linalg.vector_norm(rows / scale, dim=1) * scale.squeeze(1)
    return norms
