"""Where a scalar function is smooth: panels on which a polynomial resolves it, the kinks between them, its derivative.

Any callable becomes quadrature-ready this way. Kinks that the user did not name are found by bisection: a panel that no
degree resolves however short it gets ends in a kink, known then to the last digits. What is below the rounding of the
function's size at that distance from 0 is noise, not structure: 0.5 x (1 + erf(x / sqrt(2))) is smooth.
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
from analysis.errors import NotResolved

Array = NDArray[np.float64]

_DEGREE = 24
_TOLERANCE = 1e-13    # of a panel's variation; roundings of its size come on top
_SHORTEST = 1e-13     # a panel this short (relative to 1 + |x|) that is still unresolved holds a kink
_CROWDED = 1e-3       # panels this short (relatively) surround a kink, or what is as good as one
_MOST_PANELS = 600
_EPS = float(np.finfo(float).eps)
_NOISE = 32 * _EPS    # a handful of roundings of what phi is made of
_NODES = np.cos(np.pi * (np.arange(_DEGREE + 1) + 0.5) / (_DEGREE + 1))
_TO_COEFFICIENTS = np.linalg.inv(chebyshev.chebvander(_NODES, _DEGREE))
# besides a few inner points, just inside both ends: a kink between an end and the first node is seen by no other
_PROBES = np.array([-1 + 1e-11, -0.83147, -0.31831, 0.12345, 0.57722, 0.91597, 1 - 1e-11])
_FINGERPRINT = np.sin(np.arange(1.0, 34.0))  # in (-1, 1), at no special place


class NotPiecewiseSmooth(NotResolved):
    """phi is not smooth between finitely many kinks on the range that the variances need."""


@dataclass(frozen=True)
class _Panel:
    left: float
    right: float
    coefficients: Array
    resolved: bool

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def middle(self) -> float:
        return 0.5 * (self.left + self.right)


@dataclass(frozen=True)
class Panels:
    """A function on [-half_width, half_width], resolved.

    Attributes:
        breaks: panel ends, increasing, kinks among them.
        kinks: where the function (or a derivative) jumps.
        jumps: the size of the function's own jump at each kink (0 where only a derivative jumps).
        coefficients: Chebyshev coefficients of each panel, [panels, degree + 1].
        steep: whether the slope grows without bound towards a kink, as that of sqrt(|x|) does.
    """

    breaks: Array
    kinks: Array
    jumps: Array
    coefficients: Array
    steep: bool

    def derivative(self, x: Array) -> Array:
        """phi'(x) away from the kinks, from the panels' polynomials; beyond the range, that of the last panel's end."""
        flat = np.clip(np.ravel(x), self.breaks[0], self.breaks[-1])
        which = np.searchsorted(self.breaks[1:-1], flat, side="right")
        result = np.empty_like(flat)
        for panel in np.flatnonzero(np.bincount(which)):
            inside = np.flatnonzero(which == panel)
            left, right = self.breaks[panel], self.breaks[panel + 1]
            series = chebyshev.chebder(self.coefficients[panel]) * 2 / (right - left)
            kept = np.flatnonzero(np.abs(series) > 1e-17 * np.abs(series).max())
            result[inside] = _clenshaw(series[:int(kept[-1]) + 1 if kept.size else 1],
                                       (4 * flat[inside] - 2 * (left + right)) / (right - left))
        return result.reshape(np.shape(x))


def _clenshaw(series: Array, twice: Array) -> Array:
    """Sum c_k T_k(twice / 2), with three arrays and no more."""
    one, two, new = np.zeros_like(twice), np.zeros_like(twice), np.empty_like(twice)
    for c in series[:0:-1]:
        np.multiply(twice, one, out=new)
        new -= two
        new += c
        one, two, new = new, one, two
    one *= twice
    one *= 0.5
    one -= two
    one += series[0]
    return one


def _expand(phi: Callable[[Array], Array], left: float, right: float, negligible: float) -> tuple[Array, bool]:
    """Chebyshev coefficients on a panel and whether they resolve the function there, up to `negligible`."""
    centre, half = 0.5 * (left + right), 0.5 * (right - left)
    values = phi(centre + half * np.concatenate([_NODES, _PROBES]))
    coefficients = _TO_COEFFICIENTS @ values[:_DEGREE + 1]
    size = np.abs(values).max()
    tail = np.abs(coefficients[-3:]).max()
    off = np.abs(chebyshev.chebval(_PROBES, coefficients) - values[_DEGREE + 1:]).max()
    # Rounding of the argument moves phi by |phi'| |x| eps; on a short panel far from 0 that exceeds |phi| eps.
    slope = np.abs(np.diff(values[:_DEGREE + 1]) / np.diff(half * _NODES)).max()
    floor = 8 * _EPS * slope * abs(centre)
    allowed = _TOLERANCE * np.ptp(values) + 16 * _EPS * size + floor + negligible
    return coefficients, bool(max(tail, off) <= allowed)


