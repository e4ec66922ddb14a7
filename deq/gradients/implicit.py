"""Exact derivatives by the implicit function theorem, applied again to its own results: what `Exact` does eagerly.

z(theta) is a node whose backward pass solves (I - J)^T l = v and pulls l back through f. The solve is a node too: its
backward pass is one more solve and the derivative of the bilinear form l^T J m. Both keep the equilibrium itself, with
its graph, as their point, so derivatives of every order follow with the fewest solves: one for the gradient, two more
for each Hessian product. No forward step is recorded, which is what makes it cheaper than attachment by Newton steps
(`deq.equilibrium` under transforms and in forward mode, where custom functions with recomputation do not go).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from deq.interop.closure import Map
from deq.interop.precision import full_precision, refuse_autocast
from deq.interop.transforms import batched_map, merge_batch


class Inverse(Protocol):
    """(I - J)^{-1} at the equilibrium as an operator on plain tensors."""

    def solve(self, transposed: bool, function: Map, v: Tensor, z: Tensor, captured: Sequence[Tensor]) -> Tensor:
        """(I - J)^{-1} v, or with the transpose; v [k * batch, ...], of which `function` and z may be copies."""


def attach(inverse: Inverse, function: Map, z: Tensor, captured: Sequence[Tensor]) -> Tensor:
    """The detached equilibrium z of F(z, *captured) as a function of the captured tensors, of every order."""
    return _Implicit.apply(inverse, function, z, *captured)


def _local(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Stand-ins that a local vector-Jacobian product is taken in: its paths end there, their graphs go on."""
    if torch.is_grad_enabled():
        return [t.view_as(t) if t.requires_grad else t for t in tensors]
    return [t.detach().requires_grad_() if t.requires_grad else t for t in tensors]


def _pull(value: Tensor, points: Sequence[Tensor], seed: Tensor, create_graph: bool) -> list[Tensor | None]:
    """Vector-Jacobian product of `value` for the points that require grad, None for the others."""
    active = [t for t in points if t.requires_grad]
    if not active or not value.requires_grad:
        return [None] * len(points)
    found = iter(torch.autograd.grad(value, active, seed, create_graph=create_graph, allow_unused=True))
    return [next(found) if t.requires_grad else None for t in points]


class _Implicit(torch.autograd.Function):
    """Theta -> z(theta); its value is given."""

    @staticmethod
    def forward(inverse: Inverse, function: Map, z: Tensor, *captured: Tensor) -> Tensor:  # type: ignore[override]
        return z.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.inverse, ctx.function, _, *captured = inputs
        ctx.save_for_backward(output, *captured)

    @staticmethod
    @full_precision
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        z, *captured = ctx.saved_tensors
        create_graph = torch.is_grad_enabled()
        costate = _solve(ctx.inverse, True, ctx.function, cotangent, z, *captured)
        points = _local(captured)
        with torch.enable_grad():
            value = ctx.function(z if create_graph else z.detach(), *points)
        return (None, None, None, *_pull(value, points, costate, create_graph))


class _Resolvent(torch.autograd.Function):
    """(v, z, theta) -> (I - J(z, theta))^{-1} v, or the transpose."""

    @staticmethod
    def forward(inverse: Inverse, transposed: bool, function: Map, v: Tensor, z: Tensor, *captured: Tensor) -> Tensor:  # type: ignore[override]
        return inverse.solve(transposed, function, v, z, captured)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.inverse, ctx.transposed, ctx.function, _, *fixed = inputs
        ctx.save_for_backward(output, *fixed)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        solution, z, *captured = ctx.saved_tensors
        refuse_autocast(z, "a second or higher derivative of an equilibrium")
        create_graph = torch.is_grad_enabled()
        pulled = _solve(ctx.inverse, not ctx.transposed, ctx.function, cotangent, z, *captured)
        points = _local([z, *captured])
        if not create_graph:
            solution = solution.detach()
        with torch.enable_grad():
            image = _product(ctx.function, ctx.transposed, solution, points)
        gradients = [None] * len(points) if image is None else _pull(image, points, pulled, create_graph)
        return (None, None, None, pulled, *gradients)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, inverse: Inverse, transposed: bool, function: Map, v: Tensor, z: Tensor,  # type: ignore[override]
             *captured: Tensor) -> tuple[Tensor, int]:
        size = info.batch_size
        inner = batched_map(function, size, in_dims[5:])
        merged = (merge_batch(t, dim, size) for t, dim in ((v, in_dims[3]), (z, in_dims[4])))
        return _Resolvent.apply(inverse, transposed, inner, *merged, *captured).unflatten(0, (size, -1)), 0


def _product(function: Callable[..., Tensor], transposed: bool, v: Tensor, points: Sequence[Tensor]) -> Tensor | None:
    """J^T v or J v at the points (z, *captured), with its graph; None where f does not depend on z."""
    z, *captured = points
    if not z.requires_grad:
        z = z.detach().requires_grad_()
    value = function(z, *captured)
    if not value.requires_grad:
        return None
    if transposed:
        return torch.autograd.grad(value, z, v, create_graph=True, allow_unused=True)[0]
    # The transpose of the (linear) pullback, so f need not support forward mode.
    dummy = torch.zeros_like(value).requires_grad_()
    (pulled,) = torch.autograd.grad(value, z, dummy, create_graph=True, allow_unused=True)
    if pulled is None or not pulled.requires_grad:
        return None
    return torch.autograd.grad(pulled, dummy, v, create_graph=True, allow_unused=True)[0]


def _solve(inverse: Inverse, transposed: bool, function: Map, v: Tensor, z: Tensor, *captured: Tensor) -> Tensor:
    """The resolvent, also for the batches of `torch.autograd.grad(is_grads_batched=True)`, which must be opened."""
    if not torch._C._functorch.is_legacy_batchedtensor(v):
        return _Resolvent.apply(inverse, transposed, function, v, z, *captured)
    level = 1  # that function never nests
    seeds = torch._remove_batch_dim(v, level, 1, 0)
    size = len(seeds)
    inner = batched_map(function, size, (None,) * len(captured))
    solved = _Resolvent.apply(inverse, transposed, inner, seeds.flatten(0, 1), merge_batch(z, None, size), *captured)
    return torch._add_batch_dim(solved.unflatten(0, (size, -1)), 0, level)
