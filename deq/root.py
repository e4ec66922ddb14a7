"""Roots and minimisers as equilibria: thin layers over `deq.equilibrium`, with the same rules, orders and refusals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from deq.equilibrium import equilibrium

__all__ = ["argmin", "root"]


def root(g: Callable[..., Tensor], z0: Tensor, *, inputs: Sequence[Tensor] = (), solver: Any = "newton",
         **options: Any) -> Tensor:
    """Solve g(z, *inputs) = 0 and return z with the derivatives of everything that g closes over.

    It is the equilibrium of z - g(z), so that the implicit function theorem's system is dg/dz itself. Only
    `solver="newton"` (the default) looks for it without asking that z - g(z) contracts.

    Args:
        g: the map, [batch, ...] -> [batch, ...], samples independent, made of torch operations.
        z0: start, [batch, ...], float32 or float64; a warm start is the root of a similar problem.
        inputs: tensors [batch, ...] passed to g beside z.
        solver: as in `deq.solve`.
        options: `gradient`, `tol`, `atol`, `rtol`, `max_iter`, `on_failure` of `deq.equilibrium`; a sample has
            converged when |g(z)| <= atol + rtol |z - g(z)|.

    Returns:
        z [batch, ...].

    Raises:
        NotConverged: no root was found for some sample.
        LinearSolveError: dg/dz is singular at the root.
        ValueError, TypeError: as `deq.equilibrium`; also where g returns another shape than z's.

    Example:
        >>> a = torch.tensor([[4.0]], dtype=torch.float64, requires_grad=True)
        >>> z = deq.root(lambda z: z * z - a, torch.ones(1, 1, dtype=torch.float64), tol=1e-12)
        >>> round(z.item(), 6), round(torch.autograd.grad(z.sum(), a)[0].item(), 6)
        (2.0, 0.25)
    """

    def f(z: Tensor, *rest: Tensor) -> Tensor:
        value = g(z, *rest)
        if not isinstance(value, Tensor) or value.shape != z.shape:
            raise ValueError(f"g must return the shape of z, {tuple(z.shape)}, but returned "
                             f"{tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__}")
        return z - value

    return equilibrium(f, z0, inputs=inputs, solver=solver, **options)


def argmin(loss: Callable[..., Tensor], z0: Tensor, *, inputs: Sequence[Tensor] = (), solver: Any = "newton",
           **options: Any) -> Tensor:
    """A stationary point of loss(z, *inputs) near z0, sample by sample, with the derivatives of all it closes over.

    It is the root of the gradient: a minimiser where the loss is convex around it, which is not checked.

    Args:
        loss: [batch, ...] -> [batch], twice differentiable in z (three times for derivatives of the minimiser beyond
            the first), samples independent.
        z0: start, [batch, ...].
        inputs: tensors [batch, ...] passed to the loss beside z.
        solver: as in `deq.solve`.
        options: as in `root`; a sample has converged when the norm of its gradient meets the tolerance.

    Returns:
        z [batch, ...].

    Raises:
        NotConverged, LinearSolveError: as `root`; the Hessian plays dg/dz.
        ValueError: the loss does not return one number a sample.

    Example:
        >>> t = torch.tensor([[3.0]], dtype=torch.float64, requires_grad=True)
        >>> z = deq.argmin(lambda z: ((z - t) ** 2).sum(1) + z.square().sum(1), torch.zeros(1, 1, dtype=torch.float64))
        >>> round(z.item(), 6), round(torch.autograd.grad(z.sum(), t)[0].item(), 6)
        (1.5, 0.5)
    """

    def total(z: Tensor, *rest: Tensor) -> Tensor:
        value = loss(z, *rest)
        if not isinstance(value, Tensor) or value.shape != z.shape[:1]:
            raise ValueError(f"the loss must return one number a sample, [{len(z)}], but returned "
                             f"{tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__}")
        return value.sum()

    return root(torch.func.grad(total), z0, inputs=inputs, solver=solver, **options)
