"""The oracle that knows no theorem: apply f many times and differentiate through every step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import jacfwd, jacrev

from analysis.phantom.equilibrium_point import Map


def unrolled(f: Map, z0: Tensor, steps: int, damping: float = 1.0) -> Callable[[Tensor], Tensor]:
    """The function x -> z^(steps), z^(k+1) = z^(k) + damping (f(z^(k), x) - z^(k)), with z0 held fixed."""

    def iterate(x: Tensor) -> Tensor:
        z = z0
        for _ in range(steps):
            z = z + damping * (f(z, x) - z)
        return z

    return iterate


def preconditioned_unrolled(f: Map, z0: Tensor, matrix: Tensor, steps: int) -> Callable[[Tensor], Tensor]:
    """The function x -> z^(steps), z^(k+1) = z^(k) + M (f(z^(k), x) - z^(k)), with z0 [n] and M [n, n] held fixed."""

    def iterate(x: Tensor) -> Tensor:
        z = z0
        for _ in range(steps):
            z = z + matrix @ (f(z, x) - z)
        return z

    return iterate


def derivatives_of(function: Callable[[Tensor], Tensor], x: Tensor, order: int = 2) -> tuple[Tensor, ...]:
    """Derivative tensors of x [d] -> [n] by reverse mode over reverse mode over ... .

    Reverse mode throughout, while `analysis.phantom.derivatives` goes forward: the two share no rule of
    differentiation.

    Returns:
        [n, d], [n, d, d], ... to the given order.
    """
    out = []
    derivative: Callable[[Tensor], Tensor] = function
    for _ in range(order):
        derivative = jacrev(derivative)
        with torch.no_grad():
            out.append(derivative(x).detach())
    return tuple(out)


def forward_derivatives_of(function: Callable[[Tensor], Tensor], x: Tensor, order: int = 2) -> tuple[Tensor, ...]:
    """The same by forward mode only: cheap for long unrolls with small d."""
    out = []
    derivative: Callable[[Tensor], Tensor] = function
    for _ in range(order):
        derivative = jacfwd(derivative)
        with torch.no_grad():
            out.append(derivative(x).detach())
    return tuple(out)
