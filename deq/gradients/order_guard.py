"""Counts how often a result has been differentiated and refuses the derivative that a rule cannot give.

The guard is a term that is added to the equilibrium: its value is zero, and so is each of its derivatives, so nothing
changes; but it travels through every backward and forward pass beside the true derivative, and the pass that would make
the first wrong one raises.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from deq.interop.transforms import last_derivative
from deq.status import DerivativeOrderError


@dataclass(frozen=True)
class _Budget:
    """How many derivatives were taken (`used`) and how many there may be; `anchors` counts the watched tensors."""

    rule: str
    used: int
    limit: int
    anchors: int

    def next(self) -> _Budget:
        if self.used >= self.limit:
            raise DerivativeOrderError(
                f"a derivative of order {self.used + 1} of the equilibrium was asked for, but {self.rule} is right "
                f"only up to order {self.limit}; use Exact(order={self.used + 1}) or higher (a Jacobian-vector "
                f"product by the double-backward trick counts as one order more)")
        return replace(self, used=self.used + 1)


class _ZeroTerm(torch.autograd.Function):
    """Zero in the shape of `like`, connected to the watched tensors and to the cotangents of earlier passes."""

    generate_vmap_rule = True

    @staticmethod
    def forward(budget: _Budget, like: Tensor, *tensors: Tensor) -> Tensor:  # type: ignore[override]
        return like.new_zeros(()).expand(like.shape)  # no memory to fill

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.budget, like, *tensors = inputs
        ctx.save_for_backward(like, *tensors)
        ctx.save_for_forward(like, *tensors)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        nothing = (None,) * len(ctx.needs_input_grad)
        anchors = ctx.budget.anchors
        wanted = ctx.needs_input_grad[2:]
        budget = ctx.budget.next() if any(wanted[:anchors]) else ctx.budget
        if cotangent is None or last_derivative():
            return nothing  # no derivative can follow: there is nothing left to guard
        _, *tensors = ctx.saved_tensors
        results: list[Tensor | None] = [None, None]
        for index, tensor in enumerate(tensors):
            if not wanted[index]:
                results.append(None)
            elif index < anchors:
                results.append(_ZeroTerm.apply(budget, tensor.detach(), *tensors, cotangent))
            else:  # linear in an earlier cotangent: that slot now holds the new one, the order stays
                others = [cotangent if k == index else item for k, item in enumerate(tensors)]
                results.append(_ZeroTerm.apply(ctx.budget, tensor.detach(), *others))
        return tuple(results)

    @staticmethod
    def jvp(ctx: Any, _budget: None, _like: Tensor | None, *tangents: Tensor | None) -> Tensor:  # type: ignore[override]
        like, *tensors = ctx.saved_tensors
        anchors = ctx.budget.anchors
        moving = [tangent for tangent in tangents if tangent is not None]
        higher = any(tangent is not None for tangent in tangents[:anchors])
        budget = ctx.budget.next() if higher else ctx.budget
        return _ZeroTerm.apply(budget, like, *tensors, *moving)


def guard(z: Tensor, anchors: tuple[Tensor, ...], rule: str, limit: int) -> Tensor:
    """Z itself, made to raise `DerivativeOrderError` when differentiated more than `limit` times in the anchors.

    Args:
        z: the attached equilibrium [batch, ...].
        anchors: tensors through which it depends on all that it depends on (an evaluation of f does).
        rule: name of the gradient rule, for the message.
        limit: highest total order that is right.
    """
    watched = tuple(tensor for tensor in anchors if tensor.is_floating_point() or tensor.is_complex())
    if not watched:
        return z
    return z + _ZeroTerm.apply(_Budget(rule, 0, limit, len(watched)), z.detach(), *watched)
