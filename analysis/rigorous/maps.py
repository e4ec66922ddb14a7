"""Maps f(z, x) and readouts g(z, x) on jets, built from float weights: layers, stacks of layers, convolutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from flint import arb, arb_mat
from numpy.typing import ArrayLike, NDArray

from analysis.rigorous.balls import column, finite_array, matrix
from analysis.rigorous.jets import Jet, activate, affine, squared_distances
from analysis.rigorous.smooth import ball_activation

JetMap = Callable[[Jet, Jet], Jet]


@dataclass(frozen=True)
class Layer:
    """`sigma(W z + tau(U x + b))`, an equilibrium layer; tau is the identity unless an injection is named.

    Attributes:
        weight: W [n, n]; inputs: U [n, d]; bias: b [n, 1]; all exact.
        activation: sigma, a name of `BALL_ACTIVATIONS`.
        injection: tau, likewise.
    """

    weight: arb_mat
    inputs: arb_mat
    bias: arb_mat
    activation: str
    injection: str = "identity"

    @classmethod
    def from_arrays(cls, weight: ArrayLike, inputs: ArrayLike, bias: ArrayLike, activation: str,
                    injection: str = "identity") -> Layer:
        """From float arrays [n, n], [n, d], [n].

        Raises:
            ValueError: shapes that do not fit, or entries that are not finite.
            NotCertified: an activation without enclosures.
        """
        w, u, b = finite_array(weight, "W", 2), finite_array(inputs, "U", 2), finite_array(bias, "b", 1)
        if not w.shape == (len(b), len(b)) or u.shape[0] != len(b):
            raise ValueError(f"shapes do not fit: W {w.shape}, U {u.shape}, b {b.shape}; wanted [n, n], [n, d], [n]")
        return cls(matrix(w), matrix(u), column(b), ball_activation(activation).name, ball_activation(injection).name)

    @property
    def size(self) -> int:
        """The width n."""
        return int(self.weight.nrows())

    @property
    def input_size(self) -> int:
        """The input width d."""
        return int(self.inputs.ncols())

    def __call__(self, z: Jet, x: Jet) -> Jet:
        """The layer on jets."""
        drive = affine(self.inputs, x, self.bias)
        return activate(self.activation, affine(self.weight, z) + activate(self.injection, drive))


@dataclass(frozen=True)
class Stack:
    """An inner map of several layers: `sigma_L(A_L ... sigma_1(A_1 z + U x + b_1) ... + b_L) * scale + skip z`.

    Attributes:
        first: the layer that takes the input; its weight may map z to another width.
        rest: (weight, bias, activation) of the following layers.
        scale: factor of the whole.
        skip: factor of z added at the end, 0 for none.
    """

    first: Layer
    rest: tuple[tuple[arb_mat, arb_mat, str], ...]
    scale: float = 1.0
    skip: float = 0.0

    @property
    def size(self) -> int:
        """The width n of z."""
        return int(self.first.weight.ncols())

    def __call__(self, z: Jet, x: Jet) -> Jet:
        """The stack on jets."""
        h = self.first(z, x)
        for weight, bias, activation in self.rest:
            h = activate(activation, affine(weight, h, bias))
        h = h.scaled(arb(self.scale))
        return h + z.scaled(arb(self.skip)) if self.skip else h


@dataclass(frozen=True)
class QuadraticReadout:
    """The scalar `a . z + c |z|^2 - |x|^2 / (2 s^2)`, a log-density without its constant.

    Attributes:
        linear: a as a row [1, n].
        quadratic: c.
        width: s, or None for no term in x.
    """

    linear: arb_mat
    quadratic: float = 0.0
    width: float | None = None

    @classmethod
    def from_arrays(cls, linear: ArrayLike, quadratic: float = 0.0, width: float | None = None) -> QuadraticReadout:
        """From a float vector [n] and two numbers.

        Raises:
            ValueError: entries that are not finite, or a width that is not positive.
        """
        row = finite_array(linear, "a", 1)
        if not np.isfinite(quadratic):
            raise ValueError(f"c must be finite, not {quadratic}")
        if width is not None and not (np.isfinite(width) and width > 0):
            raise ValueError(f"the base width s must be positive and finite, not {width}")
        return cls(matrix(row[None, :]), float(quadratic), None if width is None else float(width))

    def __call__(self, z: Jet, x: Jet) -> Jet:
        """The readout on jets, a jet of size 1."""
        g = affine(self.linear, z)
        if self.quadratic:
            g = g + (z * z).total().scaled(arb(self.quadratic))
        if self.width is not None:
            g = g - (x * x).total().scaled(1 / (2 * arb(self.width) ** 2))
        return g


@dataclass(frozen=True)
class KernelTerm:
    """One Gaussian kernel `weight exp(-|phi(x) - y_m|^2 / (2 scale))` on the feature `phi = out z + skip x + bias`.

    Attributes:
        out: [p, n]; skip: [p, d] or None; bias: [p, 1] or None.
        anchors: y_m, the features of the inducing points [p, M], exact or enclosed.
        weight: in the mixture of kernels.
        scale: squared bandwidth.
    """

    out: arb_mat
    skip: arb_mat | None
    bias: arb_mat | None
    anchors: arb_mat
    weight: arb
    scale: arb

    def __call__(self, z: Jet, x: Jet) -> Jet:
        """The kernel functions on jets, a jet of size M."""
        feature = affine(self.out, z, self.bias)
        if self.skip is not None:
            feature = feature + affine(self.skip, x)
        exponent = squared_distances(feature, self.anchors).scaled(-1 / (2 * self.scale))
        return activate("exp", exponent).scaled(self.weight)


@dataclass(frozen=True)
class KernelReadout:
    """The log-density of a deep kernel exponential family: `sum_m alpha_m sum_r k_r(x, x_m) - |x|^2 / (2 s^2)`.

    Attributes:
        terms: the kernels k_r, at least one.
        coefficients: alpha [1, M].
        base_width: s, or None for no base term.
    """

    terms: tuple[KernelTerm, ...]
    coefficients: arb_mat
    base_width: float | None = None

    def __call__(self, z: Jet, x: Jet) -> Jet:
        """The log-density on jets, a jet of size 1."""
        kernels = self.terms[0](z, x)
        for term in self.terms[1:]:
            kernels = kernels + term(z, x)
        total = affine(self.coefficients, kernels)
        return total if self.base_width is None else total - (x * x).total().scaled(1 / (2 * arb(self.base_width) ** 2))


def convolution_matrix(kernel: ArrayLike, height: int, width: int) -> NDArray[np.float64]:
    """The dense matrix of a stride-1 cross-correlation with zero padding that keeps the image size.

    Args:
        kernel: [out, in, kh, kw] with odd kh, kw (PyTorch's layout and sign).
        height: of the image.
        width: of the image.

    Returns:
        [out * height * width, in * height * width], acting on images flattened row-major, channel first. Its entries
        are the kernel's, unchanged, so that nothing is rounded.

    Raises:
        ValueError: a kernel of even size or not finite.
    """
    k = finite_array(kernel, "kernel", 4)
    outer, inner, tall, wide = k.shape
    if tall % 2 == 0 or wide % 2 == 0:
        raise ValueError(f"the kernel's sides must be odd, not {tall} x {wide}")
    dense = np.zeros((outer, height, width, inner, height, width))
    for i in range(height):
        for j in range(width):
            for s in range(tall):
                for t in range(wide):
                    row, col = i + s - tall // 2, j + t - wide // 2
                    if 0 <= row < height and 0 <= col < width:
                        dense[:, i, j, :, row, col] = k[:, :, s, t]
    return dense.reshape(outer * height * width, inner * height * width)


def stack_from_arrays(layers: Sequence[tuple[ArrayLike, ArrayLike, str]], inputs: ArrayLike, *, scale: float = 1.0,
                      skip: float = 0.0) -> Stack:
    """A `Stack` from float arrays.

    Args:
        layers: (weight, bias, activation) from the first layer to the last.
        inputs: U of the first layer.
        scale: factor of the whole.
        skip: factor of z added at the end.

    Raises:
        ValueError: no layer, or entries that are not finite.
    """
    if not layers:
        raise ValueError("a stack needs at least one layer")
    (weight, bias, activation), *rest = layers
    first = Layer(matrix(weight, "weight of layer 1"), matrix(inputs, "U"), column(bias, "bias of layer 1"), activation)
    others = tuple((matrix(w, f"weight of layer {k}"), column(b, f"bias of layer {k}"), name)
                   for k, (w, b, name) in enumerate(rest, start=2))
    return Stack(first, others, scale, skip)
