"""Second-order jets: a value with directional derivatives, pushed forward through a network in one sweep.

A jet at x along directions v_1 .. v_m with weights w_1 .. w_m holds, of a function y(x),

    value = y,    first_i = Dy[v_i],    second = sum_i w_i D^2 y[v_i, v_i].

The weights may be a metric W in their place: second = sum_ij W_ij D^2 y[v_i, v_j].

With the d unit vectors and unit weights `second` is the Laplacian: the forward Laplacian of Li et al. 2023
(arXiv 2307.08214), here carried on through equilibria. All entries are ordinary tensors, so parameter
gradients follow by one backward pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Jet:
    """A jet of R networks side by side at n samples along m directions.

    Attributes:
        value: `[R, n, h]`.
        first: `[R, n, m, h]`, or `[R, 1, m, h]` where all samples share it; None for a value alone.
        second: `[R, n, h]`, or None for first order alone.
        weights: `[m]`, the weights of the directions in `second`, or a symmetric metric `[R, m, m]` on them.
    """

    value: Tensor
    first: Tensor | None = None
    second: Tensor | None = None
    weights: Tensor | None = None

    def linear(self, weight: Tensor, bias: Tensor | None = None) -> Jet:
        """Apply `W_r y + b_r`, weight `[R, out, in]`, bias `[R, out]`."""
        transposed = weight.transpose(1, 2)
        value = self.value @ transposed
        first = None
        if self.first is not None:
            flat = self.first.flatten(1, 2) @ transposed
            first = flat.unflatten(1, self.first.shape[1:3])
        return Jet(value if bias is None else value + bias[:, None], first,
                   None if self.second is None else self.second @ transposed, self.weights)

    def fixed_map(self, matrix: Tensor | float) -> Jet:
        """Apply a map of its own to each sample: `[R, n, h, h]`, or a number."""
        if not isinstance(matrix, Tensor):
            return Jet(matrix * self.value, None if self.first is None else matrix * self.first,
                       None if self.second is None else matrix * self.second, self.weights)
        transposed = matrix.transpose(2, 3)
        return Jet((matrix @ self.value[..., None])[..., 0], None if self.first is None else self.first @ transposed,
                   None if self.second is None else (matrix @ self.second[..., None])[..., 0], self.weights)

    def softplus(self) -> Jet:
        """Apply softplus; its derivatives are the logistic function s and s (1 - s)."""
        value = functional.softplus(self.value)
        if self.first is None:
            return Jet(value)
        slope = torch.sigmoid(self.value)
        second = None
        if self.second is not None:
            squares = self._squares(self.first)
            second = slope * (1 - slope) * squares + slope * self.second
        return Jet(value, slope[:, :, None] * self.first, second, self.weights)

    def _squares(self, first: Tensor) -> Tensor:
        if self.weights is None:
            raise ValueError("a jet with second derivatives needs the weights of its directions")
        if self.weights.ndim == 1:
            return torch.einsum("rnmh,m->rnh", first**2, self.weights)
        return ((self.weights[:, None] @ first) * first).sum(2)

    def __add__(self, other: Jet) -> Jet:
        return self._combine(other, 1)

    def __sub__(self, other: Jet) -> Jet:
        return self._combine(other, -1)

    def _combine(self, other: Jet, sign: int) -> Jet:
        def merge(a: Tensor | None, b: Tensor | None) -> Tensor | None:
            """Sum, where a missing derivative is a zero one."""
            if b is None:
                return a
            return sign * b if a is None else a + sign * b

        weights = self.weights if self.weights is not None else other.weights
        return Jet(self.value + sign * other.value, merge(self.first, other.first), merge(self.second, other.second),
                   weights)


def input_jet(x: Tensor, copies: int, directions: Tensor | None = None, weights: Tensor | None = None) -> Jet:
    """The jet of x itself, the same for each of `copies` networks.

    Args:
        x: `[n, d]`.
        copies: R.
        directions: `[n, m, d]`, or None for a value alone.
        weights: `[m]`, or None for first order alone.
    """
    value = x.expand(copies, *x.shape)
    if directions is None:
        return Jet(value)
    second = None if weights is None else x.new_zeros(copies, *x.shape)
    if directions.stride(0) == 0:       # the same for every sample: carried once until a slope tells samples apart
        directions = directions[:1]
    return Jet(value, directions.expand(copies, *directions.shape), second, weights)
