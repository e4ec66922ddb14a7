"""Derivatives of an equilibrium (Proposition 1 of [SM]) and of phantom iterations (Proposition 2), by linear algebra.

All follow from one fact. Along x + t the equilibrium is a jet z*(t) = z* + D_1 t + D_2[t,t]/2 + ..., and the order-m
derivative of f(z*(t), x + t) is J D_m + C_m, where C_m = C_m(D_1, ..., D_{m-1}) holds the lower orders only. So

    equilibrium:                    D_m = J D_m + C_m            =>  D_m = S C_m,   S = (I - J)^{-1}
    iteration with preconditioner:  D_m <- R D_m + M C_m,            R = I - M (I - J),  from D_m = 0.

M = I is the phantom gradient of [SM], M = lambda I the damped one of Geng et al. 2021, M = S is exact at order m
after m steps. C_1 = B, and C_2 = H(D_1) is [SM]'s curly bracket. C_m is evaluated as a derivative of f along the jet.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from analysis.phantom.equilibrium_point import EquilibriumPoint, Map, equilibrium_point


@dataclass(frozen=True)
class Derivatives:
    """Derivatives in x of an equilibrium, or of an iterate, at one sample.

    Attributes:
        tensors: D_1 [n, d], D_2 [n, d, d], ... up to the order that was asked for; float64.
        residual: |f(z*, x) - z*|_2 of the z* they were computed at.

    Example:
        >>> import torch, analysis
        >>> f = lambda z, x: torch.tanh(0.5 * z + x)
        >>> x = torch.tensor([0.3], dtype=torch.float64)
        >>> z = analysis.newton_equilibrium(f, x, torch.zeros(1, dtype=torch.float64))
        >>> d = analysis.implicit_derivatives(f, x, z)
        >>> d.first.shape, d.second.shape
        (torch.Size([1, 1]), torch.Size([1, 1, 1]))
    """

    tensors: tuple[Tensor, ...]
    residual: float

    @property
    def first(self) -> Tensor:
        """D z, [n, d]: entry (i, j) is dz_i / dx_j."""
        return self._get(1)

    @property
    def second(self) -> Tensor:
        """D^2 z, [n, d, d], symmetric in the last two legs."""
        return self._get(2)

    @property
    def third(self) -> Tensor:
        """D^3 z, [n, d, d, d]; only where order=3 was asked for."""
        return self._get(3)

    def _get(self, order: int) -> Tensor:
        if len(self.tensors) < order:
            raise ValueError(f"derivatives were computed to order {len(self.tensors)}; pass order={order} for more")
        return self.tensors[order - 1]


def implicit_derivatives(f: Map, x: Tensor, z_star: Tensor, *, order: int = 2,
                         residual_tol: float = 1e-5) -> Derivatives:
    """Derivatives of the equilibrium z*(x) by dense linear solves: Proposition 1 of [SM], and beyond to any order.

    Needs f `order` times continuously differentiable near (z*, x). At a kink (ReLU at zero) autograd's convention for
    the derivative enters without notice.

    Args:
        f: map of a single sample, f(z, x) -> tensor like z, float64.
        x: input, d numbers, any shape.
        z_star: equilibrium, n numbers, any shape.
        order: highest order wanted.
        residual_tol: see `equilibrium_point`.

    Returns:
        Derivatives with first [n, d], second [n, d, d], ...

    Raises:
        TypeError: an argument of another kind.
        ValueError: wrong dtype or shape, NaN, order below 1.
        NotAFixedPointError: z_star does not solve the equation.
        SingularEquilibriumError: I - J is singular.

    Example:
        >>> import torch, analysis
        >>> f = lambda z, x: torch.tanh(0.5 * z + x)
        >>> x = torch.tensor([0.3], dtype=torch.float64)
        >>> z = analysis.newton_equilibrium(f, x, torch.zeros(1, dtype=torch.float64))
        >>> d = analysis.implicit_derivatives(f, x, z)
        >>> s = float(1 - z**2)
        >>> abs(float(d.first) - s / (1 - 0.5 * s)) < 1e-12
        True
    """
    return derivatives_at(equilibrium_point(f, x, z_star, residual_tol=residual_tol), order)


def derivatives_at(point: EquilibriumPoint, order: int = 2) -> Derivatives:
    """`implicit_derivatives` at a point that was checked before."""
    _check_order(order)
    tensors: tuple[Tensor, ...] = ()
    for m in range(1, order + 1):
        tensors += (point.solve(point.curve_derivative(tensors, m)),)
    return Derivatives(tensors, point.residual)


def phantom_derivatives(f: Map, x: Tensor, z_star: Tensor, steps: int, damping: float = 1.0, *, order: int = 2,
                        residual_tol: float = 1e-5) -> Derivatives:
    """Derivatives of the phantom iterate z^(K), K = steps, by the recursion of Proposition 2 of [SM].

    z^(0) = z* is held fixed and z <- (1 - damping) z + damping f(z, x) is applied K times;
    damping 1 is [SM], less is Geng et al. 2021. No differentiation through the steps takes place.

    Args:
        f: map of a single sample, as for `implicit_derivatives`.
        x: input.
        z_star: equilibrium.
        steps: K >= 1.
        damping: positive and finite, usually in (0, 1].
        order: highest order wanted.
        residual_tol: see `equilibrium_point`.

    Raises:
        TypeError: steps is not an integer, or an argument of another kind.
        ValueError: steps < 1, damping not positive, wrong dtype or shape, NaN.
        NotAFixedPointError: z_star does not solve the equation.

    Example:
        >>> import torch, analysis
        >>> f = lambda z, x: torch.tanh(0.5 * z + x)
        >>> x = torch.tensor([0.3], dtype=torch.float64)
        >>> z = analysis.newton_equilibrium(f, x, torch.zeros(1, dtype=torch.float64))
        >>> exact, phantom = analysis.implicit_derivatives(f, x, z), analysis.phantom_derivatives(f, x, z, steps=3)
        >>> bias, J = float(exact.first - phantom.first), float(0.5 * (1 - z**2))
        >>> abs(bias - J**3 * float(exact.first)) < 1e-12
        True
    """
    if not 0.0 < damping < float("inf"):
        raise ValueError(f"damping must be positive and finite, not {damping}")
    return preconditioned_derivatives(f, x, z_star, damping, steps, order=order, residual_tol=residual_tol)


def preconditioned_derivatives(f: Map, x: Tensor, z_star: Tensor, preconditioner: Tensor | float, steps: int, *,
                               order: int = 2, residual_tol: float = 1e-5) -> Derivatives:
    """Derivatives of the K-th iterate of z <- z + M (f(z, x) - z) from z* held fixed, M held fixed too.

    Args:
        f: map of a single sample, as for `implicit_derivatives`.
        x: input.
        z_star: equilibrium.
        preconditioner: M, a float64 matrix [n, n], or a number for that multiple of the identity.
        steps: K >= 1.
        order: highest order wanted.
        residual_tol: see `equilibrium_point`.

    Raises:
        TypeError: steps is not an integer, or an argument of another kind.
        ValueError: steps < 1, M of another shape or dtype, wrong dtype or shape, NaN.
        NotAFixedPointError: z_star does not solve the equation.

    Example:
        >>> import torch, analysis
        >>> f = lambda z, x: torch.tanh(0.5 * z + x)
        >>> x = torch.tensor([0.3], dtype=torch.float64)
        >>> z = analysis.newton_equilibrium(f, x, torch.zeros(1, dtype=torch.float64))
        >>> inverse = 1 / (1 - 0.5 * (1 - z**2))  # (I - J)^-1: exact after one step
        >>> d = analysis.preconditioned_derivatives(f, x, z, inverse.view(1, 1), steps=1)
        >>> abs(float(d.first - analysis.implicit_derivatives(f, x, z).first)) < 1e-12
        True
    """
    if isinstance(steps, bool) or not isinstance(steps, int):
        raise TypeError(f"steps must be an integer, not {steps!r}")
    if steps < 1:
        raise ValueError(f"steps = {steps}: without at least one step the iterate does not depend on x; use steps >= 1")
    point = equilibrium_point(f, x, z_star, residual_tol=residual_tol)
    return next(islice(iterate_derivatives(point, preconditioner, order), steps, None))


def iterate_derivatives(point: EquilibriumPoint, preconditioner: Tensor | float = 1.0,
                        order: int = 2) -> Iterator[Derivatives]:
    """Endless iterator over the derivatives of z^(0), z^(1), z^(2), ...; those of z^(0) are zero.

    Args:
        point: the equilibrium.
        preconditioner: M, a matrix [n, n] or a number.
        order: highest order.

    Raises:
        ValueError: M of another shape or dtype than [n, n] float64, order below 1.
    """
    _check_order(order)
    n, d = point.z.numel(), point.x.numel()
    identity = torch.eye(n, dtype=torch.float64)
    matrix = preconditioner if isinstance(preconditioner, Tensor) else float(preconditioner) * identity
    if matrix.shape != (n, n) or matrix.dtype != torch.float64 or not bool(torch.isfinite(matrix).all()):
        raise ValueError(f"preconditioner must be a finite float64 matrix of shape {(n, n)} or a number, "
                         f"not {matrix.dtype} of shape {tuple(matrix.shape)}")
    matrix = matrix.detach()
    error_map = identity - matrix @ (identity - point.jacobian)
    tensors = tuple(torch.zeros((n,) + (d,) * m, dtype=torch.float64) for m in range(1, order + 1))
    while True:
        yield Derivatives(tensors, point.residual)
        # The right-hand sides all use the tensors of the step before.
        tensors = tuple(
            torch.tensordot(error_map, tensor, dims=1)
            + torch.tensordot(matrix, point.curve_derivative(tensors[: m - 1], m), dims=1)
            for m, tensor in enumerate(tensors, start=1))


def _check_order(order: int) -> None:
    if isinstance(order, bool) or not isinstance(order, int) or order < 1:
        raise ValueError(f"order must be an integer of at least 1, not {order!r}")
