r"""The variance of a DEQ's pre-activation: all roots of tau^2 = sigma_a^2 Var phi(tau xi) + sigma_b^2 tau_0^2.

With q = tau^2 and V(q) = Var phi(sqrt(q) xi) the heat equation gives V'(q) = E[(psi^2)'']/2, psi the centred phi: the
slope of the equation at a root is `-(1 - sigma_a^2 g_4 / 2)`, so the denominator of alpha_4 vanishes exactly where
two roots merge.

Uniqueness. s(tau) = sqrt(V(tau^2)) is the L2 norm of the centred phi(tau xi), hence Lipschitz in tau with phi's own
constant L. The map tau -> sqrt(sigma_a^2 s(tau)^2 + c) then has slope below sigma_a L, so `sigma_a L <= 1` and c > 0
prove at most one root, and `sigma_a L < 1` that there is one, below sqrt(c / (1 - sigma_a^2 L^2)). Where phi is not
known or the bound is not met, a scan counts the sign changes and says that it did.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import optimize

from analysis.activation_facts import lipschitz_constant
from analysis.activations import Activation, Array, as_activation
from analysis.errors import GrowsTooFast, NoSolution, NotResolved, NotWellPosed
from analysis.gaussian import moments

_SPAN = 1e8  # the scan ends at this times the largest of 1, tau0^2 and the smallest possible tau^2
_STEPS = 90


@dataclass(frozen=True)
class TauRoots:
    """All roots found.

    Attributes:
        tau: the roots, increasing.
        slopes: d(right-hand side)/d(tau^2) at each, `sigma_a^2 g_4 / 2`; below 1 the root is stable.
        proved: True where the list is proved complete.
        reason: how completeness is known.
    """

    tau: tuple[float, ...]
    slopes: tuple[float, ...]
    proved: bool
    reason: str


@dataclass(frozen=True)
class Edge:
    """Where a family of DEQs stops being well posed as sigma_a^2 grows.

    Attributes:
        sigma_a2: the supremum of the sigma_a^2 whose first root (continued from sigma_a^2 = 0) exists and is stable.
        tau: of that root at the edge; infinite when it runs away.
        kind: "no injection" (sigma_b^2 = 0 is reached first), "fold" (two roots merge, 1 - sigma_a^2 g_4/2 = 0) or
            "runaway" (tau grows without bound).
        chaos_sigma_a2: the least sigma_a^2 on the branch with sigma_a^2 E phi'^2 >= 1, where the diagonal of the NTK
            diverges and two runs of the same DEQ part; None if there is none before the edge.
    """

    sigma_a2: float
    tau: float
    kind: str
    chaos_sigma_a2: float | None


def check_variances(sigma_a2: float, sigma_b2: float | None, tau0: float) -> float:
    """sigma_b^2 after checking all three (default 1 - sigma_a^2).

    Raises:
        ValueError: a value that is not finite, a negative variance or tau0 <= 0.
        NotWellPosed: sigma_b^2 <= 0 by the default, the edge of the family.
    """
    if not (math.isfinite(sigma_a2) and sigma_a2 >= 0):
        raise ValueError(f"sigma_a2 must be finite and not negative, not {sigma_a2}")
    if not (math.isfinite(tau0) and tau0 > 0):
        raise ValueError(f"tau0 must be finite and positive, not {tau0}")
    if sigma_b2 is None:
        if sigma_a2 >= 1:
            raise NotWellPosed(
                f"sigma_a2 = {sigma_a2} leaves sigma_b2 = 1 - sigma_a2 <= 0: no input is injected and the "
                "kernel carries no data; the edge is sigma_a2 = 1. Lower sigma_a2 or pass sigma_b2")
        return 1 - sigma_a2
    if not (math.isfinite(sigma_b2) and sigma_b2 > 0):
        raise ValueError(f"sigma_b2 must be finite and positive, not {sigma_b2}: "
                         "without injection the kernel carries no data")
    return sigma_b2


def solve_tau(activation: str | Activation | Callable[[Array], Array], sigma_a2: float, tau0: float = 1.0, *,
              sigma_b2: float | None = None) -> TauRoots:
    """All roots of the tau equation, by brackets.

    Args:
        activation: a name, an Activation or a callable on float64 arrays; centred here.
        sigma_a2: variance of the recurrent weights.
        tau0: root mean square of the inputs, sqrt(tr C / p).
        sigma_b2: variance of the input weights; 1 - sigma_a2 by default.

    Returns:
        the roots, at least one.

    Raises:
        NoSolution: there is none (below 1e4 times the scale of the inputs).
        GrowsTooFast: the expectation is infinite already at the smallest possible tau.
        NotWellPosed: sigma_a2 >= 1 without sigma_b2.
    """
    phi = as_activation(activation)
    sigma_b2 = check_variances(sigma_a2, sigma_b2, tau0)
    floor = sigma_b2 * tau0**2

    def excess(log_q: float) -> float:
        """(right-hand side)/q - 1, positive infinity where the expectation is infinite."""
        q = math.exp(log_q)
        return (sigma_a2 * variance(phi, q) + floor) / q - 1

    bound = lipschitz_constant(phi)
    contraction = math.inf if bound is None else math.sqrt(sigma_a2) * bound
    start, last = math.log(floor), math.log(_SPAN * max(floor, tau0**2, 1.0))
    if contraction < 1:
        end = start - math.log1p(-contraction**2)
        roots = [_root(excess, start, end)]
        reason = f"sigma_a times the Lipschitz constant {bound:.6g} of {phi.name} is {contraction:.6g} < 1"
    else:
        moments(phi, math.sqrt(floor), with_derivative_square=False)  # refuses a phi that is infinite from the start
        roots = _scan(excess, start, last)
        reason = f"sign changes of a scan of tau^2 over [{floor:.4g}, {math.exp(last):.4g}]"
        if bound is not None and contraction <= 1 and roots:
            reason = f"sigma_a times the Lipschitz constant of {phi.name} is 1 and the input is injected"
    if not roots:
        raise NoSolution(
            f"tau^2 = {sigma_a2:.6g} Var {phi.name}(tau xi) + {floor:.6g} has no root with tau below "
            f"{math.exp(last / 2):.3g}: the right-hand side stays above tau^2. Lower sigma_a2 "
            f"below the edge (analysis.well_posedness_edge) or lower tau0")
    taus = tuple(math.exp(root / 2) for root in roots)
    slopes = tuple(sigma_a2 * moments(phi, tau, with_derivative_square=False).square_curvature / 2 for tau in taus)
    return TauRoots(taus, slopes, bound is not None and contraction <= 1, reason)


def variance(phi: Activation, q: float) -> float:
    """V(q) = Var phi(sqrt(q) xi); infinite where it does not exist, NaN where the quadrature cannot tell."""
    try:
        return moments(phi, math.sqrt(q), tolerance=1e-14, with_derivative_square=False).variance
    except GrowsTooFast:
        return math.inf
    except NotResolved:
        return math.nan


def _root(excess: Callable[[float], float], left: float, right: float) -> float:
    """The root between two signs, to rounding; an end that is a root to rounding is taken."""
    at_left, at_right = excess(left), excess(right)
    if at_left <= 0:
        return left
    if at_right >= 0:
        return right
    return float(optimize.brentq(excess, left, right, xtol=1e-15, rtol=4 * np.finfo(float).eps))


def _scan(excess: Callable[[float], float], start: float, last: float) -> list[float]:
    """Roots by sign changes on a grid in log q; a shallow minimum between grid points is looked into."""
    grid = np.linspace(start, last, _STEPS)
    values = np.array([excess(point) for point in grid])
    known = np.cumsum(np.isnan(values)) == 0
    grid, values = grid[known], values[known]
    points, signs = list(grid), list(values)
    for index in range(1, len(grid) - 1):
        a, b, c = values[index - 1:index + 2]
        dip = (b > 0 and b <= a and b <= c) or (b < 0 and b >= a and b >= c)
        if dip and np.isfinite([a, b, c]).all():
            sign = math.copysign(1, b)
            best = optimize.minimize_scalar(lambda x, sign=sign: sign * excess(x), method="bounded",
                                            bounds=(grid[index - 1], grid[index + 1]), options={"xatol": 1e-10})
            if best.fun < 0:
                points.append(float(best.x))
                signs.append(sign * best.fun)
    order = np.argsort(points)
    points, signs = [points[i] for i in order], [signs[i] for i in order]
    roots = []
    for left, right, a, b in zip(points, points[1:], signs, signs[1:], strict=False):
        if a == 0:
            roots.append(left)
        elif math.isfinite(a) and a * b < 0:
            if not math.isfinite(b):
                b, right = _last_finite(excess, left, right)
                if a * b > 0:
                    continue
            roots.append(float(optimize.brentq(excess, left, right, xtol=1e-15, rtol=4 * np.finfo(float).eps)))
    return roots


def _last_finite(excess: Callable[[float], float], left: float, right: float) -> tuple[float, float]:
    """Walk the infinite end inwards until it is finite and, if it can be, positive."""
    for _ in range(60):
        middle = (left + right) / 2
        value = excess(middle)
        if math.isfinite(value):
            if value > 0:
                return value, middle
            left = middle
        else:
            right = middle
    return excess(left), left


def well_posedness_edge(activation: str | Activation | Callable[[Array], Array], tau0: float = 1.0, *,
                        sigma_b2: float | None = None) -> Edge:
    """The sigma_a^2 at which the DEQ with this phi stops being well posed, and why.

    The root is followed from sigma_a^2 = 0 in q = tau^2, in which sigma_a^2 is an explicit function,
    `(q - c) / V(q)` for fixed sigma_b^2 and `(q - tau_0^2) / (V(q) - tau_0^2)` for sigma_b^2 = 1 - sigma_a^2; its
    first maximum is a fold.

    Raises:
        GrowsTooFast: the expectation is infinite at sigma_a^2 = 0 already.
    """
    phi = as_activation(activation)
    coupled = sigma_b2 is None
    start = tau0**2 * (1.0 if sigma_b2 is None else check_variances(0.0, sigma_b2, tau0))
    first = moments(phi, math.sqrt(start), with_derivative_square=False).variance
    down = coupled and first < start

    def strength(q: float) -> float:
        value = variance(phi, q)
        if math.isinf(value):
            return 0.0
        return (q - start) / (value - start) if coupled else (q - start) / value if value > 0 else math.inf

    if coupled and abs(first - start) <= 1e-14 * start:
        return Edge(1.0, tau0, "no injection", _chaos(phi, lambda q: 1.0, [start], 1.0))
    # Away from q = start on a logarithmic grid of the distance.
    if down:
        path = start * (1 - np.geomspace(1e-9, 1 - 1e-9, 100))
    else:
        path = start * (1 + np.geomspace(1e-9, 1e8, 140))
    values = np.array([strength(q) for q in path])
    known = np.cumsum(np.isnan(values)) == 0
    path, values = path[known], values[known]
    cap = 1.0 if coupled else math.inf
    over = np.flatnonzero((values >= cap) | (values < 0))
    peak = next((i for i in range(1, len(values) - 1)
                 if values[i] >= values[i - 1] and values[i] > values[i + 1] * (1 + 1e-9)), None)
    if peak is not None and (not over.size or peak < over[0]):
        low, high = sorted((path[peak - 1], path[peak + 1]))
        best = optimize.minimize_scalar(lambda q: -strength(q), bounds=(low, high), method="bounded",
                                        options={"xatol": 1e-12 * high})
        q, value, kind = float(best.x), float(-best.fun), "fold"
        if value >= cap:
            over, value = np.array([peak]), cap
        used = path[:peak + 1]
    if peak is None or (over.size and over[0] <= peak):
        if over.size:
            index = int(over[0])
            q = float(optimize.brentq(lambda q: strength(q) - cap, *sorted((path[max(index - 1, 0)], path[index])))) \
                if index and values[index] >= cap else float(path[index])
            value, kind, used = cap, "no injection", path[:index + 1]
        elif down:
            q, value, kind, used = 0.0, cap, "no injection", path
        else:
            q, value, kind, used = math.inf, float(values[-1]), "runaway", path
            if values[-1] > 1e6:
                value = math.inf
    return Edge(value, math.sqrt(q), kind, _chaos(phi, strength, used, value))


def _chaos(phi: Activation, strength: Callable[[float], float], path: Array | list[float], edge: float) -> float | None:
    """The least sigma_a^2 on the branch with sigma_a^2 E phi'^2 >= 1."""
    def gap(q: float) -> float:
        return strength(q) * moments(phi, math.sqrt(q)).derivative_square - 1

    try:
        gaps = [gap(q) for q in path]
    except (GrowsTooFast, NotResolved):
        return None
    hit = next((i for i, value in enumerate(gaps) if value >= 0), None)
    if hit is None:
        return None
    if hit == 0 or not math.isfinite(gaps[hit]):
        return 0.0 if not math.isfinite(gaps[hit]) else float(strength(path[hit]))
    q = float(optimize.brentq(gap, *sorted((path[hit - 1], path[hit]))))
    return min(float(strength(q)), edge)
