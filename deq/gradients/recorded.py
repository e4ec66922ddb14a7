"""Derivatives of an equilibrium from recorded evaluations of f: what f did in the forward pass is what counts.

At the equilibrium z* (detached) f is evaluated K times with autograd on, K the order of the rule:

    y_0 = z*,    value_k = f(y_(k-1)),    y_k = y_(k-1) + M (value_k - y_(k-1)),    z = y_K,

all of the same value z*, with y_k right in its derivatives up to order k. M is fixed; M^T v needs products with J,
which come from the graph of value_1. In backward f is never called: names that f closes over may be rebound, parameters
replaced, hooks and caches changed, nothing of that matters any more.

A backward pass that nothing will differentiate needs y_1 alone, whatever K is: with l = M^T c the cotangent of y_(k-1)
is c - l + J^T l = 0, and any other that reaches a y_k asks for a first derivative. All are sent to y_1 together, so
such a pass costs one solve and one pull through the graph of value_1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from deq.gradients.operator import Operator, apply_operator
from deq.gradients.order_guard import guard
from deq.gradients.rules import GradientRule, Phantom
from deq.interop.batching import opened, stacked_first
from deq.interop.precision import autocast_active, refuse_autocast, shield_graph
from deq.interop.saving import saving_as_usual
from deq.interop.transforms import last_derivative, without_tangents
from deq.linear.jacobian import JacobianProducts, as_rows, leaves_torch
from deq.solution import Solution
from deq.status import MapError

__all__ = ["attach"]

Map = Callable[[Tensor], Tensor]


class _Record:
    """What the nodes of one equilibrium share."""

    def __init__(self, rule: GradientRule, z: Tensor, operator: Operator, value: Tensor, inner: Tensor) -> None:
        self.z, self.operator, self.exact = z, operator, rule.exact
        self.value, self.inner = value, inner
        self.shielded = False
        # Of c - l + J^T l this share is the residual of the solve for l: no information, and dear to solve for again.
        self.noise = max(100 * operator.tolerance, 1e5 * torch.finfo(z.dtype).eps)


def attach(rule: GradientRule, f: Map, start: Tensor, first: Tensor, solution: Solution) -> Tensor:
    """The equilibrium with the derivatives of all that f uses.

    Args:
        rule: Phantom, Neumann or Exact.
        f: the map, [batch, ...] -> [batch, ...].
        start: where the solve started, [batch, ...].
        first: f(start), the very first evaluation of f.
        solution: of the solve.

    Raises:
        MapError: f gives another value at the equilibrium than in the solve.
        ValueError: f leaves torch between its argument and its value.
    """
    z = solution.z
    failed = _failed(solution)
    point = z if failed is None else torch.where(_samples(as_rows(z).isfinite().all(1), z), z, _clean(start))
    with torch.enable_grad():
        inner = _Constant.apply(point.detach().requires_grad_())
        with saving_as_usual():
            value = f(inner)
    if first.requires_grad and not value.requires_grad:
        raise MapError("at the equilibrium the value of f carries no derivative, though at the start it did: f "
                       "remembers its values by z (let it compute them anew), or takes a branch that leaves torch")
    usable = None if failed is None else _usable(z, value)
    if isinstance(rule, Phantom):
        return _phantom(rule, f, inner, value, z, usable)
    _require_repeatable(value, point, solution, None)
    products = JacobianProducts(inner, value, usable, _varies(f, start, first, point, value, inner),
                               solution.rounding)
    record = _Record(rule, point.detach(), Operator(rule, products, usable, failed, solution.rounding), value, inner)
    result = _First.apply(record, rule.steps, value)
    if rule.steps > 1:
        seen, kept, anchor = result
        for k in range(2, rule.steps + 1):
            with torch.enable_grad():
                again = f(seen)
            _require_own_value(value, again, inner)
            _require_repeatable(again, point, solution, value)
            result = _Step.apply(record, k == rule.steps, anchor, again, kept)
            if k < rule.steps:
                seen, kept = result
    if usable is not None:
        result = torch.where(_samples(usable, z), result, z)
    assert rule.max_order is not None
    return guard(result, (value,), repr(rule), rule.max_order)


@without_tangents
def _failed(solution: Solution) -> Tensor | None:
    """Samples whose solve failed, bool [batch]; None for none."""
    return None if bool(solution.converged.all()) else ~solution.converged


@without_tangents
def _usable(z: Tensor, value: Tensor) -> Tensor | None:
    """Samples at which f could be differentiated, bool [batch]; None for all."""
    usable = as_rows(z).isfinite().all(1) & as_rows(value).isfinite().all(1)
    return None if bool(usable.all()) else usable


@without_tangents
def _varies(f: Map, start: Tensor, first: Tensor, point: Tensor, value: Tensor, inner: Tensor) -> bool:
    """Whether f was seen to give another value at another z."""
    if not torch.equal(value, first):
        return True
    # Two equal points say nothing; it matters where no dependence was recorded.
    return torch.equal(point, start) and _no_dependence(value, inner) and leaves_torch(f, point)


def _phantom(rule: Phantom, f: Map, inner: Tensor, value: Tensor, z: Tensor, usable: Tensor | None) -> Tensor:
    """Plain damped steps."""
    y = inner.detach()
    for k in range(rule.steps):
        image = value if k == 0 else f(y)
        y = image if rule.damping == 1 else y + rule.damping * (image - y)
    return y if usable is None else torch.where(_samples(usable, z), y, z)


def _samples(mask: Tensor, like: Tensor) -> Tensor:
    return mask.reshape(-1, *(1,) * (like.dim() - 1))


def _clean(start: Tensor) -> Tensor:
    return start.detach().nan_to_num(0.0, 0.0, 0.0)


@without_tangents
def _require_repeatable(value: Tensor, z: Tensor, solution: Solution, before: Tensor | None) -> None:
    """Compare an evaluation at z with what the solve found there, and with an earlier one."""
    size = torch.linalg.vector_norm(as_rows(value), dim=1)
    slack = solution.tolerance + 1e3 * torch.finfo(z.dtype).eps * size
    if before is None:
        residual = torch.linalg.vector_norm(as_rows(value - z), dim=1)
        gap = (residual - solution.residual).abs() - 1e-3 * solution.residual
    else:
        gap = torch.linalg.vector_norm(as_rows(value - before), dim=1)
    different = gap > slack  # false for NaN
    if bool(different.any()):
        sample = int(different.nonzero()[0])
        raise MapError(
            f"f is not deterministic: at the same z it gave values that differ by {float(gap[sample]):.2g} (sample "
            f"{sample}), so there is no map whose equilibrium could be differentiated. Switch off dropout and noise "
            f"inside f, or draw them once per solve")


def _no_dependence(value: Tensor, inner: Tensor) -> bool:
    return torch.autograd.grad(value, inner, torch.ones_like(value), retain_graph=True, allow_unused=True)[0] is None


def _require_own_value(value: Tensor, again: Tensor, inner: Tensor) -> None:
    """Refuse a cache of values by z: the second evaluation would depend on the z of the first."""
    if again is value and not _no_dependence(value, inner):
        raise MapError("f returned the very tensor that it had returned before: it remembers its values by z, so that "
                       "a derivative would be taken at a z of an earlier call. Let f compute its value anew")


class _Constant(torch.autograd.Function):
    """The detached equilibrium as a point to differentiate f at; nothing flows on to it."""

    @staticmethod
    def forward(ctx: Any, point: Tensor) -> Tensor:  # type: ignore[override]
        return point.view_as(point)

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> None:  # type: ignore[override]
        return None


class _Cancel(torch.autograd.Function):
    """The sum of two cotangents, exactly zero for the samples where only the noise of their cancellation is left."""

    @staticmethod
    def forward(record: _Record, a: Tensor, b: Tensor) -> Tensor:  # type: ignore[override]
        total = a + b
        dims = tuple(range(total.dim() - record.z.dim() + 1, total.dim()))
        if not dims:
            size, left = a.abs() + b.abs(), total.abs()
        else:
            size = a.abs().amax(dims, keepdim=True) + b.abs().amax(dims, keepdim=True)
            left = total.abs().amax(dims, keepdim=True)
        return torch.where(left <= record.noise * size, 0.0, total)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor | None) -> tuple:  # type: ignore[override]
        return None, cotangent, cotangent

    @staticmethod
    def jvp(ctx: Any, _record: None, a: Tensor | None, b: Tensor | None) -> Tensor:  # type: ignore[override]
        if a is None or b is None:
            found = b if a is None else a
            assert found is not None
            return found.view_as(found)
        return a + b

    @staticmethod
    def vmap(info: Any, in_dims: tuple, record: _Record, a: Tensor, b: Tensor) -> tuple:  # type: ignore[override]
        return _Cancel.apply(record, *stacked_first((a, b), in_dims[1:], info.batch_size)), 0


def _total(record: _Record, cotangents: tuple[Tensor | None, ...], last: bool) -> Tensor | None:
    """The cotangent of one y_k from those of the tensors that stand for it."""
    present = [c for c in cotangents if c is not None]
    if not present:
        return None
    if len(present) == 2 and record.exact and not last:
        return opened(lambda a, b: _Cancel.apply(record, a, b), *present)
    return sum(present[1:], start=present[0])


class _First(torch.autograd.Function):
    """y_1 from value_1, once as the answer (K = 1) or three times: for f, for the next step, for first derivatives."""

    @staticmethod
    def forward(record: _Record, steps: int, value: Tensor) -> Tensor | tuple[Tensor, ...]:  # type: ignore[override]
        return record.z.clone() if steps == 1 else (record.z.detach(), record.z.detach(), record.z.detach())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Any) -> None:
        ctx.record, ctx.steps, _ = inputs
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple:  # type: ignore[override]
        last = last_derivative()
        total = _total(ctx.record, cotangents, last)
        if total is None:
            return None, None, None
        _protect_from_autocast(ctx.record, last)
        return None, None, apply_operator(ctx.record.operator, True, total, not last)

    @staticmethod
    def jvp(ctx: Any, _record: None, _steps: None, tangent: Tensor) -> Any:  # type: ignore[override]
        moved = apply_operator(ctx.record.operator, False, tangent, True)
        return moved if ctx.steps == 1 else (moved, moved.clone(), moved.clone())


class _Step(torch.autograd.Function):
    """y_k from value_k and y_(k-1), k > 1; `anchor` is y_1, where passes that nothing differentiates are sent."""

    @staticmethod
    def forward(record: _Record, end: bool, anchor: Tensor, value: Tensor, y: Tensor) -> Any:  # type: ignore[override]
        return record.z.clone() if end else (record.z.detach(), record.z.detach())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Any) -> None:
        ctx.record, ctx.end, *_ = inputs
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple:  # type: ignore[override]
        last = last_derivative()
        total = _total(ctx.record, cotangents, last)
        if total is None:
            return None, None, None, None, None
        if last and ctx.record.exact:
            return None, None, total, None, None
        _protect_from_autocast(ctx.record, last)
        costate = apply_operator(ctx.record.operator, True, total, not last)
        return None, None, None, costate, total - costate

    @staticmethod
    def jvp(ctx: Any, _record: None, _end: None, anchor: Tensor | None, value: Tensor | None,  # type: ignore[override]
            y: Tensor | None) -> Any:
        if y is None:
            assert value is not None
            y = torch.zeros_like(value)
        moved = y + apply_operator(ctx.record.operator, False, -y if value is None else value - y, True)
        return moved if ctx.end else (moved, moved.clone())


def _protect_from_autocast(record: _Record, last: bool) -> None:
    """A backward pass runs under the autocast of whoever asks for it: a plain one is shielded, others refuse."""
    if not autocast_active(record.z):
        return
    if not (last and record.exact):
        refuse_autocast(record.z, "a second or higher derivative of an equilibrium")
    if not record.shielded:
        shield_graph(record.value, record.inner)
        record.shielded = True
