"""Gaussian mixtures in high dimension, their samples, and what the theory needs to know of them.

Classes are `x = (mu_a + C_a^(1/2) w) / sqrt(p)`; their statistics are exact, or estimated from labelled data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.kernels.doors import Samples, as_float, check_data, oriented

Array = NDArray[np.float64]


class NotEnoughSamples(ValueError):
    """A class has too few samples for what is to be estimated."""


class SingularCovariance(ValueError):
    """A class covariance is not positive definite."""


def _trace(covariance: Array, p: int) -> float:
    return float(np.trace(covariance)) if covariance.ndim == 2 else float(np.sum(np.broadcast_to(covariance, p)))


def _diagonal(covariance: Array, p: int) -> Array:
    return np.diag(covariance).copy() if covariance.ndim == 2 else np.broadcast_to(covariance, p).astype(float)


def _product_trace(first: Array, second: Array, p: int) -> float:
    """tr(C_a C_b) for covariances that are scalars, diagonals or matrices."""
    if first.ndim == 2 and second.ndim == 2:
        return float(np.sum(first * second.T))
    return float(_diagonal(first, p) @ _diagonal(second, p))


@dataclass(frozen=True)
class ClassStatistics:
    """What the deterministic equivalents know of a mixture of K classes.

    Attributes:
        p: dimension.
        sizes: samples in each class, [K].
        means: class means mu_a (of sqrt(p) x), [K, p].
        traces: tr C_a / p, [K].
        tau0: sqrt(tr C / p), C the mean of the C_a weighted by class size.
        t: tr(C_a - C) / sqrt(p), [K].
        T: tr(C_a C_b) / p, [K, K].
        released_T: what the authors' code has in its place: the sum over the diagonals of (C_a - C) * (C_b - C)
            (centred, and an elementwise product), over p.

    Example:
        >>> import numpy as np, analysis
        >>> mixture = analysis.GaussianMixture(np.eye(2, 4), [np.eye(4)] * 2, sizes=[6, 6])
        >>> sample = mixture.sample(np.random.default_rng(0))
        >>> sample.statistics.p, sample.statistics.sizes.tolist()
        (4, [6, 6])
    """

    p: int
    sizes: NDArray[np.intp]
    means: Array
    traces: Array
    tau0: float
    t: Array
    T: Array
    released_T: Array

    @staticmethod
    def build(p: int, sizes: NDArray[np.intp], means: Array, diagonals: Array, products: Array) -> ClassStatistics:
        """From the diagonals of the C_a, [K, p], and tr(C_a C_b), [K, K]."""
        weights = sizes / sizes.sum()
        traces = diagonals.sum(axis=1) / p
        mean_trace = float(weights @ traces)
        centred = diagonals - weights @ diagonals
        return ClassStatistics(p, sizes, means, traces, float(np.sqrt(mean_trace)), np.sqrt(p) * (traces - mean_trace),
                               products / p, centred @ centred.T / p)

    @staticmethod
    def estimate(x: ArrayLike, labels: ArrayLike, *, samples: Samples = "columns") -> ClassStatistics:
        """Unbiased estimates from labelled data; no covariance is inverted, so classes may be smaller than p.

        tr(C_a^2) by Himeno and Yamada (2014), eq. (1): the plain estimate is too large by (tr C_a)^2 / n_a.

        Args:
            x: data, [p, n], columns are samples.
            labels: class of each column, [n].
            samples: "columns" for x of shape [p, n], "rows" for [n, p].

        Raises:
            ValueError: shapes that do not fit, or entries that are not finite.
            NotEnoughSamples: a class with fewer than 4 samples.
        """
        data, which = _labelled(x, labels, samples)
        classes, index = np.unique(which, return_inverse=True)
        p = data.shape[0]
        sizes = np.bincount(index)
        if sizes.min() < 4:
            worst = int(np.argmin(sizes))
            raise NotEnoughSamples(f"class {classes[worst]} has {sizes[worst]} sample(s); four are the least that "
                                   "gives an unbiased tr(C^2): add samples or drop the class")
        means = np.empty((len(classes), p))
        diagonals = np.empty((len(classes), p))
        parts = []
        for a in range(len(classes)):
            part = np.sqrt(p) * data[:, index == a]
            means[a] = part.mean(axis=1)
            part = part - means[a][:, None]
            diagonals[a] = np.square(part).sum(axis=1) / (sizes[a] - 1)
            parts.append(part)
        products = np.empty((len(classes), len(classes)))
        for a, left in enumerate(parts):
            for b, right in enumerate(parts[:a + 1]):
                squares = float(np.square(left.T @ right).sum()) / ((sizes[a] - 1) * (sizes[b] - 1))
                if a == b:
                    n = float(sizes[a])
                    fourth = float(np.square(np.square(left).sum(axis=0)).sum()) / (n - 1)
                    squares = (n - 1) / (n * (n - 2) * (n - 3)) * (
                        (n - 1) * (n - 2) * squares + diagonals[a].sum() ** 2 - n * fourth)
                products[a, b] = products[b, a] = squares
        return ClassStatistics.build(p, sizes, means, diagonals, products)


def _labelled(x: ArrayLike, labels: ArrayLike, samples: Samples) -> tuple[Array, NDArray[np.generic]]:
    if np.ma.isMaskedArray(labels):
        raise ValueError("the labels are a masked array, and its mask would be lost: drop the masked samples")
    which = np.asarray(labels)
    data = oriented(as_float(x, "x"), samples)
    if data.ndim == 2 and which.shape == (data.shape[0],) != (data.shape[1],):
        other = "samples='rows'" if samples == "columns" else "x without samples='rows'"
        raise ValueError(f"x of shape {data.shape} has one label a row and not a column: pass {other}")
    if data.ndim != 2 or which.shape != (data.shape[1],):
        raise ValueError(f"x must be [p, n] with one label a column; got {data.shape} and labels {which.shape}")
    return check_data(data, warn=False), which


@dataclass(frozen=True)
class MixtureSample:
    """Data with classes, in the order of `statistics`.

    Attributes:
        x: [p, n], columns are samples.
        labels: class index 0 ... K-1 of each column, [n].
        statistics: of the classes.

    Example:
        >>> import numpy as np, analysis
        >>> mixture = analysis.GaussianMixture(np.eye(2, 4), [np.eye(4)] * 2, sizes=[6, 6])
        >>> sample = mixture.sample(np.random.default_rng(0))
        >>> sample.labels.tolist()
        [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1]
    """

    x: Array
    labels: NDArray[np.intp]
    statistics: ClassStatistics

    @staticmethod
    def from_data(x: ArrayLike, labels: ArrayLike, *, samples: Samples = "columns") -> MixtureSample:
        """Labelled data with statistics estimated from them.

        Raises:
            ValueError: shapes that do not fit, or entries that are not finite.
            NotEnoughSamples: a class with fewer than 4 samples.
        """
        data, which = _labelled(x, labels, samples)
        return MixtureSample(data, np.unique(which, return_inverse=True)[1], ClassStatistics.estimate(data, which))

    @property
    def energies(self) -> Array:
        """psi_i = |x_i - mu_a / sqrt(p)|^2 - tr C_a / p, [n]."""
        s = self.statistics
        centred = self.x - s.means[self.labels].T / np.sqrt(s.p)
        return np.square(centred).sum(axis=0) - s.traces[self.labels]


def statistics_of(means: Array, covariances: Sequence[ArrayLike], sizes: NDArray[np.intp]) -> ClassStatistics:
    """The exact statistics of classes with these means [K, p], covariances (as of a `GaussianMixture`) and sizes."""
    p = means.shape[1]
    given = [np.asarray(c, dtype=np.float64) for c in covariances]
    diagonals = np.array([_diagonal(c, p) for c in given])
    products = np.array([[_product_trace(a, b, p) for b in given] for a in given])
    return ClassStatistics.build(p, np.asarray(sizes), means, diagonals, products)


class GaussianMixture:
    """K Gaussian classes in dimension p, with given sizes.

    >>> mixture = GaussianMixture([[3.0, 0.0], [0.0, 3.0]], [1.0, [1.0, 2.0]], [4, 5])
    >>> mixture.sample(np.random.default_rng(0)).x.shape
    (2, 9)
    """

    def __init__(self, means: ArrayLike, covariances: Sequence[ArrayLike], sizes: Sequence[int]) -> None:
        """Check and keep the parameters.

        Args:
            means: mu_a, [K, p]; samples are centred at mu_a / sqrt(p).
            covariances: C_a, each a number (times the identity), a diagonal [p] or a matrix [p, p].
            sizes: samples to draw from each class.

        Raises:
            ValueError: shapes that do not fit, entries that are not finite, or a size below 1.
            SingularCovariance: a covariance that is not symmetric positive definite.
        """
        self.means = np.atleast_2d(as_float(means, "the means"))
        given = np.atleast_1d(as_float(sizes, "the sizes"))
        if not (np.isfinite(given).all() and np.all(given == np.round(given))):
            raise ValueError(f"sizes must be whole numbers, not {given.tolist()}")
        self.sizes = given.astype(np.intp)
        self.covariances = tuple(as_float(c, f"the covariance of class {a}") for a, c in enumerate(covariances))
        classes, self.p = self.means.shape
        if len(self.covariances) != classes or self.sizes.shape != (classes,):
            raise ValueError(f"{classes} means, {len(self.covariances)} covariances and sizes of shape "
                             f"{self.sizes.shape} do not fit: give one of each per class")
        if self.sizes.min() < 1:
            raise ValueError(f"every class needs at least one sample; sizes are {self.sizes.tolist()}")
        if not np.isfinite(self.means).all():
            raise ValueError("the means hold entries that are not finite")
        self._roots = tuple(self._root(a, c) for a, c in enumerate(self.covariances))

    def _root(self, number: int, covariance: Array) -> Array:
        """A factor R with R R^T = C_a (a vector for scalars and diagonals)."""
        if not np.isfinite(covariance).all():
            raise ValueError(f"the covariance of class {number} holds entries that are not finite")
        if covariance.shape in ((), (self.p,)):
            if covariance.min() <= 0:
                raise SingularCovariance(f"the covariance of class {number} has the eigenvalue {covariance.min():g}; "
                                         "all must be positive: add a small multiple of the identity")
            return np.sqrt(_diagonal(covariance, self.p))
        if covariance.shape != (self.p, self.p):
            raise ValueError(f"the covariance of class {number} has shape {covariance.shape}; "
                             f"it must be a number, [{self.p}] or [{self.p}, {self.p}]")
        size = float(np.abs(covariance).max())
        if np.abs(covariance - covariance.T).max() > 1e-10 * size:
            raise SingularCovariance(f"the covariance of class {number} is not symmetric")
        try:
            root = np.linalg.cholesky(covariance)
        except np.linalg.LinAlgError:
            root = np.zeros((1, 1))
        # a pivot below n eps |C| is rounding: the matrix is singular to working precision
        if float(np.diag(root).min()) ** 2 <= self.p * np.finfo(float).eps * size:
            raise SingularCovariance(f"the covariance of class {number} is singular or has a negative eigenvalue; use "
                                     "more samples than dimensions, shrink it, or add a small multiple of the identity")
        return np.asarray(root, dtype=np.float64)

    @staticmethod
    def estimate(x: ArrayLike, labels: ArrayLike, *, shrinkage: float = 0.0,
                 samples: Samples = "columns") -> GaussianMixture:
        """A mixture with the class means and covariances of labelled data, to draw new samples from.

        Args:
            x: data, [p, n], columns are samples (scaled as the kernels take them).
            labels: class of each column.
            shrinkage: the weight, in [0, 1], of the isotropic matrix with the same trace.
            samples: "columns" for x of shape [p, n], "rows" for [n, p].

        Raises:
            ValueError: shapes that do not fit, or shrinkage outside [0, 1].
            NotEnoughSamples: a class with no more samples than dimensions and no shrinkage.
            SingularCovariance: the covariance is singular all the same (constant features).
        """
        data, which = _labelled(x, labels, samples)
        if not 0 <= shrinkage <= 1:
            raise ValueError(f"shrinkage must be in [0, 1], not {shrinkage!r}")
        p = data.shape[0]
        means, covariances, sizes = [], [], []
        for name in np.unique(which):
            part = np.sqrt(p) * data[:, which == name]
            count = part.shape[1]
            if count < 2 or (count <= p and shrinkage == 0):
                raise NotEnoughSamples(f"class {name} has {count} samples in dimension {p}: its covariance is "
                                       f"singular; give at least {p + 1}, or shrinkage > 0, or use "
                                       "MixtureSample.from_data, which needs traces only")
            own = np.atleast_2d(np.cov(part))
            isotropic = np.trace(own) / p * np.eye(p)
            means.append(part.mean(axis=1))
            covariances.append((1 - shrinkage) * own + shrinkage * isotropic)
            sizes.append(count)
        return GaussianMixture(np.array(means), covariances, sizes)

    @property
    def statistics(self) -> ClassStatistics:
        """The population's statistics, exact."""
        return statistics_of(self.means, self.covariances, self.sizes)

    @property
    def tau0(self) -> float:
        """sqrt(tr C / p), what the tau equation needs."""
        return self.statistics.tau0

    def sample(self, rng: np.random.Generator) -> MixtureSample:
        """Draw every class once over, in class order."""
        columns = []
        for mean, root, size in zip(self.means, self._roots, self.sizes, strict=True):
            noise = rng.standard_normal((self.p, size))
            noise = root @ noise if root.ndim == 2 else root[:, None] * noise
            columns.append((mean[:, None] + noise) / np.sqrt(self.p))
        labels = np.repeat(np.arange(len(self.sizes)), self.sizes)
        return MixtureSample(np.concatenate(columns, axis=1), labels, self.statistics)


def paper_mixture(p: int, ratio: float = 0.8) -> GaussianMixture:
    """The two classes of [RMT]'s experiments: n = ratio p, mu_a = 8 e_{8a}, C_a = (1 + 8a / sqrt(p)) I (a = 0, 1)."""
    means = np.zeros((2, p))
    means[0, 0] = means[1, 8] = 8.0
    n = int(round(ratio * p))
    return GaussianMixture(means, [1.0, 1 + 8 / np.sqrt(p)], [n // 2, n - n // 2])


def structured_mixture(p: int, ratio: float = 0.8) -> GaussianMixture:
    """Three classes that differ in mean, trace and shape: the last two covariances are unequal diagonals."""
    means = np.zeros((3, p))
    means[0, 0], means[1, 1], means[2, 2] = 4.0, -4.0, 4.0
    ramp = np.linspace(0.5, 1.5, p)
    n = int(round(ratio * p))
    covariances = [1 + 4 / np.sqrt(p), ramp, ramp[::-1] - 2 / np.sqrt(p)]
    return GaussianMixture(means, covariances, [n // 4, n // 4, n - 2 * (n // 4)])
