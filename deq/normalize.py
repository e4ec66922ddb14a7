"""Weight normalisation that makes a map contract: [SM]'s Frobenius rule, and one with a proof for convolutions."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

Layer = TypeVar("Layer", bound=nn.Module)

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def operator_norm_bound(module: nn.Module, weight: Tensor) -> Tensor:
    """A proven upper bound of the 2-norm of the module's linear map; exact for `nn.Linear`.

    Convolution with kernel blocks k_s (channel matrices, one an offset s): the smaller of `sum_s |k_s|_2` (a sum of
    shifts, each of norm 1) and Schur's `sqrt(max row sum * max column sum)` of absolute values. Both hold for any image
    size, stride and dilation, with zero or circular padding, and for the transposed convolution.

    Args:
        module: nn.Linear or a convolution (grouped ones too).
        weight: its weight, differentiable.

    Returns:
        A scalar tensor.

    Raises:
        TypeError: a module whose norm is not bounded here.
        ValueError: padding that repeats pixels ("reflect", "replicate", or circular beyond the kernel's reach), for
            which the bound fails.

    Example:
        >>> import torch, deq
        >>> module = torch.nn.Conv2d(2, 2, 3, padding=1)
        >>> deq.operator_norm_bound(module, module.weight).shape
        torch.Size([])
    """
    if isinstance(module, nn.Linear):
        return torch.linalg.matrix_norm(weight, 2)
    if not isinstance(module, _CONVOLUTIONS):
        raise TypeError(f"no operator-norm bound is known for {type(module).__name__}; use nn.Linear or a convolution")
    if module.padding_mode not in ("zeros", "circular"):
        raise ValueError(f"padding_mode={module.padding_mode!r} repeats pixels and breaks the bound; "
                         f"use 'zeros' or 'circular'")
    if module.padding_mode == "circular" and _wraps_too_far(module):
        raise ValueError(f"circular padding={module.padding} with kernel_size={module.kernel_size} and dilation="
                         f"{module.dilation} computes some pixels twice and breaks the bound; pad by at most "
                         f"dilation * (kernel_size - 1) / 2")
    # [groups, rows, columns, offsets]: a group is a block of its own, so the norm is the largest of the groups'.
    blocks = weight.unflatten(0, (module.groups, -1)).flatten(3)
    shifts = torch.linalg.matrix_norm(blocks.permute(0, 3, 1, 2), 2).sum(1)
    absolute = blocks.abs()
    schur = (absolute.sum((2, 3)).amax(1) * absolute.sum((1, 3)).amax(1)).sqrt()
    return torch.minimum(shifts, schur).amax()


def _wraps_too_far(module: Any) -> bool:
    """Whether circular padding makes the output larger than the input, so that it holds a shift twice."""
    if isinstance(module.padding, str):  # "same" and "valid" never enlarge
        return False
    return any(2 * pad > dilation * (size - 1)
               for pad, dilation, size in zip(module.padding, module.dilation, module.kernel_size, strict=True))


class _FrobeniusNormalize(nn.Module):
    """W -> W / (margin (|W|_F + eps))."""

    def __init__(self, margin: float, eps: float) -> None:
        super().__init__()
        self.margin, self.eps = margin, eps

    def forward(self, weight: Tensor) -> Tensor:
        return weight / (self.margin * (torch.linalg.vector_norm(weight) + self.eps))


class _OperatorNormalize(nn.Module):
    """W -> W / (margin (bound + eps)), `bound` >= the 2-norm of the owner's linear map."""

    def __init__(self, owner: nn.Module, margin: float, eps: float) -> None:
        super().__init__()
        self.margin, self.eps = margin, eps
        self._owner = (owner,)  # in a tuple, or it would be registered as a submodule of itself

    def forward(self, weight: Tensor) -> Tensor:
        return weight / (self.margin * (operator_norm_bound(self._owner[0], weight) + self.eps))


def _check(module: nn.Module, name: str, margin: float, eps: float) -> None:
    if not isinstance(getattr(module, name, None), Tensor):
        raise ValueError(f"{type(module).__name__} has no parameter named {name!r}")
    if not margin > 1:
        raise ValueError(f"margin must be greater than 1 for a strict contraction, got {margin!r}")
    if not eps >= 0:
        raise ValueError(f"eps must not be negative, got {eps!r}")


def frobenius_normalize(module: Layer, name: str = "weight", margin: float = 1.05, eps: float = 1e-6) -> Layer:
    """Parametrise `module.name` as W / (margin (|W|_F + eps)) ([SM] 3.2) and return the module.

    For a dense W under a 1-Lipschitz activation the map then contracts by less than 1 / margin. For a convolution the
    Frobenius norm of the kernel does NOT bound the operator norm: use `operator_normalize` there.

    Raises:
        ValueError: no such parameter, margin <= 1 or eps < 0.

    Example:
        >>> import torch, deq
        >>> module = deq.frobenius_normalize(torch.nn.Linear(4, 4), "weight", margin=1.25)
        >>> round(float(module.weight.norm().detach()), 3)
        0.8
    """
    _check(module, name, margin, eps)
    parametrize.register_parametrization(module, name, _FrobeniusNormalize(margin, eps))
    return module


def operator_normalize(module: Layer, name: str = "weight", margin: float = 1.05, eps: float = 1e-6) -> Layer:
    """Parametrise `module.name` so that the module's linear map provably has 2-norm below 1 / margin.

    The bound is `operator_norm_bound`; gradients flow through it.

    Raises:
        TypeError, ValueError: no bound is known for the module, no such parameter, margin <= 1 or eps < 0.

    Example:
        >>> import torch, deq
        >>> module = deq.operator_normalize(torch.nn.Linear(4, 4), "weight", margin=1.25)
        >>> round(float(torch.linalg.matrix_norm(module.weight, 2).detach()), 3)
        0.8
    """
    _check(module, name, margin, eps)
    operator_norm_bound(module, getattr(module, name).detach())  # refuses an unsuitable module now
    parametrize.register_parametrization(module, name, _OperatorNormalize(module, margin, eps))
    return module
