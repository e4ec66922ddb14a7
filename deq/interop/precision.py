"""Keep torch.autocast out of fixed points: a map rounded to half precision has no fixed point to a useful tolerance."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

__all__ = ["autocast_active", "full_precision", "in_full_precision", "refuse_autocast", "shield_graph",
           "without_autocast"]

P = ParamSpec("P")
R = TypeVar("R")


def autocast_active(tensor: Tensor) -> bool:
    """Whether autocast is on for the tensor's device."""
    kind = tensor.device.type
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)


def in_full_precision(tensor: Tensor) -> Tensor:
    """The tensor in float32 if it is of half precision (float16, bfloat16), differentiable; others as they are."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def refuse_autocast(tensor: Tensor, what: str) -> None:
    """Raise RuntimeError if autocast is on: for what runs in graphs of f's own operations, out of our reach."""
    if autocast_active(tensor):
        raise RuntimeError(f"{what} was asked for under torch.autocast, which would round it to half precision without "
                           "a word; leave the autocast region for it: with torch.autocast(device_type, enabled=False)")


def shield_graph(value: Tensor, inner: Tensor) -> None:
    """Make the part of a graph between `inner` and `value` run without autocast in backward, whoever asks for it.

    Args:
        value: the result, with its graph.
        inner: made right before that part; what is older is left alone.
    """
    kind = value.device.type
    assert inner.grad_fn is not None
    floor = inner.grad_fn._sequence_nr()
    states: list[bool] = []

    def enter(_: object) -> None:
        states.append(torch.is_autocast_enabled(kind))
        torch.set_autocast_enabled(kind, False)

    def leave(_: object, __: object) -> None:
        torch.set_autocast_enabled(kind, states.pop())

    seen: set[object] = set()
    stack = [value.grad_fn]
    while stack:
        node = stack.pop()
        # Nodes that accumulate into leaves have no place in that order.
        if node is None or node in seen or node._sequence_nr() <= floor or hasattr(node, "variable"):
            continue
        seen.add(node)
        node.register_prehook(enter)
        node.register_hook(leave)
        stack.extend(edge for edge, _ in node.next_functions)


def without_autocast(tensor: object) -> AbstractContextManager:
    """A context in which products on the tensor's device have the dtype of their arguments."""
    if isinstance(tensor, Tensor) and autocast_active(tensor):
        return torch.autocast(tensor.device.type, enabled=False)
    return nullcontext()


def full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Run a function without autocast on the device of its first tensor argument.

    A backward pass runs under the autocast state of whoever asks for it, so every pass that evaluates f needs this,
    not only the forward one.
    """
    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with without_autocast(next((item for item in (*args, *kwargs.values()) if isinstance(item, Tensor)), None)):
            return function(*args, **kwargs)
    return run
