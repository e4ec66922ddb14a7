"""What every kernel checks at its door: data, orientation, variances."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Samples = Literal["columns", "rows"]


class OrientationWarning(UserWarning):
    """The data look as if samples were given as rows where columns are expected, or the other way round.

    Example:
        >>> import warnings
        >>> import numpy as np
        >>> import analysis
        >>> rows = np.random.default_rng(0).standard_normal((60, 8)) / 8**0.5
        >>> with warnings.catch_warnings(record=True) as seen:
        ...     warnings.simplefilter("always")
        ...     kernels = analysis.deq_kernels(rows, "tanh", 0.2)
        >>> seen[0].category is analysis.OrientationWarning
        True
    """


def as_float(value: Any, name: str) -> Array:
    """A float64 array from numbers, arrays or torch tensors.

    Raises:
        ValueError: masked arrays (their mask would be lost), complex numbers, or what is no array of numbers.
    """
    if np.ma.isMaskedArray(value):
        raise ValueError(f"{name} is a masked array, and its mask would be lost: fill it or drop the masked samples")
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name} must hold real numbers, not {array.dtype}")
    return np.asarray(array, dtype=np.float64)


def oriented(x: Array, samples: Samples) -> Array:
    """X with samples as columns.

    Raises:
        ValueError: an unknown orientation.
    """
    if samples not in ("columns", "rows"):
        raise ValueError(f"samples must be 'columns' or 'rows', not {samples!r}")
    return x if samples == "columns" else np.ascontiguousarray(x.T)


def check_data(data: ArrayLike, samples: Samples = "columns", *, warn: bool = True) -> Array:
    """X as a float64 matrix [p, n] with columns as samples.

    Args:
        data: [p, n], or [n, p] with samples="rows".
        samples: what the samples are in `data`.
        warn: look whether the other orientation fits better.

    Raises:
        ValueError: not a matrix, empty, masked, complex, or with entries that are not finite.

    Warns:
        OrientationWarning: the other orientation fits better.
    """
    x = as_float(data, "X")
    if x.ndim != 2:
        raise ValueError(f"X must be a matrix [p, n] whose columns are samples; it has shape {x.shape}")
    if 0 in x.shape:
        raise ValueError(f"X is empty: shape {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError(f"X holds {int(np.count_nonzero(~np.isfinite(x)))} entries that are not finite; "
                         "clean the data first")
    x = oriented(x, samples)
    if warn:
        _look(x, samples)
    return x


def _look(x: Array, samples: Samples) -> None:
    """Warn where the rows of x look like samples and its columns do not."""
    if min(x.shape) < 4:
        return
    squares = np.square(x)
    columns, rows = squares.sum(axis=0), squares.sum(axis=1)

    even = float(rows.std()) < 0.5 * float(rows.mean())
    normed = even and abs(np.log(max(rows.mean(), 1e-300))) < 0.2 and abs(np.log(max(columns.mean(), 1e-300))) > 0.9
    blank = bool(rows.min() > 0 and np.sum(columns == 0) > 2 + 0.02 * columns.size)
    other = "rows" if samples == "columns" else "columns"
    hint = f"if so, pass samples={other!r}" if samples == "columns" else "if so, leave samples out"
    if normed or blank:
        reason = ("they have squared norms near 1 and the columns have not" if normed else
                  "several columns are all zero, as pixels at a border are")
        warnings.warn(f"X of shape {x.shape} is read as {x.shape[1]} samples of dimension {x.shape[0]}, but its rows "
                      f"look like samples ({reason}); {hint}", OrientationWarning, stacklevel=4)


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


def distinct(x: Array) -> tuple[Array, NDArray[np.intp]]:
    """The distinct columns of x and, for each column, which of them it is: equal points then get equal kernels."""
    first: dict[bytes, int] = {}
    rows = np.ascontiguousarray(x.T)
    inverse = np.array([first.setdefault(row.tobytes(), len(first)) for row in rows])
    if len(first) == x.shape[1]:
        return x, inverse
    kept = np.unique(inverse, return_index=True)[1]
    return x[:, kept], inverse
