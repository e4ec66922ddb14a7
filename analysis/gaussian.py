r"""Expectations over one standard normal xi of any phi(tau xi), with an error estimate.

Adaptive composite Gauss-Legendre on panels that split at the declared kinks; an undeclared kink is found by
bisection. Expectations of derivatives need no derivative, by Stein's identity E f'(xi) = E xi f(xi):

    E phi'(tau xi) = E[xi phi(tau xi)] / tau,      E phi''(tau xi) = E[(xi^2 - 1) phi(tau xi)] / tau^2,

which is also what distributional derivatives (ReLU's phi'' is a point mass) mean. E phi'(tau xi)^2 does need phi';
where it is not given, the polynomial interpolant of each panel is differentiated.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import mpmath
import numpy as np
from mpmath.calculus.quadrature import GaussLegendre

from analysis.activation_facts import precise_derivative, precise_value
from analysis.activations import Activation, Array, as_activation
from analysis.errors import GrowsTooFast, NotResolved

_ORDER = 20
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(_ORDER)
# Differentiation of the interpolant through the nodes: values at the nodes -> derivatives at the nodes.
_BASIS = np.polynomial.legendre.legvander(_NODES, _ORDER - 1)
_DIFFERENTIATE = np.stack([np.polynomial.legendre.legval(_NODES, np.polynomial.legendre.legder(row))
                           for row in np.eye(_ORDER)], axis=1) @ np.linalg.inv(_BASIS)
# Extrapolation of the interpolant to just inside the panel's two ends. A kink between an end and the first node is
# seen by no node of the panel nor of its halves, so agreement of the two widths alone would miss it.
_ENDS = np.array([-1.0, 1.0]) * (1 - 2e-9)
_EXTRAPOLATE = np.polynomial.legendre.legvander(_ENDS, _ORDER - 1) @ np.linalg.inv(_BASIS)
_UNSEEN = (1 + _NODES[0]) / 2  # the share of a panel beyond its first node
_REACH = 38.5  # exp(-x^2/2) leaves double precision here
_NEGLIGIBLE = 80.0  # exp(-80) = 2e-35: below the rounding error of anything that it is added to
_LEVELS = 44

Panels = Callable[[Array], Array]


@dataclass(frozen=True)
class Expectation:
    """E g(tau xi) and an estimate of its absolute error (difference of two panel widths, and rounding)."""

    value: float
    error: float


@dataclass(frozen=True)
class Moments:
    """What the four equations need of phi at one tau; floats, or mpmath numbers on the high-precision path.

    Attributes:
        tau: the standard deviation of phi's argument.
        mean: E phi(tau xi), the centring shift.
        slope: E phi'(tau xi).
        curvature: E phi''(tau xi).
        variance: Var phi(tau xi).
        square_curvature: E (psi^2)''(tau xi) with psi = phi - mean.
        derivative_square: E phi'(tau xi)^2; infinite for a phi with jumps, NaN where it could not be resolved.
        error: the largest absolute error estimate among the integrals behind these numbers.
    """

    tau: float
    mean: float
    slope: float
    curvature: float
    variance: float
    square_curvature: float
    derivative_square: float
    error: float


def _values(activation: Activation, x: Array) -> Array:
    """Phi at x with its shape checked; overflow is left to the caller, who knows where it matters."""
    with np.errstate(all="ignore"):
        try:
            out = np.asarray(activation.value(x), dtype=float)
        except (TypeError, ValueError) as error:
            raise TypeError(f"activation {activation.name!r} does not take arrays ({error}); "
                            "write it with numpy functions, such as np.maximum instead of max") from error
    if out.shape not in (x.shape, ()):
        raise ValueError(f"activation {activation.name!r} maps shape {x.shape} to {out.shape}; it must act elementwise")
    return np.broadcast_to(out, x.shape)


def _reach(activation: Activation, tau: float) -> tuple[float, float]:
    """The ends (left, right) of the range of xi outside which phi(tau xi)^2 exp(-xi^2/2) is negligible.

    Raises:
        GrowsTooFast: it never is, within double precision.
    """
    x = np.arange(0.25, _REACH, 0.25)
    logs = []
    sizes = [np.abs(_values(activation, side * tau * x)) for side in (-1.0, 1.0)]
    # The centred phi is integrated too: where phi itself is small, its mean is not.
    typical = max(float(np.max(size[:8], where=np.isfinite(size[:8]), initial=0.0)) for size in sizes)
    for side, size in zip((-1.0, 1.0), sizes, strict=True):
        broken = np.flatnonzero(~np.isfinite(size))
        last = broken[0] if broken.size else x.size
        if last == 0:
            raise GrowsTooFast(f"{activation.name} is not finite at {side * tau * x[0]:.3g} (tau = {tau:.6g})")
        logs.append(2 * np.log(np.maximum(size[:last], max(typical, 1e-300))) - x[:last] ** 2 / 2)
    peak = max(float(log.max()) for log in logs)
    ends = []
    for side, log in zip((-1.0, 1.0), logs, strict=True):
        kept = np.flatnonzero(log > peak - _NEGLIGIBLE)
        index = kept[-1] + 1 if kept.size else 0
        if index >= log.size:
            raise GrowsTooFast(
                f"E phi(tau xi)^2 is infinite or beyond double precision for phi = {activation.name} at "
                f"tau = {tau:.6g}: phi grows too fast near {side * tau * x[log.size - 1]:.4g}; it must grow slower "
                f"than exp(x^2 / (4 tau^2)). Use a smaller sigma_a2 or tau0, or a phi of slower growth")
        ends.append(side * x[index])
    return ends[0], ends[1]


def _breakpoints(activation: Activation, tau: float) -> Array:
    left, right = _reach(activation, tau)
    base = np.arange(-math.ceil(_REACH), math.ceil(_REACH) + 1.0)
    # Features of phi live at scales of its own argument: dyadic panels around 0 resolve them for any tau.
    dyadic = np.array([0.5, 1, 2, 4, 8]) / tau
    points = np.concatenate([base, dyadic, -dyadic, np.asarray(activation.kinks, dtype=float) / tau, [left, right]])
    return np.unique(np.clip(points, left, right))


def _integrate(rows: Callable[[Array, Array], Array], points: Array, tolerance: float,
               what: str, check_ends: bool = True) -> tuple[Array, Array]:
    """Integrals of several functions against the normal density, by panels that halve until they agree.

    `rows(nodes [panels, order], widths [panels])` returns [k, panels, order].
    """
    left, right = points[:-1], points[1:]
    keep = right - left > 0
    left, right = left[keep], right[keep]

    def weighted(a: Array, b: Array, where: Array) -> Array:
        nodes = (a + b)[:, None] / 2 + (b - a)[:, None] / 2 * where
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused below
            return rows(nodes, b - a) * (np.exp(-nodes * nodes / 2) / math.sqrt(2 * math.pi))

    def panel_sums(a: Array, b: Array) -> tuple[Array, Array]:
        """The sums, and what may hide between the ends and the first nodes."""
        inside = weighted(a, b, _NODES)
        with np.errstate(over="ignore", invalid="ignore"):
            if not check_ends:
                return inside @ _WEIGHTS * (b - a) / 2, np.zeros((len(inside), len(a)))
            hidden = np.abs(weighted(a, b, _ENDS) - inside @ _EXTRAPOLATE.T).max(axis=2) * _UNSEEN * (b - a)
            return inside @ _WEIGHTS * (b - a) / 2, hidden

    sums, _ = panel_sums(left, right)
    total, error, size = np.zeros(len(sums)), np.zeros(len(sums)), np.abs(sums).sum(axis=1)
    for _ in range(_LEVELS):
        middle = (left + right) / 2
        halves, hidden = panel_sums(np.concatenate([left, middle]), np.concatenate([middle, right]))
        count = len(left)
        finer = halves[:, :count] + halves[:, count:]
        with np.errstate(invalid="ignore"):
            gap = np.abs(finer - sums) + hidden[:, :count] + hidden[:, count:]
        # A panel of width h among at most a hundred may miss its share of the tolerance, or be at rounding level.
        share = tolerance * np.maximum(size, 1e-300)[:, None] / 100
        done = (gap <= np.maximum(share, 4e-16 * np.abs(finer))).all(axis=0)
        total += finer[:, done].sum(axis=1)
        error += gap[:, done].sum(axis=1)
        if done.all():
            return total, error + 4e-16 * size
        rest = ~done
        sums = np.concatenate([halves[:, :count][:, rest], halves[:, count:][:, rest]], axis=1)
        left, right = np.concatenate([left[rest], middle[rest]]), np.concatenate([middle[rest], right[rest]])
        if not np.isfinite(sums).all() or len(left) > 20000:
            break
    raise NotResolved(f"the integral of {what} does not settle (panels down to {np.min(right - left):.1e}): "
                      "phi is not finite, has a jump, or oscillates too fast")


def expect(function: str | Activation | Callable[[Array], Array], tau: float = 1.0, *, kinks: tuple[float, ...] = (),
           tolerance: float = 1e-14) -> Expectation:
    """E g(tau xi) for a name, an Activation or any callable on float64 arrays.

    Args:
        function: g.
        tau: standard deviation of the argument, positive.
        kinks: where g is not smooth (for a callable; optional, bisection finds them too).
        tolerance: wanted error, relative to E |g|.

    Raises:
        GrowsTooFast: E g^2 is infinite.
        NotResolved: the panels do not settle.
    """
    activation = as_activation(function, kinks)
    _check_tau(tau)
    total, error = _integrate(lambda nodes, widths: _values(activation, tau * nodes)[None],
                              _breakpoints(activation, tau), tolerance, activation.name)
    return Expectation(float(total[0]), float(error[0]))


def moments(activation: str | Activation | Callable[[Array], Array], tau: float, *, tolerance: float = 1e-14,
            with_derivative_square: bool = True) -> Moments:
    """All expectations of phi(tau xi) that the four equations need, by two sweeps (mean, then centred).

    Args:
        activation: phi.
        tau: standard deviation of its argument, positive.
        tolerance: wanted error relative to the absolute integrals.
        with_derivative_square: False leaves E phi'^2 as NaN and saves a sweep.

    Raises:
        GrowsTooFast: E phi(tau xi)^2 is infinite.
        NotResolved: the panels do not settle.
    """
    phi = as_activation(activation)
    _check_tau(tau)
    points = _breakpoints(phi, tau)
    mean, mean_error = _integrate(lambda nodes, widths: _values(phi, tau * nodes)[None], points, tolerance, phi.name)

    def rows(nodes: Array, widths: Array) -> Array:
        centred = _values(phi, tau * nodes) - mean[0]
        hermite = nodes * nodes - 1
        return np.stack([nodes * centred, hermite * centred, centred * centred, hermite * centred * centred])

    sums, errors = _integrate(rows, points, tolerance, f"{phi.name}^2")
    dot = math.nan
    if with_derivative_square:
        try:
            dot = expected_derivative_square(phi, tau, tolerance=max(tolerance, 1e-12))
        except NotResolved:  # only the NTK's diagonal needs it, and says so when asked
            dot = math.nan
    if phi.odd:
        mean[0] = sums[1] = 0.0
    return Moments(tau, float(mean[0]), float(sums[0] / tau), float(sums[1] / tau**2), float(sums[2]),
                   float(sums[3] / tau**2), dot, float(max(mean_error[0], errors.max())))


def expected_derivative_square(activation: str | Activation | Callable[[Array], Array], tau: float, *,
                               tolerance: float = 1e-12) -> float:
    """E phi'(tau xi)^2, from phi' where it is known, else from the panels' interpolants; infinite if phi jumps."""
    phi = as_activation(activation)
    _check_tau(tau)
    points = _breakpoints(phi, tau)
    if any(_jumps(phi, kink) for kink in phi.kinks):
        return math.inf
    if phi.derivative is not None:
        known = Activation(f"{phi.name}'", phi.derivative, kinks=phi.kinks)
        total, _ = _integrate(lambda nodes, widths: _values(known, tau * nodes)[None] ** 2, points, tolerance,
                              known.name)
        return float(total[0])

    def rows(nodes: Array, widths: Array) -> Array:
        slopes = _values(phi, tau * nodes) @ _DIFFERENTIATE.T * (2 / widths)[:, None] / tau
        return (slopes**2)[None]

    try:
        # Differentiating an interpolant of degree 19 costs about three digits.
        total, _ = _integrate(rows, points, max(tolerance, 1e-10), f"({phi.name}')^2", check_ends=False)
    except NotResolved:
        if _steepens(phi, tau, points):
            return math.inf
        raise
    return float(total[0])


