r"""NTK matching by leaky-ReLU networks: three scale-free equations in the bends u_l = d_l^2/s_l^2 >= 0.

With f = 1 if the input weights are trained and 0 if not, N = L + f, r_l = prod_{j<=l} (1 + kap u_j), k_0 = f, k_l =
r_l + (1 + u_l) k_{l-1}:

    beta_1 = N prod s_l^2,
    kap 2 pi tau_0^2 beta_2/beta_1 = sum_l (r_l - 1) / N,
    pi tau_0^2 beta_3/beta_1       = sum_l (L + l - 1 + 2 f) u_l / r_{l-1} / N,
    kappa^2/(tau_0^2 beta_1)       = k_L / N.

Three equations, so isolated solutions at L = 3 and an (L - 3)-dimensional set beyond; unlike the CK's they obey no
identity that makes one redundant. They are polynomial but not monotone: solved by least squares from many fixed
starts, so that a solution is certain and its absence is only a search.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import optimize
from scipy.stats import qmc

from analysis.activations import Array
from analysis.rmt.equations import FourEquations
from analysis.rmt.partitions import KAP

Targets = tuple[float, float, float]
_SOLVED = 1e-12  # residuals are of order one and rounded a few dozen times


def tangent_targets(eq: FourEquations) -> Targets:
    """The left-hand sides of the three equations for a DEQ."""
    t2 = eq.tau0**2
    return (KAP * 2 * math.pi * t2 * eq.beta2 / eq.beta1, math.pi * t2 * eq.beta3 / eq.beta1, eq.kappa2 / (t2 *
    eq.beta1))


def tangent_residuals(bends: Array, targets: Targets, first_layer_trained: bool) -> Array:
    """Right-hand sides minus targets."""
    depth, first = len(bends), int(first_layer_trained)
    after = np.cumprod(1 + KAP * bends)
    before = np.concatenate([[1.0], after[:-1]])
    kappa = float(first)
    for growth, bend in zip(after, bends, strict=True):
        kappa = growth + (1 + bend) * kappa
    order = np.arange(1, depth + 1)
    total = depth + first
    return np.array([(after - 1).sum() / total - targets[0],
                     ((depth + order - 1 + 2 * first) * bends / before).sum() / total - targets[1],
                     kappa / total - targets[2]])


def tangent_solutions(targets: Targets, depth: int, first_layer_trained: bool,
                      starts: int = 32) -> tuple[list[tuple[float, ...]], float]:
    """Distinct solutions from a fixed set of starts, most bent first layer first, and the least distance seen."""
    scale = math.sqrt(2 * max(targets[0], 1e-3) / KAP)
    points = qmc.Halton(depth, scramble=False).random(starts + 1)[1:] * scale
    found: list[Array] = []
    closest = math.inf
    for start in points:
        # u = v^2 keeps bends non-negative.
        result = optimize.least_squares(lambda v: tangent_residuals(v**2, targets, first_layer_trained), start,
                                        xtol=1e-15, ftol=1e-15, gtol=1e-15, max_nfev=200)
        gap = float(np.max(np.abs(result.fun)))
        closest = min(closest, gap)
        bends = result.x**2
        if gap < _SOLVED and all(np.max(np.abs(bends - other)) > 1e-6 for other in found):
            found.append(bends)
    found.sort(key=lambda bends: -bends[0])
    if depth > 3:  # a continuum: the extremes of the first bend stand for it
        found = found[:1] + found[-1:] if len(found) > 1 else found
    return [tuple(bends.tolist()) for bends in found], closest
