"""Jets through a recorded function: each operation maps value, first derivatives and Laplacian by a rule of its own.

A linear operation acts on all three parts alike. An elementwise one needs its first two derivatives and the sum of the
squared first derivatives; a product is bilinear. So a Laplacian over d directions costs d + 2 passes, and nothing with
two directions in it is ever formed ("collapsed" Taylor mode). An operation without a rule is differentiated by nested
reverse mode, which is slower and as right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from deq.density import rules_nonlinear, rules_shape
from deq.density.jet import Jet
from deq.density.products import directional, directional_twice
from deq.density.rules import RULES
from deq.density.tape import Tape
from deq.interop.private import tree_flatten, tree_unflatten
from deq.status import DerivativeOrderError

__all__ = ["WRONG_THIRD", "push", "push_operation"]
assert rules_shape.__doc__ is not rules_nonlinear.__doc__  # imported because they fill RULES

_ATEN = torch.ops.aten
# Their second derivatives are right, their third (a parameter's derivative of a Laplacian) are not.
WRONG_THIRD = {_ATEN.native_batch_norm.default, _ATEN._native_batch_norm_legit.default,
               _ATEN._native_batch_norm_legit.no_stats, _ATEN.cudnn_batch_norm.default}


def push(tape: Tape, arguments: Sequence[Any]) -> Any:
    """The jet of the recorded function at the jets of its arguments, at whose values it was recorded.

    Args:
        tape: of the function.
        arguments: one jet each, all along the same directions (`laplacian` None in all where only first derivatives are
            wanted), or a tensor for an argument that is held fixed.

    Returns:
        The jet of the value; its value alone, with its graph, where no argument is a jet.

    Raises:
        DerivativeOrderError: an operation in it has wrong or no derivatives of this order.
    """
    found: dict[int, Any] = dict(enumerate(arguments))
    moving = [item for item in arguments if isinstance(item, Jet)]

    for step in tape.plan:
        args, kwargs = step.resolve(found)
        results = push_operation(step.call, args, kwargs, step.wanted)
        for place, wanted, result in zip(step.places, step.wanted, results, strict=True):
            if wanted and place is not None and result is not None:
                found[place] = result
        for place in step.dead:
            del found[place]  # fresh memory is dear: give it back at once
    made = tape.value if tape.output is None else found[tape.output]
    assert made is not None
    if isinstance(made, Jet) or not moving:
        return made
    zero = made.new_zeros(()).expand(made.shape)
    return Jet(made, zero.expand(len(moving[0].first), *zero.shape), None if moving[0].laplacian is None else zero)


def push_operation(call: Any, args: tuple, kwargs: dict[str, Any], wanted: Sequence[bool]) -> Sequence[Any]:
    """The jets of the results of one operation, of those that are wanted; tensors where no argument is a jet."""
    if not any(isinstance(item, Jet) for item in args) and not _nested_jets(args, kwargs):
        made = call(*args, **kwargs)
        return made if isinstance(made, (tuple, list)) else (made,)
    rule = RULES.get(call)
    made = NotImplemented if rule is None else rule(call, *args, **kwargs)
    if made is NotImplemented:
        made = _by_reverse_mode(call, args, kwargs, wanted)
    return made if isinstance(made, (tuple, list)) else (made,)


def _nested_jets(args: tuple, kwargs: dict[str, Any]) -> bool:
    """Whether there are jets in lists or named arguments."""
    if not kwargs and not any(isinstance(item, (tuple, list)) for item in args):
        return False
    return any(isinstance(item, Jet) for item in tree_flatten((args, kwargs))[0])


def _by_reverse_mode(call: Callable, args: tuple, kwargs: dict[str, Any],
                     wanted: Sequence[bool]) -> tuple[Jet | None, ...]:
    """An operation by nested pullbacks: for its results one after another."""
    if call in WRONG_THIRD:
        raise DerivativeOrderError(f"torch's higher derivatives of {call} are wrong, and this call of it cannot be "
                                   f"replaced; write the normalisation out")
    flat, spec = tree_flatten((args, kwargs), is_leaf=lambda item: isinstance(item, Jet))
    slots = [i for i, item in enumerate(flat) if isinstance(item, Jet)]
    jets = [flat[i] for i in slots]
    primals = tuple(jet.value for jet in jets)

    def run(*values: Tensor) -> Any:
        items = list(flat)
        for i, value in zip(slots, values, strict=True):
            items[i] = value
        inner_args, inner_kwargs = tree_unflatten(items, spec)
        return call(*inner_args, **inner_kwargs)

    results = run(*primals)
    results = results if isinstance(results, (tuple, list)) else (results,)
    made = tuple(_one_result(run, index, primals, jets, value, str(call)) if wanted[index] else None
                 for index, value in enumerate(results))
    if any(t.requires_grad for t in tree_flatten([flat, [(j.value, j.first, j.laplacian) for j in jets]])[0]
           if isinstance(t, Tensor)):
        return made
    return tuple(None if jet is None else jet.detached() for jet in made)  # the graph leads to stand-ins alone


def _one_result(run: Callable[..., Any], index: int, primals: tuple[Tensor, ...], jets: Sequence[Jet],
                value: Tensor, name: str) -> Jet:
    def one(*values: Tensor) -> Tensor:
        result = run(*values)
        return result[index] if isinstance(result, (tuple, list)) else result

    second_order = jets[0].laplacian is not None

    def along(*direction: Tensor) -> tuple[Tensor, Tensor]:
        if second_order:
            return directional_twice(one, primals, direction)
        first = directional(one, primals, direction)
        return first, first

    try:
        parts = [along(*(jet.first[i] for jet in jets)) for i in range(len(jets[0].first))]
        first = torch.stack([part[0] for part in parts])
        if not second_order:
            return Jet(value, first, None)
        laplacian = directional(one, primals, tuple(jet.laplacian for jet in jets))  # type: ignore[misc]
    except (RuntimeError, NotImplementedError) as error:
        raise DerivativeOrderError(
            f"torch has no second derivative of {name} ({str(error)[:120]}); write the operation out, or differentiate "
            f"with mode='reverse' and deq.Exact(order=3)") from error
    return Jet(value, first, laplacian + torch.stack([part[1] for part in parts]).sum(0))
