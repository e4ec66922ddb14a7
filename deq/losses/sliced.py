"""Sliced score matching (Song et al. 2019), with and without variance reduction, and by finite differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from deq.interop.right_derivatives import right_derivatives
from deq.losses.score import (
    LogDensity,
    Reduction,
    Score,
    checked_log_density,
    differentiable_input,
    directional,
    per_sample_dot,
    reduce,
    score_of,
)

Distribution = Literal["rademacher", "gaussian", "sphere"]


def draw_normal(shape: Sequence[int], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal numbers, dtype and device of `like`, drawn where the generator lives: a CPU one serves a GPU."""
    device = like.device if generator is None else generator.device
    return torch.randn(shape, generator=generator, device=device, dtype=like.dtype).to(like.device)


def draw_signs(shape: Sequence[int], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Numbers -1 and 1, otherwise as `draw_normal`."""
    device = like.device if generator is None else generator.device
    return torch.randint(0, 2, shape, generator=generator, device=device).to(like) * 2 - 1


def draw_projections(x: Tensor, *, count: int = 1, distribution: Distribution = "rademacher",
                     generator: torch.Generator | None = None) -> Tensor:
    """Random directions `[count, *x.shape]` with `E v v^T = I`.

    "sphere" is uniform on the sphere of radius sqrt(d): the released sliced code's unit vectors differ by a factor
    1/d in both terms, so they are not offered.

    Example:
        >>> import torch, deq
        >>> deq.losses.draw_projections(torch.zeros(5, 3), count=2).shape
        torch.Size([2, 5, 3])
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    shape = (count, *x.shape)
    if distribution == "rademacher":
        return draw_signs(shape, x, generator)
    v = draw_normal(shape, x, generator)
    if distribution == "gaussian":
        return v
    if distribution == "sphere":
        flat = v.flatten(2)
        return (flat * flat.shape[2] ** 0.5 / flat.norm(dim=2, keepdim=True)).reshape(shape)
    raise ValueError(f"distribution must be 'rademacher', 'gaussian' or 'sphere', got {distribution!r}")


def _projections(x: Tensor, given: Tensor | None, count: int, distribution: Distribution,
                 generator: torch.Generator | None) -> Tensor:
    if given is None:
        return draw_projections(x, count=count, distribution=distribution, generator=generator)
    if given.shape == x.shape:
        given = given[None]
    if given.ndim != x.ndim + 1 or given.shape[1:] != x.shape:
        raise ValueError(f"projections must be {list(x.shape)} or [count, *{list(x.shape)}], got {list(given.shape)}")
    return given


def sliced_score_matching(log_density: LogDensity, x: Tensor, *, variance_reduced: bool = False,
                          projections: Tensor | None = None, num_projections: int = 1,
                          distribution: Distribution = "rademacher", generator: torch.Generator | None = None,
                          reduction: Reduction = "mean") -> Tensor:
    """Sliced score matching: `0.5 (v.s)^2 + v.(ds/dx) v`, or with `0.5 |s|^2` when variance reduced ([SM] eq. 3).

    Equal to exact score matching in expectation over v when `E v v^T = I`; one extra backward pass a direction.

    Args:
        log_density: maps `[batch, ...]` to `[batch]`; samples must not mix.
        x: `[batch, ...]`, floating point.
        variance_reduced: SSM-VR.
        projections: fixed directions, `[batch, ...]` or `[count, batch, ...]`; drawn where None.
        num_projections: directions a sample when they are drawn.
        distribution: "rademacher" (the papers' DKEF and NICE), "gaussian" (their VAE and NCSN), "sphere".
        generator: source of the draws.
        reduction: "mean" or "none".

    Raises:
        ValueError: wrong shapes or an unknown option.

    Example:
        >>> import torch, deq
        >>> gaussian = lambda x: -0.5 * x.square().sum(1)  # score -x, Laplacian -d
        >>> x = torch.ones(4, 3)
        >>> deq.losses.sliced_score_matching(gaussian, x, variance_reduced=True).item()  # signs square to 1: exact here
        -1.5
    """
    return sliced_score_matching_of_score(
        score_of(log_density), x, variance_reduced=variance_reduced, projections=projections,
        num_projections=num_projections, distribution=distribution, generator=generator, reduction=reduction)


def sliced_score_matching_of_score(score: Score, x: Tensor, *, variance_reduced: bool = False,
                                   projections: Tensor | None = None, num_projections: int = 1,
                                   distribution: Distribution = "rademacher",
                                   generator: torch.Generator | None = None,
                                   reduction: Reduction = "mean") -> Tensor:
    """The same for a model that gives its score directly (`[batch, ...]` to the same shape).

    Example:
        >>> import torch, deq
        >>> deq.losses.sliced_score_matching_of_score(lambda x: -x, torch.ones(4, 3), variance_reduced=True).item()
        -1.5
    """
    x = differentiable_input(x)
    directions = _projections(x, projections, num_projections, distribution, generator)
    with right_derivatives():
        s = score(x)
    total = x.new_zeros(len(x))
    for v in directions:
        projected = per_sample_dot(s, v)
        curvature = per_sample_dot(directional(projected.sum(), x, torch.ones_like(projected.sum())), v)
        first = 0.5 * (per_sample_dot(s, s) if variance_reduced else projected**2)
        total = total + first + curvature
    return reduce(total / len(directions), reduction)


def finite_difference_sliced_score_matching(log_density: LogDensity, x: Tensor, *, step: float = 0.1,
                                            projections: Tensor | None = None,
                                            distribution: Distribution = "rademacher",
                                            generator: torch.Generator | None = None,
                                            reduction: Reduction = "mean") -> Tensor:
    """FD-SSM (Pang et al. 2020): the sliced objective from three values of log p, no second derivative.

    With `w = step v`: `(log p(x+w) + log p(x-w) - 2 log p(x) + (log p(x+w) - log p(x-w))^2 / 8) / step^2`.
    The bias against SSM is O(step^2); rounding grows like eps/step^2.

    Raises:
        ValueError: `step` is not positive, or shapes are wrong.

    Example:
        >>> import torch, deq
        >>> gaussian = lambda x: -0.5 * x.square().sum(1)  # score -x, Laplacian -d
        >>> deq.losses.finite_difference_sliced_score_matching(gaussian, torch.ones(4, 3), reduction="none").shape
        torch.Size([4])
    """
    if not step > 0:
        raise ValueError(f"step must be positive, got {step}")
    v = _projections(x, projections, 1, distribution, generator)[0]
    batch = len(x)
    values = checked_log_density(log_density, torch.cat([x + step * v, x - step * v, x]))
    plus, minus, centre = values.split(batch)
    loss = (plus + minus - 2 * centre + (plus - minus) ** 2 / 8) / step**2
    return reduce(loss, reduction)
