"""An equilibrium z* = f(z*, x) as the derivative theory needs it: checked, flattened, with its Jacobians.

Everything here differentiates f itself (`torch.func`), never a solver, so that it can check `deq` and be checked by it.
All arithmetic is float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import factorial

import torch
from torch import Tensor
from torch.func import jacrev

from analysis.phantom.curves import curve_tensor
from deq.interop.right_derivatives import right_derivatives
from deq.linear.factorise import Factors, factorise

Map = Callable[[Tensor, Tensor], Tensor]

EPS = torch.finfo(torch.float64).eps


class NotAFixedPointError(ValueError):
    """The given z* does not solve z = f(z, x); the message carries the residual.

    Example:
        >>> import torch, analysis
        >>> f = lambda z, x: torch.tanh(0.5 * z + x)
        >>> x = torch.tensor([0.3], dtype=torch.float64)
        >>> z = analysis.newton_equilibrium(f, x, torch.zeros(1, dtype=torch.float64))
        >>> try:
        ...     analysis.implicit_derivatives(f, x, z + 1)
        ... except analysis.NotAFixedPointError:
        ...     print("solve first")
        solve first
    """


class SingularEquilibriumError(ArithmeticError):
    """I - J is singular to working precision: the equilibrium has no derivative there.

    Example:
        >>> import torch, analysis
        >>> x = z = torch.zeros(1, dtype=torch.float64)
        >>> try:  # z = z + x^2: I - J = 0
        ...     analysis.implicit_derivatives(lambda z, x: z + x**2, x, z)
        ... except analysis.SingularEquilibriumError:
        ...     print("no derivative there")
        no derivative there
    """


@dataclass(frozen=True)
class EquilibriumPoint:
    """A checked equilibrium of a single sample; build it with `equilibrium_point`.

    Attributes:
        f: the map on flat vectors, f(z [n], x [d]) -> [n].
        x: input, [d], float64.
        z: equilibrium, [n], float64.
        residual: |f(z, x) - z|_2.
    """

    f: Map
    x: Tensor
    z: Tensor
    residual: float

    @cached_property
    def jacobian(self) -> Tensor:
        """J = df/dz at (z*, x), [n, n]."""
        with torch.no_grad():
            return jacrev(lambda z: self.f(z, self.x))(self.z).detach()

    @cached_property
    def input_jacobian(self) -> Tensor:
        """B = df/dx at (z*, x), [n, d]."""
        return self.curve_derivative((), 1)

    @cached_property
    def condition(self) -> float:
        """Condition number of I - J in the 2-norm.

        Raises:
            SingularEquilibriumError: the smallest singular value is at rounding level.
        """
        values = torch.linalg.svdvals(torch.eye(self.z.numel(), dtype=self.z.dtype) - self.jacobian)
        if not values[-1] > self.z.numel() * EPS * values[0]:
            raise SingularEquilibriumError(
                f"I - J is singular to float64 precision (smallest singular value {values[-1]:.3g}, largest "
                f"{values[0]:.3g}): 1 is an eigenvalue of df/dz, so the equilibrium is not a differentiable "
                "function of x here")
        return float(values[0] / values[-1])

    def solve(self, right: Tensor) -> Tensor:
        """S right = (I - J)^{-1} right along the first leg; right is [n, ...]. Raises SingularEquilibriumError."""
        _ = self.condition
        return self._factors.solve(right.reshape(right.shape[0], -1)).reshape(right.shape)

    @cached_property
    def _factors(self) -> Factors:
        return factorise(torch.eye(self.z.numel(), dtype=self.z.dtype) - self.jacobian)

    def curve_derivative(self, tensors: Sequence[Tensor], order: int) -> Tensor:
        r"""The `order`-th derivative at t = 0 of t -> f(z* + sum_m D_m[t, ..., t] / m!, x + t), t in R^d.

        With `tensors = (D_1, ..., D_{order-1})` this is everything in the `order`-th total derivative of f along the
        jet except the term J D_order: B for order 1, H(D_1) = f_xx + f_zx[D.,.] + f_zx[.,D.] + f_zz[D.,D.] for order 2.
        Only derivatives in R^d are taken, so f_zz [n, n, n] is never formed.

        Returns:
            [n, d, ..., d] with `order` trailing legs, symmetric in them.
        """
        def along(t: Tensor) -> Tensor:
            z = self.z
            for m, tensor in enumerate(tensors, start=1):
                term = tensor
                for _ in range(m):
                    term = term @ t
                z = z + term / factorial(m)
            return self.f(z, self.x + t)

        with torch.no_grad():
            return curve_tensor(along, torch.zeros_like(self.x), order).detach()


def equilibrium_point(f: Map, x: Tensor, z_star: Tensor, *, residual_tol: float = 1e-5) -> EquilibriumPoint:
    """Check f, x and z* and wrap them.

    Args:
        f: map of a single sample, f(z, x) -> tensor like z. Any shapes; they are flattened.
        x: input, float64, d numbers.
        z_star: an equilibrium, float64, n numbers. Derivatives inherit an error of the order of its residual.
        residual_tol: largest accepted |f(z*, x) - z*| / max(1, |z*|). The default lets through a solve at tol 1e-6.

    Raises:
        TypeError: an argument is not a tensor, or f does not return one.
        ValueError: another dtype than float64, NaN or infinite numbers, an empty tensor, f returning another shape.
        NotAFixedPointError: the residual is too large.
    """
    for name, value in (("x", x), ("z_star", z_star)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a torch tensor, not {type(value).__name__}")
        if value.dtype != torch.float64:
            raise ValueError(f"{name} is {value.dtype}; this analysis works in float64: pass {name}.double() "
                             "(and f with float64 parameters)")
        if value.numel() == 0:
            raise ValueError(f"{name} is empty, shape {tuple(value.shape)}")
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name} has NaN or infinite entries")
    x, z_star = x.detach(), z_star.detach()

    def flat(z: Tensor, u: Tensor) -> Tensor:
        with right_derivatives():
            return f(z.reshape(z_star.shape), u.reshape(x.shape)).reshape(-1)

    with torch.no_grad():
        value = f(z_star, x)
    if not isinstance(value, Tensor):
        raise TypeError(f"f must return a tensor, not {type(value).__name__}")
    if value.shape != z_star.shape or value.dtype != torch.float64:
        raise ValueError(f"f(z, x) must return a float64 tensor of z's shape {tuple(z_star.shape)}, "
                         f"not {value.dtype} of shape {tuple(value.shape)}")
    residual = float(torch.linalg.vector_norm(value - z_star))
    limit = residual_tol * max(1.0, float(torch.linalg.vector_norm(z_star)))
    if not residual <= limit:
        raise NotAFixedPointError(f"z_star is not a fixed point of f: |f(z*, x) - z*| = {residual:.3g} exceeds "
                                  f"{limit:.3g}; solve to a smaller tolerance first (analysis.newton_equilibrium "
                                  "polishes a near solution)")
    return EquilibriumPoint(flat, x.reshape(-1), z_star.reshape(-1), residual)


def newton_equilibrium(f: Map, x: Tensor, z0: Tensor, *, tol: float = 1e-13, max_iter: int = 100) -> Tensor:
    """Solve z = f(z, x) by damped dense Newton steps, for one sample in float64; the oracle's own solver.

    Args:
        f: map of a single sample.
        x: input, float64.
        z0: start, float64, any shape.
        tol: on |f(z, x) - z| relative to max(1, |z|).
        max_iter: Newton steps.

    Returns:
        The equilibrium, shaped like z0.

    Raises:
        NotAFixedPointError: no convergence within max_iter.
        SingularEquilibriumError: I - J is exactly singular at an iterate.

    Example:
        >>> import torch, analysis
        >>> f = lambda z, x: torch.tanh(0.5 * z + x)
        >>> x = torch.tensor([0.3], dtype=torch.float64)
        >>> z = analysis.newton_equilibrium(f, x, torch.zeros(1, dtype=torch.float64))
        >>> bool((f(z, x) - z).abs().max() < 1e-12)
        True
    """
    shape, n = z0.shape, z0.numel()
    identity = torch.eye(n, dtype=z0.dtype)

    def gap(z: Tensor) -> Tensor:
        return (f(z.reshape(shape), x) - z.reshape(shape)).reshape(-1)

    z = z0.detach().reshape(-1).clone()
    with torch.no_grad():
        size = float(torch.linalg.vector_norm(gap(z)))
        for _ in range(max_iter):
            if size <= tol * max(1.0, float(torch.linalg.vector_norm(z))):
                return z.reshape(shape)
            jacobian = jacrev(lambda u: f(u.reshape(shape), x).reshape(-1))(z).detach()
            factors = factorise(identity - jacobian)
            if bool(factors.defect.isinf()):
                raise SingularEquilibriumError(f"I - J is singular at a Newton iterate (residual {size:.3g}); "
                                               "start elsewhere")
            step = factors.solve(gap(z)[:, None])[:, 0]
            scale, trial = 1.0, z + step
            # Halve until the residual falls; a full step near the solution always passes, down to rounding.
            while not float(torch.linalg.vector_norm(gap(trial))) < size and scale > 2.0**-30:
                scale /= 2
                trial = z + scale * step
            z = trial
            size = float(torch.linalg.vector_norm(gap(z)))
    raise NotAFixedPointError(f"Newton did not reach |f(z) - z| <= {tol:.1g} max(1, |z|) in {max_iter} steps; the "
                              f"residual is {size:.3g}. Start nearer, or raise tol if that is rounding level for f")
