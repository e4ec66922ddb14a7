r"""Exact kernels of explicit networks `h_l = phi_l(sigma_l W_l h_{l-1}) / sqrt(m_l)` of any depth, all widths infinite.

`Sigma_1 = sigma_1^2 X^T X`, `G_l = E[phi_l phi_l]` at `N(0, Sigma_l)`, `Sigma_{l+1} = sigma_{l+1}^2 G_l`; the tangent
kernel obeys `K_l = G_l + sigma_l^2 K_{l-1} E[phi_l' phi_l']`, from `K_0 = X^T X` when all weights are trained
(Jacot et al. 2018).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.activations import Activation, as_activation
from analysis.gaussian import moments_at
from analysis.kernels.blocks import for_each_block
from analysis.kernels.doors import Samples, check_data
from analysis.kernels.kernel_map import KernelMap

Array = NDArray[np.float64]
ActivationLike = str | Activation | Callable[[Array], Array]


@dataclass(frozen=True)
class ExplicitKernels:
    """The kernels of an explicit network; unpacks as `ck, ntk = explicit_kernels(...)`.

    Attributes:
        ck: conjugate kernel of the last hidden layer, [n, n].
        ntk: tangent kernel of a readout on it with all weights trained, [n, n].
        shifts: the constant taken from each layer's phi.
        variances: of the pre-activations, one [n] array a layer.
        ck_error: bound on the largest error of an entry of `ck`.
        ntk_error: the same for `ntk`, to first order.
    """

    ck: Array
    ntk: Array
    shifts: tuple[float, ...]
    variances: tuple[Array, ...]
    ck_error: float
    ntk_error: float

    def __iter__(self) -> Iterator[Array]:
        """Give (ck, ntk)."""
        return iter((self.ck, self.ntk))

    def __getitem__(self, index: int) -> Array:
        """Entry of the pair (ck, ntk)."""
        return (self.ck, self.ntk)[index]


def explicit_kernels(
    X: ArrayLike,
    activations: ActivationLike | Sequence[ActivationLike],
    *,
    depth: int | None = None,
    variances: Sequence[float] | float = 1.0,
    centre: bool = False,
    samples: Samples = "columns",
    tolerance: float = 1e-13,
) -> ExplicitKernels:
    """Exact conjugate and tangent kernels of an infinitely wide explicit network.

    Args:
        X: data, [p, n], columns are samples.
        activations: one a layer, or a single one for `depth` layers.
        depth: number of hidden layers when `activations` is a single one.
        variances: of the weights, one a layer or one for all.
        centre: subtract E phi_l(tau_l xi) in each layer, tau_l^2 the layer's mean pre-activation variance.
        samples: "columns" for X of shape [p, n], "rows" for [n, p].
        tolerance: relative, of series truncation.

    Raises:
        ValueError: X is no finite matrix; no layer; a number of variances that is not the number of layers.
        GrowsTooFast: phi grows too fast for its Gaussian moments.

    Example:
        >>> import numpy as np, analysis
        >>> rows = np.random.default_rng(0).standard_normal((5, 3)) / 3**0.5  # samples as rows: pass the transpose
        >>> analysis.explicit_kernels(rows.T, "relu", depth=2).ck.shape
        (5, 5)
    """
    x = check_data(X, samples)
    if isinstance(activations, Sequence) and not isinstance(activations, str):
        if depth is not None and depth != len(activations):
            raise ValueError(f"depth = {depth} but {len(activations)} activations are given")
        layers = [as_activation(a) for a in activations]
    else:
        layers = [as_activation(activations)] * (1 if depth is None else depth)
    if not layers:
        raise ValueError("an explicit network needs at least one layer")
    scales = np.broadcast_to(np.atleast_1d(variances), max(len(layers), np.size(variances))).tolist()
    if len(scales) != len(layers) or min(scales) < 0:
        raise ValueError(f"variances {variances!r} must be one number, or one a layer ({len(layers)}), none below 0")
    ck = x.T @ x
    ntk = ck.copy()
    ck_error, ntk_error = 8 * np.finfo(float).eps * float(np.diag(ck).max()), 0.0
    shifts, diagonals = [], []
    for phi, scale in zip(layers, scales, strict=True):
        covariance = scale * ck
        diagonal = np.diag(covariance).copy()
        shift = 0.0
        if centre:
            tau = np.sqrt(np.array([diagonal.mean()]))
            shift = float(moments_at(phi, tau).mean[0])
        kernel_map = KernelMap(phi, np.sqrt(diagonal), shift=shift, tolerance=tolerance)
        value, slope = _apply(kernel_map, covariance)
        steepest = float(np.abs(slope[np.isfinite(slope)]).max(initial=0.0))
        grown = scale * steepest
        ntk_error = ntk_error * grown + kernel_map.largest_slope_error * scale * float(np.abs(ntk).max())
        ck_error = ck_error * grown + kernel_map.largest_value_error
        with np.errstate(invalid="ignore"):
            ntk = value + scale * np.where(ntk == 0, 0.0, ntk * slope)
        ntk_error += ck_error
        ck = value
        shifts.append(shift)
        diagonals.append(diagonal)
    return ExplicitKernels(ck, ntk, tuple(shifts), tuple(diagonals), ck_error, ntk_error)


def _apply(kernel_map: KernelMap, covariance: Array) -> tuple[Array, Array]:
    """Both dual activations of a whole symmetric matrix."""
    value, slope = np.empty_like(covariance), np.empty_like(covariance)

    def work(rows: slice, columns: slice) -> None:
        block = covariance[rows, columns].copy()
        if rows == columns:
            np.fill_diagonal(block, 0.0)
        parts = kernel_map.block(rows, columns, block)
        for target, part in zip((value, slope), parts, strict=True):
            target[rows, columns] = part
            target[columns, rows] = part.T

    for_each_block(len(covariance), work)
    np.fill_diagonal(value, kernel_map.second)
    np.fill_diagonal(slope, kernel_map.derivative_square)
    return value, slope
