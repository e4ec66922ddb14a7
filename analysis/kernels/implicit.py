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
from analysis.kernels.diagonal import centring_shift, solve_diagonal
from analysis.kernels.doors import Samples, check_data, check_variances, distinct
from analysis.kernels.filling import Fill, fill
from analysis.kernels.kernel_map import KernelMap

Array = NDArray[np.float64]

_EPS = float(np.finfo(float).eps)


class NtkConvention(StrEnum):
    """Which weights the tangent kernel counts. The conjugate kernel is the part of a trained readout in both.

    Example:
        >>> import analysis
        >>> [str(convention) for convention in analysis.NtkConvention]
        ['readout+A', 'readout+A+B']
    """

    READOUT_AND_A = "readout+A"        # [RMT]: K = G / (1 - sigma_a^2 E[phi' phi'])
    READOUT_A_AND_B = "readout+A+B"    # adds sigma_b^2 x.x E[phi' phi'] / (1 - sigma_a^2 E[phi' phi'])


@dataclass(frozen=True)
class DeqKernels:
    """The kernels of a DEQ; unpacks as `ck, ntk = deq_kernels(...)`.

    Attributes:
        ck: conjugate kernel G, [n, n].
        ntk: tangent kernel in the convention asked for, [n, n].
        slope: E[phi'(u_i) phi'(u_j)], [n, n].
        shift: the constant taken from phi (0 unless centred).
        residual: largest entry of |sigma_a^2 G(S) + sigma_b^2 X^T X - S|.
        contraction: largest sigma_a^2 E[phi' phi']; the map on S contracts by it.
        ck_error: bound on the error of any entry of `ck`: that of the dual activation plus the residual's share;
            `ck_errors` gives it entry by entry.
        ntk_error: the same for `ntk`, to first order in the errors of its ingredients; `ntk_errors`.
        slope_error: the same for `slope`; `slope_errors`.
        steps: the most Newton steps that a block of entries took; 1 where no entry needed any.
        convention: of `ntk`.

    Example:
        >>> import numpy as np, analysis
        >>> rows = np.random.default_rng(0).standard_normal((5, 3)) / 3**0.5  # samples as rows: pass the transpose
        >>> kernels = analysis.deq_kernels(rows.T, "tanh", sigma_a2=0.2)
        >>> kernels.contraction < 1, kernels.ck_error < 1e-10
        (True, True)
    """

    ck: Array
    ntk: Array
    slope: Array
    shift: float
    residual: float
    contraction: float
    ck_error: float
    ntk_error: float
    slope_error: float
    steps: int
    convention: NtkConvention
    _sources: _Sources

    def __iter__(self) -> Iterator[Array]:
        """Give (ck, ntk)."""
        return iter((self.ck, self.ntk))

    def __getitem__(self, index: int) -> Array:
        """Entry of the pair (ck, ntk)."""
        return (self.ck, self.ntk)[index]

    @property
    def covariance(self) -> Array:
        """S = sigma_a^2 G + sigma_b^2 X^T X of the pre-activations, [n, n], formed anew at each call."""
        own = self._sources
        result = own.a2 * self.ck
        if own.b2 > 0:
            result += own.b2 * (own.x.T @ own.x)[np.ix_(own.inverse, own.inverse)]
        return result

    @property
    def ck_errors(self) -> Array:
        """A bound on the error of each entry of `ck`, [n, n]: small samples do not hide behind large ones."""
        return self._sources.value_errors(self.slope, self.contraction)

    @property
    def slope_errors(self) -> Array:
        """A bound on the error of each entry of `slope`, [n, n]."""
        return self._sources.slope_errors(self.covariance, self.slope)

    @property
    def ntk_errors(self) -> Array:
        """A bound on the error of each entry of `ntk`, [n, n], to first order in those of its ingredients."""
        own = self._sources
        gain = 1 - own.a2 * self.slope if own.a2 > 0 else np.ones_like(self.slope)
        through = own.a2 * np.abs(self.ck)
        if self.convention is NtkConvention.READOUT_A_AND_B:
            through = through + own.b2 * np.abs(own.x.T @ own.x)[np.ix_(own.inverse, own.inverse)]
        slope = np.where(through > 0, through, 1.0) * self.slope_errors / gain**2
        return self.ck_errors / gain + np.where(through > 0, slope, 0.0) + 4 * _EPS * np.abs(self.ntk)


@dataclass(frozen=True)
class _Sources:
    """What the entrywise bounds and the covariance are made of: data, variances, sizes of the distinct samples."""

    x: Array
    inverse: NDArray[np.intp]
    a2: float
    b2: float
    kernel_map: KernelMap
    residual: float  # relative to sd_i sd_j

    def _spread(self, of_block: Array) -> Array:
        if len(self.inverse) == len(of_block):
            return of_block
        return of_block[np.ix_(self.inverse, self.inverse)]

    def value_errors(self, slope: Array, contraction: float) -> Array:
        whole = slice(None)
        own = self._spread(self.kernel_map.value_errors(whole, whole))
        if self.a2 > 0:
            sd = self.kernel_map.sd[self.inverse]
            own = own + self.residual * np.abs(slope) / (1 - contraction) * sd[:, None] * sd
        return own

    def slope_errors(self, covariance: Array, slope: Array) -> Array:
        whole = slice(None)
        sd = self.kernel_map.sd[self.inverse]
        rho = np.abs(covariance) / sd[:, None] / sd
        sine = np.sqrt(np.maximum((1 - rho) * (1 + rho), _EPS))
        # a kink makes E[phi' phi'] as sensitive to S as the density of (u, v) at the kink: 1 / (2 pi sd sd sine)
        kink = self.kernel_map.slope_jump**2 * (self.residual + 8 * _EPS) / (2 * np.pi * sine)
        np.fill_diagonal(kink, 0.0)
        return self._spread(self.kernel_map.slope_errors(whole, whole)) + np.minimum(kink, np.abs(slope).max())


