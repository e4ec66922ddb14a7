"""Broyden's method with limited memory, safeguarded like Anderson acceleration."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from deq.linear.batched import dots, subtract
from deq.solvers.base import FixedPointSolver, Point, Problem, State, Step, choose
from deq.solvers.safeguard import Base, guard

__all__ = ["Broyden"]


@dataclass(frozen=True)
class Patience(State):
    """When to accelerate again after steps that did not pay."""

    base: Base
    rate: Tensor  # gain of the last Picard step, [batch]
    penalty: Tensor  # Picard steps that the last refusal cost, int64 [batch]
    wait: Tensor  # how many of them are left, int64 [batch]
    refused: Tensor  # whether the last iterate was refused, bool [batch]

    @classmethod
    def start(cls, point: Point) -> Patience:
        """Nothing has been refused yet."""
        none = torch.zeros_like(point.norm, dtype=torch.int64)
        return cls(Base.start(point), torch.ones_like(point.norm), none + 1, none, none.bool())


@dataclass(frozen=True)
class BroydenState(State):
    """The inverse Jacobian of z - f(z) as I + sum of left_i right_i^T."""

    left: Tensor  # [batch, memory, n]
    right: Tensor  # [batch, memory, n]
    last_z: Tensor  # [batch, n]
    last_residual: Tensor  # [batch, n]
    patience: Patience
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

    Example:
        >>> import torch, deq
        >>> solution = deq.solve(lambda z: 0.9 * torch.cos(z), torch.zeros(2, 3), solver=deq.Broyden())
        >>> bool(solution.converged.all())
        True
    """

    memory: int = 16
    name: ClassVar[str] = "broyden"

    def __post_init__(self) -> None:
        if self.memory < 1:
            raise ValueError(f"memory is {self.memory}; Broyden needs at least 1 (for none, use solver='picard')")

    def init(self, point: Point) -> BroydenState:
        """The identity."""
        batch, n = point.z.shape
        return BroydenState(point.z.new_empty(batch, self.memory, n), point.z.new_empty(batch, self.memory, n),
                            point.z, point.residual, Patience.start(point), 0, False)

    def step(self, problem: Problem, point: Point, state: BroydenState) -> Step[BroydenState]:
        """One rank-one update, in place: nobody else holds the memory."""
        if not state.started:
            return Step(point.value, replace(state, started=True))
        count = state.count if state.count < self.memory else 0
        left, right = state.left[:, :count], state.right[:, :count]
        s = point.z - state.last_z
        y = state.last_residual - point.residual
        image, direction, covector = y, point.residual, s
        if count:
            image = subtract(y, -dots(right, y), left)
            direction = subtract(direction, -dots(right, direction), left)
            covector = subtract(s, -dots(left, s), right)
        curvature = torch.linalg.vecdot(s, image)
        # An update by a vanishing curvature is rounding error magnified: leave it out.
        floor = torch.linalg.vector_norm(s, dim=1) * torch.linalg.vector_norm(image, dim=1)
        usable = curvature.abs() > torch.finfo(s.dtype).eps ** 0.5 * floor
        inverse = torch.where(usable, 1 / curvature, 0.0)
        new_left = (s - image) * inverse.unsqueeze(1)
        state.left[:, count] = new_left
        state.right[:, count] = covector
        direction = torch.addcmul(direction, new_left, torch.linalg.vecdot(covector, point.residual).unsqueeze(1))
        z, patience = self._hold_back(point.z + direction, point, state.patience)
        forget = patience.refused
        if forget.is_cuda:
            state.left[:, : count + 1].masked_fill_(forget.view(-1, 1, 1), 0.0)
        elif not point.improved:
            state.left[forget.nonzero().squeeze(1), : count + 1] = 0.0
        return Step(z, BroydenState(state.left, state.right, point.z, point.residual, patience, count + 1, True))

    def _hold_back(self, z: Tensor, point: Point, patience: Patience) -> tuple[Tensor, Patience]:
        """Take Picard steps where the accelerated ones do not pay; unlike Anderson's, they may gain less than those.

        One that gains less than the square root of the last Picard step's gain is followed by a Picard step; one that
        is refused by 2, 4, ... 32 of them, so that the worst case costs hardly more than the Picard iteration.
        """
        gain = point.norm / patience.base.norm
        accelerated = patience.base.accelerated
        z, base, refused = guard(z, point, patience.base)
        refused = torch.zeros_like(accelerated) if refused is None else refused
        rate = torch.where(accelerated, patience.rate, gain.clamp(max=1.0))
        slow = accelerated & ~refused & (gain > rate.sqrt())
        penalty = torch.where(refused, (2 * patience.penalty).clamp(max=32),
                              torch.where(accelerated & ~slow, 1, patience.penalty))
        wait = torch.where(refused, penalty, (patience.wait - 1).clamp(min=0))
        plain = (slow | (wait > 0)) & ~refused
        z = choose(plain, point.value, z)
        return z, Patience(replace(base, accelerated=base.accelerated & ~plain), rate, penalty, wait, refused)
