r"""Limit spectra of a DEQ's kernels on a Gaussian mixture: bulk, isolated eigenvalues, alignment with the classes.

With X = M Y^T/sqrt(p) + W, M = [mu_1 ... mu_K], Y the class indicators and w_i the centred samples (scaled by
1/sqrt(p)), the equivalent is

    alpha_1 X^T X + V C V^T + c I = alpha_1 W^T W + U B U^T + c I,      U = [Y/sqrt(p), W^T M, psi],
    B = [[A_YY + alpha_1 M^T M, alpha_1 I, A_Yp], [alpha_1 I, 0, 0], [A_pY, 0, A_pp]],   c = gamma^2 - tau_0^2 alpha_1,

A the middle matrix of the low-rank part (alpha_2 t t^T + alpha_3 T, alpha_2 t, alpha_2). The bulk is c + alpha_1
(spectrum of W^T W). With zeta = (z - c)/alpha_1 and g_a, Q of `stieltjes`, U^T (alpha_1 W^T W + c - z)^{-1} U has the
limit

    S(z) = diag( r_a g_a,  M^T (I + zeta Q) M,  sum_a r_a (2 tr C_a^2 / p) g_a ) / alpha_1,

and an isolated eigenvalue is a real root of det(I + B S(z)) outside the bulk. The residue of S (I + B S)^{-1} there
is minus U^T u u^T U for its eigenvector u, so its diagonal tells the alignment with each class vector. For the NTK
put betas and kappa^2.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from analysis.rmt.equations import FourEquations
from analysis.rmt.explicit import Coefficients
from analysis.rmt.stieltjes import Array, Complex, Population, density, solve_delta, support

_CONTOUR = 24


@dataclass(frozen=True)
class Outlier:
    """An isolated eigenvalue of the limit and its eigenvector's squared projections.

    Attributes:
        position: the eigenvalue.
        class_alignment: squared cosine with each normalised class vector j_a / sqrt(n_a), [K].
        energy_alignment: squared cosine with the vector psi.
    """

    position: float
    class_alignment: Array
    energy_alignment: float


class KernelSpectrum:
    """The limit spectrum of alpha_1 X^T X + V C V^T + c I on a mixture.

    Usage:
        spectrum = KernelSpectrum(eq, means, covariances, sizes, kind="ck")
        spectrum.density(x), spectrum.support(), spectrum.outliers()
    """

    def __init__(self, eq: FourEquations | Coefficients, means: Array, covariances: Sequence[Array | float],
                 sizes: Sequence[int] | NDArray[np.intp], *, kind: str = "ck", tau0: float | None = None) -> None:
        """Collect what the limit depends on.

        Args:
            eq: the solved equations, or an explicit network's coefficients (then give tau0).
            means: mu_a, [K, p], the samples being centred at mu_a / sqrt(p).
            covariances: C_a, each a number, a diagonal [p] or a matrix [p, p].
            sizes: of the classes.
            kind: "ck" or "ntk".
            tau0: sqrt(tr C / p); taken from `eq` if it has it.

        Raises:
            ValueError: an unknown kind, or shapes that do not fit.
        """
        if kind not in ("ck", "ntk"):
            raise ValueError(f"unknown kind {kind!r}; known: ck, ntk")
        self.kind = kind
        self.means = np.atleast_2d(np.asarray(means, dtype=float))
        self.sizes = np.asarray(sizes)
        count, self.p = self.means.shape
        if count != len(covariances) or count != len(self.sizes):
            raise ValueError(f"{count} means, {len(covariances)} covariances and {len(self.sizes)} sizes do not fit")
        self.population = Population.of_covariances(covariances, self.sizes.tolist(), self.p)
        base = float(eq.tau0 if isinstance(eq, FourEquations) else tau0 or 0.0)
        if base <= 0:
            raise ValueError("tau0 must be given, positive, with an explicit network's coefficients")
        one, two, three, diagonal = ((eq.alpha1, eq.alpha2, eq.alpha3, eq.gamma2) if kind == "ck"
                                     else (eq.beta1, eq.beta2, eq.beta3, eq.kappa2))
        self.slope = float(one)
        self.shift = float(diagonal - base**2 * one)
        full = [self._full(c) for c in covariances]
        traces = np.array([np.trace(c) for c in full]) / self.p
        t = np.sqrt(self.p) * (traces - self.sizes @ traces / self.sizes.sum())
        products = np.array([[np.sum(a * b.T) for b in full] for a in full]) / self.p
        self._energy = 2 * np.diag(products)  # p Var psi_i by class
        self._basis_means, self._basis_weights = self._project(full)
        middle = np.zeros((2 * count + 1, 2 * count + 1))
        middle[:count, :count] = two * np.outer(t, t) + three * products + one * self.means @ self.means.T
        middle[:count, count:2 * count] = middle[count:2 * count, :count] = one * np.eye(count)
        middle[:count, -1] = middle[-1, :count] = two * t
        middle[-1, -1] = two
        self._middle = middle.astype(float)

    def _full(self, covariance: Array | float) -> Array:
        given = np.asarray(covariance, dtype=float)
        return given if given.ndim == 2 else np.diag(np.broadcast_to(given, (self.p,)))

    def _project(self, full: list[Array]) -> tuple[Array, Array]:
        """Eigenvalues of the classes along a common basis and the means in it, for M^T Q M."""
        if all(np.count_nonzero(c - np.diag(np.diag(c))) == 0 for c in full):
            return np.stack([np.diag(c) for c in full]), self.means
        mean = np.tensordot(self.sizes / self.sizes.sum(), full, axes=1)
        eigenvalues, basis = np.linalg.eigh(mean)
        return np.stack([eigenvalues * np.trace(c) / np.trace(mean) for c in full]), self.means @ basis

    def density(self, x: Array) -> Array:
        """Bulk density of the kernel's eigenvalues at x, [m]."""
        x = np.atleast_1d(np.asarray(x, dtype=float))
        return density(self.population, (x - self.shift) / self.slope) / self.slope

    @property
    def atom(self) -> tuple[float, float]:
        """Position and share of the atom that more samples than dimensions cause."""
        return self.shift, self.population.atom

    def support(self) -> list[tuple[float, float]]:
        """Intervals of the bulk."""
        return [(self.shift + self.slope * a, self.shift + self.slope * b) for a, b in support(self.population)]

    def reduced(self, z: Complex) -> tuple[Complex, Complex]:
        """S(z) and I + B S(z), [m, 2K+1, 2K+1], for z in the upper half plane."""
        zeta = (np.atleast_1d(z) - self.shift) / self.slope
        delta, _ = solve_delta(self.population, zeta)
        g = -1 / (zeta[:, None] * (1 + delta))
        r, count = self.population.ratios, len(self.sizes)
        q = 1 / (-zeta[:, None] + (r / (1 + delta)) @ self._basis_means)
        signal = (1 + zeta[:, None] * q)[:, None, :] * self._basis_weights[None] @ self._basis_weights.T
        s = np.zeros((len(zeta), 2 * count + 1, 2 * count + 1), dtype=complex)
        index = np.arange(count)
        s[:, index, index] = r * g
        s[:, count:2 * count, count:2 * count] = signal
        s[:, -1, -1] = g @ (r * self._energy)
        s /= self.slope
        return s, np.eye(2 * count + 1) + self._middle @ s

    def _determinant(self, x: Array | float) -> Array:
        x = np.atleast_1d(np.asarray(x, dtype=float))
        height = 1e-10 * self.slope * self.population.scale
        return np.asarray(np.linalg.det(self.reduced(x + 1j * height)[1]).real)

    def outliers(self, *, points: int = 96) -> list[Outlier]:
        """All isolated eigenvalues, decreasing.

        Args:
            points: of the scan in each gap of the bulk; two roots between neighbours are not seen.
        """
        bulk = self.support()
        if self.population.atom:
            bulk = [(self.shift, self.shift), *bulk]
        bulk.sort()
        edges = [edge for interval in bulk for edge in interval]
        width = edges[-1] - edges[0]
        far = width + float(np.abs(np.linalg.eigvalsh(self._middle)).max()) * (1 + float(np.abs(self.means).max()))
        near = np.geomspace(1e-4 * width, far, points)
        stretches = [edges[-1] + near, edges[0] - near[::-1]]
        for (_, left), (right, _) in itertools.pairwise(bulk):
            if right - left > 1e-3 * width:
                stretches.append(np.linspace(left, right, points + 2)[1:-1])
        roots: list[float] = []
        for stretch in stretches:
            values = self._determinant(stretch)
            for index in np.flatnonzero(values[1:] * values[:-1] < 0):
                low, high = stretch[index], stretch[index + 1]
                root = float(optimize.brentq(lambda x: float(self._determinant(x)[0]), low, high, xtol=1e-9 * width))
                if abs(self._determinant(root)[0]) < 1e-3 * max(abs(values[index]), abs(values[index + 1])):
                    roots.append(root)  # else it is a pole of S, such as zeta = 0
        roots.sort(reverse=True)
        return [self._outlier(root, roots, edges) for root in roots]

    def _outlier(self, root: float, roots: list[float], edges: list[float]) -> Outlier:
        """Residue by the trapezoidal rule on a circle that encloses this root alone; the lower half by symmetry."""
        others = [abs(root - value) for value in (*roots, *edges) if value != root]
        radius = 0.4 * min(others)
        angles = (np.arange(_CONTOUR) + 0.5) * np.pi / _CONTOUR
        z = root + radius * np.exp(1j * angles)
        s, system = self.reduced(z)
        inverse = np.linalg.solve(np.swapaxes(system, 1, 2), np.swapaxes(s, 1, 2))  # (S (I + B S)^{-1})^T
        residue = np.einsum("m,mii->i", radius * np.exp(1j * angles), inverse).real / _CONTOUR
        count = len(self.sizes)
        energy = float(self._energy @ self.population.ratios)
        return Outlier(root, -residue[:count] / self.population.ratios, float(-residue[-1] / energy))
