"""The same quantities in plain high precision (mpmath), by separate code: the oracle that enclosures must contain.

Nothing here is an enclosure. Newton's iteration at 20 digits more than asked; derivatives by the implicit formulas of
one layer `z = sigma(W z + U x + b)`, written out for it alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np
from numpy.typing import NDArray

Scalar = Callable[[Any], Any]


def _sigmoid(t: Any) -> Any:
    return 1 / (1 + mpmath.exp(-t))


HIGH_PRECISION: dict[str, tuple[Scalar, Scalar, Scalar]] = {
    "softplus": (lambda t: mpmath.log1p(mpmath.exp(t)), _sigmoid, lambda t: _sigmoid(t) * _sigmoid(-t)),
    "sigmoid": (_sigmoid, lambda t: _sigmoid(t) * _sigmoid(-t),
                lambda t: _sigmoid(t) * _sigmoid(-t) * (1 - 2 * _sigmoid(t))),
    "tanh": (mpmath.tanh, lambda t: mpmath.sech(t) ** 2, lambda t: -2 * mpmath.tanh(t) * mpmath.sech(t) ** 2),
    "erf": (mpmath.erf, lambda t: 2 / mpmath.sqrt(mpmath.pi) * mpmath.exp(-t * t),
            lambda t: -4 * t / mpmath.sqrt(mpmath.pi) * mpmath.exp(-t * t)),
    "swish": (lambda t: t * _sigmoid(t), lambda t: _sigmoid(t) + t * _sigmoid(t) * _sigmoid(-t),
              lambda t: _sigmoid(t) * _sigmoid(-t) * (2 + t * (1 - 2 * _sigmoid(t)))),
    "sin": (mpmath.sin, mpmath.cos, lambda t: -mpmath.sin(t)),
}


@dataclass(frozen=True)
class HighPrecision:
    """Values to about `digits` digits.

    Attributes:
        z: [n, 1]; first: D z [n, d]; laplacian: [n, 1]; phantom_first and phantom_laplacian: of the K-step phantom.
    """

    z: Any
    first: Any
    laplacian: Any
    phantom_first: Any
    phantom_laplacian: Any


def layer_reference(weight: NDArray[np.float64], inputs: NDArray[np.float64], bias: NDArray[np.float64],
                    activation: str, x: NDArray[np.float64], *, steps: int = 2, digits: int = 50,
                    start: NDArray[np.float64] | None = None) -> HighPrecision:
    """Equilibrium and derivatives of one layer to `digits` digits.

    Args:
        weight: W [n, n].
        inputs: U [n, d].
        bias: b [n].
        activation: a name of `HIGH_PRECISION`.
        x: [d].
        steps: of the phantom.
        digits: wanted.
        start: of Newton's iteration [n], which picks the equilibrium where there are several; None starts with Picard
            steps from zero.

    Raises:
        ValueError: an activation without high-precision formulas here, or Newton's iteration did not converge.
    """
    if activation not in HIGH_PRECISION:
        raise ValueError(f"no high-precision formulas for {activation!r}; known: {', '.join(sorted(HIGH_PRECISION))}")
    sigma, slope, bend = HIGH_PRECISION[activation]
    with mpmath.workdps(digits + 20):
        w, u = mpmath.matrix(weight.tolist()), mpmath.matrix(inputs.tolist())
        drive = u * mpmath.matrix(x.tolist()) + mpmath.matrix(bias.tolist())
        n, d = u.rows, u.cols
        z = _newton(w, drive, sigma, slope, mpmath.mpf(10) ** (-digits - 10), start)
        argument = w * z + drive
        slopes = mpmath.diag([slope(t) for t in argument])
        regular = mpmath.eye(n) - slopes * w
        first = mpmath.matrix(n, d)
        for j in range(d):
            first[:, j] = mpmath.lu_solve(regular, slopes * u[:, j])
        bends = [bend(t) for t in argument]
        laplacian = mpmath.lu_solve(regular, _bent(w * first + u, bends))
        rough, rough_laplacian = mpmath.matrix(n, d), mpmath.matrix(n, 1)
        for _ in range(steps):
            moved = w * rough + u
            rough_laplacian = slopes * w * rough_laplacian + _bent(moved, bends)
            rough = slopes * moved
        return HighPrecision(z, first, laplacian, rough, rough_laplacian)


def _newton(w: Any, drive: Any, sigma: Scalar, slope: Scalar, tolerance: Any,
            start: NDArray[np.float64] | None) -> Any:
    n = w.rows
    z = mpmath.matrix(n, 1) if start is None else mpmath.matrix(start.tolist())
    for step in range(400):
        argument = w * z + drive
        residual = z - mpmath.matrix([sigma(t) for t in argument])
        if start is None and step < 40 and mpmath.norm(residual) > 1e-3:  # Picard steps bring the start near
            z = z - residual
            continue
        correction = mpmath.lu_solve(mpmath.eye(n) - mpmath.diag([slope(t) for t in argument]) * w, residual)
        z = z - correction
        if mpmath.norm(correction) < tolerance:
            return z
    raise ValueError("Newton's iteration did not converge in high precision")


def _bent(moved: Any, bends: list[Any]) -> Any:
    """Give sigma'' times the squared length of each row of D h."""
    return mpmath.matrix([factor * sum(moved[i, j] ** 2 for j in range(moved.cols)) for i, factor in enumerate(bends)])
