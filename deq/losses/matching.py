"""Exact score matching (Hyvarinen 2005) and the Fisher divergence that it estimates up to a constant."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from deq.interop.right_derivatives import right_derivatives
from deq.interop.transforms import transforms_active
from deq.losses.score import (
    LogDensity,
    Reduction,
    Score,
    checked_log_density,
    differentiable_input,
    forward_trace,
    jacobian_trace,
    per_sample_dot,
    reduce,
    score_of,
)

Way = Literal["auto", "laplacian", "reverse", "forward"]


def score_matching(log_density: LogDensity, x: Tensor, *, reduction: Reduction = "mean", mode: Way = "auto",
                   chunk: int | None = None) -> Tensor:
    """Exact score matching: `0.5 |s|^2 + tr(ds/dx)` with `s = grad log p` ([SM] eq. 1).

    The trace is exact and vectorised over the d directions; the graph is kept, so `.backward()` reaches parameters.

    Args:
        log_density: maps `[batch, ...]` to `[batch]`, unnormalised; samples must not mix.
        x: `[batch, ...]`, floating point.
        reduction: "mean" for the loss, "none" for `[batch]` values.
        mode: "reverse" runs d batched backward passes (any graph); "forward" runs d Jacobian-vector products
            of the gradient under `torch.func` (log_density must be transformable); "laplacian" is one forward pass of
            value, derivatives and Laplacian together: `log_density.score_and_laplacian` where the density has it, else
            jets through the operations of log_density, twice to several times faster than "reverse" for explicit
            networks. "auto" takes the density's own where it says that it is `exact`, else "reverse".
        chunk: how many directions run together (memory); all where None.

    Raises:
        ValueError: wrong shapes or an unknown option.

    Example:
        >>> import torch, deq
        >>> gaussian = lambda x: -0.5 * x.square().sum(1)  # score -x, Laplacian -d
        >>> deq.losses.score_matching(gaussian, torch.ones(4, 3)).item()  # 0.5 * 3 - 3
        -1.5
    """
    forward_laplacian = getattr(log_density, "score_and_laplacian", None)
    if mode == "auto":
        usable = forward_laplacian is not None and getattr(log_density, "exact", False) and not transforms_active()
        mode = "laplacian" if usable else "reverse"
    if mode == "laplacian":
        if forward_laplacian is None:
            s, trace = pushed_score_and_laplacian(log_density, x)
        else:
            s, trace = forward_laplacian(x) if chunk is None else forward_laplacian(x, chunk=chunk)
        return reduce(0.5 * per_sample_dot(s, s) + trace, reduction)
    if mode == "forward":
        s, trace = forward_trace(log_density, differentiable_input(x), chunk=chunk)
        return reduce(0.5 * per_sample_dot(s, s) + trace, reduction)
    if mode != "reverse":
        raise ValueError(f"mode must be 'auto', 'laplacian', 'reverse' or 'forward', got {mode!r}")
    return score_matching_of_score(score_of(log_density), x, reduction=reduction, chunk=chunk)


def pushed_score_and_laplacian(log_density: LogDensity, x: Tensor) -> tuple[Tensor, Tensor]:
    """Score `[batch, ...]` and Laplacian `[batch]` of any log density by jets in forward mode.

    Differentiable again in reverse mode, any number of times for a density made of explicit operations.

    Raises:
        DerivativeOrderError: an operation has no second derivative.
    """
    from deq.density.jets import coordinate_jet, push_forward  # the density package is built on the losses

    x = differentiable_input(x)
    jet = push_forward(log_density, coordinate_jet(x))
    if jet.value.shape != x.shape[:1]:
        checked_log_density(log_density, x)  # says what is wrong
    assert jet.laplacian is not None
    return jet.first.movedim(0, 1).reshape(x.shape), jet.laplacian


def score_matching_of_score(score: Score, x: Tensor, *, reduction: Reduction = "mean",
                            chunk: int | None = None) -> Tensor:
    """The same for a model that gives its score directly: `score` maps `[batch, ...]` to the same shape.

    Example:
        >>> import torch, deq
        >>> deq.losses.score_matching_of_score(lambda x: -x, torch.ones(4, 3)).item()  # 0.5 * 3 - 3
        -1.5
    """
    x = differentiable_input(x)
    with right_derivatives():
        s = score(x)
    return reduce(0.5 * per_sample_dot(s, s) + jacobian_trace(s, x, chunk=chunk), reduction)


def fisher_divergence(log_density: LogDensity, x: Tensor, true_score: Score, *,
                      reduction: Reduction = "mean") -> Tensor:
    """`0.5 |s(x) - s_true(x)|^2` on samples of the truth; no second derivative is needed when the truth is known.

    Example:
        >>> import torch, deq
        >>> gaussian = lambda x: -0.5 * x.square().sum(1)  # score -x, Laplacian -d
        >>> deq.losses.fisher_divergence(gaussian, torch.ones(4, 3), lambda x: 0 * x).item()
        1.5
    """
    x = differentiable_input(x)
    gap = score_of(log_density)(x) - true_score(x)
    return reduce(0.5 * per_sample_dot(gap, gap), reduction)
