r"""Limit spectra of a DEQ's kernels on a Gaussian mixture: bulk, isolated eigenvalues, alignment with the classes.

With X = M Y^T/sqrt(p) + W, M = [mu_1 ... mu_K], Y the class indicators and w_i the centred samples (scaled by
1/sqrt(p)), the equivalent is

    alpha_1 X^T X + V C V^T + c I = alpha_1 W^T W + U B U^T + c I,      U = [Y/sqrt(p), W^T M, psi],
    B = [[A_YY + alpha_1 M^T M, alpha_1 I, A_Yp], [alpha_1 I, 0, 0], [A_pY, 0, A_pp]],   c = gamma^2 - tau_0^2 alpha_1,

A the middle matrix of the low-rank part (alpha_2 t t^T + alpha_3 T, alpha_2 t, alpha_2). The bulk is c + alpha_1
(spectrum of W^T W). With zeta = (z - c)/alpha_1 and g_a, Q of `stieltjes`, U^T (alpha_1 W^T W + c - z)^{-1} U has the
limit

    S(z) = diag( r_a g_a,  M^T (I + zeta Q) M,  sum_a r_a (2 tr C_a^2 / p) g_a ) / alpha_1.

Every isolated eigenvalue, with its multiplicity. Write B = P D sign D P^T with D >= 0. Then x outside the bulk is an
eigenvalue as often as the symmetric matrix sign + D P^T S(x) P D has the eigenvalue 0 (Sylvester's law of inertia), and
in each gap of the bulk its eigenvalues only increase with x: counting the negative ones at both ends of a gap counts
the isolated eigenvalues between, and each is found by halving. For the NTK put betas and kappa^2.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.rmt.commuting import common_basis
from analysis.rmt.equations import FourEquations
from analysis.rmt.explicit import Coefficients
from analysis.rmt.mixtures import ClassStatistics, GaussianMixture, statistics_of
from analysis.rmt.stieltjes import Array, Complex, Population, density, resolve, support

_HALVINGS = 60
_AT_EDGE = 1e-7     # outliers nearer to the bulk than this share of its width are not told from it
_SAME = 1e-7        # eigenvalues this close, relative to the bulk's width, share their eigenspace
_HEIGHT = 1e-9      # of the points off the axis at which S is read, relative to the distance from the bulk


@dataclass(frozen=True)
class Outlier:
    """An isolated eigenvalue of the limit and its eigenvector's squared projections.

    Attributes:
        position: the eigenvalue.
        class_alignment: squared cosine with each normalised class vector j_a / sqrt(n_a), [K]; the mean over the
            eigenspace where `multiplicity` is above 1.
        energy_alignment: squared cosine with the vector psi, likewise.
        multiplicity: how many of the listed outliers lie at this position.
    """

    position: float
    class_alignment: Array
    energy_alignment: float
    multiplicity: int = 1


class KernelSpectrum:
    """The limit spectrum of alpha_1 X^T X + V C V^T + c I on a mixture.

    >>> from analysis import GaussianMixture, solve_equations
    >>> means = np.zeros((2, 200)); means[0, 0] = means[1, 1] = 6.0
    >>> mixture = GaussianMixture(means, [1.0, 1.0], [60, 60])
    >>> spectrum = KernelSpectrum(solve_equations("tanh", 0.3, mixture.tau0), mixture, kind="ck")
    >>> [round(o.position, 3) for o in spectrum.outliers()]
    [4.16, 4.16]
    """

    def __init__(self, eq: FourEquations | Coefficients, means: ArrayLike | GaussianMixture,
                 covariances: Sequence[Array | float] | None = None,
                 sizes: Sequence[int] | NDArray[np.intp] | None = None, *, kind: str = "ck",
                 tau0: float | None = None, non_commuting: str = "refuse") -> None:
        """Collect what the limit depends on.

        Args:
            eq: the solved equations, or an explicit network's coefficients.
            means: a `GaussianMixture`, or mu_a, [K, p], the samples being centred at mu_a / sqrt(p).
            covariances: without a mixture, C_a: each a number, a diagonal [p] or a matrix [p, p].
            sizes: without a mixture, of the classes.
            kind: "ck" or "ntk".
            tau0: the tau0 that an explicit network's coefficients were computed for; checked if given.
            non_commuting: "refuse" covariances without a common eigenbasis, or let their "mean" stand for them.

        Raises:
            ValueError: an unknown kind, shapes that do not fit, or equations solved for another tau0.
            NonCommuting: covariances that do not commute (a ValueError).
        """
        if kind not in ("ck", "ntk"):
            raise ValueError(f"unknown kind {kind!r}; known: ck, ntk")
        self.kind = kind
        if isinstance(means, GaussianMixture):
            if covariances is not None or sizes is not None:
                raise ValueError("a mixture brings its covariances and sizes: give them only without one")
            covariances, sizes, means = means.covariances, means.sizes, means.means
        if covariances is None or sizes is None:
            raise ValueError("give a GaussianMixture, or means, covariances and sizes")
        self.means = np.atleast_2d(np.asarray(means, dtype=float))
        self.sizes = np.asarray(sizes)
        count, self.p = self.means.shape
        if count != len(covariances) or count != len(self.sizes):
            raise ValueError(f"{count} means, {len(covariances)} covariances and {len(self.sizes)} sizes do not fit")
        eigenvalues, basis = common_basis(covariances, self.p, self.sizes, non_commuting=non_commuting)
        eigenvalues = np.where(np.abs(eigenvalues) <= 1e-14 * np.abs(eigenvalues).max(), 0.0, eigenvalues)
        self.population = Population.build(eigenvalues, self.sizes.tolist())
        stats = statistics_of(self.means, covariances, self.sizes)
        base = self._checked_tau0(eq, stats, tau0)
        one, two, three, diagonal = (float(value) for value in (
            (eq.alpha1, eq.alpha2, eq.alpha3, eq.gamma2) if kind == "ck"
            else (eq.beta1, eq.beta2, eq.beta3, eq.kappa2)))
        self.slope = one
        self.shift = diagonal - base**2 * one
        self._energy = 2 * np.diag(stats.T)  # p Var psi_i by class
        self._basis_eigenvalues = eigenvalues
        self._basis_means = self.means if basis is None else self.means @ basis
        low_rank = np.zeros((count + 1, count + 1))
        low_rank[:count, :count] = two * np.outer(stats.t, stats.t) + three * stats.T
        low_rank[:count, -1] = low_rank[-1, :count] = two * stats.t
        low_rank[-1, -1] = two
        self._low_rank = low_rank
        middle = np.zeros((2 * count + 1, 2 * count + 1))
        outer = [*range(count), 2 * count]
        middle[np.ix_(outer, outer)] = low_rank
        middle[:count, :count] += one * self.means @ self.means.T
        middle[:count, count:2 * count] = middle[count:2 * count, :count] = one * np.eye(count)
        values, vectors = np.linalg.eigh(middle)
        values[np.abs(values) <= 1e-15 * np.abs(values).max(initial=0.0)] = 0.0
        self._signs = np.where(values < 0, -1.0, 1.0)
        self._turn = vectors * np.sqrt(np.abs(values))  # P D
        self._size = float(np.abs(values).max(initial=0.0))

    @staticmethod
    def _checked_tau0(eq: FourEquations | Coefficients, stats: ClassStatistics, tau0: float | None) -> float:
        """sqrt(tr C / p) of the mixture, once the equations are seen to be its own."""
        solved = float(eq.tau0) if isinstance(eq, FourEquations) else tau0
        if solved is not None and abs(solved - stats.tau0) > 1e-3 * stats.tau0:
            raise ValueError(f"the equations were solved at tau0 = {solved:.6g}, but the mixture has sqrt(tr C / p) = "
                             f"{stats.tau0:.6g}; pass tau0=mixture.tau0 to solve_equations")
        return stats.tau0 if solved is None else float(solved)

    def density(self, x: ArrayLike) -> Array:
        """Bulk density of the kernel's eigenvalues at x, [m]; zero everywhere for alpha_1 = 0."""
        x = np.atleast_1d(np.asarray(x, dtype=float))
        if self.slope == 0:
            return np.zeros_like(x)
        return density(self.population, (x - self.shift) / self.slope) / self.slope

    @property
    def atom(self) -> tuple[float, float]:
        """Position and share of the atom that more samples than dimensions (or alpha_1 = 0) cause."""
        return self.shift, 1.0 if self.slope == 0 else self.population.atom

    def support(self) -> list[tuple[float, float]]:
        """Intervals of the bulk; for alpha_1 = 0 the point where all of it lies."""
        if self.slope == 0:
            return [(self.shift, self.shift)]
        return [(self.shift + self.slope * a, self.shift + self.slope * b) for a, b in support(self.population)]

    def reduced(self, z: ArrayLike) -> Complex:
        """S(z), [m, 2K+1, 2K+1], for z in the upper half plane."""
        points: Complex = np.atleast_1d(np.asarray(z)).astype(np.complex128)
        zeta = (points - self.shift) / self.slope
        found = resolve(self.population, zeta)
        r, count = self.population.ratios, len(self.sizes)
        if self.population.atom == 0:
            share = (r * found.g) @ self._basis_eigenvalues
            through = share / (1 + share)  # I + zeta Q
        else:
            through = 1 + zeta[:, None] / (-zeta[:, None] + (r / (1 + found.delta)) @ self._basis_eigenvalues)
        s = np.zeros((len(zeta), 2 * count + 1, 2 * count + 1), dtype=complex)
        index = np.arange(count)
        s[:, index, index] = r * found.g
        s[:, count:2 * count, count:2 * count] = (through[:, None, :] * self._basis_means) @ self._basis_means.T
        s[:, -1, -1] = found.g @ (r * self._energy)
        return np.asarray(s / self.slope)

    def _signature(self, x: Array, height: Array) -> tuple[Array, Array]:
        """Sign + D P^T S P D at real x outside the bulk, and its derivative, [m, 2K+1, 2K+1]."""
        s = self.reduced(x + 1j * height)
        turned = self._turn.T @ s @ self._turn
        return np.diag(self._signs) + turned.real, turned.imag / height[:, None, None]

    def outliers(self, *, points: int | None = None) -> list[Outlier]:
        """All isolated eigenvalues, decreasing, each as often as its multiplicity.

        Args:
            points: of no influence any more; kept for scripts that pass it.
        """
        del points
        if self.slope == 0:
            return self._without_bulk()
        gaps = self._gaps()
        low, high = (np.array(ends) for ends in zip(*gaps, strict=True))
        below = [self._negative(ends) for ends in (low, high)]
        where = [(n, j) for n in range(len(gaps)) for j in range(below[1][n], below[0][n])]
        if not where:
            return []
        gap, index = (np.array(part) for part in zip(*where, strict=True))
        left, right = low[gap].copy(), high[gap].copy()
        for _ in range(_HALVINGS):
            middle = 0.5 * (left + right)
            values = np.linalg.eigvalsh(self._signature(middle, self._height(middle))[0])
            up = values[np.arange(len(index)), index] < 0
            left, right = np.where(up, middle, left), np.where(up, right, middle)
        positions = np.sort(0.5 * (left + right))[::-1]
        return self._described(positions)

    def _edges(self) -> list[float]:
        edges = [edge for interval in self.support() for edge in interval]
        return sorted([self.shift, *edges]) if self.population.atom else sorted(edges)

    def _height(self, x: Array) -> Array:
        """A distance off the axis that is small against that from the bulk."""
        gap = np.abs(x[:, None] - np.array(self._edges())).min(axis=1)
        return np.maximum(_HEIGHT * gap, 1e-14 * self.slope * self.population.scale)

    def _negative(self, x: Array) -> NDArray[np.intp]:
        return (np.linalg.eigvalsh(self._signature(x, self._height(x))[0]) < 0).sum(axis=1)

    def _gaps(self) -> list[tuple[float, float]]:
        """Stretches of the real line outside the bulk (and its atom), the outer two cut where no eigenvalue can be."""
        edges = self._edges()
        width = max(edges[-1] - edges[0], 1e-300)
        pairs = [(self.shift, self.shift)] * bool(self.population.atom) + self.support()
        pairs.sort()
        # |W^T M|^2 and the class and energy blocks bound |U|^2
        spread = self.population.scale * float(np.linalg.norm(self._basis_means, 2)) ** 2
        spread += float(self.population.ratios.max() + self._energy @ self.population.ratios)
        far = self._size * spread + width
        inset = _AT_EDGE * width
        gaps = [(edges[0] - far, edges[0] - inset), (edges[-1] + inset, edges[-1] + far)]
        gaps += [(left + inset, right - inset) for (_, left), (right, _) in itertools.pairwise(pairs)
                 if right - left > 3 * inset]
        return gaps

    def _described(self, positions: Array) -> list[Outlier]:
        """Alignments from the null space of the signature matrix and its derivative there."""
        width = self._edges()[-1] - self._edges()[0]
        groups: list[list[int]] = []
        for n, position in enumerate(positions):
            if groups and positions[groups[-1][-1]] - position <= _SAME * width:
                groups[-1].append(n)
            else:
                groups.append([n])
        count, found = len(self.sizes), []
        energy = float(self._energy @ self.population.ratios)
        for members in groups:
            x = np.array([positions[members].mean()])
            gap = np.abs(x - np.array(self._edges())).min()
            at, rate = self._signature(x, np.array([1e-4 * gap]))
            values, vectors = np.linalg.eigh(at[0])
            null = vectors[:, np.argsort(np.abs(values))[:len(members)]]
            inner = np.linalg.inv(null.T @ rate[0] @ null)
            reach = self.reduced(x + 1j * self._height(x))[0].real @ self._turn @ null
            projections = np.einsum("ia,ab,ib->i", reach, inner, reach) / len(members)
            for n in members:
                found.append(Outlier(float(positions[n]), projections[:count] / self.population.ratios,
                                     float(projections[-1] / energy), len(members)))
        return found

    def _without_bulk(self) -> list[Outlier]:
        """alpha_1 = 0: the low-rank part alone, on V with V^T V = diag(r_a, energy) in the limit."""
        gram = np.append(self.population.ratios, self._energy @ self.population.ratios)
        root = np.sqrt(gram)
        values, vectors = np.linalg.eigh(root[:, None] * self._low_rank * root)
        size = float(np.abs(values).max(initial=0.0))
        kept = [n for n in np.argsort(-values) if abs(values[n]) > 1e-13 * size and size > 0]
        same = [int(np.sum(np.abs(values[kept] - values[n]) <= _SAME * size)) for n in kept]
        return [Outlier(self.shift + float(values[n]), vectors[:-1, n] ** 2, float(vectors[-1, n] ** 2), m)
                for n, m in zip(kept, same, strict=True)]
