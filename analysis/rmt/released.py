"""What the authors' released code does to match networks, restated to measure what it costs.

Certain, for anyone who reads the code: two leaky layers max(a x, b x) are fitted by SLSQP on the sum of the four
squared residuals from the start (1, 0.1, 1, 0.1); the DEQ is run at sigma_a^2 = 0.2 while its centring uses 0.1, the
leaky network is fitted at 0.3 and the hard-tanh network at 0.1; and a name imported twice makes the leaky network's
inner standard deviation come from the hard-tanh formula. Which of this was in force when the paper's figures were
made cannot be known from outside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import optimize

from analysis.activations import Array
from analysis.rmt.equations import FourEquations, solve_equations
from analysis.rmt.hard_tanh import clipped_variance
from analysis.rmt.partitions import KAP

START = (1.0, 0.1, 1.0, 0.1)
SIGMA_DEQ = 0.2
SIGMA_LEAKY = 0.3
SIGMA_SHIFT = 0.1
SIGMA_HARD_TANH = 0.1


@dataclass(frozen=True)
class ReleasedFit:
    """Result of the released fit.

    Attributes:
        parameters: (a_1, b_1, a_2, b_2) of the layers max(a x, b x).
        residuals: of the four equations, relative to alpha_1 or gamma^2.
        sum_of_squares: of the absolute residuals, what the optimiser lowers.
    """

    parameters: tuple[float, ...]
    residuals: tuple[float, ...]
    sum_of_squares: float

    @property
    def inner_tau(self) -> float:
        """Standard deviation after the first layer at tau_0 = 1, by the leaky formula."""
        s, d = _slope_and_bend(self.parameters[:2])
        return math.sqrt(s * s + KAP * d * d)

    @property
    def shadowed_tau(self) -> float:
        """The same by the hard-tanh formula a clip(x, -b, b), which the name in the released code is bound to."""
        a, b = self.parameters[:2]
        return abs(a) * math.sqrt(clipped_variance(abs(b)))


def _slope_and_bend(layer: tuple[float, ...]) -> tuple[float, float]:
    return (layer[0] + layer[1]) / 2, (layer[0] - layer[1]) / 2


def leaky_coefficients(parameters: Array | tuple[float, ...], tau0: float = 1.0) -> Array:
    """(alpha_1, alpha_2, alpha_3, gamma^2) of layers max(a x, b x), in closed form."""
    a1, a2, a3, a4, tau2 = 1.0, 0.0, 0.0, 1.0, tau0**2
    for index in range(0, len(parameters), 2):
        s, d = _slope_and_bend(tuple(parameters[index:index + 2]))
        g1, g2, half = s * s, 2 * d * d / (math.pi * tau2), s * s + KAP * d * d
        a1, a2, a3, a4, tau2 = g1 * a1, g1 * a2 + g2 / 4 * a4**2, g1 * a3 + g2 / 2 * a1**2, half * a4, half * tau2
    return np.array([a1, a2, a3, tau2])


def released_fit(eq: FourEquations, *, tolerance: float = 1e-12) -> ReleasedFit:
    """Fit two leaky layers to the DEQ by SLSQP from the released start; looser tolerances than 1e-10 stop far off."""
    wanted = np.array([eq.alpha1, eq.alpha2, eq.alpha3, eq.gamma2])

    def loss(parameters: Array) -> float:
        return float(np.sum((leaky_coefficients(parameters, eq.tau0) - wanted) ** 2))

    result = optimize.minimize(loss, START, method="SLSQP",
                               options={"ftol": tolerance, "maxiter": 2000})
    gap = leaky_coefficients(result.x, eq.tau0) - wanted
    scale = np.array([eq.alpha1, eq.alpha1, eq.alpha1, eq.gamma2])
    return ReleasedFit(tuple(result.x.tolist()), tuple((gap / scale).tolist()), float(result.fun))


def mismatch(run_at: float, matched_at: float, activation: str = "relu") -> tuple[float, float, float, float]:
    """Relative differences of a DEQ's coefficients between two sigma_a^2: the error of a network matched elsewhere."""
    here, there = solve_equations(activation, run_at), solve_equations(activation, matched_at)
    return tuple((getattr(there, name) - getattr(here, name)) / max(getattr(here, name), 1e-300)  # type: ignore[return-value]
                 if getattr(here, name) else 0.0 for name in ("alpha1", "alpha2", "alpha3", "gamma2"))
