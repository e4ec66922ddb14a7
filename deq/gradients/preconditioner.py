"""The fixed linear map M of a gradient rule, as something that differentiates to any order under any transform."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deq.gradients.implicit import Inverse
from deq.gradients.rules import Exact, GradientRule, Neumann, Phantom
from deq.interop.closure import ClosedMap, Map
from deq.interop.precision import full_precision
from deq.interop.transforms import batched_map, detached, merge_batch
from deq.linear.factorise import inverse
from deq.linear.jacobian import JacobianProducts, LinearisedMap, as_rows, dense_jacobian
from deq.linear.resolvent import Resolvent

# Above this state size the n^3 of a dense inverse loses to a few dozen Jacobian products.
_DENSE_STATE_LIMIT = 512
_DENSE_STATE_LIMIT_ONE_SOLVE = 16
_DENSE_ELEMENT_LIMIT = 2**26


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
    fixed: tuple[Tensor, ...]

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
    fixed = (z, *(tensor.detach() for tensor in function.captured))
    match rule:
        case Phantom(damping=damping):
            return _Scaled(damping)
        case Neumann(terms=terms):
            return _MatrixFree(_NeumannSeries(terms), function, fixed)
        case Exact(linear=linear) if linear == "dense" or (linear == "auto" and _dense_is_cheaper(z, rule.order)):
            return _Dense(*detached(_dense_inverse, function, z, fixed[1:]))
        case Exact(linear_tol=tolerance, linear_max_iter=max_iter):
            return _MatrixFree(_KrylovInverse(Resolvent(tolerance, max_iter)), function, fixed)
    raise TypeError(f"unknown gradient rule {rule!r}; use Phantom, Neumann or Exact")


def build_inverse(rule: Exact, function: ClosedMap, z: Tensor) -> Inverse:
    """(I - J)^{-1} of an exact rule at the fixed point z; arguments and errors as for `build_preconditioner`."""
    if rule.linear == "dense" or (rule.linear == "auto" and _dense_is_cheaper(z, rule.order)):
        fixed = [tensor.detach() for tensor in function.captured]
        return _DenseInverse(*detached(_dense_inverse, function, z, fixed))
    return _CachedKrylov(Resolvent(rule.linear_tol, rule.linear_max_iter), function)


@dataclass(frozen=True)
class _DenseInverse:
    """The matrix itself, [batch, n, n]."""

    matrix: Tensor

    def solve(self, transposed: bool, function: Map, v: Tensor, z: Tensor, captured: Sequence[Tensor]) -> Tensor:
        batch = len(self.matrix)
        if not v.numel():
            return torch.zeros_like(v)
        rows = v.reshape(-1, batch, self.matrix.shape[-1]).transpose(0, 1)
        return (rows @ (self.matrix if transposed else self.matrix.mT)).transpose(0, 1).reshape(v.shape)


class _CachedKrylov:
    """A Krylov solve whose linearisations are kept: they are the same for every solve at one equilibrium."""

    def __init__(self, resolvent: Resolvent, function: ClosedMap) -> None:
        self._resolvent, self._function = resolvent, function
        self._linearised: LinearisedMap | None = None

    def solve(self, transposed: bool, function: Map, v: Tensor, z: Tensor, captured: Sequence[Tensor]) -> Tensor:
        if not bool(v.any()):
            return torch.zeros_like(v)
        if function is not self._function:
            linearised = LinearisedMap(function, z, captured)
        else:
            if self._linearised is None:
                self._linearised = LinearisedMap(function, z, captured)
            linearised = self._linearised
        return self._resolvent.solve(linearised.product(transposed), v, lambda: linearised.single(transposed))


def _dense_is_cheaper(z: Tensor, order: int) -> bool:
    """First derivatives alone take one solve, which never repays an inverse; the higher ones take many."""
    batch, n = as_rows(z).shape
    limit = _DENSE_STATE_LIMIT if order > 1 else _DENSE_STATE_LIMIT_ONE_SOLVE
    return n <= limit and batch * n * n <= _DENSE_ELEMENT_LIMIT


def _dense_inverse(function: Map, z: Tensor, *captured: Tensor) -> tuple[Tensor]:
    return dense_inverse(dense_jacobian(function, z, captured), z)


def dense_inverse(jacobian: Tensor, z: Tensor) -> tuple[Tensor]:
    """(I - J)^{-1} a sample, [batch, n, n], from J; z tells which samples have failed already.

    An explicit inverse, not factors: its error (about cond * eps) is that of R = I - M (I - J), which enters the K-th
    power, and a plain matrix product is right under every nesting of transforms, which linear solves are not.
    """
    n = jacobian.shape[1]
    # A sample whose solve already failed with NaN was reported there, and keeps its NaN.
    return (inverse(
        torch.eye(n, dtype=z.dtype, device=z.device) - jacobian, "I - df/dz at the equilibrium",
        ~as_rows(z).isfinite().all(1), "the equilibrium has no derivative there. Make f a contraction "
        "(deq.operator_normalize) or check the map for NaN"),)


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
    def forward(method: Any, transposed: bool, function: Map, v: Tensor, z: Tensor, *captured: Tensor) -> Tensor:  # type: ignore[override]
        if not bool(v.any()):  # the value pass of an attachment step: nothing to solve
            return torch.zeros_like(v)
        products = JacobianProducts(function, z, captured)
        return method.apply(products.transposed if transposed else products.direct, v)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.method, ctx.transposed, ctx.function, _, *fixed = inputs
        ctx.save_for_backward(*fixed)
        ctx.save_for_forward(*fixed)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        fixed = ctx.saved_tensors
        if torch._C._functorch.is_legacy_batchedtensor(cotangent):
            pulled = _LinearMap._legacy_vmap(ctx, cotangent, *fixed)
        else:
            pulled = _LinearMap.apply(ctx.method, not ctx.transposed, ctx.function, cotangent, *fixed)
        return (None, None, None, pulled, *(None,) * len(fixed))

    @staticmethod
    def _legacy_vmap(ctx: Any, cotangent: Tensor, z: Tensor, *captured: Tensor) -> Tensor:
        """Backward for `torch.autograd.grad(is_grads_batched=True)`, whose batches a custom function must open."""
        level = 1  # that function never nests
        seeds = torch._remove_batch_dim(cotangent, level, 1, 0)
        size = len(seeds)
        inner = batched_map(ctx.function, size, (None,) * len(captured))
        pulled = _LinearMap.apply(ctx.method, not ctx.transposed, inner, seeds.flatten(0, 1),
                                  merge_batch(z, None, size), *captured)
        return torch._add_batch_dim(pulled.unflatten(0, (size, -1)), 0, level)

    @staticmethod
    def jvp(ctx: Any, _method: None, _transposed: None, _function: None, tangent: Tensor, *_: None) -> Tensor:  # type: ignore[override]
        return _LinearMap.apply(ctx.method, ctx.transposed, ctx.function, tangent, *ctx.saved_tensors)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, method: Any, transposed: bool, function: Map, v: Tensor, z: Tensor,  # type: ignore[override]
             *captured: Tensor) -> tuple[Tensor, int]:
        size = info.batch_size
        inner = batched_map(function, size, in_dims[5:])
        merged = (merge_batch(t, dim, size) for t, dim in ((v, in_dims[3]), (z, in_dims[4])))
        return _LinearMap.apply(method, transposed, inner, *merged, *captured).unflatten(0, (size, -1)), 0

