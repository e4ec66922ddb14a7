r"""Coefficients of an explicit network's kernels, layer by layer (no input injection, untied weights of unit variance).

From a_1 = a_4 = 1, a_2 = a_3 = 0, tau = tau_0, every layer does, with g_1, g_2, g_4 of its centred phi at tau xi,

    a_2 <- g_1 a_2 + (g_2/4) a_4^2,   a_3 <- g_1 a_3 + (g_2/2) a_1^2,   a_1 <- g_1 a_1,   a_4 <- (g_4/2) a_4,
    tau <- sqrt(Var phi(tau xi)).

The NTK K_l = G_l + G'_l K_{l-1} (entrywise, all weights trained, K_0 = X^T X; K_0 = 0 if the first layer is frozen)
follows with

    b_3 <- a_3' + g_1 b_3 + g_2 a_1 b_1,   b_2 <- a_2' + g_1 b_2,   b_1 <- a_1' + g_1 b_1,   k^2 <- tau'^2 + E phi'^2
    k^2,

primes marking the values after the layer: the DEQ's beta equations are the fixed point of the same recursion.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from analysis.activations import Activation, as_activation
from analysis.gaussian import moments


@dataclass(frozen=True)
class Coefficients:
    """Coefficients of the deterministic equivalents after some layers; the names are those of `FourEquations`."""

    tau: float
    alpha1: float
    alpha2: float
    alpha3: float
    alpha4: float
    beta1: float
    beta2: float
    beta3: float
    kappa2: float

    @property
    def gamma2(self) -> float:
        """Diagonal of the conjugate kernel."""
        return self.tau**2


def explicit_coefficients(layers: Iterable[str | Activation], tau0: float = 1.0, *,
                          first_layer_trained: bool = True) -> Coefficients:
    """Run the recursion through the layers with every expectation by quadrature.

    Args:
        layers: activations in order; each is centred at its own tau.
        tau0: root mean square of the inputs.
        first_layer_trained: whether the input weights enter the NTK.

    Raises:
        ValueError: no layers, or tau0 not positive.
        GrowsTooFast: a layer whose E phi^2 is infinite.
    """
    given = [as_activation(layer) for layer in layers]
    if not given:
        raise ValueError("an explicit network needs at least one layer")
    now = Coefficients(tau0, 1.0, 0.0, 0.0, 1.0, float(first_layer_trained), 0.0, 0.0, tau0**2 * first_layer_trained)
    for layer in given:
        now = next_layer(now, layer)
    return now


def next_layer(now: Coefficients, layer: Activation) -> Coefficients:
    """One step of the recursion."""
    at = moments(layer, now.tau)
    g1, g2, g4 = at.slope**2, at.curvature**2, at.square_curvature
    alpha1 = g1 * now.alpha1
    alpha2 = g1 * now.alpha2 + g2 / 4 * now.alpha4**2
    alpha3 = g1 * now.alpha3 + g2 / 2 * now.alpha1**2
    return Coefficients(
        tau=at.variance**0.5, alpha1=alpha1, alpha2=alpha2, alpha3=alpha3, alpha4=g4 / 2 * now.alpha4,
        beta1=alpha1 + g1 * now.beta1, beta2=alpha2 + g1 * now.beta2,
        beta3=alpha3 + g1 * now.beta3 + g2 * now.alpha1 * now.beta1,
        kappa2=at.variance + at.derivative_square * now.kappa2)
