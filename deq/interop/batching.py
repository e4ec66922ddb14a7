"""Stacked right-hand sides under the two vmaps of torch, for custom functions that take leading stack dimensions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["opened", "stacked_first"]

_LEVEL = 1  # torch.autograd.grad(is_grads_batched=True) never nests


def opened(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """function(*tensors), the batches of `torch.autograd.grad(is_grads_batched=True)` shown as a first dimension.

    Custom functions cannot work on those batches as they are: their values are out of reach.
    """
    legacy = torch._C._functorch.is_legacy_batchedtensor
    size = next((torch._remove_batch_dim(t, _LEVEL, 1, 0).shape[0] for t in tensors if legacy(t)), None)
    if size is None:
        return function(*tensors)
    plain = (torch._remove_batch_dim(t, _LEVEL, size, 0) for t in tensors)
    return torch._add_batch_dim(function(*plain), 0, _LEVEL)


def stacked_first(tensors: Sequence[Tensor], dims: Sequence[int | None], size: int) -> list[Tensor]:
    """Tensors with their vmapped dimension in front, those without one repeated."""
    return [t.expand(size, *t.shape) if dim is None else t.movedim(dim, 0)
            for t, dim in zip(tensors, dims, strict=True)]
