"""The answer of a solve: the best iterate of every sample, how good it is, and how the solver ended."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor

from deq.status import NotConverged, SolveStatus

__all__ = ["Solution"]


@dataclass(frozen=True, repr=False)
class Solution:
    """The result of ``deq.solve`` for a batch.

    Attributes:
        z: best iterate found, [batch, ...].
        converged: whether the residual, recomputed at ``z``, meets the tolerance, bool [batch].
        residual: absolute 2-norm |f(z) - z| over the trailing dimensions, [batch].
        iterations: solver steps until the sample finished, int64 [batch].
        evaluations: evaluations of f (and Jacobian products) until then, with the final check, int64 [batch].
        status: codes of ``SolveStatus``, int64 [batch].
        tolerance: the bound atol + rtol |f(z)| that ``residual`` is held against, [batch].
        solver: name of the solver.
        rounding: unit of rounding of f's dtype where that is coarser than the dtype that z is iterated in, else None.

    Example:
        >>> import torch, deq
        >>> solution = deq.solve(lambda z: 0.5 * z + 1, torch.zeros(3, 2), solver="picard")
        >>> solution.z.shape, solution.iterations.shape, solution.converged.tolist()
        (torch.Size([3, 2]), torch.Size([3]), [True, True, True])
    """

    z: Tensor
    converged: Tensor
    residual: Tensor
    iterations: Tensor
    evaluations: Tensor
    status: Tensor
    tolerance: Tensor
    solver: str
    rounding: float | None = None

    def statuses(self) -> list[SolveStatus]:
        """The status of every sample, in order."""
        return [SolveStatus.from_code(code) for code in self.status.tolist()]

    def counts(self) -> dict[SolveStatus, int]:
        """How many samples ended with each status, most frequent first."""
        return dict(Counter(self.statuses()).most_common())

    def worst(self) -> int:
        """Index of the sample whose residual exceeds its tolerance most (NaN counts as worst).

        Raises:
            ValueError: the batch is empty.
        """
        if not len(self.status):
            raise ValueError("an empty batch has no worst sample")
        ratio = self.residual / self.tolerance
        # A NaN in either means nothing is known; zero over zero (an exact answer to tolerance 0) is no excess.
        met = self.residual <= self.tolerance
        ratio = torch.where(met, ratio.nan_to_num(0.0).clamp(max=1.0), ratio.nan_to_num(torch.inf))
        return int(ratio.argmax())

    def summary(self) -> str:
        """One line: solver, counts by status, iterations and worst residual."""
        total = len(self.status)
        if not total:
            return f"{self.solver}: empty batch"
        counts = ", ".join(f"{count} {status.name}" for status, count in self.counts().items())
        worst = self.worst()
        steps = self.iterations.double()
        return (f"{self.solver}: {counts} of {total} samples; iterations mean {steps.mean():.1f}, "
                f"max {int(steps.max())}; worst residual {self.residual[worst]:.2e} against tolerance "
                f"{self.tolerance[worst]:.2e}")

    def explain(self) -> str:
        """The summary, followed by what each failure means and what to do about it."""
        lines = [self.summary()]
        for status, count in self.counts().items():
            if status is SolveStatus.CONVERGED:
                continue
            lines.append(f"  {status.name} ({count}): {status.value}")
            if status is SolveStatus.STAGNATED:
                reach = (self.residual / self.tolerance)[self.status == status.code].max()
                lines.append(f"    Reachable here: a tolerance about {2 * float(reach):.2g} times the one asked for.")
            lines.append(f"    More: {status.page}")
        return "\n".join(lines)

    def raise_if_failed(self) -> Solution:
        """Return self when every sample converged.

        Raises:
            NotConverged: at least one did not; the error carries this solution.
        """
        if not bool(self.converged.all()):
            raise NotConverged(self)
        return self

    def __repr__(self) -> str:
        return f"Solution(z={tuple(self.z.shape)}, {self.summary()})"
