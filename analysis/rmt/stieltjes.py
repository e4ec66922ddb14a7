r"""Limit eigenvalue density of W^T W with columns w_i = C_a^{1/2} xi_i / sqrt(p) from K classes.

With r_a = n_a / p and z off the spectrum, the K numbers delta_a = tr C_a Q(z) / p solve

    delta_a = (1/p) sum_j lambda_{aj} / (-z + sum_b r_b lambda_{bj} / (1 + delta_b)),

lambda_{aj} the eigenvalues of C_a in a common basis; then Q = (W W^T - z)^{-1} is close to diag 1/(-z + sum ...), the
n x n resolvent (W^T W - z)^{-1} to g_a(z) = -1/(z (1 + delta_a)) on the samples of class a, and m(z) = sum_a (n_a/n)
g_a is the Stieltjes transform of the density (Benaych-Georges and Couillet 2016; one class: Silverstein and Bai
1995). Solved for a whole vector of z at once: a path from large Im z down to the axis with Newton's method in the K
unknowns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Complex = NDArray[np.complexfloating[Any, Any]]
_AXIS = 1e-11  # distance from the real axis, relative to the scale of the spectrum, at which densities are read off
_FACTOR = 4.0  # by which Im z falls from step to step of the path


_MOST_STEPS = 60


class StieltjesNotSolved(ArithmeticError):
    """Newton's method on the Stieltjes equations did not reach its tolerance."""


@dataclass(frozen=True)
class Population:
    """Class covariances with a common eigenbasis, compressed to distinct columns.

    Attributes:
        eigenvalues: [K, q]; column j holds the K eigenvalues on one common eigenspace.
        weights: share of the p dimensions in each column, [q], adding up to 1.
        ratios: r_a = n_a / p, [K].
    """

    eigenvalues: Array
    weights: Array
    ratios: Array

    @classmethod
    def build(cls, eigenvalues: Sequence[Sequence[float]] | Array, sizes: Sequence[int]) -> Population:
        """From all p eigenvalues of each class, [K, p] in a common order, and class sizes.

        Raises:
            ValueError: shapes that do not fit, or a negative or non-finite eigenvalue.
        """
        values = np.atleast_2d(np.asarray(eigenvalues, dtype=float))
        counts = np.asarray(sizes, dtype=float)
        if values.shape[0] != counts.size or (counts < 1).any():
            raise ValueError(f"{values.shape[0]} rows of eigenvalues and sizes {sizes} do not fit")
        if not np.isfinite(values).all() or values.min() < 0 or values.max() == 0:
            raise ValueError(f"eigenvalues must be finite, not negative and not all zero; least {values.min()}")
        distinct, multiplicity = np.unique(values.T.round(14), axis=0, return_counts=True)
        return cls(distinct.T, multiplicity / values.shape[1], counts / values.shape[1])

    @classmethod
    def of_covariances(cls, covariances: Sequence[Array | float], sizes: Sequence[int], p: int) -> Population:
        """From covariances, each a number, a diagonal [p] or a matrix [p, p].

        Where the matrices do not commute, the weighted mean stands for all of them: [RMT] assumes C_a - C bounded with
        tr(C_a - C) of order sqrt(p), under which the density has the same limit; the traces tr C_a are kept.

        Raises:
            ValueError: shapes that do not fit.
        """
        given = [np.asarray(c, dtype=float) for c in covariances]
        if all(c.ndim < 2 for c in given):
            return cls.build(np.stack([np.broadcast_to(c, (p,)) for c in given]), sizes)
        full = [np.diag(np.broadcast_to(c, (p,))) if c.ndim < 2 else c for c in given]
        mean = np.tensordot(np.asarray(sizes) / np.sum(sizes), full, axes=1)
        eigenvalues, basis = np.linalg.eigh(mean)
        rotated = [basis.T @ c @ basis for c in full]
        commute = all(np.abs(c - np.diag(np.diag(c))).max() <= 1e-10 * np.abs(c).max() for c in rotated)
        if commute:
            return cls.build(np.stack([np.diag(c) for c in rotated]), sizes)
        return cls.build(np.stack([eigenvalues * np.trace(c) / np.trace(mean) for c in full]), sizes)

    @property
    def scale(self) -> float:
        """A number of the size of the right edge."""
        return float(self.eigenvalues.max() * (1 + np.sqrt(self.ratios.sum())) ** 2)

    @property
    def atom(self) -> float:
        """Share of eigenvalues at zero, 1 - p/n where there are more samples than dimensions of nonzero variance."""
        nonzero = float(self.weights[self.eigenvalues.max(axis=0) > 0].sum())
        return max(0.0, 1 - nonzero / float(self.ratios.sum()))


def _equations(population: Population, z: Complex, delta: Complex) -> tuple[Complex, Complex]:
    """Residuals [m, K] and their Jacobian [m, K, K]."""
    lam, w, r = population.eigenvalues, population.weights, population.ratios
    pull = r / (1 + delta)  # [m, K]
    denominator = -z[:, None] + pull @ lam  # [m, q]
    weighted = w / denominator
    residual = delta - weighted @ lam.T
    inner = (weighted / denominator)[:, None, :] * lam[None]  # [m, K, q]
    jacobian = -(inner @ lam.T) * (pull / (1 + delta))[:, None, :]
    jacobian[:, np.arange(len(r)), np.arange(len(r))] += 1
    return residual, jacobian


