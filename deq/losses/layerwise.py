"""Baselines that estimate the Hessian's trace layer by layer: curvature propagation and approximate backpropagation.

A model is given as its layers, `log p = layers[-1](... layers[0](x))`, the last one mapping to `[batch]`. With `y_i`
the output of layer i, `J_i = dy_i/dx` and `g_i = d log p / d y_i`, the chain rule for second derivatives reads

    Hess log p = sum_i J_{i-1}^T M_i J_{i-1},      M_i = Hess_y ( g_i . layer_i(y) ) at y_{i-1} with g_i held fixed.

Curvature propagation samples that sum without bias; approximate backpropagation drops all off-diagonal terms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from deq.losses.score import Reduction, differentiable_input, directional, per_sample_dot, pull_back_many, reduce
from deq.losses.sliced import draw_signs

Layer = Callable[[Tensor], Tensor]


def _forward(layers: Sequence[Layer], x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Activations `y_0 = x, ..., y_L` and adjoints `g_0, ..., g_L` with `g_L = 1`, all in the graph."""
    if not layers:
        raise ValueError("no layers were given")
    values = [x]
    for layer in layers:
        values.append(layer(values[-1]))
    if values[-1].shape != x.shape[:1]:
        raise ValueError(f"the last layer must give [{len(x)}], got {list(values[-1].shape)}")
    adjoints = torch.autograd.grad(values[-1].sum(), values[:-1], create_graph=True)
    return values, [*adjoints, torch.ones_like(values[-1])]


def _local_gradient(layer: Layer, y: Tensor, adjoint: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """An alias of y, the layer's output from it and the gradient of `adjoint . layer` in it.

    The alias lies downstream of y, and `adjoint` does not depend on it: derivatives in the alias hold `adjoint` fixed.
    """
    alias = y.clone()
    out = layer(alias)
    return alias, out, torch.autograd.grad((adjoint * out).sum(), alias, create_graph=True)[0]


def curvature_propagation(layers: Sequence[Layer], x: Tensor, *, generator: torch.Generator | None = None,
                          reduction: Reduction = "mean") -> Tensor:
    """Score matching with the trace from stochastic curvature propagation (Martens, Sutskever and Swersky 2012).

    The "T U" form: with independent `v_i`, `E v v^T = I`, `T = sum_i J^T v_i` and `U = sum_i J^T M_i v_i`
    give `E[T U^T] = Hess log p`, without the complex square roots of the "S S^T" form. Unbiased for smooth layers; its
    variance grows with depth.

    Args:
        layers: callables `[batch, ...] -> [batch, ...]`, the last one to `[batch]`.
        x: `[batch, d]`.
        generator: source of the draws.
        reduction: "mean" or "none".

    Raises:
        ValueError: no layers, or the last does not map to `[batch]`.

    Example:
        >>> import torch, deq
        >>> layers = [torch.tanh, lambda y: -0.5 * y.square().sum(1)]  # the last maps to [batch]
        >>> deq.losses.curvature_propagation(layers, torch.ones(4, 3), reduction="none").shape
        torch.Size([4])
    """
    x = differentiable_input(x)
    values, adjoints = _forward(layers, x)
    t = torch.zeros_like(values[-1])
    u = torch.zeros_like(values[-1])
    for layer, y, out, adjoint in reversed(list(zip(layers, values, values[1:], adjoints[1:], strict=False))):
        alias, _, gradient = _local_gradient(layer, y, adjoint)
        v = draw_signs(y.shape, y, generator)
        t = v + directional(out, y, t)
        u = directional(gradient, alias, v) + directional(out, y, u)
    s = adjoints[0]
    return reduce(0.5 * per_sample_dot(s, s) + per_sample_dot(t, u), reduction)


def approximate_backpropagation(layers: Sequence[Layer], x: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Score matching with the Hessian's diagonal from approximate backpropagation (Kingma and LeCun 2010).

    `diag_{i-1} = (J_i o J_i)^T diag_i + diag(M_i)`: exact for one hidden layer after an elementwise activation, biased
    for deeper ones because cross terms are dropped. Layers are differentiated densely, so widths should be modest.

    Args:
        layers: callables `[batch, n] -> [batch, m]`, the last one to `[batch]`.
        x: `[batch, d]`.
        reduction: "mean" or "none".

    Raises:
        ValueError: no layers, or the last does not map to `[batch]`.

    Example:
        >>> import torch, deq
        >>> layers = [torch.tanh, lambda y: -0.5 * y.square().sum(1)]  # the last maps to [batch]
        >>> deq.losses.approximate_backpropagation(layers, torch.ones(4, 3), reduction="none").shape
        torch.Size([4])
    """
    x = differentiable_input(x)
    values, adjoints = _forward(layers, x)
    diagonal = torch.zeros_like(values[-1])[:, None]
    for layer, y, adjoint in reversed(list(zip(layers, values, adjoints[1:], strict=False))):
        alias, out, gradient = _local_gradient(layer, y, adjoint)
        rows = _jacobian_rows(out.reshape(len(x), -1), alias)
        local = _jacobian_rows(gradient, alias).diagonal(dim1=0, dim2=2)
        diagonal = torch.einsum("obi,bo->bi", rows**2, diagonal) + local
    s = adjoints[0]
    return reduce(0.5 * per_sample_dot(s, s) + diagonal.sum(1), reduction)


def _jacobian_rows(value: Tensor, y: Tensor) -> Tensor:
    """`d value_o / d y_i` per sample, `[o, batch, i]`."""
    rows = value.shape[1]
    if not value.requires_grad:
        return y.new_zeros(rows, *y.shape)
    basis = torch.eye(rows, dtype=y.dtype, device=y.device)[:, None].expand(-1, len(y), -1)
    found = pull_back_many(value, y, basis)
    return y.new_zeros(rows, *y.shape) if found is None else found
