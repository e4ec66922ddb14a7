r"""Deterministic equivalents of the kernels of a DEQ on a Gaussian mixture [RMT, theorems 1 and 2].

`G ~ alpha_1 X^T X + V C V^T + (gamma^2 - tau_0^2 alpha_1) I` with `V = [J / sqrt(p), psi]`; the NTK has the same form
with betas and kappa^2.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, eigsh

from analysis.rmt.mixtures import MixtureSample

Array = NDArray[np.float64]


class KernelKind(StrEnum):
    """Which kernel."""

    CK = "ck"
    NTK = "ntk"


class CovarianceTerm(StrEnum):
    """Which T_ab enters.

    Example:
        >>> import analysis
        >>> analysis.CovarianceTerm.PRODUCT
        <CovarianceTerm.PRODUCT: 'tr(C_a C_b)/p'>
    """

    PRODUCT = "tr(C_a C_b)/p"                    # what the theory needs
    RELEASED = "released code"                   # centred covariances, elementwise product
    CENTRED = "tr((C_a - C)(C_b - C))/p"         # centred, with the matrix product


class Coefficients(Protocol):
    """The solved four equations: `analysis.solve_equations` gives one."""

    @property
    def tau0(self) -> float:
        """Root mean square of the inputs."""

    @property
    def alpha1(self) -> float:
        """Coefficient of X^T X."""

    @property
    def alpha2(self) -> float:
        """Of the energy terms."""

    @property
    def alpha3(self) -> float:
        """Of T."""

    @property
    def gamma2(self) -> float:
        """Diagonal of the conjugate kernel."""

    @property
    def beta1(self) -> float:
        """The NTK's alpha1."""

    @property
    def beta2(self) -> float:
        """The NTK's alpha2."""

    @property
    def beta3(self) -> float:
        """The NTK's alpha3."""

    @property
    def kappa2(self) -> float:
        """Diagonal of the NTK."""


def low_rank_part(eq: Coefficients, data: MixtureSample, kind: KernelKind | str = KernelKind.CK, *,
                  covariance_term: CovarianceTerm = CovarianceTerm.PRODUCT) -> tuple[Array, Array]:
    """V, [n, K + 1], and C, [K + 1, K + 1], of the equivalent's low-rank part V C V^T."""
    stats = data.statistics
    second, third = (eq.alpha2, eq.alpha3) if KernelKind(kind) is KernelKind.CK else (eq.beta2, eq.beta3)
    count = len(stats.sizes)
    if covariance_term is CovarianceTerm.PRODUCT:
        product = stats.T
    elif covariance_term is CovarianceTerm.RELEASED:
        product = stats.released_T
    else:
        weights = stats.sizes / stats.sizes.sum()
        middle = np.eye(count) - weights[None, :]  # row a: C_a minus the weighted mean
        product = middle @ stats.T @ middle.T
    v = np.zeros((len(data.labels), count + 1))
    v[np.arange(len(data.labels)), data.labels] = 1 / np.sqrt(stats.p)
    v[:, count] = data.energies
    c = np.empty((count + 1, count + 1))
    c[:count, :count] = float(second) * np.outer(stats.t, stats.t) + float(third) * product
    c[:count, count] = c[count, :count] = float(second) * stats.t
    c[count, count] = float(second)
    return v, c


def equivalent_kernel(eq: Coefficients, data: MixtureSample, kind: KernelKind | str = KernelKind.CK, *,
                      covariance_term: CovarianceTerm = CovarianceTerm.PRODUCT) -> Array:
    """The deterministic equivalent of a kernel of a DEQ (phi centred) on a mixture's sample, [n, n].

    Args:
        eq: the solved four equations.
        data: a sample of a `GaussianMixture`, or labelled data with estimated statistics.
        kind: "ck" or "ntk".
        covariance_term: which T_ab; the released code's is there to show what it costs.

    Raises:
        ValueError: an unknown kind, or equations solved for another tau_0 than the data's.

    Example:
        >>> import numpy as np, analysis
        >>> mixture = analysis.GaussianMixture(np.eye(2, 4), [np.eye(4)] * 2, sizes=[6, 6])
        >>> sample = mixture.sample(np.random.default_rng(0))
        >>> equations = analysis.solve_equations("relu", 0.2, tau0=sample.statistics.tau0)
        >>> analysis.equivalent_kernel(equations, sample, kind="ck").shape
        (12, 12)
    """
    which = KernelKind(kind)
    tau0 = float(eq.tau0)
    if abs(tau0 - data.statistics.tau0) > 0.01 * tau0:
        raise ValueError(f"the equations were solved at tau0 = {tau0:.6g}, but the data have sqrt(tr C / p) = "
                         f"{data.statistics.tau0:.6g}; pass tau0=data.statistics.tau0 to solve_equations")
    first, diagonal = (eq.alpha1, eq.gamma2) if which is KernelKind.CK else (eq.beta1, eq.kappa2)
    v, c = low_rank_part(eq, data, which, covariance_term=covariance_term)
    kernel = float(first) * (data.x.T @ data.x) + v @ c @ v.T
    kernel[np.diag_indices_from(kernel)] += float(diagonal) - tau0**2 * float(first)
    return np.asarray(kernel, dtype=np.float64)


def spectral_norm(matrix: Array, *, tolerance: float = 1e-4) -> float:
    """The largest |eigenvalue| of a symmetric matrix, to a relative `tolerance`, by Lanczos."""
    if len(matrix) <= 64:
        return float(np.abs(np.linalg.eigvalsh(matrix)).max())
    start = np.random.default_rng(0).standard_normal(len(matrix))
    operator = LinearOperator(matrix.shape, matvec=lambda vector: matrix @ vector, dtype=np.float64)
    return float(np.abs(eigsh(operator, k=1, which="LM", return_eigenvectors=False, tol=tolerance, v0=start)).max())
