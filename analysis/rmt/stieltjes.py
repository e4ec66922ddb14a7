r"""Limit eigenvalue density of W^T W with columns w_i = C_a^{1/2} xi_i / sqrt(p) from K classes.

With r_a = n_a / p and z off the spectrum, the K numbers delta_a = tr C_a Q(z) / p solve

    delta_a = (1/p) sum_j lambda_{aj} / (-z + sum_b r_b lambda_{bj} / (1 + delta_b)),

lambda_{aj} the eigenvalues of C_a in a common basis; then Q = (W W^T - z)^{-1} is close to diag 1/(-z + sum ...), the
n x n resolvent (W^T W - z)^{-1} to g_a(z) = -1/(z (1 + delta_a)) on the samples of class a, and m(z) = sum_a (n_a/n)
g_a is the Stieltjes transform of the density (Benaych-Georges and Couillet 2016; one class: Silverstein and Bai
1995). In the g_a the equations read g_a = 1/(-z + (1/p) sum_j lambda_aj / (1 + sum_b r_b lambda_bj g_b)), the same
form with samples and dimensions exchanged; that side is solved on which nothing is infinite at z = 0. Solved for a
whole vector of z at once: a path from large Im z down to the axis with Newton's method in the K unknowns, in one where
the classes differ by factors alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.rmt.edges import explicit_support

Array = NDArray[np.float64]
Complex = NDArray[np.complexfloating[Any, Any]]
_AXIS = 1e-11  # distance from the real axis, relative to the scale of the spectrum, at which densities are read off
_FACTOR = 8.0  # by which Im z falls from step to step of the path
_TOLERANCE = 1e-10
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
        scale = float(values.max())  # equal up to the roundings of a rotation is equal
        distinct, multiplicity = np.unique((values.T / scale).round(13), axis=0, return_counts=True)
        return cls(distinct.T * scale, multiplicity / values.shape[1], counts / values.shape[1])

    @property
    def factors(self) -> tuple[Array, Array] | None:
        """c_a and l_j with lambda_aj = c_a l_j where the classes differ by factors alone, else None."""
        lead = self.eigenvalues[0]
        size = float(lead @ lead)
        if size == 0:
            return None
        c = self.eigenvalues @ lead / size
        if np.abs(self.eigenvalues - c[:, None] * lead).max() > 1e-14 * self.eigenvalues.max() or c.min() <= 0:
            return None
        return c, lead

    @property
    def scale(self) -> float:
        """A number of the size of the right edge."""
        return float(self.eigenvalues.max() * (1 + np.sqrt(self.ratios.sum())) ** 2)

    @property
    def atom(self) -> float:
        """Share of eigenvalues at zero, 1 - p/n where there are more samples than dimensions of nonzero variance."""
        nonzero = float(self.weights[self.eigenvalues.max(axis=0) > 0].sum())
        return max(0.0, 1 - nonzero / float(self.ratios.sum()))


@dataclass(frozen=True)
class Resolved:
    """Solution of the equations at m points: delta_a and g_a, [m, K], and the largest relative residual."""

    delta: Complex
    g: Complex
    residual: float


def _step(population: Population, z: Complex, u: Complex, by_samples: bool) -> tuple[Complex, Complex]:
    """The fixed-point map of delta (or of g, which is finite at z = 0 where there is no atom) and Newton's next point.

    Both maps have one form, with the roles of samples and dimensions exchanged.
    """
    lam, w, r = population.eigenvalues, population.weights, population.ratios
    if not by_samples:
        pull = r / (1 + u)
        denominator = -z[:, None] + pull @ lam  # [m, q]
        weighted = w / denominator
        image = weighted @ lam.T
        slopes = ((weighted / denominator)[:, None, :] * lam[None]) @ lam.T * (pull / (1 + u))[:, None, :]
    else:
        share = 1 / (1 + (r * u) @ lam)
        image = 1 / (-z[:, None] + (w * share) @ lam.T)
        slopes = ((w * share * share)[:, None, :] * lam[None]) @ lam.T * r * np.square(image)[:, :, None]
    system = np.eye(len(r)) - slopes
    return image, u + np.linalg.solve(system, (image - u)[..., None])[..., 0]


def _step_of_factors(population: Population, z: Complex, u: Complex, by_samples: bool) -> tuple[Complex, Complex]:
    """The same with one unknown where lambda_aj = c_a l_j: delta_a = c_a d, or sum_b r_b c_b g_b = e."""
    c, lead = population.factors or (np.ones(1), np.ones(1))
    w, r = population.weights, population.ratios
    if not by_samples:  # u = d
        pull = ((r * c) / (1 + c * u[:, None])).sum(axis=1)
        bend = ((r * c * c) / (1 + c * u[:, None]) ** 2).sum(axis=1)
        denominator = -z[:, None] + pull[:, None] * lead
        image = (w * lead / denominator).sum(axis=1)
        slope = (w * lead**2 / denominator**2).sum(axis=1) * bend
    else:  # u = e, g_a = 1 / (-z + c_a h), h = sum_j w_j l_j / (1 + l_j e)
        share = 1 / (1 + lead * u[:, None])
        h = (w * lead * share).sum(axis=1)
        bend = (w * lead**2 * share**2).sum(axis=1)
        g = 1 / (-z[:, None] + c * h[:, None])
        image = (r * c * g).sum(axis=1)
        slope = (r * c * c * g * g).sum(axis=1) * bend
    return image, u + (image - u) / (1 - slope)


def resolve(population: Population, z: Complex) -> Resolved:
    """Solve at every z of the upper half plane.

    Raises:
        ValueError: a z with Im z <= 0.
        StieltjesNotSolved: the residual stays above the tolerance.
    """
    z = np.atleast_1d(np.asarray(z, dtype=complex))
    if not (z.imag > 0).all():
        raise ValueError("z must lie in the upper half plane; read real points off with a small imaginary part")
    by_samples = population.atom == 0
    factors = population.factors
    start = 4 * population.scale
    heights = np.maximum(z.imag, 0)
    steps = int(np.ceil(np.log(start / heights.min()) / np.log(_FACTOR))) + 1
    first = -1 / (z.real + 1j * start)
    if factors is not None:
        c, lead = factors
        size = (population.ratios @ c) if by_samples else (population.weights @ lead)
        u = size * first
        advance = _step_of_factors
    else:
        u = (np.ones(len(population.ratios)) if by_samples
             else population.eigenvalues @ population.weights) * first[:, None]
        advance = _step
    for step in range(max(steps, 1) + 1):
        at = z.real + 1j * np.maximum(heights, start * _FACTOR**-step)
        enough = 4e-15 if step >= steps else 1e-5
        active = np.arange(len(z))
        for _ in range(_MOST_STEPS):
            image, newton = advance(population, at[active], u[active], by_samples)
            # The map itself never leaves the half plane of the solution and always converges; Newton only fast.
            good: NDArray[np.bool_] = np.asarray(newton.imag > 0)
            if good.ndim == 2:
                good = np.asarray(good.all(axis=1))[:, None]
            new = np.where(good, newton, image)
            change = np.abs(new - u[active]) / np.abs(new)
            u[active] = new
            active = active[~((change if change.ndim == 1 else change.max(axis=1)) < enough)]
            if not active.size:
                break
    image, _ = advance(population, z, u, by_samples)
    off = np.abs(image - u) / np.abs(u)
    worst = float(off.max())
    if not worst <= _TOLERANCE:
        bad = z[int(np.argmax(off if off.ndim == 1 else off.max(axis=1)))]
        raise StieltjesNotSolved(f"relative residual {worst:.2e} above {_TOLERANCE:.1e} at z = {bad:.6g}")
    return Resolved(*_both(population, z, u, by_samples), worst)


def _both(population: Population, z: Complex, u: Complex, by_samples: bool) -> tuple[Complex, Complex]:
    """delta_a and g_a from whichever was solved for."""
    lam, w, r = population.eigenvalues, population.weights, population.ratios
    factors = population.factors
    if not by_samples:
        delta = factors[0] * u[:, None] if factors is not None else u
        return delta, -1 / (z[:, None] * (1 + delta))
    if factors is not None:
        c, lead = factors
        h = (w * lead / (1 + lead * u[:, None])).sum(axis=1)
        u = 1 / (-z[:, None] + c * h[:, None])
    return -(w / (1 + (r * u) @ lam)) @ lam.T / z[:, None], u


def solve_delta(population: Population, z: Complex) -> tuple[Complex, float]:
    """The delta_a at every z, [m, K], and the largest relative residual; refuses as `resolve` does."""
    found = resolve(population, z)
    return found.delta, found.residual


def class_resolvents(population: Population, z: Complex) -> Complex:
    """The values g_a(z) of the n x n resolvent on the samples of each class, [m, K]."""
    return resolve(population, z).g


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


def _continuous(population: Population, x: Array, height: float = _AXIS) -> Array:
    """Im m / pi, read off W W^T where W^T W has an atom at zero, whose tail would otherwise show beside the axis."""
    z = x + 1j * height * population.scale
    total = float(population.ratios.sum())
    found = resolve(population, z)
    if population.atom == 0:
        values = found.g @ population.ratios / total
    else:
        pull = (population.ratios / (1 + found.delta)) @ population.eigenvalues
        present = population.eigenvalues.max(axis=0) > 0
        values = (population.weights / (-z[:, None] + pull))[:, present].sum(axis=1) / total
    return np.asarray(values.imag / np.pi)


def support(population: Population, *, points: int = 500) -> list[tuple[float, float]]:
    """Intervals of the support within (0, infinity), increasing.

    Exact (`edges.explicit_support`) for classes of one covariance and for multiples of the identity. Otherwise the
    edges are found by bisection between points of a logarithmic grid, to about 1e-8 of their position.

    Args:
        population: class covariances and sizes.
        points: of that grid; a gap narrower than its spacing (6 per cent) is then not seen.
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
    factors = population.factors
    if factors is not None:
        c, lead = factors
        if np.ptp(c) <= 1e-14 * c.max():
            present = lead > 0
            return explicit_support(population.weights[present], c[0] * lead[present], float(population.ratios.sum()))
        if len(lead) == 1:
            distinct, index = np.unique(c * lead[0], return_inverse=True)
            return explicit_support(np.bincount(index, weights=population.ratios).astype(float), distinct, 1.0)
    high = 1.05 * population.scale
    grid = np.geomspace(1e-13 * high, high, points)

    def inside(x: Array) -> NDArray[np.bool_]:
        """Outside the support Im m is proportional to Im z, inside it is not: compared at two heights."""
        upper, lower = (_at_relative_height(population, x, height) for height in (1e-8, 1e-9))
        return upper < 5 * lower

    flags = inside(grid)
    changes = np.flatnonzero(flags[1:] != flags[:-1])
    low, up, rising = grid[changes], grid[changes + 1], flags[changes + 1]
    for _ in range(34):
        middle = (low + up) / 2
        flag = inside(middle) if middle.size else np.zeros(0, dtype=bool)
        move_up = flag == rising
        up, low = np.where(move_up, middle, up), np.where(move_up, low, middle)
    edges = [float(value) for value in (low + up) / 2]
    if flags[0]:
        edges.insert(0, 0.0)
    return list(zip(edges[::2], edges[1::2], strict=True))


def _at_relative_height(population: Population, x: Array, height: float) -> Array:
    """Im of the transform of the continuous part at x (1 + i height)."""
    z = x * (1 + 1j * height)
    found = resolve(population, z)
    if population.atom == 0:
        return np.asarray((found.g @ population.ratios).imag)
    pull = (population.ratios / (1 + found.delta)) @ population.eigenvalues
    present = population.eigenvalues.max(axis=0) > 0
    return np.asarray((population.weights / (-z[:, None] + pull))[:, present].sum(axis=1).imag)


def mass(population: Population, *, order: int = 400) -> float:
    """Integral of the density, which must be 1 - atom: Gauss-Chebyshev on each interval, exact for root edges."""
    total = 0.0
    for left, right in support(population):
        # x = middle + half cos(theta): the root at each edge becomes smooth.
        theta = (np.arange(order) + 0.5) * np.pi / order
        x = (left + right) / 2 + (right - left) / 2 * np.cos(theta)
        total += float(np.sum(density(population, x) * np.sin(theta)) * np.pi / order * (right - left) / 2)
    return total
