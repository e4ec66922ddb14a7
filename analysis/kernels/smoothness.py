"""Where a scalar function is smooth: panels on which a polynomial resolves it, the kinks between them, its derivative.

Any callable becomes quadrature-ready this way. Kinks that the user did not name are found by bisection: a panel that no
degree resolves however short it gets ends in a kink, known then to the last digits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from analysis.activations import Activation

Array = NDArray[np.float64]

_DEGREE = 24
_TOLERANCE = 1e-13    # of a panel's variation; roundings of its size come on top
_SHORTEST = 1e-13     # a panel this short (relative to 1 + |x|) that is still unresolved holds a kink
_CROWDED = 1e-3       # panels this short (relatively) surround a kink, or what is as good as one
_MOST_PANELS = 600
_NODES = np.cos(np.pi * (np.arange(_DEGREE + 1) + 0.5) / (_DEGREE + 1))
_TO_COEFFICIENTS = np.linalg.inv(chebyshev.chebvander(_NODES, _DEGREE))
_PROBES = np.array([-0.83147, -0.31831, 0.12345, 0.57722, 0.91597])


class NotPiecewiseSmooth(ValueError):
    """phi is not smooth between finitely many kinks on the range that the variances need."""


@dataclass(frozen=True)
class Panels:
    """A function on [-half_width, half_width], resolved.

    Attributes:
        breaks: panel ends, increasing, kinks among them.
        kinks: where the function (or a derivative) jumps.
        jumps: the size of the function's own jump at each kink (0 where only a derivative jumps).
        coefficients: Chebyshev coefficients of each panel, [panels, degree + 1].
    """

    breaks: Array
    kinks: Array
    jumps: Array
    coefficients: Array

    def derivative(self, x: Array) -> Array:
        """phi'(x) away from the kinks, from the panels' polynomials; beyond the range, that of the last panel's end."""
        flat = np.clip(np.ravel(x), self.breaks[0], self.breaks[-1])
        which = np.clip(np.searchsorted(self.breaks, flat, side="right") - 1, 0, len(self.breaks) - 2)
        result = np.empty_like(flat)
        for panel in np.unique(which):
            inside = which == panel
            left, right = self.breaks[panel], self.breaks[panel + 1]
            local = (2 * flat[inside] - left - right) / (right - left)
            result[inside] = chebyshev.chebval(local, chebyshev.chebder(self.coefficients[panel])) * 2 / (right - left)
        return result.reshape(np.shape(x))


def _expand(phi: Callable[[Array], Array], left: float, right: float, negligible: float) -> tuple[Array, bool]:
    """Chebyshev coefficients on a panel and whether they resolve the function there, up to `negligible`."""
    centre, half = 0.5 * (left + right), 0.5 * (right - left)
    values = np.asarray(phi(centre + half * np.concatenate([_NODES, _PROBES])), dtype=np.float64)
    coefficients = _TO_COEFFICIENTS @ values[:_DEGREE + 1]
    size = np.abs(values).max()
    tail = np.abs(coefficients[-3:]).max()
    off = np.abs(chebyshev.chebval(_PROBES, coefficients) - values[_DEGREE + 1:]).max()
    # Rounding of the argument moves phi by |phi'| |x| eps; on a short panel far from 0 that exceeds |phi| eps.
    slope = np.abs(np.diff(values[:_DEGREE + 1]) / np.diff(half * _NODES)).max()
    floor = 8 * np.finfo(float).eps * slope * abs(centre)
    allowed = _TOLERANCE * np.ptp(values) + 16 * np.finfo(float).eps * size + floor + negligible
    return coefficients, bool(max(tail, off) <= allowed)


def _bisect(phi: Callable[[Array], Array], ends: list[float]) -> list[tuple[float, float, Array]]:
    """Panels (left, right, coefficients) from left to right."""
    stack = [(a, b) for a, b in pairwise(ends) if b > a][::-1]
    # a 24th of the range is half a standard deviation or more: what phi does there sets the size of its moments
    negligible = 1e-16 * float(np.abs(phi(np.linspace(-1.0, 1.0, 65) * ends[-1] / 24)).max())
    done: list[tuple[float, float, Array]] = []
    while stack:
        left, right = stack.pop()
        coefficients, resolved = _expand(phi, left, right, negligible)
        if resolved or right - left <= _SHORTEST * (1 + abs(left)):
            done.append((left, right, coefficients))
        else:
            middle = 0.5 * (left + right)
            stack += [(middle, right), (left, middle)]
        if len(done) + len(stack) > _MOST_PANELS:
            raise NotPiecewiseSmooth("the activation is not smooth between finitely many kinks; name its kinks, or "
                                     f"smooth it (more than {_MOST_PANELS} panels on +-{ends[-1]:g})")
    return done