def solve_delta(population: Population, z: Complex, *, tolerance: float = 1e-11) -> tuple[Complex, float]:
    """Solve for the delta_a at every z of the upper half plane, [m, K], and return the largest relative residual.

    Raises:
        ValueError: a z with Im z <= 0.
        StieltjesNotSolved: the residual stays above the tolerance.
    """
    z = np.atleast_1d(np.asarray(z, dtype=complex))
    if not (z.imag > 0).all():
        raise ValueError("z must lie in the upper half plane; read real points off with a small imaginary part")
    start = 4 * population.scale
    heights = np.maximum(z.imag, 0)
    steps = int(np.ceil(np.log(start / heights.min()) / np.log(_FACTOR))) + 1
    means = population.eigenvalues @ population.weights
    delta = means / (-(z.real + 1j * start))[:, None]
    for step in range(max(steps, 1) + 1):
        at = z.real + 1j * np.maximum(heights, start * _FACTOR**-step)
        enough = 4e-15 if step >= steps else 1e-6
        active = np.arange(len(z))
        for _ in range(_MOST_STEPS):
            residual, jacobian = _equations(population, at[active], delta[active])
            image = delta[active] - residual
            newton = delta[active] - np.linalg.solve(jacobian, residual[..., None])[..., 0]
            # The map itself never leaves the half plane of the solution and always converges; Newton only fast.
            good = (newton.imag > 0).all(axis=1)
            new = np.where(good[:, None], newton, image)
            change = np.max(np.abs(new - delta[active]) / np.abs(new), axis=1)
            delta[active] = new
            active = active[~(change < enough)]
            if not active.size:
                break
    residual, _ = _equations(population, z, delta)
    worst = float(np.max(np.abs(residual) / np.abs(delta)))
    if not worst <= tolerance:
        raise StieltjesNotSolved(f"relative residual {worst:.2e} above {tolerance:.1e} at z = "
                                 f"{z[int(np.argmax(np.abs(residual).max(axis=1)))]:.6g}")
    return delta, worst


def class_resolvents(population: Population, z: Complex) -> Complex:
    """The values g_a(z) of the n x n resolvent on the samples of each class, [m, K]."""
    z = np.atleast_1d(np.asarray(z, dtype=complex))
    delta, _ = solve_delta(population, z)
    return -1 / (z[:, None] * (1 + delta))


def stieltjes(population: Population, z: Complex) -> Complex:
    """m(z) of W^T W, [m]."""
    return class_resolvents(population, z) @ (population.ratios / population.ratios.sum())


def density(population: Population, x: Array) -> Array:
    """Density of the continuous part at x > 0, [m]; an atom at zero (`Population.atom`) comes on top."""
    x = np.atleast_1d(np.asarray(x, dtype=float))
    inside = x > 0
    out = np.zeros_like(x)
    if inside.any():
        out[inside] = _continuous(population, x[inside])
    return out


def _continuous(population: Population, x: Array) -> Array:
    """Im m / pi, read off W W^T where W^T W has an atom at zero, whose tail would otherwise show beside the axis."""
    z = x + 1j * _AXIS * population.scale
    total = float(population.ratios.sum())
    delta, _ = solve_delta(population, z)
    if population.atom == 0:
        values = -1 / (z[:, None] * (1 + delta)) @ population.ratios / total
    else:
        pull = (population.ratios / (1 + delta)) @ population.eigenvalues
        present = population.eigenvalues.max(axis=0) > 0
        values = (population.weights / (-z[:, None] + pull))[:, present].sum(axis=1) / total
    return np.asarray(values.imag / np.pi)


def support(population: Population, *, points: int = 300) -> list[tuple[float, float]]:
    """Intervals of the support within (0, infinity), each edge by bisection on the density.

    Args:
        population: class covariances and sizes.
        points: of the first scan, on a logarithmic grid; a gap narrower than its spacing (6 per cent) is not seen.
    """
    key = tuple(array.tobytes() for array in (population.eigenvalues, population.weights, population.ratios))
    if (key, points) not in _SUPPORTS:
        if len(_SUPPORTS) >= 64:
            _SUPPORTS.clear()
        _SUPPORTS[key, points] = _find_support(population, points)
    return list(_SUPPORTS[key, points])


# The same population serves every activation and both kernels.
_SUPPORTS: dict[tuple[tuple[bytes, ...], int], list[tuple[float, float]]] = {}


def _find_support(population: Population, points: int) -> list[tuple[float, float]]:
    high = 1.05 * population.scale
    grid = np.geomspace(1e-7 * high, high, points)
    # Outside, Im m is of the size of Im z; inside it grows like the root of the distance from the edge.
    floor = 1e-4 / population.scale

    def positive(x: Array) -> NDArray[np.bool_]:
        return density(population, x) > floor

    flags = positive(grid)
    changes = np.flatnonzero(flags[1:] != flags[:-1])
    low, up, rising = grid[changes], grid[changes + 1], flags[changes + 1]
    for _ in range(40):
        middle = (low + up) / 2
        flag = positive(middle) if middle.size else np.zeros(0, dtype=bool)
        move_up = flag == rising
        up, low = np.where(move_up, middle, up), np.where(move_up, low, middle)
    edges = [float(value) for value in (low + up) / 2]
    if flags[0]:
        edges.insert(0, 0.0)
    return list(zip(edges[::2], edges[1::2], strict=True))


def mass(population: Population, *, order: int = 400) -> float:
    """Integral of the density, which must be 1 - atom: Gauss-Chebyshev on each interval, exact for root edges."""
    total = 0.0
    for left, right in support(population):
        # x = middle + half cos(theta): the root at each edge becomes smooth.
        theta = (np.arange(order) + 0.5) * np.pi / order
        x = (left + right) / 2 + (right - left) / 2 * np.cos(theta)
        total += float(np.sum(density(population, x) * np.sin(theta)) * np.pi / order * (right - left) / 2)
    return total
