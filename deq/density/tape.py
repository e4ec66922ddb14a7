"""One evaluation of a function as a list of torch operations, with everything that it did in Python left behind.

The arguments go in as wrappers whose operations are noted below autograd (`__torch_dispatch__`). Tensors that do not
depend on the arguments are kept as they are, with their own graph, so that parameters get their derivatives when the
list is run again in another arithmetic (`deq.density.push`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from deq.interop.compilation import original
from deq.interop.private import disabled_torch_function, make_wrapper_subclass, tree_flatten, tree_map, tree_unflatten

__all__ = ["NotRecordable", "Operation", "Reference", "Step", "Tape", "record"]

# What the wrappers meet in the bookkeeping of autograd itself: the same tensor again.
_SAME = {torch.ops.aten.detach.default, torch.ops.aten.alias.default}


# Replaced for nested derivatives, but jets have rules for them.
WITH_RULES = (torch.nn.functional.layer_norm, torch.layer_norm)


class NotRecordable(Exception):
    """The function cannot be written as a list of operations; the message says why."""


@dataclass(frozen=True)
class Reference:
    """The result of an earlier operation, or an argument, by its place."""

    place: int


@dataclass(frozen=True)
class Operation:
    """One call.

    Attributes:
        call: the overload, such as `torch.ops.aten.mul.Tensor`.
        args: positional arguments, with `Reference` for what depends on the function's arguments.
        kwargs: the named ones.
        places: where its tensors go, None for a result that carries no derivative.
    """

    call: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    places: tuple[int | None, ...]


class Step:
    """An operation prepared for being run again.

    Args:
        operation: as it was noted.
        wanted: which of its results are used later.
        dead: places that no later operation uses.
    """

    def __init__(self, operation: Operation, wanted: tuple[bool, ...], dead: set[int]) -> None:
        self.call, self.places, self.wanted, self.dead = operation.call, operation.places, wanted, tuple(dead)
        self._args, self._kwargs = operation.args, operation.kwargs
        self._slots = [(i, item.place) for i, item in enumerate(operation.args) if isinstance(item, Reference)]
        inside = [item for item in operation.args if isinstance(item, (tuple, list))] + list(operation.kwargs.values())
        self._nested = bool(inside) and any(isinstance(item, Reference) for item in tree_flatten(inside)[0])

    def resolve(self, found: Mapping[int, Any]) -> tuple[tuple, dict[str, Any]]:
        """The arguments with what was found in the place of each reference."""
        if self._nested:
            made: tuple[tuple, dict[str, Any]] = tree_map(
                lambda item: found[item.place] if isinstance(item, Reference) else item, (self._args, self._kwargs),
                is_leaf=lambda item: isinstance(item, Reference))
            return made
        args = list(self._args)
        for i, place in self._slots:
            args[i] = found[place]
        return tuple(args), self._kwargs


@dataclass
class Tape:
    """The operations in order.

    Attributes:
        operations: the list.
        count: how many places there are; the first are the function's arguments.
        output: where its value is; None if no derivative reaches it.
        value: the value that was found, without a graph.
    """

    operations: list[Operation] = field(default_factory=list)
    count: int = 0
    output: int | None = None
    value: Tensor | None = None
    aliased: set[int] = field(default_factory=set)

    @cached_property
    def plan(self) -> list[Step]:
        """The operations that the output needs, ready to be run again; for a finished tape."""
        needed, plan = {self.output}, []
        for operation in reversed(self.operations):
            wanted = tuple(place is not None and place in needed for place in operation.places)
            if not any(wanted):
                continue
            used = {item.place for item in tree_flatten((operation.args, operation.kwargs))[0]
                    if isinstance(item, Reference)}
            # Reading backwards, what is met for the first time is used for the last time.
            plan.append(Step(operation, wanted, used - needed))
            needed |= used
        return plan[::-1]

    def place(self) -> int:
        """A new one."""
        self.count += 1
        return self.count - 1


class _Wrapper(torch.Tensor):
    """A tensor whose operations go to a tape."""

    _tape: Tape
    _plain: Tensor
    _place: int
    __torch_function__ = disabled_torch_function  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, tape: Tape, inner: Tensor, where: int) -> _Wrapper:
        made = make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=inner.device, requires_grad=False)
        made._tape, made._plain, made._place = tape, inner, where  # type: ignore[attr-defined]
        return made

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"<traced {list(self.shape)}>"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:  # type: ignore[override]
        simple = not kwargs and not any(isinstance(item, (tuple, list)) for item in args)
        flat, spec = (args, None) if simple else tree_flatten((args, kwargs or {}))
        traced = [item for item in flat if isinstance(item, _Wrapper)]
        tape = traced[0]._tape
        if func in _SAME:
            return _Wrapper(tape, traced[0]._plain, traced[0]._place)
        written = None
        if func._schema.is_mutable:
            func, written = _without_mutation(func, args, tape)
        plain = tuple(item._plain if isinstance(item, _Wrapper) else item for item in flat)
        # Whether a derivative flows into an argument is known only now: detaching leaves no other trace.
        noted = tuple(_noted(item) for item in flat)
        depends = any(isinstance(item, Reference) for item in noted)
        plain, noted = ((plain, {}), (noted, {})) if spec is None else (
            tree_unflatten(plain, spec), tree_unflatten(noted, spec))
        result = func(*plain[0], **plain[1])
        several = isinstance(result, (tuple, list))
        results = list(result) if several else [result]
        if any(isinstance(item, Tensor) and item.is_complex() for item in results):
            raise NotRecordable("complex numbers")
        places = tuple(tape.place() if isinstance(item, Tensor) and item.is_floating_point() else None
                       for item in results)
        if depends and any(place is not None for place in places):
            tape.operations.append(Operation(func, noted[0], noted[1], places))
        if any(item.alias_info is not None for item in func._schema.returns):
            tape.aliased.update(place for place in places if place is not None)
            tape.aliased.update(item._place for item in traced)
        if written is not None:
            written._plain, written._place = results[0], -1 if places[0] is None else places[0]
            return written
        made = [item if not isinstance(item, Tensor) else _Wrapper(tape, item, place if place is not None else -1)
                for item, place in zip(results, places, strict=True)]
        return type(result)(made) if several else made[0]


def _noted(item: Any) -> Any:
    if not isinstance(item, _Wrapper):
        return item
    return Reference(item._place) if item.requires_grad and item._place >= 0 else item._plain


def _without_mutation(func: Any, args: tuple, tape: Tape) -> tuple[Any, _Wrapper]:
    """The operation that gives the new value of the first argument, which is to be replaced by it."""
    target, name = args[0], func.overloadpacket.__name__
    packet = getattr(torch.ops.aten, name.removesuffix("_"), None)
    functional = getattr(packet, func._overloadname, None) if name.endswith("_") else None
    if functional is None or not isinstance(target, _Wrapper) or target._place in tape.aliased:
        raise NotRecordable(f"{name} changes a tensor that other tensors share")
    return functional, target


def record(function: Callable[..., Tensor], arguments: Sequence[Tensor],
           keep: Sequence[Callable[..., Any]] = WITH_RULES) -> Tape:
    """Evaluate function(*arguments) once and note its operations.

    Args:
        function: any number of tensors to one; run once, with autograd on.
        arguments: plain tensors, detached here.
        keep: operations that are not to be written out, although nested derivatives of them are wrong.

    Raises:
        NotRecordable: a custom autograd function, or a change in place of a shared tensor.
    """
    tape = Tape()
    wrapped = [_Wrapper(tape, item.detach(), tape.place()).requires_grad_() for item in arguments]
    try:
        with torch.enable_grad():
            value = original(function, keep)(*wrapped)
    except NotRecordable:
        raise
    except Exception as error:  # of the wrappers (a solver's loop, numpy): others meet the caller when f runs plainly
        raise NotRecordable(f"{type(error).__name__}: {error}") from error
    if not isinstance(value, _Wrapper):
        tape.value = value
        return tape
    _refuse_custom_functions(value)
    tape.value = value._plain
    tape.output = value._place if value.requires_grad and value._place >= 0 else None
    _require_closed(tape, len(wrapped))
    return tape


def _require_closed(tape: Tape, arguments: int) -> None:
    """Each tensor that carries a derivative must come from a noted operation (in scripted code some do not)."""
    made: set[int | None] = {None, *range(arguments)}
    for operation in tape.operations:
        used = {item.place for item in tree_flatten((operation.args, operation.kwargs))[0]
                if isinstance(item, Reference)}
        if not used <= made:
            break
        made.update(operation.places)
    else:
        if tape.output in made:
            return
    raise NotRecordable("a part of its graph was made elsewhere (scripted code)")


def _refuse_custom_functions(value: Tensor) -> None:
    """Its own backward pass, not the operations in its forward pass, is what a custom function's derivative is."""
    seen, stack = set(), [value.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            raise NotRecordable(f"the custom autograd function {node.name()}")
        stack.extend(parent for parent, _ in node.next_functions)
