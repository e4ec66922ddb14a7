"""Chord iteration with one Jacobian for a whole batch: for maps h = W activation(h) + g of known W."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from deq.solvers.base import FixedPointSolver, Point, Problem, State, Step

__all__ = ["MeanChord"]


@dataclass(frozen=True)
class MeanChordState(State):
    """The transposed inverse of I - W mean(D) (in a tuple: it belongs to no sample), and how many steps were made."""

    inverse: tuple[Tensor, ...]
    count: int


@dataclass(frozen=True)
class MeanChord(FixedPointSolver[MeanChordState]):
    """h <- h + (I - W D)^{-1} (f(h) - h), D the mean slope over the batch: one small inverse serves all samples.

    Where the slopes of samples differ little from their mean it contracts fast, also when f hardly does; it may
    diverge where they differ much, and then the caller takes another solver.

    Attributes:
        weight: W, [n, n], detached.
        slope: elementwise derivative of the activation.
        refresh: steps before which the mean slope is taken anew; the step before the first of them is a Picard step.
    """

    weight: Tensor
    slope: Callable[[Tensor], Tensor]
    refresh: tuple[int, ...] = (1, 2, 4)
    name: ClassVar[str] = "mean-chord"

    def init(self, point: Point) -> MeanChordState:
        """No inverse yet."""
        return MeanChordState((), 0)

    def step(self, problem: Problem, point: Point, state: MeanChordState) -> Step[MeanChordState]:
        """One product with the inverse."""
        inverse = state.inverse
        if state.count in self.refresh:
            system = self.slope(point.z).mean(0).neg().unsqueeze(1) * self.weight.T
            system.diagonal().add_(1)
            inverse = (torch.linalg.inv_ex(system)[0],)
        following = MeanChordState(inverse, state.count + 1)
        if not inverse:
            return Step(point.value, following)
        return Step(torch.addmm(point.z, point.residual, inverse[0]), following)
