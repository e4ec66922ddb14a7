"""Forward Laplacians: value, first derivatives and Laplacian of a function of x, pushed through maps in one pass.

A Laplacian is a sum of second derivatives along d directions, so it needs d nested Jacobian-vector products and never
the Hessian (Li et al. 2023 for explicit networks). `deq.density.laplacian` carries it through an equilibrium.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Jet:
    """A batched function u(x) with the derivatives that its Laplacian needs.

    Attributes:
        value: u, [batch, ...].
        first: derivative along each coordinate of x, [d, batch, ...].
        laplacian: sum over the coordinates of the second derivatives, [batch, ...].
    """

    value: Tensor
    first: Tensor
    laplacian: Tensor


def coordinate_jet(x: Tensor) -> Jet:
    """X itself, [batch, ...]: unit directions and no Laplacian."""
    batch, d = x.shape[0], x.shape[1:].numel()
    directions = torch.eye(d, dtype=x.dtype, device=x.device).reshape(d, 1, *x.shape[1:]).expand(d, *x.shape)
    return Jet(x, directions if batch else x.new_zeros((d, *x.shape)), torch.zeros_like(x))


def first_along(function: Callable[..., Tensor], primals: Sequence[Tensor], tangents: Sequence[Tensor]) -> Tensor:
    """Derivatives of `function` at the primals along directions stacked in dimension 0 of the tangents."""
    def along(*directions: Tensor) -> Tensor:
        return torch.func.jvp(function, tuple(primals), directions)[1]

    return torch.vmap(along)(*tangents)


def second_along(function: Callable[..., Tensor], primals: Sequence[Tensor],
                 tangents: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """First derivatives along each direction, and second derivatives D^2 f[v, v] along each, both stacked."""
    def along(*directions: Tensor) -> tuple[Tensor, Tensor]:
        def once(*point: Tensor) -> Tensor:
            return torch.func.jvp(function, point, directions)[1]

        first, second = torch.func.jvp(once, tuple(primals), directions)  # type: ignore[misc]
        return first, second

    try:
        return torch.vmap(along)(*tangents)
    except NotImplementedError as error:
        raise NotImplementedError(
            f"the forward Laplacian needs second forward-mode derivatives, which torch lacks for an operation of this "
            f"map ({error}); write the operation out (x * sigmoid(x) for silu), or differentiate the density by "
            f"torch.autograd with deq.Exact(order=3) instead") from error


def push_forward(function: Callable[..., Tensor], *arguments: Jet) -> Jet:
    """The jet of function(u, v, ...) from the jets of its arguments; samples are independent."""
    primals = tuple(jet.value for jet in arguments)
    first, second = second_along(function, primals, [jet.first for jet in arguments])
    value, linear = torch.func.jvp(function, primals, tuple(jet.laplacian for jet in arguments))  # type: ignore[misc]
    return Jet(value, first, second.sum(0) + linear)


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
