r"""Exact conjugate and tangent kernels of a deep equilibrium model of infinite width.

The network is `h = phi(sigma_a A h + sigma_b B x) / sqrt(m)` with tied A, B of N(0,1) entries [RMT, section 2]. Its
pre-activations at equilibrium are Gaussian with covariance `S = sigma_a^2 G + sigma_b^2 X^T X`, and
`G_ij = E[phi(u_i) phi(u_j)]`, `u ~ N(0, S)`. The diagonal of S closes on itself and is solved first; given it, each
off-diagonal entry is the root of a scalar equation whose derivative, `sigma_a^2 E[phi' phi'] - 1`, comes with the value
(Price's theorem): Newton needs three or four evaluations where sweeps of the fixed point need a dozen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.activations import Activation, as_activation
from analysis.errors import NotWellPosed
from analysis.kernels.blocks import for_each_block
from analysis.kernels.diagonal import centring_shift, solve_diagonal
from analysis.kernels.kernel_map import KernelMap, shifted

Array = NDArray[np.float64]

_EPS = float(np.finfo(float).eps)
_MOST_STEPS = 200


class NtkConvention(StrEnum):
    """Which weights the tangent kernel counts. The conjugate kernel is the part of a trained readout in both."""

    READOUT_AND_A = "readout+A"        # [RMT]: K = G / (1 - sigma_a^2 E[phi' phi'])
    READOUT_A_AND_B = "readout+A+B"    # adds sigma_b^2 x.x E[phi' phi'] / (1 - sigma_a^2 E[phi' phi'])


class FixedPointNotReached(ArithmeticError):
    """An off-diagonal entry of the kernel did not converge."""


@dataclass(frozen=True)
class DeqKernels:
    """The kernels of a DEQ; unpacks as `ck, ntk = deq_kernels(...)`.

    Attributes:
        ck: conjugate kernel G, [n, n].
        ntk: tangent kernel in the convention asked for, [n, n].
        covariance: of the pre-activations, S = sigma_a^2 G + sigma_b^2 X^T X, [n, n].
        slope: E[phi'(u_i) phi'(u_j)], [n, n].
        shift: the constant taken from phi (0 unless centred).
        residual: largest entry of |sigma_a^2 G(S) + sigma_b^2 X^T X - S|.
        contraction: largest sigma_a^2 E[phi' phi']; the map on S contracts by it.
        ck_error: bound on the error of any entry of `ck`: that of the dual activation plus the residual's share.
        ntk_error: the same for `ntk`, to first order in the errors of its ingredients.
        slope_error: the same for `slope`.
        steps: the most Newton steps that a block of entries took.
        convention: of `ntk`.
    """

    ck: Array
    ntk: Array
    covariance: Array
    slope: Array
    shift: float
    residual: float
    contraction: float
    ck_error: float
    ntk_error: float
    slope_error: float
    steps: int
    convention: NtkConvention

    def __iter__(self) -> Iterator[Array]:
        """Give (ck, ntk)."""
        return iter((self.ck, self.ntk))

    def __getitem__(self, index: int) -> Array:
        """Entry of the pair (ck, ntk)."""
        return (self.ck, self.ntk)[index]


def check_data(data: ArrayLike) -> Array:
    """X as a float64 matrix [p, n] with columns as samples.

    Raises:
        ValueError: not a matrix, empty, or with entries that are not finite.
    """
    x = np.asarray(data, dtype=np.float64)
    if x.ndim != 2:
        raise ValueError(f"X must be a matrix [p, n] whose columns are samples; it has shape {x.shape}")
    if 0 in x.shape:
        raise ValueError(f"X is empty: shape {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError(f"X holds {int(np.count_nonzero(~np.isfinite(x)))} entries that are not finite; "
                         "clean the data first")
    return x


def check_variances(sigma_a2: float, sigma_b2: float | None) -> tuple[float, float]:
    """The two weight variances as floats; sigma_b^2 is 1 - sigma_a^2 unless given.

    Raises:
        ValueError: a variance that is negative or not finite.
    """
    a = float(sigma_a2)
    if not (np.isfinite(a) and a >= 0):
        raise ValueError(f"sigma_a2 must be a finite number not below 0, not {sigma_a2!r}")
    if sigma_b2 is None:
        if a > 1:
            raise ValueError(f"sigma_a2 = {a:g} is above 1, so sigma_b2 = 1 - sigma_a2 is negative; "
                             "give sigma_b2 itself")
        return a, 1.0 - a
    b = float(sigma_b2)
    if not (np.isfinite(b) and b >= 0):
        raise ValueError(f"sigma_b2 must be a finite number not below 0, not {sigma_b2!r}")
    return a, b


def _distinct(x: Array) -> tuple[Array, NDArray[np.intp]]:
    """The distinct columns of x and, for each column, which of them it is: equal points then get equal kernels."""
    first: dict[bytes, int] = {}
    inverse = np.array([first.setdefault(np.ascontiguousarray(column).tobytes(), len(first)) for column in x.T])
    if len(first) == x.shape[1]:
        return x, inverse
    kept = np.unique(inverse, return_index=True)[1]
    return x[:, kept], inverse


def deq_kernels(
    X: ArrayLike,
    activation: str | Activation | Callable[[Array], Array],
    sigma_a2: float,
    *,
    sigma_b2: float | None = None,
    convention: NtkConvention | str = NtkConvention.READOUT_AND_A,
    centre: bool | float = False,
    tolerance: float = 1e-13,
) -> DeqKernels:
    """Exact conjugate and neural tangent kernels of an infinitely wide DEQ on data X.

    Args:
        X: data, [p, n], columns are samples; no scaling is applied (the paper's data have squared norms near 1).
        activation: a name, an `Activation`, or any callable on float64 arrays.
        sigma_a2: variance of the recurrent weights.
        sigma_b2: variance of the input weights; 1 - sigma_a2 unless given.
        convention: which weights the tangent kernel counts.
        centre: False for phi as given; True for phi - E phi(tau xi), tau from [RMT]'s tau equation with
            tau_0^2 the mean squared norm of the samples; a number is subtracted as it is.
        tolerance: relative, of series truncation and of the fixed point.

    Returns:
        A `DeqKernels`, which unpacks as `(ck, ntk)`.

    Raises:
        ValueError: X is no finite matrix, or a variance is negative.
        NoSolution: no equilibrium variance.
        NotWellPosed: sigma_a^2 E phi'(u_i)^2 >= 1 for a sample, so that no stable equilibrium exists.
        GrowsTooFast: phi grows too fast for its Gaussian moments.
        FixedPointNotReached: an entry did not converge.
    """
    x, inverse = _distinct(check_data(X) + 0.0)  # + 0.0 makes one zero of 0 and -0
    a2, b2 = check_variances(sigma_a2, sigma_b2)
    phi = as_activation(activation)
    rule = NtkConvention(convention)
    gram = x.T @ x
    norms = np.diag(gram).copy()
    if isinstance(centre, bool):
        shift = centring_shift(phi, a2, b2 * float(norms[inverse].mean())) if centre else 0.0
    else:
        shift = float(centre)
    variance = solve_diagonal(shifted(phi, shift), a2, b2 * norms)
    kernel_map = KernelMap(phi, np.sqrt(variance), shift=shift, tolerance=tolerance)
    diagonal_slope = kernel_map.moments.slope_second
    worst = int(np.argmax(diagonal_slope))
    if a2 > 0 and not a2 * diagonal_slope[worst] < 1:
        raise NotWellPosed(f"sigma_a2 = {a2:g} is too large for {phi.name}: sigma_a^2 E[phi'(u)^2] = "
                       f"{a2 * diagonal_slope[worst]:.6g} for sample {worst} (pre-activation variance "
                       f"{variance[worst]:.4g}) must stay below 1, or the equilibrium is not stable and the "
                       "tangent kernel infinite; take a smaller sigma_a2")
    count = x.shape[1]
    ck, slope, covariance = (np.empty((count, count)) for _ in range(3))
    steps = [0]
    residuals = [0.0]
    closest = [1.0]
    safe = np.maximum(variance, 1e-200)

    def work(rows: slice, columns: slice) -> None:
        value, derivative, s, taken, residual = solve_block(kernel_map, rows, columns, gram[rows, columns], safe,
                                                             a2, b2, tolerance)
        for target, part in ((ck, value), (slope, derivative), (covariance, s)):
            target[rows, columns] = part
            target[columns, rows] = part.T
        steps[0] = max(steps[0], taken)
        residuals[0] = max(residuals[0], residual)
        size = np.abs(s) / (np.sqrt(safe[rows, None]) * np.sqrt(safe[None, columns]))
        if rows == columns:
            np.fill_diagonal(size, 0.0)
        closest[0] = min(closest[0], float(np.sqrt(max(1 - float(size.max(initial=0.0)) ** 2, _EPS))))

    for_each_block(count, work)
    for target, diagonal in ((ck, kernel_map.moments.second), (slope, diagonal_slope), (covariance, variance)):
        np.fill_diagonal(target, diagonal)
    own = float(np.abs(a2 * kernel_map.moments.second + b2 * norms - variance).max())
    residual = max(residuals[0], own)
    gain = 1 - a2 * slope if a2 > 0 else np.ones_like(slope)
    ntk = ck / gain
    if rule is NtkConvention.READOUT_A_AND_B:
        ntk = ntk + b2 * gram * slope / gain
    contraction = float(a2 * np.abs(slope).max()) if a2 > 0 else 0.0
    size = float(kernel_map.moments.second.max())
    slope_size = float(np.abs(slope).max())
    ck_error = kernel_map.value_error + 32 * _EPS * size
    if a2 > 0:  # without recurrence S is the data's, and phi' may well have no second moment
        ck_error += residual * slope_size / (1 - contraction)
    least = float(gain.min())
    # a kink makes E[phi' phi'] as sensitive to S as the density of (u, v) at the kink: 1 / (2 pi sd sd sine)
    kink = kernel_map.slope_jump**2 / (2 * np.pi * float(safe.min()) * closest[0]) if count > 1 else 0.0
    slope_error = kernel_map.derivative_error + 64 * _EPS * slope_size
    slope_error += min(kink * (residual + 4 * _EPS * float(safe.max())), slope_size)
    reach = a2 * size + (b2 * float(norms.max()) if rule is NtkConvention.READOUT_A_AND_B else 0.0)
    ntk_error = ck_error / least + (reach * slope_error / least**2 if reach > 0 else 0.0)
    if len(inverse) > count:
        ck, ntk, covariance, slope = (matrix[np.ix_(inverse, inverse)] for matrix in (ck, ntk, covariance, slope))
    return DeqKernels(ck, ntk, covariance, slope, shift, residual, contraction, ck_error, ntk_error,
                      slope_error, steps[0], rule)


def solve_block(kernel_map: KernelMap, rows: slice, columns: slice, gram: Array, variance: Array, a2: float, b2: float,
                 tolerance: float) -> tuple[Array, Array, Array, int, float]:
    """Newton on every off-diagonal entry of a block; entries on the matrix diagonal are left to the caller."""
    limit = np.sqrt(variance[rows, None]) * np.sqrt(variance[None, columns])
    on_diagonal = None
    if rows == columns:
        on_diagonal = np.eye(gram.shape[0], dtype=bool)
    drive = b2 * gram
    if on_diagonal is not None:
        drive[on_diagonal] = 0.0
    s = np.clip(drive, -limit, limit)
    goal = tolerance * float(limit.max()) + 4 * _EPS * float(limit.max())
    best: float = np.inf
    for step in range(1, _MOST_STEPS + 1):
        value, derivative = kernel_map.block(rows, columns, s)
        gap = a2 * value + drive - s
        if on_diagonal is not None:
            gap[on_diagonal] = 0.0
        residual = float(np.abs(gap).max(initial=0.0))
        if residual <= goal:
            return value, derivative, s, step, residual
        newton = step <= 12 or residual < best
        best = min(best, residual)
        divisor = np.maximum(1 - a2 * derivative, 1e-3) if newton and a2 > 0 else 1.0
        s = np.clip(s + gap / divisor, -limit, limit)
    raise FixedPointNotReached(f"a kernel entry still moves by {residual:.3g} after {_MOST_STEPS} steps; "
                               "the DEQ is at the edge of well-posedness: take a smaller sigma_a2")
