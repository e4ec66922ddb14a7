"""Who listens to solved equilibria. `deq.equilibrium` announces each; nothing happens where nobody listens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

__all__ = ["Solved", "announce", "listening", "subscribe", "unsubscribe"]


@dataclass(frozen=True)
class Solved:
    """An equilibrium that training has just found.

    Attributes:
        f: the map, f(z, *inputs).
        inputs: its inputs.
        z: the equilibrium, [batch, ...].
        rule: how it is differentiated, or None where that is not known.
        iterations: of the solver, worst sample, or None.
    """

    f: Callable[..., Any]
    inputs: tuple[Any, ...]
    z: Tensor
    rule: Any
    iterations: int | None


Listener = Callable[[Solved], None]
_LISTENERS: list[Listener] = []


def listening() -> bool:
    """Whether anybody listens."""
    return bool(_LISTENERS)


def subscribe(listener: Listener) -> None:
    """Call `listener` at every equilibrium from now on."""
    _LISTENERS.append(listener)


def unsubscribe(listener: Listener) -> None:
    """Stop that; nothing happens where it did not listen."""
    if listener in _LISTENERS:
        _LISTENERS.remove(listener)


def announce(event: Solved) -> None:
    """Tell all listeners."""
    for listener in tuple(_LISTENERS):
        listener(event)
