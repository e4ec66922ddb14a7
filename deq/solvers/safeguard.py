"""The safeguard of the accelerated solvers: an iterate worse than the one it came from is dropped for a Picard step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from deq.solvers.base import Point, State, choose

__all__ = ["Base", "guard"]


@dataclass(frozen=True)
class Base(State):
    """The last accepted iterate of every sample.

    Attributes:
        value: f there, [batch, n].
        norm: residual norm there, [batch].
        accelerated: whether the iterate after it is an accelerated one (a Picard step is never refused), bool [batch].
    """

    value: Tensor
    norm: Tensor
    accelerated: Tensor

    @classmethod
    def start(cls, point: Point) -> Base:
        """The first iterate, which a Picard step follows."""
        return cls(point.value, point.norm, torch.zeros_like(point.norm, dtype=torch.bool))


def guard(z: Tensor, point: Point, base: Base) -> tuple[Tensor, Base, Tensor | None]:
    """Replace the proposal by the Picard step from the base where the current iterate is worse than the base.

    For a contraction with factor q two evaluations so gain at least q.

    Args:
        z: accelerated proposal from ``point``, [batch, n].
        point: current iterate.
        base: the iterate that the current one came from.

    Returns:
        The next iterate, the new base, and the samples that were refused, bool [batch] (None for none).
    """
    if point.improved:
        return z, Base(point.value, point.norm, torch.ones_like(base.accelerated)), None
    worse = base.accelerated & (point.norm > base.norm)
    return choose(worse, base.value, z), Base(choose(worse, base.value, point.value),
                                              torch.where(worse, base.norm, point.norm), ~worse), worse
