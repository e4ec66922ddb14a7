"""Iterations as the papers count them: plain iteration of a whole batch, stopped by one absolute norm."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def whole_batch_iterations(f: Callable[[Tensor], Tensor], start: Tensor, tol: float, max_iter: int = 128,
                           group: int | None = None) -> float:
    """Evaluations of f until `|f(z) - z| < tol` in the 2-norm of the whole batch, at most `max_iter`.

    The rule of the released code and of [SM] table 10, where `tol` means that: it depends on batch size and width, and
    all samples wait for the slowest. `deq.solve` holds each sample by itself against `tol + tol |f(z)|`.

    Args:
        f: a map of `[batch, ...]`.
        start: `[batch, ...]`.
        tol: absolute.
        max_iter: where to give up.
        group: a dimension along which maps lie side by side, each stopped by itself; the mean count is returned.

    Example:
        >>> whole_batch_iterations(lambda z: 0.5 * z + 1, torch.zeros(4, 1, dtype=torch.float64), 1e-3)
        12.0
    """
    z, counts = start, None
    for count in range(1, max_iter + 1):
        new = f(z)
        gap = (new - z)[None] if group is None else (new - z).movedim(group, 0)
        done = gap.flatten(1).norm(dim=1) < tol
        z = new
        counts = torch.full(done.shape, float(max_iter), device=z.device) if counts is None else counts
        counts = torch.where(done & (counts == max_iter), float(count), counts)
        if bool(done.all()):
            break
    return float(max_iter) if counts is None else float(counts.mean())


def released_counts(f: Callable[[Tensor], Tensor], z: Tensor, tol: float, max_iter: int = 128,
                    group: int | None = None) -> dict[str, float]:
    """The count from zero, and from the equilibria of other samples.

    The released code starts a batch at what an earlier batch of equal shape left: each sample at the equilibrium of
    an unrelated one. Here the batch's own equilibria z `[batch, ...]`, moved on by one sample, stand for that.
    """
    return {"iterations_released": whole_batch_iterations(f, torch.zeros_like(z), tol, max_iter, group),
            "iterations_released_warm": whole_batch_iterations(f, z.roll(1, 0), tol, max_iter, group)}