def _jumps(phi: Activation, kink: float) -> bool:
    step = 1e-9 * max(1.0, abs(kink))
    near = _values(phi, np.array([kink - 2 * step, kink - step, kink + step, kink + 2 * step]))
    return bool(abs(near[2] - near[1]) > 100 * (abs(near[1] - near[0]) + abs(near[3] - near[2]) + 1e-12))


def _steepens(phi: Activation, tau: float, points: Array) -> bool:
    """Whether the largest difference over a mesh stays put as the mesh gets ten times finer: a jump."""
    gaps = [np.max(np.abs(np.diff(_values(phi, tau * np.linspace(points[0], points[-1], count)))))
            for count in (20001, 200001)]
    return bool(gaps[1] > 0.5 * gaps[0])


def precise_moments(activation: str | Activation | Callable[[Array], Array], tau: mpmath.mpf, digits: int,
                    precise: Callable[[mpmath.mpf], mpmath.mpf] | None = None) -> Moments:
    """The same moments to `digits` digits by mpmath, from the same Stein identities.

    Args:
        activation: phi; a known activation, or one with `precise` given.
        tau: standard deviation.
        digits: decimal digits wanted.
        precise: phi on mpmath numbers, for an activation that is not known.

    Raises:
        ValueError: phi is not known to mpmath and `precise` is None.
    """
    phi = as_activation(activation)
    value = precise or precise_value(phi)
    if value is None:
        raise ValueError(f"{phi.name} is not known to mpmath; pass precise=, the function on mpmath numbers")
    with mpmath.workdps(digits + 10):
        tau = mpmath.mpf(tau)
        reach = mpmath.ceil(mpmath.sqrt(2 * (digits + 12) * mpmath.log(10))) + 4
        kinks = [mpmath.mpf(kink) / tau for kink in phi.kinks]
        points = sorted({mpmath.mpf(k) / 2 for k in range(-2 * int(reach), 2 * int(reach) + 1)} | set(kinks))
        points = [point for point in points if abs(point) <= reach]

        rule = GaussLegendre(mpmath.mp)
        # Panels of width 1/2 are short against the distance of phi's singularities: 24 nodes give about 26 digits
        # there, 48 over 60 (measured on the known activations). The finer rule is used, the coarser tells its error.
        degree = 3 if digits <= 25 else 4

        def sums(level: int) -> list[mpmath.mpf]:
            weighted = [(x, w * mpmath.npdf(x)) for a, b in itertools.pairwise(points)
                        for x, w in rule.get_nodes(a, b, level, mpmath.mp.prec)]
            values = [value(tau * x) for x, _ in weighted]
            mean = mpmath.fsum(w * v for (_, w), v in zip(weighted, values, strict=True))
            mean = mpmath.mpf(0) if phi.odd else mean
            terms = [(x, w, v - mean) for (x, w), v in zip(weighted, values, strict=True)]
            slopes = [slope_of(tau * x) for x, _ in weighted] if slope_of is not None else []
            return [mean, mpmath.fsum(x * w * v for x, w, v in terms),
                    mean if phi.odd else mpmath.fsum((x * x - 1) * w * v for x, w, v in terms),
                    mpmath.fsum(w * v * v for _, w, v in terms),
                    mpmath.fsum((x * x - 1) * w * v * v for x, w, v in terms),
                    mpmath.fsum(w * v * v for (_, w), v in zip(weighted, slopes,
                                                               strict=False)) if slopes else mpmath.inf]

        slope_of = None if any(_jumps(phi, kink) for kink in phi.kinks) else (
            precise_derivative(phi) if precise is None else lambda x: mpmath.diff(value, x))
        result, coarse = sums(degree + 1), sums(degree)
        error = max(abs(a - b) for a, b in zip(result[:5], coarse[:5], strict=True))
        # Doubling the nodes of a converging Gauss rule squares its error.
        if not error < mpmath.mpf(10) ** -(digits // 2 + 3):
            raise NotResolved(f"{phi.name} at tau = {float(tau):.6g}: mpmath's rule reaches {float(error):.1e} only")
        mean, first, second, square, fourth, dot = result
        return Moments(tau, mean, first / tau, second / tau**2, square, fourth / tau**2, dot, error)


def _check_tau(tau: float) -> None:
    if not (tau > 0 and math.isfinite(tau)):
        raise ValueError(f"tau must be positive and finite, not {tau}")
