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
from deq.density.products import directional
from deq.density.push import push
from deq.density.tape import NotRecordable, record
from deq.interop.compilation import original
from deq.interop.transforms import transforms_active

__all__ = ["Jet", "coordinate_jet", "elementwise_derivatives", "first_along", "push_forward", "second_along"]


def first_along(function: Callable[..., Tensor], primals: Sequence[Tensor], tangents: Sequence[Tensor]) -> Tensor:
    """Derivatives of `function` at the primals along directions stacked in dimension 0 of the tangents."""
    def along(*directions: Tensor) -> Tensor:
        return torch.func.jvp(original(function), tuple(primals), directions)[1]

    try:
        return torch.vmap(along)(*tangents)
    except (NotImplementedError, RuntimeError):  # no forward mode, or no batching rule
        return torch.stack([directional(function, primals, direction) for direction in zip(*tangents, strict=True)])


def second_along(function: Callable[..., Tensor], primals: Sequence[Tensor],
                 tangents: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """First derivatives along each direction, and second derivatives D^2 f[v, v] along each, both stacked."""
    function = original(function)

    def along(*directions: Tensor) -> tuple[Tensor, Tensor]:
        def once(*point: Tensor) -> Tensor:
            return torch.func.jvp(function, point, directions)[1]

        first, second = torch.func.jvp(once, tuple(primals), directions)  # type: ignore[misc]
        return first, second

    try:
        return torch.vmap(along)(*tangents)
    except (NotImplementedError, RuntimeError):
        parts = []
        for direction in zip(*tangents, strict=True):
            def once(*point: Tensor, direction: tuple[Tensor, ...] = direction) -> Tensor:
                return directional(function, point, direction)
            parts.append((once(*primals), directional(once, primals, direction)))
        return torch.stack([part[0] for part in parts]), torch.stack([part[1] for part in parts])


def push_forward(function: Callable[..., Tensor], *arguments: Jet) -> Jet:
    """The jet of function(u, v, ...) from the jets of its arguments; samples are independent."""
    primals = tuple(jet.value for jet in arguments)
    if not transforms_active():
        with suppress(NotRecordable):
            return push(record(function, primals), arguments)
    first, second = second_along(function, primals, [jet.first for jet in arguments])
    linear = first_along(function, primals, [jet.laplacian[None] for jet in arguments])[0]  # type: ignore[index]
    return Jet(original(function)(*primals), first, second.sum(0) + linear)


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
