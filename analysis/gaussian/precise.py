"""The four equations' moments to any number of digits by mpmath, from the same Stein identities."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import mpmath
from mpmath.calculus.quadrature import GaussLegendre

from analysis.activation_facts import precise_derivative, precise_value
from analysis.activations import Activation, Array, as_activation
from analysis.errors import NotResolved
from analysis.gaussian.moments import Moments, jumps_at


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

        slope_of = None if any(jumps_at(phi, kink) for kink in phi.kinks) else (
            precise_derivative(phi) if precise is None else lambda x: mpmath.diff(value, x))
        result, coarse = sums(degree + 1), sums(degree)
        error = max(abs(a - b) for a, b in zip(result[:5], coarse[:5], strict=True))
        # Doubling the nodes of a converging Gauss rule squares its error.
        if not error < mpmath.mpf(10) ** -(digits // 2 + 3):
            raise NotResolved(f"{phi.name} at tau = {float(tau):.6g}: mpmath's rule reaches {float(error):.1e} only")
        mean, first, second, square, fourth, dot = result
        return Moments(tau, mean, first / tau, second / tau**2, square, fourth / tau**2, dot, error)
