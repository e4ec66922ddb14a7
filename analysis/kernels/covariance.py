"""Correlation, sine and angle of two Gaussians from their covariances, accurate up to correlation +-1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

_SPLITTER = 134217729.0  # 2**27 + 1: Dekker's splitting of a double into two halves of 26 bits


def _split(x: Array) -> tuple[Array, Array]:
    high = _SPLITTER * x
    high = high - (high - x)
    return high, x - high


def _product_error(x: Array, y: Array, product: Array) -> Array:
    """The rounding error of `product = x * y`, exactly (Dekker 1971)."""
    x_high, x_low = _split(x)
    y_high, y_low = _split(y)
    return x_low * y_low - (((product - x_high * y_high) - x_low * y_high) - x_high * y_low)


@dataclass(frozen=True)
class Pair:
    """Two centred jointly Gaussian variables u and v, entry by entry (all arrays share a shape).

    Attributes:
        suu: variance of u.
        svv: variance of v.
        suv: covariance.
        sd_u: standard deviation of u.
        sd_v: standard deviation of v.
        rho: correlation, in [-1, 1]; 0 where a variance is 0.
        sine: sqrt(1 - rho^2), with a small *relative* error also where rho is close to 1 or -1.
    """

    suu: Array
    svv: Array
    suv: Array
    sd_u: Array
    sd_v: Array
    rho: Array
    sine: Array

    def select(self, mask: NDArray[np.bool_]) -> Pair:
        """The entries under a boolean mask, flat."""
        return Pair(*(getattr(self, name)[mask] for name in self.__dataclass_fields__))


def pair(suu: ArrayLike, svv: ArrayLike, suv: ArrayLike, *, slack: float = 1e-9) -> Pair:
    """Build a `Pair` from covariances; they broadcast against each other.

    `suu svv - suv^2` is formed with the rounding errors of both products, so that the sine of the angle between u
    and v is as good as the data: with `1 - rho**2` it would lose every digit at rho = 1 - 1e-16.

    Args:
        suu: variances of u, not negative.
        svv: variances of v, not negative.
        suv: covariances.
        slack: how far `|suv|` may exceed `sqrt(suu svv)`, relatively, before it is an error and not rounding.

    Raises:
        ValueError: entries that are not finite, a negative variance, or no covariance matrix (|correlation| > 1).
    """
    suu, svv, suv = np.broadcast_arrays(*(np.asarray(a, dtype=np.float64) for a in (suu, svv, suv)))
    if not (np.isfinite(suu).all() and np.isfinite(svv).all() and np.isfinite(suv).all()):
        raise ValueError("covariances must be finite")
    if suu.size and min(suu.min(), svv.min()) < 0:
        raise ValueError(f"variances must not be negative; the least is {min(suu.min(), svv.min()):g}")
    # Powers of two change no digit and keep the products from overflow and underflow.
    shift_u, shift_v = np.frexp(suu)[1] // 2, np.frexp(svv)[1] // 2
    a, b, c = np.ldexp(suu, -2 * shift_u), np.ldexp(svv, -2 * shift_v), np.ldexp(suv, -shift_u - shift_v)
    ab, cc = a * b, c * c
    determinant = (ab - cc) + (_product_error(a, b, ab) - _product_error(c, c, cc))
    positive = ab > 0
    if np.any(determinant < -slack * ab) or np.any(~positive & (suv != 0)):
        with np.errstate(divide="ignore", invalid="ignore"):
            worst = np.nanmax(np.where(positive, cc / ab, np.inf * (suv != 0)))
        raise ValueError(f"not a covariance: the largest |correlation| is {np.sqrt(worst):.12g}, it must not exceed 1")
    scale = np.sqrt(np.where(positive, ab, 1.0))
    sine = np.where(positive, np.sqrt(np.maximum(determinant, 0.0)) / scale, 1.0)
    rho = np.clip(np.where(positive, c / scale, 0.0), -1.0, 1.0)
    return Pair(suu, svv, suv, np.sqrt(suu), np.sqrt(svv), rho, np.minimum(sine, 1.0))
