"""Annealed Langevin sampling, as published and as the released code of [SM] runs it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Score = Callable[[Tensor, Tensor], Tensor]


def annealed_langevin(score: Score, start: Tensor, sigmas: Tensor, *, step: float = 6.2e-6, steps_per_level: int = 5,
                      variant: str = "standard", clamp: tuple[float, float] | None = (0.0, 1.0),
                      generator: torch.Generator | None = None) -> Tensor:
    """Sample by Langevin steps at falling noise levels (Song and Ermon 2020; [SM] appendix D.3).

    At level sigma, with `alpha = step (sigma / sigma_last)^2`: `x <- x + alpha s(x, sigma) + sqrt(2 alpha) n`.

    Args:
        score: of images `[n, ...]` and levels' sigmas `[n]`.
        start: `[n, ...]`; uniform noise in [0, 1] in the paper.
        sigmas: from largest to smallest.
        step: 6.2e-6 in NCSN version 2.
        steps_per_level: 5.
        variant: "standard", or "released". The released update has an aliased variable, so that from the second step
            at a level on it is `x + (2/3) alpha s + sqrt(2 alpha) (n_t - n_{t-1} / 3)`: successive noises are
            correlated, and its stationary law is not the model's.
        clamp: of the final images; None for none.
        generator: of the noise.

    Raises:
        ValueError: unknown variant or rising sigmas.
    """
    if variant not in ("standard", "released"):
        raise ValueError(f"variant {variant!r} is not known; take 'standard' or 'released'")
    if bool((sigmas[1:] > sigmas[:-1]).any()):
        raise ValueError("sigmas must fall from the largest to the smallest")
    x = start.detach()
    with torch.no_grad():
        for sigma in sigmas.tolist():
            alpha = step * (sigma / float(sigmas[-1])) ** 2
            levels = torch.full((len(x),), sigma, dtype=x.dtype, device=x.device)
            previous: Tensor | None = None
            for _ in range(steps_per_level):
                noise = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
                drift = alpha * score(x, levels)
                if variant == "released" and previous is not None:
                    x = x + 2 / 3 * drift + (2 * alpha) ** 0.5 * (noise - previous / 3)
                else:
                    x = x + drift + (2 * alpha) ** 0.5 * noise
                previous = noise
    return x if clamp is None else x.clamp(*clamp)
