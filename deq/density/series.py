"""Taylor coefficients of any order along a curve: power series through a recorded function.

`deq.jet(f, x, v, order=K)` gives c_0 .. c_K of f(x + t v) = sum c_k t^k + O(t^(K+1)). Linear operations act on each
coefficient, products are Cauchy products, an elementwise function is composed from its own derivatives; what has no
such rule is differentiated by nested reverse mode along the curve.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import factorial
from typing import Any

import torch
from torch import Tensor

from deq.density.jet import Jet
from deq.density.products import directional
from deq.density.push import WRONG_THIRD
from deq.density.rules import LINEAR, RULES, spread
from deq.density.rules_nonlinear import POINTWISE
from deq.density.tape import NotRecordable, record
from deq.interop.compilation import original
from deq.interop.private import tree_flatten, tree_unflatten
from deq.status import DerivativeOrderError

__all__ = ["jet"]

_ATEN = torch.ops.aten
_PRODUCTS = {_ATEN.mul.Tensor, _ATEN.mm.default, _ATEN.bmm.default, _ATEN.mv.default, _ATEN.dot.default}


@dataclass(frozen=True)
class _Series:
    """Coefficients c_0, c_1, ... of equal shape."""

    terms: tuple[Tensor, ...]


def jet(f: Callable[[Tensor], Tensor], x: Tensor, direction: Tensor | None = None, *, order: int) -> tuple[Tensor, ...]:
    """Taylor coefficients of t -> f(x + t direction) at t = 0: c_k is the k-th derivative divided by k!.

    Right to any order for functions made of torch operations, and differentiable again in reverse mode. An equilibrium
    inside f is differentiated by nested products, to the order of its rule at most.

    Args:
        f: one tensor to one tensor; for batches, samples independent.
        x: where, floating point.
        direction: of x's shape; ones where None.
        order: K, at least 0.

    Returns:
        c_0 .. c_K, each of the shape of f(x).

    Raises:
        ValueError: a direction of another shape, an order below 0.
        DerivativeOrderError: an operation has no derivative of this order.

    Example:
        >>> [float(c) for c in jet(torch.exp, torch.tensor(0.0), order=3)]
        [1.0, 1.0, 0.5, 0.1666666716337204]
    """
    if isinstance(order, bool) or not isinstance(order, int) or order < 0:
        raise ValueError(f"order must be an integer of at least 0, not {order!r}")
    direction = torch.ones_like(x) if direction is None else direction
    if direction.shape != x.shape or not x.is_floating_point():
        raise ValueError(f"x must be floating point and direction of its shape {tuple(x.shape)}, got {x.dtype} and "
                         f"{tuple(direction.shape)}")
    nothing = torch.zeros_like(x)
    curve = _Series((x, direction, *(nothing,) * (order - 1))[:order + 1])
    try:
        tape = record(f, (x,), keep=())
    except NotRecordable:
        return _along_curve(original(f), (curve,), order, "f").terms
    found: dict[int, Any] = {0: curve}
    for step in tape.plan:
        args, kwargs = step.resolve(found)
        for place, result in zip(step.places, _step(step.call, args, kwargs, order), strict=True):
            if place is not None and result is not None:
                found[place] = result
    if tape.output is None:
        assert tape.value is not None
        return (tape.value, *(torch.zeros_like(tape.value) for _ in range(order)))
    return found[tape.output].terms


def _step(call: Any, args: tuple, kwargs: dict[str, Any], order: int) -> Sequence[_Series | None]:
    flat, spec = tree_flatten((args, kwargs), is_leaf=lambda item: isinstance(item, _Series))
    slots = [i for i, item in enumerate(flat) if isinstance(item, _Series)]

    def rebuilt(values: Sequence[Any]) -> tuple[tuple, dict[str, Any]]:
        items = list(flat)
        for i, value in zip(slots, values, strict=True):
            items[i] = value
        made: tuple[tuple, dict[str, Any]] = tree_unflatten(items, spec)
        return made

    if order == 0:
        inner_args, inner_kwargs = rebuilt([flat[i].terms[0] for i in slots])
        made = call(*inner_args, **inner_kwargs)
        made = made if isinstance(made, (tuple, list)) else (made,)
        return [_Series((item,)) for item in made]
    if call in LINEAR or (call in _PRODUCTS and len(slots) == 1):
        inner_args, inner_kwargs = rebuilt([_as_jet(flat[i]) for i in slots])
        made = RULES[call](call, *inner_args, **inner_kwargs)
        if made is not NotImplemented:
            return [None if item is None else _as_series(item)
                    for item in (made if isinstance(made, (tuple, list)) else (made,))]
    if call in _PRODUCTS:
        a, b = args
        return [_Series(tuple(sum((call(a.terms[i], b.terms[k - i]) for i in range(1, k + 1)),
                                  start=call(a.terms[0], b.terms[k])) for k in range(order + 1)))]
    if call in POINTWISE and len(slots) == 1:
        return [_composed(lambda x: call(*rebuilt([x])[0], **kwargs), flat[slots[0]], order)]
    made = _results(call, rebuilt, [flat[i] for i in slots], order)
    tensors = [term for i in slots for term in flat[i].terms] + [item for item in flat if isinstance(item, Tensor)]
    if any(item.requires_grad for item in tensors):
        return made
    return [None if item is None else _Series(tuple(t.detach() for t in item.terms)) for item in made]


def _as_jet(series: _Series) -> Jet:
    return Jet(series.terms[0], torch.stack(series.terms[1:]), None)


def _as_series(jet: Jet) -> _Series:
    return _Series((jet.value, *spread(jet.first, jet.value.dim()).expand(-1, *jet.value.shape).unbind(0)))


def _composed(function: Callable[[Tensor], Tensor], inner: _Series, order: int) -> _Series:
    """An elementwise function of a series, from its own derivatives by Horner's rule in the non-constant part."""
    with torch.enable_grad():
        at = inner.terms[0]
        at = at.view_as(at) if at.requires_grad else at.detach().requires_grad_()
        derivatives = [function(at)]
        for _ in range(order):
            last = derivatives[-1]
            found = None
            if last.requires_grad:
                (found,) = torch.autograd.grad(last.sum(), at, create_graph=True, allow_unused=True)
            derivatives.append(torch.zeros_like(at) if found is None else found)
    if not (torch.is_grad_enabled() and inner.terms[0].requires_grad):
        derivatives = [item.detach() for item in derivatives]
    total = [derivatives[order] / factorial(order)]
    for k in reversed(range(order)):
        # total <- derivative_k / k! + (inner - its constant) * total, cut at what the next steps can still raise to K
        length = order - k
        total = [derivatives[k] / factorial(k),
                 *(sum((inner.terms[i] * total[m - i] for i in range(2, m + 1)), start=inner.terms[1] * total[m - 1])
                   for m in range(1, length + 1))]
    return _Series(tuple(total))


