"""Denoising score matching (Vincent 2011)."""

from __future__ import annotations

import torch
from torch import Tensor

from deq.losses.score import LogDensity, Reduction, Score, differentiable_input, per_sample_dot, reduce, score_of
from deq.losses.sliced import draw_normal


def denoising_score_matching(log_density: LogDensity, x: Tensor, sigma: float | Tensor, *, scaled: bool = False,
                             noise: Tensor | None = None, generator: torch.Generator | None = None,
                             reduction: Reduction = "mean") -> Tensor:
    """Denoising score matching: `0.5 |s(x + sigma e) + e / sigma|^2`, e standard normal ([SM] eq. 2).

    Args:
        log_density: maps `[batch, ...]` to `[batch]`.
        x: clean data, `[batch, ...]`.
        sigma: noise scale, a positive number or `[batch]` of them.
        scaled: multiply by sigma^4, as the released codes do (same minimiser for one sigma, other loss scale).
        noise: the standard normal e, `[batch, ...]`; drawn where None.
        generator: source of the draw.
        reduction: "mean" or "none".

    Raises:
        ValueError: sigma is not positive, or shapes are wrong.

    Example:
        >>> import torch, deq
        >>> gaussian = lambda x: -0.5 * x.square().sum(1)  # score -x, Laplacian -d
        >>> noise = torch.zeros(4, 3)  # drawn, unless given
        >>> deq.losses.denoising_score_matching(gaussian, torch.ones(4, 3), 0.5, noise=noise).item()
        1.5
    """
    return denoising_score_matching_of_score(score_of(log_density), x, sigma, scaled=scaled, noise=noise,
                                             generator=generator, reduction=reduction)


def denoising_score_matching_of_score(score: Score, x: Tensor, sigma: float | Tensor, *, scaled: bool = False,
                                      noise: Tensor | None = None, generator: torch.Generator | None = None,
                                      reduction: Reduction = "mean") -> Tensor:
    """The same for a model that gives its score directly.

    Example:
        >>> import torch, deq
        >>> x, noise = torch.ones(4, 3), torch.zeros(4, 3)
        >>> deq.losses.denoising_score_matching_of_score(lambda x: -x, x, 0.5, noise=noise).item()
        1.5
    """
    scale = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
    if not bool((scale > 0).all()):
        raise ValueError(f"sigma must be positive, got {sigma}")
    if scale.ndim:
        if scale.shape != x.shape[:1]:
            raise ValueError(f"sigma must be a number or [{len(x)}], got {list(scale.shape)}")
        scale = scale.reshape(-1, *[1] * (x.ndim - 1))
    if noise is None:
        noise = draw_normal(x.shape, x, generator)
    elif noise.shape != x.shape:
        raise ValueError(f"noise must have the shape of x, {list(x.shape)}, got {list(noise.shape)}")
    s = score(differentiable_input(x + scale * noise))
    gap = scale**2 * s + scale * noise if scaled else s + noise / scale
    return reduce(0.5 * per_sample_dot(gap, gap), reduction)