def deq_kernels(
    X: ArrayLike,
    activation: str | Activation | Callable[[Array], Array],
    sigma_a2: float,
    *,
    sigma_b2: float | None = None,
    convention: NtkConvention | str = NtkConvention.READOUT_AND_A,
    centre: bool | float = False,
    samples: Samples = "columns",
    tolerance: float = 1e-13,
) -> DeqKernels:
    """Exact conjugate and neural tangent kernels of an infinitely wide DEQ on data X.

    >>> ck, ntk = deq_kernels(np.eye(3), "relu", 0.2)
    >>> ck.shape, bool(np.all(np.diag(ntk) > np.diag(ck)))
    ((3, 3), True)

    Args:
        X: data, [p, n], columns are samples; no scaling is applied (the paper's data have squared norms near 1).
        activation: a name, an `Activation`, a torch function or module, or any callable on float64 arrays.
        sigma_a2: variance of the recurrent weights.
        sigma_b2: variance of the input weights; 1 - sigma_a2 unless given.
        convention: which weights the tangent kernel counts.
        centre: False for phi as given; True for phi - E phi(tau xi), tau from [RMT]'s tau equation with
            tau_0^2 the mean squared norm of the samples; a number is subtracted as it is.
        samples: "columns" for X of shape [p, n], "rows" for [n, p].
        tolerance: relative, of series truncation and of the fixed point.

    Returns:
        A `DeqKernels`, which unpacks as `(ck, ntk)`.

    Raises:
        ValueError: X is no finite matrix, or masked, or a variance is negative.
        NoSolution: no equilibrium variance.
        NotWellPosed: sigma_a^2 E phi'(u_i)^2 >= 1 for a sample, so that no stable equilibrium exists.
        GrowsTooFast: phi grows too fast for its Gaussian moments.
        NotResolved: phi is not smooth between finitely many kinks, or its slope is unbounded at one.
        FixedPointNotReached: an entry did not converge.

    Warns:
        OrientationWarning: the rows of X look like samples.
    """
    x, inverse = distinct(check_data(X, samples) + 0.0)  # + 0.0 makes one zero of 0 and -0
    a2, b2 = check_variances(sigma_a2, sigma_b2)
    phi = as_activation(activation)
    rule = NtkConvention(convention)
    norms = np.einsum("pn,pn->n", x, x)
    if isinstance(centre, (bool, np.bool_)):
        shift = centring_shift(phi, a2, b2 * float(norms[inverse].mean())) if centre else 0.0
    else:
        shift = float(centre)
    variance = solve_diagonal(phi, a2, b2 * norms, shift=shift)
    kernel_map = KernelMap(phi, np.sqrt(variance), shift=shift, tolerance=tolerance)
    worst = int(np.argmax(kernel_map.derivative_square))
    steepest = float(kernel_map.derivative_square[worst])
    if a2 > 0 and not a2 * steepest < 1:
        raise NotWellPosed(f"sigma_a2 = {a2:g} is too large for {phi.name}: sigma_a^2 E[phi'(u)^2] = "
                           f"{a2 * steepest:.6g} for sample {worst} (pre-activation variance "
                           f"{variance[worst]:.4g}) must stay below 1, or the equilibrium is not stable and the "
                           "tangent kernel infinite; take a smaller sigma_a2")
    done = fill(Fill(kernel_map, x, norms, variance, a2, b2, tolerance, rule is NtkConvention.READOUT_A_AND_B))
    sources = _Sources(x, inverse, a2, b2, kernel_map, done.residual)
    ck, ntk, slope = done.ck, done.ntk, done.slope
    contraction = a2 * done.steepest if a2 > 0 else 0.0
    largest = float(kernel_map.sd.max()) ** 2
    ck_error = kernel_map.largest_value_error
    if a2 > 0:  # without recurrence S is the data's, and phi' may well have no second moment
        ck_error += done.residual * largest * done.steepest / (1 - contraction)
    kink = kernel_map.slope_jump**2 * (done.residual + 8 * _EPS) / (2 * np.pi * done.sine) if x.shape[1] > 1 else 0.0
    slope_error = kernel_map.largest_slope_error + min(kink, done.steepest)
    least = 1 - contraction
    reach = a2 * float(kernel_map.second.max()) + (
        b2 * float(norms.max()) if rule is NtkConvention.READOUT_A_AND_B else 0.0)
    ntk_error = ck_error / least + (reach * slope_error / least**2 if reach > 0 else 0.0)
    if len(inverse) > x.shape[1]:
        ck, ntk, slope = (matrix[np.ix_(inverse, inverse)] for matrix in (ck, ntk, slope))
    return DeqKernels(ck, ntk, slope, shift, done.residual * largest, contraction, ck_error, ntk_error,
                      slope_error, done.steps, rule, sources)
