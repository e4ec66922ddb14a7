r"""The four equations of a DEQ: coefficients of its conjugate kernel's and its NTK's deterministic equivalents ([RMT]).

With psi = phi - E phi(tau xi), g_1 = (E phi')^2, g_2 = (E phi'')^2, g_4 = E (psi^2)'', all at tau xi,

    tau^2   = sigma_a^2 Var phi(tau xi) + sigma_b^2 tau_0^2          gamma^2 = Var phi(tau xi)
    alpha_1 = sigma_b^2 g_1 / (1 - sigma_a^2 g_1)
    alpha_4 = sigma_b^2 / (1 - sigma_a^2 g_4 / 2)
    alpha_2 = (g_2 / 4) alpha_4^2 / (1 - sigma_a^2 g_1)
    alpha_3 = (g_2 / 2) (sigma_a^2 alpha_1 + sigma_b^2)^2 / (1 - sigma_a^2 g_1)

and, with a_0 = sigma_a^2 g_1, a_1 = sigma_a^2 g_2 (sigma_a^2 alpha_1 + sigma_b^2), for the NTK

    beta_1 = alpha_1 / (1 - a_0),   beta_2 = alpha_2 / (1 - a_0),   beta_3 = (alpha_3 + beta_1 a_1) / (1 - a_0),
    kappa^2 = gamma^2 / (1 - sigma_a^2 E phi'^2).

At any root 1 - sigma_a^2 g_1 >= sigma_b^2 tau_0^2 / tau^2 > 0 (tau^2 g_1 is the square of phi's first Hermite
coefficient, at most the variance), so alpha_1 is always finite; alpha_4 is infinite at a fold, kappa^2 at the edge of
chaos.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import mpmath
import numpy as np

from analysis.activations import Activation, Array, as_activation
from analysis.errors import NotResolved, NotWellPosed, SeveralSolutions
from analysis.gaussian import Moments, moments, precise_moments
from analysis.rmt.tau import check_variances, solve_tau

Number = float


@dataclass(frozen=True)
class FourEquations:
    """The solved equations of one DEQ; floats, or mpmath numbers when solved with `digits`.

    Attributes:
        activation: phi, not centred; the kernel belongs to phi - `shift`.
        sigma_a2: variance of the recurrent weights.
        sigma_b2: variance of the input weights.
        tau0: root mean square of the inputs.
        tau: standard deviation of the pre-activation.
        alpha1: coefficient of X^T X in the conjugate kernel.
        alpha2: of the energy terms (t, psi).
        alpha3: of the covariance products T.
        alpha4: the kernel's response to a sample's energy (enters through alpha2).
        gamma2: diagonal of the conjugate kernel.
        beta1: coefficients of the NTK, as alpha1 ...
        beta2: ... alpha2 ...
        beta3: ... and alpha3.
        g1: (E phi')^2.
        g2: (E phi'')^2.
        g4: E (psi^2)''.
        derivative_square: E phi'^2.
        shift: E phi(tau xi), what centring subtracts.
        uniqueness: how it is known that tau is the only root, or which was chosen.

    Example:
        >>> import analysis
        >>> equations = analysis.solve_equations("tanh", sigma_a2=0.2)
        >>> abs(equations.alpha2) < 1e-12  # odd activations have none
        True
    """

    activation: Activation
    sigma_a2: Number
    sigma_b2: Number
    tau0: Number
    tau: Number
    alpha1: Number
    alpha2: Number
    alpha3: Number
    alpha4: Number
    gamma2: Number
    beta1: Number
    beta2: Number
    beta3: Number
    g1: Number
    g2: Number
    g4: Number
    derivative_square: Number
    shift: Number
    uniqueness: str

    def as_floats(self) -> FourEquations:
        """The same record in floats, for what does not work on mpmath numbers."""
        if isinstance(self.tau, float):
            return self
        numbers = {field.name: float(getattr(self, field.name)) for field in fields(self)
                   if field.name not in ("activation", "uniqueness")}
        return replace(self, **numbers)  # type: ignore[arg-type]

    @property
    def kappa2(self) -> Number:
        """Diagonal of the NTK.

        Raises:
            NotWellPosed: sigma_a^2 E phi'^2 >= 1, past the edge of chaos (or phi jumps), where it is infinite.
            NotResolved: E phi'^2 is not known.
        """
        if self.derivative_square != self.derivative_square:
            raise NotResolved(f"kappa2 needs E phi'^2, which quadrature cannot resolve for {self.activation.name}: "
                              "pass an Activation with its derivative and kinks")
        gap = 1 - self.sigma_a2 * self.derivative_square
        if not gap > 0:
            raise NotWellPosed(
                f"kappa2 does not exist: sigma_a2 E phi'^2 = {float(self.sigma_a2 * self.derivative_square):.6g} >= 1 "
                f"for {self.activation.name} at sigma_a2 = {float(self.sigma_a2):.6g}; see "
                "analysis.well_posedness_edge(...).chaos_sigma_a2")
        return self.gamma2 / gap


def solve_equations(activation: str | Activation | Callable[[Array], Array], sigma_a2: float, tau0: float = 1.0, *,
                    sigma_b2: float | None = None, root: int | None = None, digits: int | None = None,
                    precise: Callable[[mpmath.mpf], mpmath.mpf] | None = None) -> FourEquations:
    """Solve the four equations and the NTK's for any activation.

    Args:
        activation: a name, an Activation, or any callable on float64 arrays (`lambda x: np.maximum(x, 0) ** 1.5`);
            uncentred ones are centred.
        sigma_a2: variance of the recurrent weights.
        tau0: root mean square of the inputs, sqrt(tr C / p).
        sigma_b2: variance of the input weights; 1 - sigma_a2 by default.
        root: which root of the tau equation to take where there are several, counted from the smallest.
        digits: give mpmath numbers to this many digits instead of floats; parameters then enter as decimals.
        precise: with `digits`, phi on mpmath numbers for an activation of your own.

    Raises:
        NoSolution: the tau equation has no root.
        SeveralSolutions: it has several and `root` is None.
        NotWellPosed: sigma_b2 = 0, or the root is a fold or unstable (1 - sigma_a2 g4 / 2 <= 0).
        GrowsTooFast: E phi^2 is infinite.
        ValueError: parameters out of range.

    Example:
        >>> import analysis
        >>> equations = analysis.solve_equations("relu", sigma_a2=0.2)
        >>> equations.alpha1 > 0
        True
    """
    phi = as_activation(activation)
    given = (sigma_a2, sigma_b2, tau0)  # with `digits` they enter as the decimals that were written
    sigma_a2, tau0 = float(sigma_a2), float(tau0)
    b2 = check_variances(sigma_a2, None if sigma_b2 is None else float(sigma_b2), tau0)
    roots = solve_tau(phi, sigma_a2, tau0, sigma_b2=b2)
    if root is None:
        if len(roots.tau) > 1:
            listed = ", ".join(f"{tau:.{_digits_apart(roots.tau)}g} ({'stable' if slope < 1 else 'unstable'})"
                               for tau, slope in zip(roots.tau, roots.slopes, strict=True))
            raise SeveralSolutions(
                f"the tau equation of {phi.name} at sigma_a2 = {float(sigma_a2):.6g} has roots {listed}; "
                "pass root=0 for the smallest, the one that the iteration from zero reaches")
        root, note = 0, roots.reason
    else:
        if not 0 <= root < len(roots.tau):
            raise ValueError(f"root = {root}, but the tau equation has {len(roots.tau)} root(s): {roots.tau}")
        note = f"root {root} of {len(roots.tau)} chosen by the caller ({roots.reason})"
    tau = roots.tau[root]
    if digits is None:
        return _assemble(phi, sigma_a2, b2, tau0, moments(phi, tau), note)
    with mpmath.workdps(digits + 10):
        a2, t0 = _decimal(given[0]), _decimal(given[2])
        exact_b2 = 1 - a2 if given[1] is None else _decimal(given[1])
        found = _polish(phi, a2, exact_b2, t0, mpmath.mpf(tau), digits, precise)
        return _assemble(phi, a2, exact_b2, t0, found, note)


def _digits_apart(values: tuple[float, ...]) -> int:
    """How many digits tell neighbouring numbers apart."""
    closest = min((b - a) / b for a, b in itertools.pairwise(values))
    return int(np.clip(2 - math.floor(math.log10(max(closest, 1e-15))), 6, 17))


def _decimal(value: float) -> mpmath.mpf:
    """A parameter as the decimal that was written: 0.2 means two tenths."""
    if isinstance(value, mpmath.mpf):
        return value
    return mpmath.mpf(repr(float(value)) if isinstance(value, float) else str(value))


def _polish(phi: Activation, a2: mpmath.mpf, b2: mpmath.mpf, tau0: mpmath.mpf, tau: mpmath.mpf, digits: int,
            precise: Callable[[mpmath.mpf], mpmath.mpf] | None) -> Moments:
    """Newton's method in tau^2 from the float root; its slope a2 g4/2 - 1 is among the moments."""
    q = tau**2
    for _ in range(8):
        at = precise_moments(phi, mpmath.sqrt(q), digits, precise)
        step = (a2 * at.variance + b2 * tau0**2 - q) / (1 - a2 * at.square_curvature / 2)
        q += step
        if abs(step) < mpmath.mpf(10) ** -(digits // 2 + 2) * q:
            # The next step is the square of this one, up to a constant: below the wanted digits.
            return precise_moments(phi, mpmath.sqrt(q), digits, precise)
    raise NotWellPosed(f"Newton's method does not settle at tau = {float(tau):.12g}: the root is (nearly) a fold")


def _assemble(phi: Activation, a2: Number, b2: Number, tau0: Number, at: Moments, note: str) -> FourEquations:
    g1, g2, g4 = at.slope**2, at.curvature**2, at.square_curvature
    linear, energy = 1 - a2 * g1, 1 - a2 * g4 / 2
    # tau^2 is known to eps / energy, which moves energy by as much: the digits of alpha_4 are gone below this.
    least = 1e-6 if isinstance(energy, float) else 1e-13
    for name, value, low in (("1 - sigma_a2 g1", linear, 1e-13), ("1 - sigma_a2 g4 / 2", energy, least)):
        if not value > low:
            raise NotWellPosed(
                f"{name} = {float(value):.3g} for {phi.name}: sigma_a2 = {float(a2):.12g}, tau = {float(at.tau):.6g}, "
                "at or past the edge of well-posedness (analysis.well_posedness_edge), or nearer to a fold than doubles"
                " can tell (digits= can); lower sigma_a2")
    alpha1 = b2 * g1 / linear
    alpha4 = b2 / energy
    through = a2 * alpha1 + b2
    alpha2 = g2 / 4 * alpha4**2 / linear
    alpha3 = g2 / 2 * through**2 / linear
    beta1, beta2 = alpha1 / linear, alpha2 / linear
    beta3 = (alpha3 + beta1 * a2 * g2 * through) / linear
    dot = math.inf if _infinite(at.derivative_square) else at.derivative_square
    return FourEquations(phi, a2, b2, tau0, at.tau, alpha1, alpha2, alpha3, alpha4, at.variance, beta1, beta2, beta3,
                         g1, g2, g4, dot, at.mean, note)


def _infinite(value: Number) -> bool:
    return bool(mpmath.isinf(value))