def _results(call: Any, rebuilt: Callable[[Sequence[Any]], tuple[tuple, dict]], curves: Sequence[_Series],
             order: int) -> Sequence[_Series | None]:
    if order > 2 and (call in WRONG_THIRD or call is _ATEN.native_layer_norm.default):
        raise DerivativeOrderError(f"torch's derivatives of {call} are wrong from order 3 on; write it out")

    def run(*values: Tensor) -> Any:
        inner_args, inner_kwargs = rebuilt(values)
        return call(*inner_args, **inner_kwargs)

    with torch.no_grad():
        values = run(*(curve.terms[0].detach() for curve in curves))
    if not isinstance(values, (tuple, list)):
        return [_along_curve(run, curves, order, str(call))]
    return [_along_curve(lambda *items, i=i: run(*items)[i], curves, order, str(call))
            if isinstance(value, Tensor) and value.is_floating_point() else None for i, value in enumerate(values)]


def _along_curve(function: Callable[..., Tensor], curves: Sequence[_Series], order: int, name: str) -> _Series:
    """By differentiating t -> function(curves(t)) again and again; twice the graph for each order."""
    like = curves[0].terms[0]
    one, zero = like.new_ones(()), like.new_zeros(())

    def along(t: Tensor) -> Tensor:
        points = []
        for curve in curves:
            point = curve.terms[-1]
            for term in reversed(curve.terms[:-1]):
                point = term + t * point
            points.append(point)
        return function(*points)

    terms, derivative = [], along
    for k in range(order + 1):
        try:
            terms.append(derivative(zero) / factorial(k))
        except (RuntimeError, NotImplementedError) as error:
            raise DerivativeOrderError(f"torch has no derivative of order {k} of {name} ({str(error)[:120]}); write "
                                       f"the operation out in simpler ones") from error
        derivative = (lambda inner: lambda t: directional(inner, (t,), (one,)))(derivative)
    return _Series(tuple(terms))
