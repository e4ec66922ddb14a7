"""The authors' way to a conjugate kernel: average Z^T Z over finite random DEQs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.rmt.equivalents import spectral_norm

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SampledKernel:
    """A sampled conjugate kernel and what it took.

    Attributes:
        ck: mean of Z^T Z over the draws, [n, n].
        draws: networks drawn.
        full_draws: networks that the scheme asks for, floor(p^2 / width).
        steps: Picard steps in all.
        unfinished: draws that ran into the step cap.
        seconds: wall time of the draws made.
    """

    ck: Array
    draws: int
    full_draws: int
    steps: int
    unfinished: int
    seconds: float

    @property
    def full_seconds(self) -> float:
        """Time of the whole scheme, in proportion to the draws made."""
        return self.seconds * self.full_draws / self.draws


def sampled_kernel(x: Array, phi: Callable[[Array], Array], sigma_a2: float, rng: np.random.Generator, *,
                   width: int = 1000, most_steps: int = 25, tolerance: float = 5e-6,
                   draws: int | None = None) -> SampledKernel:
    """The released code's scheme [RMT, code]: floor(p^2 / width) networks, Picard iteration, mean of Z^T Z.

    The stopping norm is got by Lanczos instead of a full singular value decomposition, which favours the scheme.

    Args:
        x: data, [p, n].
        phi: the activation, centred if it is to be, on arrays.
        sigma_a2: variance of the recurrent weights; sigma_b^2 = 1 - sigma_a2.
        rng: for the networks.
        width: of each network.
        most_steps: cap of Picard steps.
        tolerance: on the spectral norm of a step.
        draws: make so many instead of floor(p^2 / width).

    Raises:
        ValueError: no draw to make.
    """
    p, n = x.shape
    full = max(1, p * p // width)
    count = full if draws is None else draws
    if count < 1:
        raise ValueError(f"draws must be at least 1, not {draws}")
    start = time.perf_counter()
    total = np.zeros((n, n))
    steps = unfinished = 0
    for _ in range(count):
        recurrent = np.sqrt(sigma_a2) * rng.standard_normal((width, width))
        drive = np.sqrt(1 - sigma_a2) * rng.standard_normal((width, p)) @ x
        z = np.zeros((width, n))
        for _step in range(most_steps):
            new = phi(recurrent @ z + drive) / np.sqrt(width)
            change = new - z
            z = new
            steps += 1
            if np.sqrt(spectral_norm(change.T @ change, tolerance=1e-2)) < tolerance:
                break
        else:
            unfinished += 1
        total += z.T @ z
    return SampledKernel(total / count, count, full, steps, unfinished, time.perf_counter() - start)
