"""Power laws fitted to measured errors, with intervals: a limit is shown by its rate, not by one size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


@dataclass(frozen=True)
class Rate:
    """A power law `error = constant * size^slope`.

    Attributes:
        slope: the exponent.
        low: lower end of its interval.
        high: upper end.
        level: of the interval.
        constant: the prefactor.
    """

    slope: float
    low: float
    high: float
    level: float
    constant: float


def fit_rate(sizes: ArrayLike, errors: ArrayLike, *, level: float = 0.95) -> Rate:
    """Least squares of log error on log size, with Student's interval for the slope.

    Args:
        sizes: [k], k >= 2.
        errors: [k, repetitions], positive; repetitions are independent draws.
        level: of the interval.

    Raises:
        ValueError: shapes that do not fit, fewer than 3 points in all, or an error that is not positive.
    """
    size, error = np.asarray(sizes, dtype=float), np.asarray(errors, dtype=float)
    error = error[:, None] if error.ndim == 1 else error
    if error.ndim != 2 or len(size) != len(error) or len(size) < 2 or error.size < 3:
        raise ValueError(f"sizes {size.shape} and errors {error.shape} do not fit, or are too few for an interval")
    if not (error > 0).all():
        raise ValueError("errors must be positive to have a power law")
    x = np.repeat(np.log(size), error.shape[1])
    fit = stats.linregress(x, np.log(error).ravel())
    half = float(stats.t.ppf(0.5 + level / 2, x.size - 2) * fit.stderr)
    return Rate(float(fit.slope), float(fit.slope) - half, float(fit.slope) + half, level, float(np.exp(fit.intercept)))