def _crowded(done: list[tuple[float, float, Array]]) -> list[float]:
    """Where panels crowd: the shortest panel's middle in every run of panels that are very short for their place."""
    places: list[float] = []
    run: list[tuple[float, float]] = []
    for left, right, _ in [*done, (0.0, np.inf, None)]:
        if right - left <= _CROWDED * (1 + abs(left)):
            run.append((right - left, 0.5 * (left + right)))
        elif run:
            shortest = min(width for width, _ in run)
            places.append(float(np.mean([middle for width, middle in run if width <= 1.5 * shortest])))
            run = []
    return places


def resolve(phi: Callable[[Array], Array], half_width: float, kinks: tuple[float, ...] = ()) -> Panels:
    """Resolve a function on [-half_width, half_width] by bisection.

    Args:
        phi: elementwise on float64 arrays.
        half_width: of the range.
        kinks: known ones; others are found.

    Raises:
        NotPiecewiseSmooth: a value that is not finite, or more panels than any sensible activation needs.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        probe = np.asarray(phi(np.linspace(-half_width, half_width, 201)), dtype=np.float64)
    if not np.isfinite(probe).all():
        raise NotPiecewiseSmooth(f"the activation is not finite on [-{half_width:g}, {half_width:g}], the range of "
                                 "twelve standard deviations of its argument: it grows too fast, or has a pole there")
    # activations do what they do at arguments of order one: look there, however wide the range
    inner = {0.0} | {sign * 4.0**k for k in range(12) for sign in (-1, 1)}
    known = sorted(t for t in {*kinks, *inner} if -half_width < t < half_width)
    done = _bisect(phi, [-half_width, *known, half_width])
    found = [t for t in _crowded(done) if all(abs(t - k) > _CROWDED * (1 + abs(t)) for k in known)]
    if found:  # once more with their places known, so that no panels crowd round them
        done = _bisect(phi, [-half_width, *sorted({*known, *found}), half_width])
    breaks = np.array([left for left, _, _ in done] + [half_width])
    ends_of = np.array([c for _, _, c in done])
    jumps = _jumps(breaks, ends_of)
    named = {float(t) for t in (*kinks, *found) if -half_width < t < half_width}
    points = np.array(sorted(named | {t for t, (_, rough) in jumps.items() if rough}))
    return Panels(breaks, points, np.array([jumps.get(t, (0.0, False))[0] for t in points]), ends_of)


def _jumps(breaks: Array, coefficients: Array) -> dict[float, tuple[float, bool]]:
    """At each inner break: the function's jump (0 if none), and whether it or one of two derivatives jumps."""
    result = {}
    size = max(1e-300, float(np.abs(coefficients[:, 0]).max()))
    for panel in range(1, len(breaks) - 1):
        left, right = coefficients[panel - 1], coefficients[panel]
        jump, rough = 0.0, False
        for order, allowed in ((0, 1e-9), (1, 1e-6), (2, 1e-4)):
            scales = (breaks[panel] - breaks[panel - 1]) / 2, (breaks[panel + 1] - breaks[panel]) / 2
            ends = (chebyshev.chebval(1.0, chebyshev.chebder(left, order)) / scales[0]**order,
                    chebyshev.chebval(-1.0, chebyshev.chebder(right, order)) / scales[1]**order)
            gap = float(ends[1] - ends[0])
            # differentiating amplifies roundings by up to degree^2 / scale an order
            noise = 1e-11 * size * (_DEGREE**2 / min(scales)) ** order
            if abs(gap) > allowed * max(abs(ends[0]), abs(ends[1])) + noise:
                rough = True
                jump = gap if order == 0 else jump
        result[float(breaks[panel])] = (jump, rough)
    return result


@lru_cache(maxsize=64)
def panels_of(activation: Activation, half_width: float) -> Panels:
    """`resolve` for an `Activation`, kept; `half_width` should be rounded up so that calls share results."""
    return resolve(activation.value, half_width, activation.kinks)


def range_for(largest_sd: float, cut: float) -> float:
    """The half width that `cut` standard deviations need, rounded up to a power of two."""
    return float(2.0 ** np.ceil(np.log2(max(cut * largest_sd, 1e-3))))


def derivative_function(activation: Activation, half_width: float) -> Callable[[Array], Array]:
    """The derivative almost everywhere: the activation's own, else that of its panels."""
    if activation.derivative is not None:
        return activation.derivative
    return panels_of(activation, half_width).derivative


def slope_accuracy(activation: Activation) -> float:
    """Relative accuracy of E[phi' phi']: roundings where phi' is given, else that of differentiated panels.

    Differentiating 25 Chebyshev coefficients costs up to 24^2 * 2 / width roundings; a kink is placed to some 1e-12.
    """
    return 64 * float(np.finfo(float).eps) if activation.derivative is not None else 1e-11
