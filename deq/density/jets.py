"""Forward Laplacians: value, first derivatives and Laplacian of a function of x, pushed through maps in one pass.

A Laplacian is a sum of second derivatives along d directions, so it needs d nested Jacobian-vector products and never
the Hessian (Li et al. 2023 for explicit networks). `deq.density.laplacian` carries it through an equilibrium.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

import torch
from torch import Tensor
from torch.nn import functional

from deq.density.jet import Jet, coordinate_jet
from deq.density.products import directional, directional_twice
from deq.density.push import push
from deq.density.tape import NotRecordable, record
from deq.interop.compilation import original
from deq.interop.right_derivatives import refuse_wrong_nodes
from deq.interop.transforms import transforms_active

__all__ = ["Jet", "coordinate_jet", "elementwise_derivatives", "push_forward"]


def push_forward(function: Callable[..., Tensor], *arguments: Jet) -> Jet:
    """The jet of function(u, v, ...) from the jets of its arguments; samples are independent.

    By the rules of `deq.density.push` where the function can be recorded, else by nested products: in reverse mode,
    which is right for every operation, and under torch.func transforms in forward mode, without scripted code.

    Args:
        function: tensors to a tensor.
        arguments: jets along the same directions; `laplacian` None in all for first derivatives alone.

    Raises:
        DerivativeOrderError: an operation has no second derivative, or a wrong third one that a gradient would need.
    """
    primals = tuple(jet.value for jet in arguments)
    active = transforms_active()
    if not active:
        with suppress(NotRecordable):
            return push(record(function, primals), arguments)
    function = original(function)
    along = _forward if active else _reverse
    tangents = [jet.first for jet in arguments]
    if arguments[0].laplacian is None:
        return Jet(function(*primals), along(function, primals, tangents, 1)[0], None)
    if not active:
        _refuse_wrong(function, primals)
    first, second = along(function, primals, tangents, 2)
    linear = along(function, primals, [jet.laplacian[None] for jet in arguments], 1)[0][0]  # type: ignore[index]
    return Jet(function(*primals), first, second.sum(0) + linear)


def _forward(function: Callable[..., Tensor], primals: Sequence[Tensor], tangents: Sequence[Tensor],
             order: int) -> tuple[Tensor, ...]:
    """Derivatives of order 1 (and 2) along each direction, stacked in dimension 0 of the tangents."""
    def along(*directions: Tensor) -> tuple[Tensor, ...]:
        def once(*point: Tensor) -> Tensor:
            return torch.func.jvp(function, point, directions)[1]

        if order == 1:
            return (once(*primals),)
        made: tuple[Tensor, ...] = torch.func.jvp(once, tuple(primals), directions)  # type: ignore[assignment]
        return made

    try:
        return torch.vmap(along)(*tangents)
    except (NotImplementedError, RuntimeError):  # no forward mode, or no batching rule
        return _reverse(function, primals, tangents, order)


def _reverse(function: Callable[..., Tensor], primals: Sequence[Tensor], tangents: Sequence[Tensor],
             order: int) -> tuple[Tensor, ...]:
    parts = [directional_twice(function, primals, direction) if order > 1 else
             (directional(function, primals, direction),) for direction in zip(*tangents, strict=True)]
    return tuple(torch.stack(items) for items in zip(*parts, strict=True))


def _refuse_wrong(function: Callable[..., Tensor], primals: Sequence[Tensor]) -> None:
    with torch.enable_grad():
        points = [item.detach().requires_grad_() for item in primals]
        value = function(*points)
    for point in points:
        refuse_wrong_nodes(value, point, 3)


def elementwise_derivatives(function: Callable[[Tensor], Tensor], h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Value, first and second derivative of an elementwise function at h, each differentiable, of h's shape."""
    if function in _CLOSED_FORMS:
        return _CLOSED_FORMS[function](h)
    # Reverse mode: torch lacks second forward-mode derivatives of some activations (silu).
    slope = torch.func.grad(lambda u: function(u).sum())
    first, second = slope(h), torch.func.grad(lambda u: slope(u).sum())(h)
    return function(h), first, second


def _softplus(h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    # torch's softplus is the identity above 20, and so are its derivatives.
    slope = torch.where(h > 20, 1.0, torch.sigmoid(h))
    return functional.softplus(h), slope, slope - slope.square()


def _tanh(h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    value = torch.tanh(h)
    slope = 1 - value.square()
    return value, slope, -2 * value * slope


def _sigmoid(h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    value = torch.sigmoid(h)
    slope = value - value.square()
    return value, slope, slope * (1 - 2 * value)


_CLOSED_FORMS: dict[Callable[[Tensor], Tensor], Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]] = {
    functional.softplus: _softplus, torch.tanh: _tanh, functional.tanh: _tanh, torch.sigmoid: _sigmoid,
    functional.sigmoid: _sigmoid}