def _noise_level(phi: Callable[[Array], Array], half_width: float) -> Callable[[float], float]:
    """Roundings of phi's largest value within a distance of 0, by that distance."""
    radii = half_width * 2.0 ** -(np.arange(160)[::-1] / 4)
    sizes = np.maximum(np.abs(phi(radii)), np.abs(phi(-radii)))
    largest = np.maximum.accumulate(sizes)
    # below a 24th of the range is half a standard deviation: what phi does there sets the size of its moments
    inner = 1e-16 * float(np.abs(phi(np.linspace(-1.0, 1.0, 65) * half_width / 24)).max())

    def level(radius: float) -> float:
        index = min(int(np.searchsorted(radii, radius)), len(radii) - 1)
        return max(_NOISE * float(largest[index]), inner)

    return level


def _bisect(phi: Callable[[Array], Array], ends: list[float], noise: Callable[[float], float]) -> list[_Panel]:
    """Panels from left to right."""
    apart = ends[:1]
    for end in ends[1:-1]:  # what is closer than a kink can be placed is one end
        if min(end - apart[-1], ends[-1] - end) > _SHORTEST * (1 + abs(end)):
            apart.append(end)
    stack = list(pairwise([*apart, ends[-1]]))[::-1]
    done: list[_Panel] = []
    while stack:
        left, right = stack.pop()
        coefficients, resolved = _expand(phi, left, right, noise(max(abs(left), abs(right))))
        if resolved or right - left <= _SHORTEST * (1 + abs(left)):
            done.append(_Panel(left, right, coefficients, resolved))
        else:
            middle = 0.5 * (left + right)
            stack += [(middle, right), (left, middle)]
        if len(done) + len(stack) > _MOST_PANELS:
            raise NotPiecewiseSmooth("the activation is not smooth between finitely many kinks; name its kinks, or "
                                     f"smooth it (more than {_MOST_PANELS} panels on +-{ends[-1]:g})")
    return done


def _crowded(done: list[_Panel]) -> list[tuple[float, float]]:
    """Where panels crowd, with the width of the shortest there: each narrowest spot of a run of very short panels."""
    places: list[tuple[float, float]] = []
    run: list[_Panel] = []
    for panel in [*done, _Panel(0.0, np.inf, _NODES, True)]:
        if panel.width <= _CROWDED * (1 + abs(panel.left)):
            run.append(panel)
            continue
        widths = np.array([p.width for p in run])
        near: list[int] = []
        for n in range(len(run)):
            least = widths[max(0, n - 3):n + 4].min()
            if widths[n] <= 1.5 * least:
                if near and widths[near[-1]:n + 1].max() > 8 * least:  # wide panels between: another kink
                    places.append(_spot(run, near))
                    near = []
                near.append(n)
        if near:
            places.append(_spot(run, near))
        run = []
    return places


def _spot(run: list[_Panel], members: list[int]) -> tuple[float, float]:
    shortest = min(run[n].width for n in members)
    return float(np.mean([run[n].middle for n in members if run[n].width <= 1.5 * shortest])), shortest


def resolve(phi: Callable[[Array], Array], half_width: float, kinks: tuple[float, ...] = ()) -> Panels:
    """Resolve a function on [-half_width, half_width] by bisection.

    Args:
        phi: elementwise on float64 arrays.
        half_width: of the range.
        kinks: known ones; others are found.

    Raises:
        NotPiecewiseSmooth: a value that is not finite, or more panels than any sensible activation needs.
    """
    probe = phi(np.linspace(-half_width, half_width, 201))
    if not np.isfinite(probe).all():
        raise NotPiecewiseSmooth(f"the activation is not finite on [-{half_width:g}, {half_width:g}], the range of "
                                 "twelve standard deviations of its argument: it grows too fast, or has a pole there")
    noise = _noise_level(phi, half_width)
    # activations do what they do at arguments of order one: look there, however wide the range
    inner = {0.0} | {sign * 4.0**k for k in range(12) for sign in (-1, 1)}
    known = sorted(t for t in {*map(float, kinks), *inner} if -half_width < t < half_width)
    done = _bisect(phi, [-half_width, *known, half_width], noise)
    found = [t for t, width in _crowded(done) if all(abs(t - k) > 8 * width for k in known)]
    if found:  # once more with their places known, so that no panels crowd round them
        done = _bisect(phi, [-half_width, *sorted({*known, *found}), half_width], noise)
    breaks = np.array([panel.left for panel in done] + [half_width])
    jumps = _jumps(phi, done)
    named = {float(t) for t in (*kinks, *found) if -half_width < t < half_width}
    points = np.array(sorted(named | {t for t, (_, rough) in jumps.items() if rough}))
    return Panels(breaks, points, np.array([jumps.get(t, (0.0, False))[0] for t in points]),
                  np.array([panel.coefficients for panel in done]), _steepens(phi, points))


