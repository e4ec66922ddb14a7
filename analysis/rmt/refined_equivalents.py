r"""Equivalents past the paper's: each sample's own norm, and Hadamard powers of the Gram matrix.

An entry of the kernel is a function `g(|x_i|^2, |x_j|^2, x_i.x_j)`. [RMT] expands it at the mean norm, to first order
in `x_i.x_j` and with the class mean of its second order. Here the norms stay the samples' own, so the diagonal is
exact; the expansion in `x_i.x_j` goes to any order, and of the first term left out, `(x_i.x_j)^m`, the part that lower
powers can carry stays in: with `v_ij` the variance of `x_i.x_j`, `x^m` is replaced by `x^m - He_m(x; v)`. What is left
has uncorrelated entries of size `p^(-m/2)`, hence spectral norm about `sqrt(n) p^(-m/2)`, that is `p^(-order/2)`.
"""

from __future__ import annotations

from math import comb

import numpy as np
from numpy.typing import NDArray

from analysis.kernels.blocks import for_each_block
from analysis.kernels.diagonal import solve_diagonal
from analysis.kernels.filling import solve_block
from analysis.kernels.kernel_map import KernelMap, interpolated_coefficients
from analysis.rmt.equations import FourEquations
from analysis.rmt.equivalents import KernelKind
from analysis.rmt.mixtures import MixtureSample

Array = NDArray[np.float64]
Series = list[Array]

_TERMS = 40  # Hermite coefficients: the expansion point has a correlation of order 1/p, where a few suffice


def _product(left: Series, right: Series, order: int) -> Series:
    """Product of two truncated power series with array coefficients."""
    return [sum((left[k] * right[m - k] for k in range(m + 1)), start=np.zeros_like(left[0])) for m in range(order + 1)]


def _compose(outer: Series, inner: Series, order: int) -> Series:
    """`outer(inner(x))` where `inner` has no constant term."""
    result = [np.zeros_like(inner[0]) for _ in range(order + 1)]
    for coefficient in reversed(outer[:order + 1]):
        result = _product(result, inner, order)
        result[0] = result[0] + coefficient
    return result


def _reciprocal(series: Series, order: int) -> Series:
    result = [1 / series[0]]
    for m in range(1, order + 1):
        mixed = sum((series[k] * result[m - k] for k in range(1, m + 1)), start=np.zeros_like(series[0]))
        result.append(-mixed / series[0])
    return result


def _expansion(f: Series, a2: float, b2: float, order: int, kind: KernelKind) -> Series:
    """Coefficients in x = x_i.x_j of the kernel, from those of F(c0 + d) in d; c = a2 F(c) + b2 x."""
    zero = np.zeros_like(f[0])
    gain = 1 - a2 * f[1]
    d: Series = [zero, b2 / gain] + [zero] * (order - 1)
    bent: Series = [zero, zero, *f[2:]]
    for m in range(2, order + 1):
        d[m] = a2 * _compose(bent, d, m)[m] / gain
    value = _compose(f, d, order)
    if kind is KernelKind.CK:
        return value
    slope = _compose([(k + 1) * f[k + 1] for k in range(order + 1)], d, order)
    inverse = _reciprocal([1 - a2 * slope[0]] + [-a2 * part for part in slope[1:]], order)
    return _product(value, inverse, order)


def _hermite_remainder(power: int) -> list[tuple[int, int, float]]:
    """Terms (degree, power of v, coefficient) of x^m - He_m(x; v)."""
    terms = []
    double = 1.0
    for k in range(1, power // 2 + 1):
        double *= 2 * k - 1  # (2k - 1)!!
        terms.append((power - 2 * k, k, -((-1.0) ** k) * comb(power, 2 * k) * double))
    return terms


def refined_equivalent(eq: FourEquations, data: MixtureSample, kind: KernelKind | str = KernelKind.CK, *,
                       order: int = 2, centred: bool = True) -> Array:
    """The equivalent with own norms and Hadamard powers of the Gram matrix up to `order`, [n, n].

    Args:
        eq: the solved four equations (their centring is used: the kernel is that of phi - eq.shift).
        data: a sample.
        kind: "ck" or "ntk".
        order: highest Hadamard power; the error falls about like p^(-order/2).
        centred: False for phi as it is. The value at independence, g(., ., 0), is then no longer near 0: it is the
            rank-one term, n times as large as an entry, that centring removes.

    Raises:
        ValueError: an order below 1 or an unknown kind.

    Example:
        >>> import numpy as np, analysis
        >>> mixture = analysis.GaussianMixture(np.eye(2, 4), [np.eye(4)] * 2, sizes=[6, 6])
        >>> sample = mixture.sample(np.random.default_rng(0))
        >>> equations = analysis.solve_equations("relu", 0.2, tau0=sample.statistics.tau0)
        >>> analysis.refined_equivalent(equations, sample).shape
        (12, 12)
    """
    which = KernelKind(kind)
    if order < 1:
        raise ValueError(f"order must be at least 1, not {order}")
    a2, b2 = float(eq.sigma_a2), float(eq.sigma_b2)
    phi, shift = eq.activation, float(eq.shift) if centred else 0.0
    gram = data.x.T @ data.x
    norms = np.diag(gram).copy()
    variance = solve_diagonal(phi, a2, b2 * norms, shift=shift)
    kernel_map = KernelMap(phi, np.sqrt(variance), shift=shift)
    coefficients = interpolated_coefficients(phi, kernel_map.sd, _TERMS)
    coefficients[:, 0] -= shift
    a = np.ascontiguousarray(coefficients.T)
    stats = data.statistics
    relative = norms / stats.traces[data.labels]
    spread = stats.T / stats.p
    result = np.empty_like(gram)
    top = order + 1

    def work(rows: slice, columns: slice) -> None:
        shape = gram[rows, columns].shape
        start = solve_block(kernel_map, rows, columns, np.zeros(shape), variance, a2, 0.0, 1e-13)[2]
        scale = kernel_map.sd[rows, None] * kernel_map.sd[None, columns]
        rho = start / scale
        taylor: Series = []
        for m in range(top + 2):
            part = np.zeros(shape)
            for k in range(_TERMS - 1, m - 1, -1):
                part = part * rho + comb(k, m) * a[k, rows, None] * a[k, None, columns]
            taylor.append(part / scale**m)
        g = _expansion(taylor, a2, b2, top, which)
        x = gram[rows, columns]
        v = spread[np.ix_(data.labels[rows], data.labels[columns])] * relative[rows, None] * relative[None, columns]
        for degree, power, factor in _hermite_remainder(top):
            g[degree] = g[degree] + factor * g[top] * v**power
        value = np.zeros(shape)
        for part in reversed(g[:top]):
            value = value * x + part
        result[rows, columns] = value
        result[columns, rows] = value.T

    for_each_block(len(gram), work)
    own = kernel_map.second
    if which is KernelKind.NTK:
        own = own / (1 - a2 * kernel_map.derivative_square)
    np.fill_diagonal(result, own)
    return result
