"""Scores, their traces and directional derivatives, each differentiable again: what every objective is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from deq.interop.right_derivatives import refuse_wrong_nodes, right_derivatives
from deq.interop.transforms import transforms_active

LogDensity = Callable[[Tensor], Tensor]
Score = Callable[[Tensor], Tensor]
Reduction = Literal["mean", "none"]
Mode = Literal["reverse", "forward"]


def differentiable_input(x: Tensor) -> Tensor:
    """`x` itself where it already requires grad, else a detached copy that does.

    Raises:
        ValueError: `x` is not a floating-point tensor `[batch, ...]` with at least one feature.
    """
    if not x.is_floating_point() or x.ndim < 2 or x[0:1].numel() == 0:
        raise ValueError(f"x must be a non-empty floating-point tensor [batch, ...], got {x.dtype} {list(x.shape)}")
    return x if x.requires_grad else x.detach().requires_grad_()


def checked_log_density(log_density: LogDensity, x: Tensor) -> Tensor:
    """`log_density(x)`, which must be `[batch]`.

    Raises:
        ValueError: another shape came out, so that "per sample" would have no meaning.
        DerivativeOrderError: a normalisation in it has a wrong third derivative and cannot be replaced.
    """
    with right_derivatives():  # a score-matching gradient is a third derivative
        values = log_density(x)
    if not transforms_active():
        refuse_wrong_nodes(values, x, 3)
    if values.shape != x.shape[:1]:
        raise ValueError(f"log_density must map {list(x.shape)} to [{x.shape[0]}], got {list(values.shape)}; "
                         "return one number a sample (sum over features, keep the batch)")
    return values


def score_of(log_density: LogDensity) -> Score:
    """The score `x -> grad_x log p(x)`, `[batch, ...]` to the same shape, with its graph kept.

    Samples must not mix in `log_density` (no batch normalisation): one backward pass of the sum serves the whole batch.

    Example:
        >>> import torch, deq
        >>> gaussian = lambda x: -0.5 * x.square().sum(1)  # score -x, Laplacian -d
        >>> deq.losses.score_of(gaussian)(torch.ones(1, 2, requires_grad=True)).tolist()
        [[-1.0, -1.0]]
    """

    def score(x: Tensor) -> Tensor:
        total = checked_log_density(log_density, x).sum()
        if not total.requires_grad:
            raise ValueError("log_density(x) does not depend on x through autograd; was it computed under no_grad?")
        return torch.autograd.grad(total, x, create_graph=True)[0]

    return score


def directional(value: Tensor, x: Tensor, v: Tensor) -> Tensor:
    """`(d value / d x)^T v`, `[batch, ...]`, zero where `value` does not depend on x; differentiable again."""
    if not value.requires_grad:
        return torch.zeros_like(x)
    product = torch.autograd.grad(value, x, v, create_graph=True, allow_unused=True)[0]
    return torch.zeros_like(x) if product is None else product


def per_sample_dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product over all but the first dimension, `[batch]`."""
    return (a * b).flatten(1).sum(1)


def jacobian_trace(value: Tensor, x: Tensor, *, chunk: int | None = None) -> Tensor:
    """Trace of `d value / d x` per sample by batched backward passes; `[batch]`, differentiable again.

    Where an operation in the graph has no batching rule (a matrix-free solve), the passes run one by one: same numbers.

    Args:
        value: `[batch, ...]`, computed from `x` with its graph.
        x: the same shape.
        chunk: how many of the d backward passes run together; all of them where None. Lower it when memory is short;
            1 never batches.

    Raises:
        ValueError: shapes differ, or `chunk` is not positive.

    Example:
        >>> import torch, deq
        >>> x = torch.ones(2, 3, requires_grad=True)
        >>> deq.losses.jacobian_trace(x**2, x).tolist()
        [6.0, 6.0]
    """
    if value.shape != x.shape:
        raise ValueError(f"a trace needs a square Jacobian: value {list(value.shape)}, x {list(x.shape)}")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    if not value.requires_grad:
        return x.new_zeros(len(x))
    d = x[0].numel()
    basis = torch.eye(d, dtype=x.dtype, device=x.device)
    trace = x.new_zeros(len(x))
    for block in basis.split(chunk or d):
        directions = block.reshape(-1, 1, *x.shape[1:]).expand(-1, *x.shape)
        rows = pull_back_many(value, x, directions)
        if rows is not None:
            trace = trace + (rows * directions).flatten(2).sum((0, 2))
    return trace


def pull_back_many(value: Tensor, x: Tensor, directions: Tensor) -> Tensor | None:
    """Products of `directions` `[k, *value.shape]` with the Jacobian, `[k, *x.shape]`; None if x is not used."""
    if len(directions) > 1:
        try:
            return torch.autograd.grad(value, x, directions, create_graph=True, allow_unused=True,
                                       is_grads_batched=True)[0]
        except RuntimeError as error:
            if "batching rule" not in str(error).lower():
                raise
    rows = [torch.autograd.grad(value, x, v, create_graph=True, allow_unused=True)[0] for v in directions]
    return None if any(row is None for row in rows) else torch.stack(rows)


def forward_trace(log_density: LogDensity, x: Tensor, *, chunk: int | None = None) -> tuple[Tensor, Tensor]:
    """Score `[batch, ...]` and Hessian trace `[batch]` by forward-over-reverse: `vmap` of a jvp of the gradient."""

    def gradient(y: Tensor) -> Tensor:
        return torch.func.grad(lambda inner: checked_log_density(log_density, inner).sum())(y)

    def curvature(direction: Tensor) -> Tensor:
        tangent = direction.reshape(1, *x.shape[1:]).expand_as(x)
        return per_sample_dot(torch.func.jvp(gradient, (x,), (tangent,))[1], tangent)

    basis = torch.eye(x[0].numel(), dtype=x.dtype, device=x.device)
    return gradient(x), torch.func.vmap(curvature, chunk_size=chunk)(basis).sum(0)


def reduce(values: Tensor, reduction: Reduction) -> Tensor:
    """Mean over the batch, or the `[batch]` values as they are."""
    if reduction == "mean":
        return values.mean()
    if reduction == "none":
        return values
    raise ValueError(f"reduction must be 'mean' or 'none', got {reduction!r}")
