"""What somebody's own solver does: the values of f that it saw, without changing f or the solver."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

from torch import nn

__all__ = ["Calls", "traced"]

#: Evaluations kept.
MOST = 400


class Calls:
    """Calls of one function while a block runs: what `summarise(arguments, value)` returned for each.

    Attributes:
        found: the summaries, in order.
        count: how many calls returned.
    """

    def __init__(self, f: Callable[..., Any], summarise: Callable[[Any, Any], Any]) -> None:
        inner: Any = f.forward if isinstance(f, nn.Module) else f
        inner = getattr(inner, "__func__", inner)
        self._code = inner.__code__ if isinstance(inner, types.FunctionType) else None
        self._bound = isinstance(f, nn.Module | types.MethodType)
        self._summarise = summarise
        self._owner = f if isinstance(f, nn.Module) else getattr(f, "__self__", None)
        self.found: list[Any] = []
        self.count = 0

    def __enter__(self) -> Calls:
        self._on = self._code is not None and sys.getprofile() is None  # a profiler of the user's goes before
        if self._on:
            sys.setprofile(self._look)
        return self

    def __exit__(self, *_: object) -> None:
        if self._on:
            sys.setprofile(None)

    def _look(self, frame: types.FrameType, event: str, argument: Any) -> None:
        if event != "return" or frame.f_code is not self._code or argument is None:
            return
        names = frame.f_code.co_varnames[:frame.f_code.co_argcount]
        if self._bound and (not names or frame.f_locals.get(names[0]) is not self._owner):
            return
        state = names[1 if self._bound else 0:][:1]
        if not state:
            return
        self.count += 1
        if len(self.found) >= MOST:
            return
        sys.setprofile(None)  # what is computed here is not the owner's
        try:
            self.found.append(self._summarise(frame.f_locals[state[0]], argument))
        except Exception:  # a name that f has bound anew, a value of another shape: not a step of a solver
            self.count -= 1
        finally:
            sys.setprofile(self._look)


def traced(f: Callable[..., Any], summarise: Callable[[Any, Any], Any]) -> Calls:
    """Watch a function while a block runs."""
    return Calls(f, summarise)
