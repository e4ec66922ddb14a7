"""Derivative tensors of a map along a curve, by routes that torch gets right or that are checked.

Reverse over reverse is right to second order for every operation of the zoo (tests/zoo.py), nested forward mode is not.
The third order goes forward, which is cheaper by orders of magnitude there, and is compared with reverse mode in a
random direction: a symmetric tensor that is wrong anywhere is wrong there.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch
from torch import Tensor
from torch.func import grad, jacfwd, jacrev

_AGREEMENT = 1e-8  # of the tensor's size; a wrong formula is wrong in the first digits


def curve_tensor(along: Callable[[Tensor], Tensor], t: Tensor, order: int) -> Tensor:
    """The `order`-th derivative at t [d] of along(t) [n]: [n, d, ..., d].

    Raises:
        ArithmeticError: order is 3 or more, and torch's forward and reverse modes disagree about it.
    """
    if order == 1:
        return jacrev(along)(t)
    if order == 2:
        return _reverse(along, t, order)
    try:
        derivative = jacrev(along)
        for _ in range(order - 1):
            derivative = jacfwd(derivative)
        tensor = derivative(t)
    except (NotImplementedError, RuntimeError):
        return _reverse(along, t, order)
    _compare(along, t, order, tensor)
    return tensor


def _reverse(along: Callable[[Tensor], Tensor], t: Tensor, order: int) -> Tensor:
    """By differentiating (t, w) -> w . along(t), `order` times in t and then once in w, in which it is linear."""
    like = along(t)

    def weighted(w: Tensor) -> Tensor:
        derivative = grad(lambda u: (w * along(u)).sum())
        for _ in range(order - 1):
            derivative = jacrev(derivative)
        return derivative(t)

    return jacrev(weighted)(torch.zeros_like(like)).movedim(-1, 0)


def _compare(along: Callable[[Tensor], Tensor], t: Tensor, order: int, tensor: Tensor) -> None:
    generator = torch.Generator().manual_seed(prod(tensor.shape))
    weights = torch.randn(len(tensor), generator=generator, dtype=torch.float64).to(tensor)
    v = torch.randn(len(t), generator=generator, dtype=torch.float64).to(tensor)
    derivative = lambda s: (weights * along(t + s * v)).sum()  # noqa: E731
    for _ in range(order):
        derivative = grad(derivative)
    contracted = torch.tensordot(weights, tensor, dims=1)
    for _ in range(order):
        contracted = contracted @ v
    size = torch.linalg.vector_norm(tensor) * torch.linalg.vector_norm(weights) * torch.linalg.vector_norm(v) ** order
    difference = (derivative(torch.zeros((), dtype=t.dtype, device=t.device)) - contracted).abs()
    if not bool(difference <= _AGREEMENT * size):
        raise ArithmeticError(
            f"torch's forward and reverse modes disagree about a derivative of order {order} of f "
            f"(by {float(difference):.2g}); an operation in f has a wrong formula: write it out in simpler ones")
