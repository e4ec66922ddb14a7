"""Regularisation of the Jacobian df/dz at an equilibrium."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["jacobian_penalty"]


def jacobian_penalty(f: Callable[[Tensor], Tensor], z: Tensor, samples: int = 1, *,
                     generator: torch.Generator | None = None) -> Tensor:
    """Estimate |df/dz|_F^2 / n for each sample: the mean of |J^T v|^2 / n over draws v ~ N(0, I) (Hutchinson 1990).

    The expectation is exact; the relative standard deviation of one draw is at most sqrt(2). Differentiable in the
    parameters of f, and in z where z carries a graph, so that it can be trained on (a Jacobian taken without
    `create_graph` gives a penalty whose gradient is zero, silently).

    Args:
        f: the map, [batch, ...] -> [batch, ...].
        z: where to take the Jacobian, [batch, ...]; usually the equilibrium.
        samples: draws averaged.
        generator: of the draws; torch's own where None.

    Returns:
        [batch].

    Raises:
        ValueError: samples < 1, f changes the shape, or f does not depend on z by differentiable operations.

    Example:
        >>> weight = torch.eye(3, requires_grad=True)
        >>> penalty = deq.jacobian_penalty(lambda z: z @ weight.T, torch.zeros(2, 3), samples=10)
        >>> penalty.shape, penalty.requires_grad
        (torch.Size([2]), True)
    """
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
        raise ValueError(f"samples is {samples!r}; it must be a whole number of at least 1")
    with torch.enable_grad():
        point = z.view_as(z) if z.requires_grad else z.detach().requires_grad_()
        value = f(point)
        if value.shape != z.shape:
            raise ValueError(f"f must return the shape of z, {tuple(z.shape)}, but returned {tuple(value.shape)}")
        if not value.requires_grad:
            raise ValueError("f does not depend on z by differentiable operations, so it has no Jacobian to penalise")
        total = z.new_zeros(len(z))
        for _ in range(samples):
            v = torch.randn(z.shape, dtype=z.dtype, device=z.device, generator=generator)
            (pulled,) = torch.autograd.grad(value, point, v, create_graph=True, allow_unused=True)
            if pulled is None:
                raise ValueError("f does not depend on z by differentiable operations, so it has no Jacobian to "
                                 "penalise")
            total = total + pulled.reshape(len(z), -1).square().sum(1)
    return total / (samples * max(1, z.shape[1:].numel()))
