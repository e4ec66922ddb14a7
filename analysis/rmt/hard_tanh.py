r"""Matching by hard-tanh layers a clip(x, -c, c): one bracketed root each.

At tau = 1, with p = P(|xi| < c), q = 1 - p and the normal density at c: V(c) = E min(|xi|, c)^2 = p - 2 c pdf(c) + c^2
q. A layer multiplies tau_0^2 alpha_1 / gamma^2 by

    h(c) = p^2 / V,   strictly increasing from 2/pi (c -> 0) to 1 (c -> infinity),

free of a; a is fixed by alpha_1 = a^2 p^2. For the NTK with the first layer trained the ratio tau_0^2 beta_1 / kappa^2
is 2 p^2 / (V + p), which increases from 0 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy import optimize, special

LOWEST = 2 / math.pi


def clipped_mass(clip: float) -> float:
    """P = P(|xi| < c) = E d/dx clip(xi)."""
    return math.erf(clip / math.sqrt(2))


def clipped_variance(clip: float) -> float:
    """V = E min(|xi|, c)^2; below c = 0.1 by its series, where the closed form cancels."""
    tail = math.erfc(clip / math.sqrt(2))
    if clip < 0.1:
        # p - 2 c pdf(c) = 2 E xi^2 on [0, c] = (1/2, gamma) incomplete: no cancellation.
        return float(special.gammainc(1.5, clip * clip / 2)) + clip * clip * tail
    density = math.exp(-clip * clip / 2) / math.sqrt(2 * math.pi)
    return math.erf(clip / math.sqrt(2)) - 2 * clip * density + clip**2 * tail


def conjugate_ratio(clip: float) -> float:
    """Ratio h(c) that one layer multiplies tau_0^2 alpha_1 / gamma^2 by."""
    return clipped_mass(clip) ** 2 / clipped_variance(clip)


def tangent_ratio(clip: float) -> float:
    """The ratio tau_0^2 beta_1 / kappa^2 of one layer whose input weights are trained too."""
    mass = clipped_mass(clip)
    return 2 * mass**2 / (clipped_variance(clip) + mass)


def solve_clip(ratio: float, function: Callable[[float], float] = conjugate_ratio) -> float:
    """The c (for unit tau) with function(c) = ratio.

    Raises:
        ValueError: the ratio is outside the range of the function on (1e-8, 8.5), that is outside it to double
            precision.
    """
    low, high = 1e-8, 8.5
    if not function(low) < ratio < function(high):
        raise ValueError(f"ratio {ratio:.15g} is outside ({function(low):.6g}, {function(high):.6g})")
    return math.exp(optimize.brentq(lambda log_c: function(math.exp(log_c)) - ratio, math.log(low), math.log(high),
                                    xtol=1e-15, rtol=1e-15))
