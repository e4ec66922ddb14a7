"""Damped Picard iteration: the plain one, whose convergence is the contraction itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from deq.solvers.base import FixedPointSolver, Point, Problem, State, Step

__all__ = ["Picard"]


@dataclass(frozen=True)
class Picard(FixedPointSolver[State]):
    """z <- z + damping (f(z) - z). Cheapest step; needs log(tol) / log(q) of them for a contraction factor q.

    Attributes:
        damping: step length in (0, 2); below 1 it also converges for monotone f whose Jacobian has eigenvalues < -1.

    Raises:
        ValueError: damping is outside (0, 2).

    Example:
        >>> import torch, deq
        >>> solution = deq.solve(lambda z: 1 - z, torch.zeros(1, 1), solver=deq.Picard(damping=0.5))
        >>> float(solution.z)
        0.5
    """

    damping: float = 1.0
    name: ClassVar[str] = "picard"

    def __post_init__(self) -> None:
        if not 0 < self.damping < 2:
            raise ValueError(f"damping is {self.damping}; it must lie between 0 and 2 (1 is the plain iteration)")

    def init(self, point: Point) -> State:
        """No memory."""
        return State()

    def step(self, problem: Problem, point: Point, state: State) -> Step[State]:
        """One damped evaluation."""
        if self.damping == 1.0:
            return Step(point.value, state)
        return Step(torch.add(point.z, point.residual, alpha=self.damping), state)
