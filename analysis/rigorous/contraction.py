"""Contraction, proved: a norm, a factor q < 1 over a ball or everywhere, and Banach's conclusion from it.

One norm may contract where another does not, so several are tried: maximum, sum and Euclidean norm, a weighted maximum
norm (weights: the Perron vector of |J|), and an ellipsoidal norm from a discrete Lyapunov equation, which contracts at
the equilibrium whenever the spectral radius is below one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from flint import arb, arb_mat
from scipy import linalg

from analysis.rigorous.balls import (
    NotCertified,
    frobenius,
    inverse,
    largest,
    magnitudes,
    matrix,
    norm_inf,
    norm_one,
    norm_two,
    to_float,
    widened,
)
from analysis.rigorous.certainty import less, less_equal
from analysis.rigorous.equilibrium import state_jet, state_slopes, value
from analysis.rigorous.jets import Jet
from analysis.rigorous.maps import JetMap

MARGIN = "1.000001"  # a factor is claimed this much too large, so that a cruder arithmetic can confirm it
FLOOR = "1e-12"      # and this much, for a factor of zero
_BASES = {"inf": norm_inf, "one": norm_one, "two": norm_two}


class NoBall(NotCertified):
    """The map contracts at the equilibrium, and no ball was found that it maps into itself."""


@dataclass(frozen=True)
class Norm:
    """The vector norm |T v| for a regular matrix T and one of three base norms.

    Attributes:
        name: "inf", "one", "two", "weighted inf" or "ellipsoid".
        base: "inf", "one" or "two".
        transform: T [n, n], exact; None for the unit matrix.
        back: an enclosure of the inverse of T; None with it.
    """

    name: str
    base: str
    transform: arb_mat | None = None
    back: arb_mat | None = None

    def of_jet(self, jet: Jet) -> arb:
        """An upper bound of the operator norm of the jet's first derivative, with `MARGIN` and `FLOOR`."""
        moved = jet.first
        if self.transform is not None and self.back is not None:
            moved = self.transform * moved * self.back
        bound = _BASES[self.base](moved)
        if jet.norm is not None and self.base == "two" and self.transform is None:
            bound = bound.min(jet.norm)
        return (bound * arb(MARGIN) + arb(FLOOR)).upper()

    def of_vector(self, values: arb_mat) -> arb:
        """An upper bound of the norm of a column."""
        moved = values if self.transform is None else self.transform * values
        if self.base == "two":
            return frobenius(moved).upper()
        sizes = magnitudes(moved).entries()
        return (largest(sizes) if self.base == "inf" else sum(sizes, arb(0))).upper()

    def reach(self, size: int) -> arb_mat:
        """For each entry the most that it can be in the unit ball [n, 1]: the dual norm of a row of T^-1."""
        if self.back is None:
            return arb_mat(size, 1, [1] * size)
        rows = magnitudes(self.back).tolist()
        match self.base:
            case "inf":
                reach = [sum(row, arb(0)) for row in rows]
            case "one":
                reach = [largest(row) for row in rows]
            case _:
                reach = [sum((entry * entry for entry in row), arb(0)).sqrt() for row in rows]
        return arb_mat(size, 1, [entry.upper() for entry in reach])


@dataclass(frozen=True)
class Contraction:
    """Banach's theorem, with its hypotheses proved.

    Attributes:
        norm: the norm.
        factor: upper bound of the Lipschitz constant q < 1 of z -> f(z, x) over the ball, or everywhere.
        residual: upper bound of |c - f(c)| for the centre c.
        centre: c [n, 1], exact.
        radius: of a ball about c that f maps into itself: it holds exactly one equilibrium. None: the whole space does.
        factor_at_equilibrium: the same over a tiny ball about the equilibrium, the rate of Picard and phantom steps.
    """

    norm: Norm
    factor: arb
    residual: arb
    centre: arb_mat
    radius: float | None
    factor_at_equilibrium: arb


def candidate_norms(jacobian: arb_mat) -> list[Norm]:
    """The norms to try for a map whose Jacobian at the equilibrium is about `jacobian`."""
    norms = [Norm("inf", "inf"), Norm("one", "one"), Norm("two", "two")]
    local = to_float(jacobian)
    weights = _perron(np.abs(local))
    norms.append(_transformed("weighted inf", "inf", np.diag(1 / weights)))
    spectral_radius = float(np.max(np.abs(np.linalg.eigvals(local))))
    if spectral_radius < 1:
        norms.append(_transformed("ellipsoid", "two", _lyapunov_factor(local, spectral_radius)))
    return norms