def _jumps(phi: Callable[[Array], Array], done: list[_Panel]) -> dict[float, tuple[float, bool]]:
    """At each inner break: the function's jump (0 if none), and whether it or one of two derivatives jumps."""
    result = {}
    size = max(1e-300, max(float(abs(panel.coefficients[0])) for panel in done))
    for before, after in pairwise(done):
        jump, rough = 0.0, False
        scales = before.width / 2, after.width / 2
        for order, allowed in ((0, 1e-9), (1, 1e-6), (2, 1e-4)):
            ends = (chebyshev.chebval(1.0, chebyshev.chebder(before.coefficients, order)) / scales[0]**order,
                    chebyshev.chebval(-1.0, chebyshev.chebder(after.coefficients, order)) / scales[1]**order)
            gap = float(ends[1] - ends[0])
            # differentiating amplifies roundings by up to degree^2 / scale an order
            noise = 1e-11 * size * (_DEGREE**2 / min(scales)) ** order
            if abs(gap) > allowed * max(abs(ends[0]), abs(ends[1])) + noise:
                rough = True
                if order == 0 and _stays(phi, after.left):
                    jump = gap
        result[after.left] = (jump, rough)
    return result


def _stays(phi: Callable[[Array], Array], place: float) -> bool:
    """Whether the difference across a point stays put as the points close in: a jump, not a steep flank."""
    steps = np.array([1e-9, 1e-12]) * (1 + abs(place))
    wide, close = np.abs(phi(place + steps) - phi(place - steps))
    return bool(close > 0.5 * wide)


def _steepens(phi: Callable[[Array], Array], kinks: Array) -> bool:
    """Whether difference quotients grow as the points close in on a kink."""
    far, near = 1e-5 * (1 + np.abs(kinks)), 1e-10 * (1 + np.abs(kinks))
    middle = phi(kinks)
    quotients = [np.maximum(np.abs(phi(kinks + h) - middle), np.abs(phi(kinks - h) - middle)) / h for h in (far, near)]
    return bool(np.any(quotients[1] > 3 * quotients[0] + 1e-5 * np.abs(middle)))


@lru_cache(maxsize=64)
def _resolved(activation: Activation, half_width: float, fingerprint: bytes) -> Panels:
    panels = resolve(activation.value, half_width, activation.kinks)
    if activation.derivative is not None:
        _check_derivative(activation, panels)
    return panels


def _check_derivative(activation: Activation, panels: Panels) -> None:
    """Refuse a phi' that is not that of phi: everything that uses it would be wrong in silence."""
    if activation.derivative is None or np.any(panels.jumps):
        return
    wide = np.diff(panels.breaks) > 1e-3
    points = (0.5 * (panels.breaks[1:] + panels.breaks[:-1]))[wide]
    given, own = activation.derivative(points), panels.derivative(points)
    off = np.abs(given - own)
    bad = ~(off <= 1e-4 * np.maximum(np.abs(own), np.abs(own).max(initial=0.0) * 1e-3) + 1e-6)
    if np.any(bad):
        x = float(points[int(np.argmax(bad))])
        raise ValueError(f"the derivative given with {activation.name} is not its own: at x = {x:.4g} it says "
                         f"{given[bad][0]:.6g}, and the function has {own[bad][0]:.6g}")


def panels_of(activation: Activation, half_width: float) -> Panels:
    """`resolve` for an `Activation`, kept; `half_width` should be rounded up so that calls share results.

    What is kept is bound to the function's values at a few points, so a callable whose parameters have changed since
    is resolved anew.
    """
    return _resolved(activation, half_width, activation.value(half_width * _FINGERPRINT).tobytes())


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
    return 64 * _EPS if activation.derivative is not None else 1e-11


def as_piecewise_linear(activation: Activation, half_width: float) -> tuple[object, ...]:
    """The closed form of an activation whose panels are all lines that join, found or declared; else empty.

    `np.maximum(x, 0)`, `x + 0.2 |x|` and the like come with no form of their own; this finds it.
    """
    if activation.form:
        return activation.form
    panels = panels_of(activation, half_width)
    rest = np.abs(panels.coefficients[:, 2:]).max()
    size = float(np.abs(panels.coefficients[:, :2]).max())
    if rest > 1e-14 * size or np.any(panels.jumps) or len(panels.kinks) > 8:
        return ()
    ends = np.concatenate([[panels.breaks[0]], panels.kinks, [panels.breaks[-1]]])
    inside = 0.25 * (3 * ends[:-1] + ends[1:]), 0.25 * (ends[:-1] + 3 * ends[1:])
    low, high = activation.value(inside[0]), activation.value(inside[1])
    slopes = (high - low) / (inside[1] - inside[0])
    offsets = low - slopes * inside[0]
    jumps = np.diff(slopes)
    real = np.abs(jumps) > 1e-13 * np.abs(slopes).max()
    with np.errstate(divide="ignore", invalid="ignore"):
        meets = np.where(np.abs(panels.kinks) < 1e-12, 0.0, -np.diff(offsets) / jumps)  # where neighbouring lines meet
    kinks = tuple((float(t), float(j)) for t, j in zip(meets[real], jumps[real], strict=True))
    start = float(activation.value(np.zeros(1))[0])
    if len(kinks) == 1 and kinks[0][0] == 0 and start == 0:
        return "two_slopes", float(slopes[-1]), float(slopes[0])
    left_of_all = float(slopes[0])
    base = float(offsets[0])  # phi(x) = base + slope x + sum of jumps relu(x - t)
    return "piecewise_linear", base, left_of_all, kinks
