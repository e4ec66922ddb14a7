"""M of a gradient rule as a map with explicit arguments: what equilibria under `torch.func` transforms use.

Outside of transforms `deq.gradients.recorded` takes M from a recorded graph. Transforms see only tensors that are
passed to them, so here f is closed (`deq.interop.closure`) and evaluated again where products with J are needed, each
time with a proof that it still is the map of the forward pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deq.gradients.inverse import invert
from deq.gradients.operator import dense_is_cheaper
from deq.gradients.rules import Exact, GradientRule, Neumann, Phantom
from deq.interop.batching import opened
from deq.interop.closure import ClosedMap, Map
from deq.interop.precision import full_precision
from deq.interop.transforms import batched_map, detached, merge_batch
from deq.linear.jacobian import JacobianProducts, as_rows, leaves_torch
from deq.linear.resolvent import Resolvent
from deq.status import LinearSolveError, MapError


class Preconditioner(ABC):
    """M, acting on tensors of the state's shape [batch, ...]."""

    @abstractmethod
    def __call__(self, v: Tensor) -> Tensor:
        """M v, right in every derivative; the value may be that of v, since v is the solver's leftover residual."""

    def each(self, stacked: Tensor) -> Tensor:
        """The same for each of several right-hand sides, [d, batch, ...]."""
        return torch.vmap(self)(stacked)

    def solve_each(self, stacked: Tensor) -> Tensor:
        """M v for each of [d, batch, ...], right in value, without derivatives."""
        return self.each(stacked.detach()).detach()


@dataclass(frozen=True)
class _Scaled(Preconditioner):
    """M = factor * I."""

    factor: float

    def __call__(self, v: Tensor) -> Tensor:
        return v if self.factor == 1 else self.factor * v


@dataclass(frozen=True)
class _Dense(Preconditioner):
    """M as a matrix a sample, [batch, n, n]."""

    matrix: Tensor

    def __call__(self, v: Tensor) -> Tensor:
        return (self.matrix @ as_rows(v).unsqueeze(-1)).reshape(v.shape)

    def each(self, stacked: Tensor) -> Tensor:
        # Rows of a sample together: one matrix product a sample instead of d copies of the matrix.
        rows = stacked.flatten(2) if stacked.dim() > 2 else stacked.unsqueeze(-1)
        return (rows.transpose(0, 1) @ self.matrix.mT).transpose(0, 1).reshape(stacked.shape)


@dataclass(frozen=True)
class _MatrixFree(Preconditioner):
    """M by a method that needs only products with J at z (a series, a Krylov solve)."""

    method: Any
    function: ClosedMap
    fixed: tuple[Tensor, ...]  # f(z), z, captured

    def linear(self, v: Tensor) -> Tensor:
        """M v in value and derivatives."""
        return _LinearMap.apply(self.method, False, self.function, v, *self.fixed)

    def __call__(self, v: Tensor) -> Tensor:
        # What matters is how M acts on derivatives of v: letting its value pass (one Picard step) saves a solve a step.
        still = v.detach()
        return still + self.linear(v - still)

    def solve_each(self, stacked: Tensor) -> Tensor:
        return torch.vmap(self.linear)(stacked.detach()).detach()


def build_preconditioner(rule: GradientRule, function: ClosedMap, z: Tensor) -> Preconditioner:
    """M of the rule at the fixed point z, acting on tensors of z's shape.

    Args:
        rule: Phantom, Neumann or Exact.
        function: F(z, *captured).
        z: the equilibrium [batch, ...], detached.

    Raises:
        LinearSolveError: I - J is singular (now for a dense inverse, when a product is needed for a Krylov solve).
        TypeError: an unknown rule.
    """
    captured = tuple(tensor.detach() for tensor in function.captured)

    def fixed() -> tuple[Tensor, ...]:
        return (*detached(lambda f, z, *captured: (f(z, *captured),), function, z, captured), z, *captured)

    match rule:
        case Phantom(damping=damping):
            return _Scaled(damping)
        case Neumann(terms=terms):
            return _MatrixFree(_NeumannSeries(terms), function, fixed())
        case Exact(linear=linear) if linear == "dense" or (linear == "auto" and rule.order > 1
                                                           and dense_is_cheaper(z.shape)):
            return _Dense(*detached(_dense_inverse, function, z, captured))
        case Exact(linear_tol=tolerance, linear_max_iter=max_iter):
            return _MatrixFree(_KrylovInverse(Resolvent(tolerance, max_iter)), function, fixed())
    raise TypeError(f"unknown gradient rule {rule!r}; use Phantom, Neumann or Exact")


