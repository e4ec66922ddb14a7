"""Newton-Krylov: few steps, each a matrix-free linear solve with Jacobian products of f."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from deq.linear.gmres import gmres
from deq.solvers.base import FixedPointSolver, Point, Problem, State, Step

__all__ = ["Newton"]


@dataclass(frozen=True)
class NewtonState(State):
    """What the forcing term needs."""

    norm: Tensor  # residual norm of the iterate before, [batch]


@dataclass(frozen=True)
class Newton(FixedPointSolver[NewtonState]):
    """Inexact Newton on z - f(z): GMRES on (I - df/dz) d = f(z) - z with torch.func.jvp, then backtracking.

    It also finds fixed points where f does not contract. f must support forward-mode differentiation. The linear
    systems are solved to the forcing term of Eisenstat and Walker (SIAM J. Sci. Comput. 17, 1996, choice 2), never
    further than the tolerance of the solve needs. A step is halved until the residual falls.

    Attributes:
        krylov_iterations: limit on the Jacobian products of one step.
        restart: length of a GMRES cycle; memory is that many iterates.
        forcing: largest relative tolerance of a linear solve, in (0, 1).
        halvings: limit on the halvings of a step.

    Raises:
        ValueError: a value is out of range.

    Example:
        >>> import torch, deq
        >>> expanding = lambda z: 1.5 * z + 1  # no iteration finds its fixed point
        >>> solution = deq.solve(expanding, torch.zeros(1, 1), solver=deq.Newton())
        >>> round(float(solution.z), 4)
        -2.0
    """

    krylov_iterations: int = 200
    restart: int = 40
    forcing: float = 0.1
    halvings: int = 10
    name: ClassVar[str] = "newton"

    def __post_init__(self) -> None:
        for name in ("krylov_iterations", "restart"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 < self.forcing < 1:
            raise ValueError(f"forcing is {self.forcing}; it must lie between 0 and 1")
        if self.halvings < 0:
            raise ValueError(f"halvings is {self.halvings}; it must not be negative")

    def init(self, point: Point) -> NewtonState:
        """No earlier residual."""
        return NewtonState(torch.full_like(point.norm, torch.inf))

    def step(self, problem: Problem, point: Point, state: NewtonState) -> Step[NewtonState]:
        """One linear solve and one line search."""
        reduction = (point.norm / state.norm).nan_to_num(1.0)
        first = state.norm.isinf()
        rtol = torch.where(first, self.forcing, (0.9 * reduction.square()).clamp(max=self.forcing))
        # Half the tolerance is enough for the last step; below 100 eps no linear solve gets.
        enough = (0.5 * point.limit / point.norm).nan_to_num(1.0, posinf=1.0)
        rtol = torch.maximum(rtol, enough.clamp(max=self.forcing)).clamp(min=100 * torch.finfo(rtol.dtype).eps)
        linear = gmres(problem.residual_product(point.z), point.residual, rtol=rtol, max_iter=self.krylov_iterations,
                       restart=self.restart)
        return self._search(problem, point, linear.value)

    def _search(self, problem: Problem, point: Point, direction: Tensor) -> Step[NewtonState]:
        """Halve the step of each sample until its residual falls (NaN counts as not falling)."""
        length = torch.ones_like(point.norm)
        finished = point.norm == 0
        for attempt in range(self.halvings + 1):
            z = torch.addcmul(point.z, length.unsqueeze(1), direction)
            value = problem.evaluate(z)
            norm = torch.linalg.vector_norm(value - z, dim=1)
            good = finished | (norm <= (1 - 1e-4 * length) * point.norm)
            if attempt == self.halvings or bool(good.all()):
                break
            length = torch.where(good, length, 0.5 * length)
        return Step(z, NewtonState(point.norm), value, ~good)
