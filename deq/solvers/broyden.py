"""Broyden's method with limited memory, safeguarded like Anderson acceleration."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from deq.solvers.base import FixedPointSolver, Point, Problem, State, Step
from deq.solvers.safeguard import Base, guard

__all__ = ["Broyden"]


@dataclass(frozen=True)
class BroydenState(State):
    """The inverse Jacobian of z - f(z) as I + sum of left_i right_i^T."""

    left: Tensor  # [batch, memory, n]
    right: Tensor  # [batch, memory, n]
    last_z: Tensor  # [batch, n]
    last_residual: Tensor  # [batch, n]
    base: Base
    count: int  # updates since the last restart
    started: bool


@dataclass(frozen=True)
class Broyden(FixedPointSolver[BroydenState]):
    """Broyden's first ("good") method on z - f(z), starting from the identity.

    With y the change of z - f(z) and s the change of z, H <- H + (s - H y) s^T H / (s^T H y) (Broyden, Math. Comp. 19,
    1965). It starts afresh when the memory is full. It needs fewer evaluations than Anderson acceleration where a few
    eigenvalues of df/dz are far out, more memory, and it can be misled by strong nonlinearity; refused samples forget.

    Attributes:
        memory: number of rank-one updates kept.

    Raises:
        ValueError: memory is below 1.
    """

    memory: int = 16
    name: ClassVar[str] = "broyden"

    def __post_init__(self) -> None:
        if self.memory < 1:
            raise ValueError(f"memory is {self.memory}; Broyden needs at least 1 (for none, use solver='picard')")

    def init(self, point: Point) -> BroydenState:
        """The identity."""
        batch, n = point.z.shape
        return BroydenState(point.z.new_zeros(batch, self.memory, n), point.z.new_zeros(batch, self.memory, n),
                            point.z, point.residual, Base.start(point), 0, False)

    def step(self, problem: Problem, point: Point, state: BroydenState) -> Step[BroydenState]:
        """One rank-one update, in place: nobody else holds the memory."""
        if not state.started:
            return Step(point.value, replace(state, started=True))
        count = state.count if state.count < self.memory else 0
        left, right = state.left[:, :count], state.right[:, :count]
        s = point.z - state.last_z
        y = state.last_residual - point.residual
        pair = torch.stack((y, point.residual), 1)
        if count:
            images = torch.baddbmm(pair, torch.bmm(pair, right.mT), left)
            covector = torch.baddbmm(s.unsqueeze(1), torch.bmm(s.unsqueeze(1), left.mT), right).squeeze(1)
        else:
            images, covector = pair, s
        image = images[:, 0]
        curvature = torch.linalg.vecdot(s, image)
        # An update by a vanishing curvature is rounding error magnified: leave it out.
        floor = torch.linalg.vector_norm(s, dim=1) * torch.linalg.vector_norm(image, dim=1)
        usable = curvature.abs() > torch.finfo(s.dtype).eps ** 0.5 * floor
        inverse = torch.where(usable, 1 / curvature, 0.0)
        new_left = (s - image) * inverse.unsqueeze(1)
        state.left[:, count] = new_left
        state.right[:, count] = covector
        direction = torch.addcmul(images[:, 1], new_left, torch.linalg.vecdot(covector, point.residual).unsqueeze(1))
        z, base, refused = guard(point.z + direction, point, state.base)
        if refused is not None:
            state.left[:, : count + 1].masked_fill_(refused.view(-1, 1, 1), 0.0)
        return Step(z, BroydenState(state.left, state.right, point.z, point.residual, base, count + 1, True))
