"""Closure conversion: make the tensors that a map closes over explicit, so that gradient rules can carry them.

A user's `f(z)` closes over inputs and parameters. Custom autograd functions and `torch.func` transforms only see
tensors that are passed to them, so `close` runs f once, watches which outside tensors it touches, and returns a map
`F(z, *captured)` in which any of them can be replaced (detached, batched by vmap, moved to another transform level).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from deq.interop.compilation import original
from deq.status import MapError

Map = Callable[..., Tensor]


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in a (nested) argument or result."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)


class _Capture(TorchFunctionMode):
    """Watches torch calls and notes each tensor that was not made by an earlier one."""

    def __init__(self, argument: Tensor) -> None:
        super().__init__()
        self.inside: dict[int, Tensor] = {id(argument): argument}
        # Weak, because a tensor that f itself makes out of our sight (by autograd.grad inside f, say) is no closure
        # variable: it dies with the call and must be made afresh at the next one.
        self.outside: dict[int, weakref.ref[Tensor]] = {}

    def __torch_function__(self, func: Callable, types: Sequence, args: tuple = (), kwargs: dict | None = None) -> Any:
        for tensor in _tensors((args, kwargs or {})):
            if id(tensor) not in self.inside and not self._is_outside(tensor):
                self.outside[id(tensor)] = weakref.ref(tensor)
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            if not self._is_outside(tensor):
                self.inside[id(tensor)] = tensor
        return result

    def _is_outside(self, tensor: Tensor) -> bool:
        reference = self.outside.get(id(tensor))
        return reference is not None and reference() is tensor


class _Substitute(TorchFunctionMode):
    """Replaces captured tensors by others in every torch call."""

    def __init__(self, replacement: Mapping[int, Tensor]) -> None:
        super().__init__()
        self.replacement = replacement

    def _replace(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self.replacement.get(id(value), value)
        if isinstance(value, (tuple, list)):
            items = [self._replace(item) for item in value]
            if hasattr(value, "_fields"):
                return type(value)(*items)
            return type(value)(items) if type(value) in (tuple, list) else value
        return value

    def __torch_function__(self, func: Callable, types: Sequence, args: tuple = (), kwargs: dict | None = None) -> Any:
        named = {name: self._replace(value) for name, value in kwargs.items()} if kwargs else {}
        return func(*(self._replace(item) for item in args), **named)


@dataclass(frozen=True)
class ClosedMap:
    """A map `F(z, *captured)` with explicit captured tensors.

    Attributes:
        function: the user's f, closing over `captured`; not its compiled code.
        captured: what it closes over, in the order of first use.
    """

    function: Map
    captured: tuple[Tensor, ...]

    def __call__(self, z: Tensor, *captured: Tensor) -> Tensor:
        """F at z with the given tensors in the place of the captured ones."""
        if all(new is old for new, old in zip(captured, self.captured, strict=True)):
            return self.function(z)
        with _Substitute({id(old): new for old, new in zip(self.captured, captured, strict=True)}):
            return self.function(z)


def _explain_mismatch(z: Tensor, watch: _Capture, error: Exception) -> None:
    """Raise an error that names the tensor which does not go with z, if there is one."""
    for reference in watch.outside.values():
        other = reference()
        if other is None or not other.is_floating_point() or (other.dtype, other.device) == (z.dtype, z.device):
            continue
        raise ValueError(
            f"z0 is {z.dtype} on {z.device}, but f uses a tensor of shape {tuple(other.shape)}, {other.dtype} on "
            f"{other.device}; convert or move z0 (or that tensor) so that they agree") from error


def explain_failure(function: Map, z: Tensor, error: Exception) -> None:
    """Raise a better error where f failed at z because a tensor that it uses does not go with z."""
    watch = _Capture(z)
    try:
        with torch.no_grad(), watch:
            original(function)(z)
    except (RuntimeError, TypeError):
        _explain_mismatch(z, watch, error)


def require_closed(function: Map, z: Tensor, captured: Sequence[Tensor]) -> None:
    """Refuse a closed map that still uses tensors out of sight: one evaluation with plain tensors in all places.

    Args:
        function: F(z, *captured).
        z: plain, [batch, ...].
        captured: plain.

    Raises:
        MapError: the value still hangs on a tensor that was not found.
    """
    with torch.enable_grad():
        value = function(z.detach(), *(tensor.detach() for tensor in captured))
    if isinstance(value, Tensor) and (value.requires_grad or torch._C._functorch.is_functorch_wrapped_tensor(value)):
        raise MapError(
            "under a torch.func transform, f uses a tensor in a way that cannot be followed there (a custom "
            "autograd.Function, torch.vmap or torch.func.grad inside f, an equilibrium inside f, a hook, a cache), and "
            "its derivative would be lost. Differentiate by torch.autograd (torch.autograd.grad, .backward()), which "
            "takes every f, or write f in plain torch operations")


def close(function: Map, z: Tensor) -> tuple[ClosedMap, Tensor]:
    """Find what `function` closes over by running it at z: once to fill its caches, once to watch it.

    Args:
        function: f(z), made of torch operations; deterministic.
        z: a point of its domain.

    Returns:
        The closed map, and f(z).

    Raises:
        ValueError: f failed, and a tensor that it uses has another dtype or device than z.
    """
    function, watch = original(function), _Capture(z)
    try:
        # What f keeps from its first call must carry a graph, and belongs to what it closes over from then on.
        with torch.enable_grad():
            function(z)
        with torch.no_grad(), watch:
            value = function(z)
    except (RuntimeError, TypeError) as error:
        _explain_mismatch(z, watch, error)
        raise
    watch.inside.clear()
    alive = (reference() for reference in watch.outside.values())
    captured = tuple(tensor for tensor in alive if tensor is not None and tensor is not value)
    return ClosedMap(function, captured), value
