r"""Fixed points q = sigma_a^2 h(q) + c of a variance, every one of them, for any number of drives c at once.

h is E phi(sqrt(q) xi)^2 or its centred form; its derivative comes with it (`Moments.second_slope`). Whatever c is, the
gap q - a h(q) - c has its turning points where a h'(q) = 1. With those among the grid points the gap is monotone
between neighbours, so that two roots however close lie on two sides of a turning point and are both seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from analysis.errors import EquationsError

Array = NDArray[np.float64]
Curve = Callable[[Array], tuple[Array, Array]]  # q -> h(q), h'(q)

_EPS = float(np.finfo(float).eps)
_PER_FOLD = 6       # grid points a factor e of q
_STRIDE = 2.0       # a shell spans this in log q


@dataclass(frozen=True)
class Scan:
    """What is known of q - a h(q) from `start` up.

    Attributes:
        q: grid, increasing, turning points among it.
        level: q - a h(q) there; a root for the drive c is where it equals c.
        stopped: why the scan ended before it should have, or None.
    """

    q: Array
    level: Array
    stopped: EquationsError | None

    def first_bracket(self, drive: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
        """Neighbouring grid points round the least root for each drive, and which drives have one on the grid."""
        index = np.searchsorted(np.maximum.accumulate(self.level), drive, side="right")
        there = index < len(self.q)
        index = np.clip(index, 1, len(self.q) - 1)
        return self.q[index - 1], self.q[index], there

    def brackets(self, drive: float) -> list[tuple[float, float]]:
        """Neighbouring grid points round every root, from the least on; a root on a grid point is (q, q)."""
        gap = self.level - drive
        found = []
        for n in range(len(gap) - 1):
            if gap[n] == 0:
                found.append((float(self.q[n]), float(self.q[n])))
            elif gap[n] * gap[n + 1] < 0:
                found.append((float(self.q[n]), float(self.q[n + 1])))
        return found


def scan(curve: Curve, a: float, start: float, stop: float, *, enough: float = np.inf) -> Scan:
    """Look at q - a h(q) on [start, stop] by shells; the scan may end early once the level exceeds `enough`.

    Where h does not exist any more (phi grows too fast, or is not resolved) the scan ends and says why.
    """
    log_low, log_stop = np.log(start), np.log(stop)
    q, h, dh = np.array([start]), *curve(np.array([start]))
    stopped: EquationsError | None = None
    while log_low < log_stop and stopped is None and not (q - a * h).max() > enough:
        log_high = min(log_low + _STRIDE, log_stop)
        for _ in range(12):
            points = np.exp(np.linspace(log_low, log_high, max(3, int(_PER_FOLD * (log_high - log_low)) + 1)))[1:]
            try:
                new = curve(points)
            except EquationsError as error:
                stopped, log_high = error, 0.5 * (log_low + log_high)
                continue
            q, h, dh = (np.concatenate(pair) for pair in ((q, points), (h, new[0]), (dh, new[1])))
            break
        log_low = log_high
    turning = _turning_points(curve, a, q, dh)
    if len(turning):
        extra = curve(turning)[0]
        order = np.argsort(np.concatenate([q, turning]), kind="stable")
        q, h = np.concatenate([q, turning])[order], np.concatenate([h, extra])[order]
    return Scan(q, q - a * h, stopped)


def _turning_points(curve: Curve, a: float, q: Array, dh: Array) -> Array:
    rest = 1 - a * dh
    places = np.flatnonzero(rest[1:] * rest[:-1] < 0)
    return np.array([optimize.brentq(lambda x: float(1 - a * curve(np.array([x]))[1][0]), q[n], q[n + 1],
                                     xtol=1e-14 * q[n], rtol=4 * _EPS) for n in places])


def polish(curve: Curve, a: float, drive: Array, low: Array, high: Array) -> Array:
    """The root in each bracket (gap not above 0 at `low`, not below at `high`): Newton's method kept inside."""
    low, high = low.copy(), high.copy()
    q = 0.5 * (low + high)
    for _ in range(200):
        h, dh = curve(q)
        gap = q - a * h - drive
        low, high = np.where(gap <= 0, q, low), np.where(gap >= 0, q, high)
        with np.errstate(divide="ignore", invalid="ignore"):
            trial = q - gap / (1 - a * dh)
        new = np.where((trial >= low) & (trial <= high), trial, 0.5 * (low + high))
        moved = np.abs(new - q)
        q = new
        if np.all((moved <= 2 * _EPS * q) | (high - low <= 2 * _EPS * high)):
            break
    return q