def _products(function: Map, z: Tensor, captured: Sequence[Tensor], known: Tensor | None = None) -> JacobianProducts:
    """Products with J of F at z, from an evaluation; its value must be the known one."""
    with torch.enable_grad():
        leaf = z.detach().requires_grad_()
        value = function(leaf, *captured)
    if known is not None:
        # Another batching may round otherwise, so not to the last bit; another f is further off.
        limit = torch.finfo(z.dtype).eps ** 0.75 * (1 + known.abs().amax()) if known.numel() else 0.0
        if bool(((value.detach() - known).abs() > limit).any()):
            raise MapError(
                "f is no longer the map of the forward pass: at the equilibrium it gives another value in backward (a "
                "name that f closes over was rebound, or its state changed). Under torch.func transforms take the "
                "derivatives inside the transform, or use Exact(linear='dense'), which does not call f again")
    if not value.requires_grad and leaves_torch(lambda z: function(z, *captured), z):
        raise ValueError(
            "f depends on z, but its result carries no derivative with respect to z: it leaves torch on the way "
            "(numpy, .detach(), .item(), torch.no_grad()). Write f in torch operations on z")
    return JacobianProducts(leaf, value)


def _dense_inverse(function: Map, z: Tensor, *captured: Tensor) -> tuple[Tensor]:
    return dense_inverse(_products(function, z, captured).blocks(), z)


def dense_inverse(jacobian: Tensor, z: Tensor) -> tuple[Tensor]:
    """(I - J)^{-1} a sample, [batch, n, n], from J; z tells which samples have failed already.

    Raises:
        LinearSolveError: singular for a sample whose z is finite; the others keep their NaN.
    """
    inverse, failure = invert(jacobian)
    if failure is not None and bool((failure.systems & as_rows(z).isfinite().all(1)).any()):
        raise LinearSolveError(failure.reason)
    return (inverse,)


@dataclass(frozen=True)
class _NeumannSeries:
    """v -> sum_{i < terms} J^i v."""

    terms: int

    def apply(self, products: Callable[[Tensor], Tensor], v: Tensor) -> Tensor:
        total = power = v
        for _ in range(self.terms - 1):
            power = products(power)
            total = total + power
        return total


@dataclass(frozen=True)
class _KrylovInverse:
    """v -> (I - J)^{-1} v by products with J."""

    resolvent: Resolvent

    def apply(self, products: Callable[[Tensor], Tensor], v: Tensor) -> Tensor:
        return self.resolvent.solve(products, v)


class _LinearMap(torch.autograd.Function):
    """V -> M v (or M^T v) with M given by (method, F, z, captured), all held fixed.

    Linear in v, so both its derivative and its transpose are again such maps, and every order follows.
    """

    @staticmethod
    @full_precision
    def forward(method: Any, transposed: bool, function: Map, v: Tensor, known: Tensor, z: Tensor,  # type: ignore[override]
                *captured: Tensor) -> Tensor:
        if not bool(v.any()):  # the value pass of an attachment step: nothing to solve
            return torch.zeros_like(v)
        products = _products(function, z, captured, known)
        return method.apply(products.transposed if transposed else products.direct, v)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.method, ctx.transposed, ctx.function, _, *fixed = inputs
        ctx.save_for_backward(*fixed)
        ctx.save_for_forward(*fixed)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        known, z, *captured = ctx.saved_tensors
        none = (None,) * (2 + len(captured))
        method, transposed, function = ctx.method, not ctx.transposed, ctx.function

        def stacked(v: Tensor) -> Tensor:
            if v.dim() == z.dim():
                return _LinearMap.apply(method, transposed, function, v, known, z, *captured)
            inner = batched_map(function, len(v), (None,) * len(captured))
            merged = (merge_batch(t, None, len(v)) for t in (known, z))
            return _LinearMap.apply(method, transposed, inner, v.flatten(0, 1), *merged, *captured).unflatten(
                0, (len(v), -1))

        return (None, None, None, opened(stacked, cotangent), *none)

    @staticmethod
    def jvp(ctx: Any, _method: None, _transposed: None, _function: None, tangent: Tensor, *_: None) -> Tensor:  # type: ignore[override]
        return _LinearMap.apply(ctx.method, ctx.transposed, ctx.function, tangent, *ctx.saved_tensors)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, method: Any, transposed: bool, function: Map, v: Tensor, known: Tensor,  # type: ignore[override]
             z: Tensor, *captured: Tensor) -> tuple[Tensor, int]:
        size = info.batch_size
        inner = batched_map(function, size, in_dims[6:])
        merged = (merge_batch(t, dim, size) for t, dim in zip((v, known, z), in_dims[3:6], strict=True))
        return _LinearMap.apply(method, transposed, inner, *merged, *captured).unflatten(0, (size, -1)), 0

