r"""The variance of a DEQ's pre-activation: all roots of tau^2 = sigma_a^2 Var phi(tau xi) + sigma_b^2 tau_0^2.

With q = tau^2 and V(q) = Var phi(sqrt(q) xi) the heat equation gives V'(q) = E[(psi^2)'']/2, psi the centred phi: the
slope of the equation at a root is `-(1 - sigma_a^2 g_4 / 2)`, so the denominator of alpha_4 vanishes exactly where
two roots merge.

Uniqueness. s(tau) = sqrt(V(tau^2)) is the L2 norm of the centred phi(tau xi), hence Lipschitz in tau with phi's own
constant L. The map tau -> sqrt(sigma_a^2 s(tau)^2 + c) then has slope below sigma_a L, so `sigma_a L <= 1` and c > 0
prove at most one root, and `sigma_a L < 1` that there is one, below sqrt(c / (1 - sigma_a^2 L^2)). Where phi is not
known or the bound is not met, a scan counts the sign changes and says that it did; it knows the turning points, so a
close pair of roots on the two sides of a fold is two roots and is named.
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
from analysis.gaussian.fixed_points import Curve, polish, scan
from analysis.gaussian.moments import form_of, moments, moments_at

_SPAN = 1e8  # the scan ends at this times the largest of 1, tau0^2 and the smallest possible tau^2


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

    Example:
        >>> import analysis
        >>> len(analysis.solve_tau("relu", 0.2).tau)
        1
    """
    phi = as_activation(activation)
    sigma_a2, tau0 = float(sigma_a2), float(tau0)
    sigma_b2 = check_variances(sigma_a2, None if sigma_b2 is None else float(sigma_b2), tau0)
    floor = sigma_b2 * tau0**2

    def curve(q: Array) -> tuple[Array, Array]:
        sd = np.sqrt(q)
        at = moments_at(phi, sd, form=form_of(phi, float(sd.max())), steepness=False)
        return at.variance, 0.5 * at.square_curvature

    bound = lipschitz_constant(phi)
    contraction = math.inf if bound is None else math.sqrt(sigma_a2) * bound
    last = _SPAN * max(floor, tau0**2, 1.0)
    drive = np.array([floor])
    if contraction < 1:
        end = np.array([floor / (1 - contraction**2) * (1 + 1e-12)])
        squares = polish(curve, sigma_a2, drive, drive, end)
        reason = f"sigma_a times the Lipschitz constant {bound:.6g} of {phi.name} is {contraction:.6g} < 1"
    else:
        curve(drive)  # refuses a phi that is infinite from the start
        seen = scan(curve, sigma_a2, floor, last)
        pairs = seen.brackets(floor)
        squares = np.sort(np.array([_between(curve, sigma_a2, floor, *pair) for pair in pairs]))
        end_of = float(seen.q[-1])
        reason = (f"sign changes and turning points of a scan of tau^2 over [{floor:.4g}, {end_of:.4g}]"
                  + _named_pairs(squares))
        if bound is not None and contraction <= 1 and pairs:
            reason = f"sigma_a times the Lipschitz constant of {phi.name} is 1 and the input is injected"
        if not pairs:
            raise NoSolution(
                f"tau^2 = {sigma_a2:.6g} Var {phi.name}(tau xi) + {floor:.6g} has no root with tau below "
                f"{math.sqrt(end_of):.3g}: the right-hand side stays above tau^2. Lower sigma_a2 "
                f"below the edge (analysis.well_posedness_edge) or lower tau0")
    slopes = sigma_a2 * curve(squares)[1]
    return TauRoots(tuple(np.sqrt(squares).tolist()), tuple(slopes.tolist()), bound is not None and contraction <= 1,
                    reason)


def _between(curve: Curve, a2: float, floor: float, left: float, right: float) -> float:
    """The root between two neighbouring points of the scan."""
    if left == right:
        return left

    def gap(q: float) -> float:
        return float(q - a2 * curve(np.array([q]))[0][0] - floor)

    return float(optimize.brentq(gap, left, right, xtol=1e-15 * left, rtol=4 * np.finfo(float).eps))


def _named_pairs(squares: Array) -> str:
    """A remark on neighbouring roots that have nearly merged: they lie on the two sides of a fold."""
    close = [n for n in range(len(squares) - 1) if squares[n + 1] - squares[n] < 1e-2 * squares[n]]
    return "".join(f"; roots {n} and {n + 1} are a close pair beside a fold, tau = {math.sqrt(squares[n]):.12g} and "
                   f"{math.sqrt(squares[n + 1]):.12g}" for n in close)


def variance(phi: Activation, q: float) -> float:
    """V(q) = Var phi(sqrt(q) xi); infinite where it does not exist, NaN where the quadrature cannot tell."""
    try:
        return float(moments(phi, math.sqrt(q)).variance)
    except GrowsTooFast:
        return math.inf
    except NotResolved:
        return math.nan


def well_posedness_edge(activation: str | Activation | Callable[[Array], Array], tau0: float = 1.0, *,
                        sigma_b2: float | None = None) -> Edge:
    """The sigma_a^2 at which the DEQ with this phi stops being well posed, and why.

    The root is followed from sigma_a^2 = 0 in q = tau^2, in which sigma_a^2 is an explicit function,
    `(q - c) / V(q)` for fixed sigma_b^2 and `(q - tau_0^2) / (V(q) - tau_0^2)` for sigma_b^2 = 1 - sigma_a^2; its
    first maximum is a fold.

    Raises:
        GrowsTooFast: the expectation is infinite at sigma_a^2 = 0 already.

    Example:
        >>> import analysis
        >>> analysis.well_posedness_edge("tanh").sigma_a2 > 0.5
        True
    """
    phi, tau0 = as_activation(activation), float(tau0)
    sigma_b2 = None if sigma_b2 is None else float(sigma_b2)
    coupled = sigma_b2 is None
    start = tau0**2 * (1.0 if sigma_b2 is None else check_variances(0.0, sigma_b2, tau0))
    first = moments(phi, math.sqrt(start)).variance
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
