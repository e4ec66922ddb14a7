"""Class covariances in one basis: exactly where they commute, refused where they do not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_SAME = 1e-9  # of a covariance's size: what rotations of a thousand dimensions leave behind is a hundred times less


class NonCommuting(ValueError):
    """Class covariances have no common eigenbasis, which the limit spectra need.

    Example:
        >>> import numpy as np
        >>> import analysis
        >>> from analysis.rmt.commuting import common_basis
        >>> try:
        ...     common_basis([np.diag([1.0, 2.0]), np.array([[1.0, 0.5], [0.5, 1.0]])], 2, [3, 3])
        ... except analysis.NonCommuting as error:
        ...     print(str(error)[:36])
        the class covariances do not commute
    """


def common_basis(covariances: Sequence[Array | float], p: int, sizes: Sequence[int] | NDArray[np.intp], *,
                 non_commuting: str = "refuse") -> tuple[Array, Array | None]:
    """Eigenvalues of every class along a common orthonormal basis, [K, p], and the basis, [p, p] (None: the given one).

    A generic combination of commuting matrices has a common eigenbasis: where its eigenvalues coincide all of them do.

    Args:
        covariances: each a number, a diagonal [p] or a matrix [p, p].
        p: dimension.
        sizes: of the classes, the weights of the mean for `non_commuting="mean"`.
        non_commuting: "refuse", or "mean": the weighted mean's shape with each class's own trace, which has the same
            limit under [RMT]'s assumption that the C_a differ by matrices of bounded norm and small trace; positions
            of outliers are then approximate.

    Raises:
        NonCommuting: they do not commute.
        ValueError: shapes that do not fit, matrices that are not symmetric, or an unknown `non_commuting`.
    """
    if non_commuting not in ("refuse", "mean"):
        raise ValueError(f"non_commuting must be 'refuse' or 'mean', not {non_commuting!r}")
    given = [np.asarray(c, dtype=np.float64) for c in covariances]
    for number, c in enumerate(given):
        if c.shape not in ((), (p,), (p, p)):
            raise ValueError(f"the covariance of class {number} has shape {c.shape}; it must be a number, [{p}] or "
                             f"[{p}, {p}]")
        if not np.isfinite(c).all():
            raise ValueError(f"the covariance of class {number} holds entries that are not finite")
        if c.ndim == 2 and np.abs(c - c.T).max() > 1e-10 * np.abs(c).max():
            raise ValueError(f"the covariance of class {number} is not symmetric")
    if all(c.ndim < 2 for c in given):
        return np.stack([np.broadcast_to(c, (p,)) for c in given]), None
    full = [np.diag(np.broadcast_to(c, (p,))) if c.ndim < 2 else c for c in given]
    scales = [max(float(np.abs(c).max()), 1e-300) for c in full]
    golden = (np.sqrt(5) - 1) / 2
    generic = sum((1 + (golden * (a + 1)) % 1) / scales[a] * c for a, c in enumerate(full))
    basis = np.linalg.eigh(generic)[1]
    rotated = [basis.T @ c @ basis for c in full]
    off = [float(np.abs(c - np.diag(np.diag(c))).max()) / scale for c, scale in zip(rotated, scales, strict=True)]
    if max(off) <= _SAME:
        return np.stack([np.diag(c) for c in rotated]), basis
    if non_commuting == "refuse":
        worst = int(np.argmax(off))
        raise NonCommuting(
            f"the class covariances do not commute (class {worst} keeps off-diagonal entries of {max(off):.2g} of its "
            "size in the best common basis), so they have no common eigenbasis. Give commuting ones, or pass "
            'non_commuting="mean" to let the weighted mean with each class\'s trace stand for them, an approximation')
    weights = np.asarray(sizes, dtype=float)
    mean = np.tensordot(weights / weights.sum(), full, axes=1)
    eigenvalues, basis = np.linalg.eigh(mean)
    return np.stack([np.maximum(eigenvalues, 0) * np.trace(c) / np.trace(mean) for c in full]), basis
