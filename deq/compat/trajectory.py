"""Iterates of a fixed-point solver by step, and the residuals on the way, as torchdeq reports them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from deq.linear.jacobian import as_rows
from deq.solvers import solve

__all__ = ["Statistics", "run"]

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Statistics:
    """Residuals |f(z) - z| of a solve.

    Attributes:
        lowest: least absolute and least relative residual of each sample, two tensors [batch].
        steps: the step of the former in the stop mode, [batch].
        traces: absolute and relative residuals by step, two tensors [batch, steps].
    """

    lowest: tuple[Tensor, Tensor]
    steps: Tensor
    traces: tuple[Tensor, Tensor]

    def as_dict(self, radius: Tensor) -> dict[str, Tensor]:
        """The names that torchdeq gives them."""
        return {"abs_lowest": self.lowest[0], "rel_lowest": self.lowest[1], "nstep": self.steps,
                "abs_trace": self.traces[0], "rel_trace": self.traces[1], "sradius": radius}


@torch.no_grad()
def run(f: Map, z: Tensor, *, solver: str, limit: int, tolerance: float, mode: str, marks: Sequence[int],
        damping: float) -> tuple[Tensor, list[Tensor], Statistics]:
    """Solve, and return the best iterate, the best ones at the marked steps, and the residuals.

    Args:
        f: the map, [batch, ...] -> [batch, ...].
        z: start.
        solver: "fixed_point_iter", "simple_fixed_point_iter" (no test, all steps), "anderson" or "broyden".
        limit: number of steps.
        tolerance: for the largest residual of the batch.
        mode: "abs" or "rel".
        marks: steps at which the state is wanted; where the solve ends before the first, its end is the only one.
        damping: share of f(z) in a step of plain iteration.
    """
    if solver in ("anderson", "broyden"):
        return _by_solver(f, z, solver, limit, tolerance, mode, marks)
    tested = solver == "fixed_point_iter"
    value, best, found = z, z, []
    size = z.new_full((len(z),), torch.inf)
    lowest, steps = [size, size], torch.zeros_like(size)
    traces: list[list[Tensor]] = [[], []]
    for step in range(1, limit + 1):
        z = value
        value = f(z) if damping == 1 else damping * f(z) + (1 - damping) * z
        sizes = _residuals(value, z)
        better = sizes[mode == "rel"] < lowest[mode == "rel"] if tested else torch.ones_like(size, dtype=torch.bool)
        best = torch.where(better.reshape(-1, *(1,) * (z.dim() - 1)), value, best)
        steps = torch.where(better, float(step), steps)
        for kind in (0, 1):
            lowest[kind] = torch.minimum(lowest[kind], sizes[kind])
            traces[kind].append(sizes[kind])
        if step in marks:
            found.append(best)
        if tested and bool(sizes[mode == "rel"].max() < tolerance):
            break
    if len(marks) and not found:
        found.append(best)
    return best, found, Statistics((lowest[0], lowest[1]), steps,
                                   (torch.stack(traces[0], 1), torch.stack(traces[1], 1)))


def _by_solver(f: Map, z: Tensor, solver: str, limit: int, tolerance: float, mode: str,
               marks: Sequence[int]) -> tuple[Tensor, list[Tensor], Statistics]:
    """By this library's solvers, once for each mark: they keep no iterates."""
    atol, rtol = (tolerance, 0.0) if mode == "abs" else (0.0, tolerance)
    solutions = [solve(f, z, solver=solver, max_iter=int(steps), atol=atol, rtol=rtol)
                 for steps in (*marks, *(() if limit in marks else (limit,)))]
    last = solutions[-1]
    value = f(last.z)
    sizes = _residuals(value, last.z)
    return last.z, [solution.z for solution in solutions[:len(marks)]], Statistics(
        sizes, last.iterations.to(z.dtype), (sizes[0].unsqueeze(1), sizes[1].unsqueeze(1)))


def _residuals(value: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Absolute and relative, [batch]."""
    absolute = torch.linalg.vector_norm(as_rows(value - z), dim=1)
    return absolute, absolute / (torch.linalg.vector_norm(as_rows(value), dim=1) + 1e-9)