def banach(f: JetMap, x: arb_mat, centre: arb_mat, norm: Norm, radius: float) -> tuple[arb, arb, bool]:
    """Factor and residual over a ball about the centre, and whether they prove an equilibrium in it."""
    size = centre.nrows()
    residual = norm.of_vector(centre - value(f, centre, x))
    box = widened(centre, norm.reach(size) * arb(radius))
    factor = norm.of_jet(state_jet(f, box, x, size, norm=norm.base == "two"))
    return factor, residual, less(factor, 1).certain and less_equal(residual, (1 - factor) * arb(radius)).certain


def certify_contraction(f: JetMap, x: arb_mat, centre: arb_mat, *, norms: list[Norm] | None = None) -> Contraction:
    """The best contraction statement that can be proved about a point near the equilibrium.

    A norm in which f contracts everywhere wins (the one with the least factor); else the one that contracts fastest at
    the equilibrium, with the largest power-of-two ball that Banach's theorem accepts.

    Args:
        f: the map on jets.
        x: the input, exact [d, 1].
        centre: an approximate equilibrium, exact [n, 1].
        norms: to try; those of `candidate_norms` if None.

    Raises:
        NotCertified: f contracts in none of the norms; the message lists the factors.
    """
    size = centre.nrows()
    local = state_slopes(f, centre, x, size)
    tried = candidate_norms(local) if norms is None else norms
    tiny = 2.0 ** -40
    rates = []
    for norm in tried:
        factor, residual, _ = banach(f, x, centre, norm, tiny)
        rates.append((float(factor), norm, factor, residual))
    rates.sort(key=lambda item: item[0])
    usable = [item for item in rates if less(item[2], 1).certain]
    if not usable:
        listed = ", ".join(f"{norm.name} {rate:.4g}" for rate, norm, _, _ in rates)
        raise NotCertified(f"the map contracts in none of the norms tried at this equilibrium ({listed}); Krawczyk's "
                           "test may still prove the equilibrium, but Picard and phantom steps need not converge")
    everywhere = _slopes_everywhere(f, x, size)
    if everywhere is not None:
        bounds = [(norm.of_jet(everywhere), norm, local_factor, residual) for _, norm, local_factor, residual in usable]
        factor, norm, local_factor, residual = min(bounds, key=lambda item: float(item[0]))
        if less(factor, 1).certain:
            return Contraction(norm, factor, residual, centre, None, local_factor)
    best: Contraction | None = None
    for _, norm, local_factor, _ in usable:
        found = _largest_ball(f, x, centre, norm, local_factor)
        if found is not None:
            best = found
            break
    if best is None:
        raise NoBall("a norm contracts at the equilibrium, but its residual is too large for any ball; "
                     "raise the working precision")
    return best


def _largest_ball(f: JetMap, x: arb_mat, centre: arb_mat, norm: Norm, local_factor: arb) -> Contraction | None:
    """Bisect on the exponent of the radius, from 2^-40 to 2^12."""
    def attempt(exponent: int) -> Contraction | None:
        radius = 2.0 ** exponent
        factor, residual, proved = banach(f, x, centre, norm, radius)
        return Contraction(norm, factor, residual, centre, radius, local_factor) if proved else None

    low, high = -40, 12
    best = attempt(low)
    if best is None:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        found = attempt(middle)
        if found is None:
            high = middle
        else:
            low, best = middle, found
    return best


def _slopes_everywhere(f: JetMap, x: arb_mat, size: int) -> Jet | None:
    try:
        return state_jet(f, None, x, size, norm=True)
    except NotCertified:
        return None


def _transformed(name: str, base: str, transform: np.ndarray) -> Norm:
    exact = matrix(transform)
    return Norm(name, base, exact, inverse(exact, f"the transform of the {name} norm"))


def _perron(nonnegative: np.ndarray) -> np.ndarray:
    """Positive weights near the Perron vector; a small constant keeps reducible matrices in hand."""
    size = len(nonnegative)
    positive = nonnegative + (1e-6 * nonnegative.max() + 1e-300) / size
    weights = np.ones(size)
    for _ in range(200):
        weights = positive @ weights
        weights /= weights.max()
    return np.maximum(weights, 1e-12)


def _lyapunov_factor(local: np.ndarray, spectral_radius: float) -> np.ndarray:
    """L with |L J L^-1|_2 < 1: P - (J/r)^T P (J/r) = I for r between the spectral radius and one, P = L^T L."""
    rate = max(np.sqrt(spectral_radius), 0.1)
    scaled = local / rate
    gram = linalg.solve_discrete_lyapunov(scaled.T, np.eye(len(local)))
    return np.asarray(np.linalg.cholesky((gram + gram.T) / 2).T)
