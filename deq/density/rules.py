"""Rules by which single torch operations act on jets: linear ones, products, and how the others are made of them.

`RULES` maps an overload (`torch.ops.aten.mul.Tensor`) to rule(overload, *args, **kwargs) whose tensor arguments may be
jets; it returns a jet, a tuple with one for each result (None where no derivative flows), or NotImplemented for
arguments that the rule does not cover.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from deq.density.jet import Jet

__all__ = ["LINEAR", "RULES", "add", "each", "mapped", "multiply", "scaled", "squares", "subtract"]

Rule = Callable[..., Any]
RULES: dict[Any, Rule] = {}
LINEAR: set[Any] = set()  # overloads whose rules are linear, or affine, in all jets together
_ATEN = torch.ops.aten


def _register(rule: Rule, *overloads: Any) -> None:
    for overload in overloads:
        RULES[overload] = rule


def each(function: Callable[[Tensor], Tensor], first: Tensor) -> Tensor:
    """A function of one tensor for each direction."""
    return torch.vmap(function)(first)


def spread(first: Tensor, rank: int) -> Tensor:
    """First derivatives [k, *shape] of a tensor that broadcasts to `rank` dimensions, with ones put in after k."""
    missing = rank - (first.dim() - 1)
    return first if missing <= 0 else first.reshape(first.shape[0], *(1,) * missing, *first.shape[1:])


def squares(a: Tensor, b: Tensor) -> Tensor:
    """Sum of the products over the directions."""
    if a.shape != b.shape:
        a, b = torch.broadcast_tensors(a, b)
    return torch.linalg.vecdot(a, b, dim=0)


def mapped(jet: Jet, function: Callable[[Tensor], Tensor], stacked: Callable[[Tensor], Tensor] | None = None) -> Jet:
    """A linear function of a jet; `stacked` applies it to all directions [k, ...] at once."""
    return Jet(function(jet.value), each(function, jet.first) if stacked is None else stacked(jet.first),
               None if jet.laplacian is None else function(jet.laplacian))


def scaled(jet: Jet, factor: Tensor | float) -> Jet:
    """By a constant, which may broadcast."""
    if not isinstance(factor, Tensor):
        return Jet(jet.value * factor, jet.first * factor, None if jet.laplacian is None else jet.laplacian * factor)
    return Jet(jet.value * factor, spread(jet.first, factor.dim()) * factor,
               None if jet.laplacian is None else jet.laplacian * factor)


def add(a: Any, b: Any, factor: float = 1) -> Jet:
    """A + factor * b for jets, tensors and numbers."""
    if not isinstance(a, Jet):
        if not isinstance(a, Tensor) and factor == 1:
            return _shifted(b, a)
        return _shifted(b if factor == 1 else scaled(b, factor), a)
    if not isinstance(b, Jet):
        return _shifted(a, b if factor == 1 else factor * b)
    rank = max(a.value.dim(), b.value.dim())
    laplacian = None if a.laplacian is None else torch.add(a.laplacian, b.laplacian, alpha=factor)  # type: ignore
    return Jet(torch.add(a.value, b.value, alpha=factor),
               torch.add(spread(a.first, rank), spread(b.first, rank), alpha=factor), laplacian)


def _shifted(jet: Jet, constant: Any) -> Jet:
    value = jet.value + constant
    if value.shape == jet.value.shape:
        return Jet(value, jet.first, jet.laplacian)
    return Jet(value, spread(jet.first, value.dim()).expand(len(jet.first), *value.shape),
               None if jet.laplacian is None else jet.laplacian.expand(value.shape))


def subtract(a: Any, b: Any) -> Jet:
    """A - b."""
    return add(a, b, -1)


def multiply(a: Any, b: Any) -> Jet:
    """A b, elementwise with broadcasting."""
    if not isinstance(a, Jet):
        return scaled(b, a)
    if not isinstance(b, Jet):
        return scaled(a, b)
    if a is b:
        return a.through(a.value.square(), 2 * a.value, 2.0)
    rank = max(a.value.dim(), b.value.dim())
    one, two = spread(a.first, rank), spread(b.first, rank)
    laplacian = None
    if a.laplacian is not None and b.laplacian is not None:
        laplacian = a.laplacian * b.value + a.value * b.laplacian + 2 * squares(one, two)
    return Jet(a.value * b.value, one * b.value + a.value * two, laplacian)


def reciprocal(jet: Jet) -> Jet:
    """1 / jet."""
    value = jet.value.reciprocal()
    return jet.through(value, -value.square(), 2 * value.pow(3))


def divide(a: Any, b: Any) -> Jet:
    """A / b."""
    if not isinstance(b, Jet):
        return scaled(a, b.reciprocal() if isinstance(b, Tensor) else 1 / b)
    return multiply(a, reciprocal(b))


# --- sums, differences, products -------------------------------------------------------------------------------------

_register(lambda call, a, b, *, alpha=1: add(a, b, alpha), _ATEN.add.Tensor, _ATEN.add.Scalar)
_register(lambda call, a, b, *, alpha=1: add(a, b, -alpha), _ATEN.sub.Tensor, _ATEN.sub.Scalar)
_register(lambda call, a, b, alpha=1: add(b, a, -alpha), _ATEN.rsub.Tensor, _ATEN.rsub.Scalar)
LINEAR.update({_ATEN.add.Tensor, _ATEN.add.Scalar, _ATEN.sub.Tensor, _ATEN.sub.Scalar, _ATEN.rsub.Tensor,
               _ATEN.rsub.Scalar, _ATEN.neg.default, _ATEN.div.Scalar, _ATEN.mul.Scalar, _ATEN.convolution.default})
_register(lambda call, a, b: multiply(a, b), _ATEN.mul.Tensor, _ATEN.mul.Scalar)
_register(lambda call, a, b: divide(a, b), _ATEN.div.Tensor, _ATEN.div.Scalar)
_register(lambda call, a: scaled(a, -1.0), _ATEN.neg.default)
_register(lambda call, a, b, c, *, value=1: add(a, multiply(b, c), value) if isinstance(b, Jet) or isinstance(c, Jet)
          else _shifted(a, value * b * c), _ATEN.addcmul.default)
_register(lambda call, a, b, c, *, value=1: add(a, divide(b, c), value) if isinstance(b, Jet) or isinstance(c, Jet)
          else _shifted(a, value * b / c), _ATEN.addcdiv.default)
_register(lambda call, a, b, w: add(a, multiply(w, _difference(b, a))) if isinstance(w, Jet) or isinstance(a, Jet)
          or isinstance(b, Jet) else NotImplemented, _ATEN.lerp.Tensor, _ATEN.lerp.Scalar)


def _difference(b: Any, a: Any) -> Any:
    return subtract(b, a) if isinstance(a, Jet) or isinstance(b, Jet) else b - a


# --- matrix products and convolutions --------------------------------------------------------------------------------

def _shared(first: Tensor) -> bool:
    """Whether all samples (or rows) hold the same directions, as unit vectors do; then one is enough."""
    return first.dim() > 2 and first.shape[1] > 1 and first.stride(1) == 0


def _times_matrix(first: Tensor, matrix: Tensor) -> Tensor:
    if _shared(first):
        made = first[:, :1] @ matrix
        return made.expand(-1, first.shape[1], *made.shape[2:])
    return first @ matrix


def product(a: Any, b: Any) -> Jet:
    """Matrix product of matrices, or of batches [batch, ., .] of them."""
    if not isinstance(b, Jet):
        if b.dim() == 2:
            return mapped(a, lambda t: t @ b, lambda t: _times_matrix(t, b))
        return mapped(a, lambda t: t @ b, lambda t: t @ b)
    if not isinstance(a, Jet):
        return mapped(b, lambda t: a @ t, lambda t: a @ t)
    laplacian = None
    if a.laplacian is not None and b.laplacian is not None:
        # The sum over directions joins the inner dimension: one product instead of k.
        left = a.first.movedim(0, -2).flatten(-2)
        right = b.first.movedim(0, -3).flatten(-3, -2)
        laplacian = a.laplacian @ b.value + a.value @ b.laplacian + 2 * (left @ right)
    return Jet(a.value @ b.value, a.first @ b.value + a.value @ b.first, laplacian)


def _addmm(call: Any, base: Any, a: Any, b: Any, *, beta: float = 1, alpha: float = 1) -> Jet:
    if not isinstance(a, Jet) and not isinstance(b, Jet):
        return _shifted(base if beta == 1 else scaled(base, beta), alpha * (a @ b))
    if not isinstance(base, Jet) and not isinstance(b, Jet) and beta == 1 and alpha == 1 and b.dim() == 2:
        return Jet(torch.addmm(base, a.value, b), _times_matrix(a.first, b),
                   None if a.laplacian is None else a.laplacian @ b)
    made = product(a, b)
    made = made if alpha == 1 else scaled(made, alpha)
    if beta == 0:
        return made
    return add(base if beta == 1 else (scaled(base, beta) if isinstance(base, Jet) else beta * base), made)


_register(lambda call, a, b: product(a, b), _ATEN.mm.default, _ATEN.bmm.default)
_register(_addmm, _ATEN.addmm.default, _ATEN.baddbmm.default)


def _vector(a: Any, b: Any) -> Jet:
    """Matrix by vector, or vector by vector."""
    return mapped(product(a, _column(b)), lambda t: t.squeeze(-1), lambda t: t.squeeze(-1))


def _column(b: Any) -> Any:
    return mapped(b, lambda t: t.unsqueeze(-1), lambda t: t.unsqueeze(-1)) if isinstance(b, Jet) else b.unsqueeze(-1)


def _row(a: Any) -> Any:
    return mapped(a, lambda t: t.unsqueeze(-2), lambda t: t.unsqueeze(-2)) if isinstance(a, Jet) else a.unsqueeze(-2)


_register(lambda call, a, b: _vector(a, b), _ATEN.mv.default)
_register(lambda call, a, b: mapped(_vector(_row(a), b), lambda t: t.squeeze(-1), lambda t: t.squeeze(-1)),
          _ATEN.dot.default)


def _convolution(call: Any, x: Any, weight: Any, bias: Any, *options: Any) -> Any:
    if isinstance(weight, Jet) or isinstance(bias, Jet):
        return NotImplemented

    def stacked(first: Tensor) -> Tensor:
        if _shared(first):
            made = call(first[:, 0], weight, None, *options).unsqueeze(1)
            return made.expand(-1, first.shape[1], *made.shape[2:])
        return call(first.flatten(0, 1), weight, None, *options).unflatten(0, first.shape[:2])

    return Jet(call(x.value, weight, bias, *options), stacked(x.first),
               None if x.laplacian is None else call(x.laplacian, weight, None, *options))


_register(_convolution, _ATEN.convolution.default)
