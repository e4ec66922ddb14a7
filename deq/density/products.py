"""Products with derivatives of a black box by reverse mode only: right for every operation; nested forward is not."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from deq.interop.transforms import transforms_active

__all__ = ["directional", "directional_twice"]


def directional(function: Callable[..., Tensor], point: Sequence[Tensor], direction: Sequence[Tensor]) -> Tensor:
    """Derivative of `function` along a direction, differentiable again: the transpose of its pullback.

    Args:
        function: any number of tensors to one tensor.
        point: the arguments.
        direction: one tensor of its shape for each argument.

    Example:
        >>> directional(torch.exp, (torch.zeros(2),), (torch.tensor([1.0, 2.0]),)).tolist()
        [1.0, 2.0]
    """
    if transforms_active():
        value, pull = torch.func.vjp(function, *point)[:2]
        return torch.func.vjp(pull, torch.zeros_like(value))[1](tuple(direction))[0]
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        # Stand-ins: the product ends at them, and their own graph goes on.
        local = [item.view_as(item) if item.requires_grad else item.detach().requires_grad_() for item in point]
        value = function(*local)
        if not value.requires_grad:
            return torch.zeros_like(value)
        seed = torch.zeros_like(value).requires_grad_()
        pulled = torch.autograd.grad(value, local, seed, create_graph=True, allow_unused=True)
        pairs = [(p, v) for p, v in zip(pulled, direction, strict=True) if p is not None and p.requires_grad]
        if not pairs:
            return torch.zeros_like(value)
        moved = torch.autograd.grad([p for p, _ in pairs], seed, [v.reshape(p.shape) for p, v in pairs],
                                    create_graph=create_graph, allow_unused=True)[0]
    return torch.zeros_like(value) if moved is None else moved


def directional_twice(function: Callable[..., Tensor], point: Sequence[Tensor],
                      direction: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """First and second derivative of `function` along a direction, differentiable again; arguments as above.

    As derivatives in s of w . function(point + s direction), linear in w: no more than two derivatives meet in x, where
    the first product differentiated once more would take three, and of some operations the third is wrong.
    """
    if transforms_active():
        def once(*items: Tensor) -> Tensor:
            return directional(function, items, direction)

        return once(*point), directional(once, point, direction)
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        s = torch.zeros((), dtype=point[0].dtype, device=point[0].device, requires_grad=True)
        value = function(*(item + s * v for item, v in zip(point, direction, strict=True)))
        w = torch.zeros_like(value).requires_grad_()
        slope = _slope((w * value).sum(), s)
        found = [_slope(item, w, create_graph) for item in (slope, _slope(slope, s))]
    return found[0], found[1]


def _slope(value: Tensor, at: Tensor, create_graph: bool = True) -> Tensor:
    made = None
    if value.requires_grad:
        (made,) = torch.autograd.grad(value, at, create_graph=create_graph, retain_graph=True, allow_unused=True)
    return torch.zeros_like(at) if made is None else made
