"""Phantom derivatives in ball arithmetic by Proposition 2's recursion, and a certified value of what they miss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flint import arb, arb_mat

from analysis.rigorous.balls import NotCertified, frobenius
from analysis.rigorous.equilibrium import EnclosedDerivatives, Equilibrium, enclose_derivatives, jacobians, second_form
from analysis.rigorous.jets import Jet, Pairs, input_jet, laplacian_pairs
from analysis.rigorous.maps import JetMap


@dataclass(frozen=True)
class Score:
    """The score and Hessian combinations of a readout.

    Attributes:
        value: d/dx log p, a column [d, 1].
        second: combinations of its Hessian, a row [1, p] (the trace, for the Laplacian's single pair list).
    """

    value: arb_mat
    second: arb_mat


@dataclass(frozen=True)
class PhantomError:
    """What K phantom steps miss, each an enclosure.

    Attributes:
        steps: K.
        first: |D z - D z^(K)|_F; second: the norm |.|_F of the difference of the carried second derivatives.
        score: |s - s_K|_2; score_relative: over |s|_2 (not finite where s may be zero).
        trace: |tr - tr_K| of the score's derivative, or of all carried combinations the Euclidean length.
    """

    steps: int
    first: arb
    second: arb
    score: arb
    score_relative: arb
    trace: arb


def enclose_phantom_derivatives(equilibrium: Equilibrium, steps: int, pairs: Pairs,
                                damping: float = 1.0) -> list[EnclosedDerivatives]:
    """D z^(k) and D^2 z^(k) for k = 0, ..., steps.

    D1_k = D1 + damping (J D1 + B - D1) and D2_k likewise with J D2 + H(D1), from zero (the erratum A_0 = 0 included).

    Raises:
        ValueError: a negative number of steps.
    """
    if steps < 0:
        raise ValueError(f"the number of phantom steps must not be negative: {steps}")
    n, d = equilibrium.size, equilibrium.input_size
    jacobian, inputs = jacobians(equilibrium.f, equilibrium.z, equilibrium.x, n)
    factor = arb(damping)
    first, second = arb_mat(n, d, [0] * (n * d)), arb_mat(n, len(pairs), [0] * (n * len(pairs)))
    results = [EnclosedDerivatives(first, second, pairs)]
    for _ in range(steps):
        moved_second = second_form(equilibrium, first, pairs, second)
        moved_first = jacobian * first + inputs
        if damping == 1.0:
            first, second = moved_first, moved_second
        else:
            first, second = first + (moved_first - first) * factor, second + (moved_second - second) * factor
        results.append(EnclosedDerivatives(first, second, pairs))
    return results


def score_of(equilibrium: Equilibrium, derivatives: EnclosedDerivatives, readout: JetMap) -> Score:
    """The readout's gradient and second derivatives, given those of z."""
    z = Jet(equilibrium.z, derivatives.first, derivatives.second, derivatives.pairs)
    log_density = readout(z, input_jet(equilibrium.x, derivatives.pairs))
    if log_density.size != 1 or log_density.second is None:
        raise ValueError(f"a readout must be one number with second derivatives, not {log_density.size} numbers")
    return Score(log_density.first.transpose(), log_density.second)


def phantom_errors(equilibrium: Equilibrium, readout: JetMap, steps: Sequence[int], *, pairs: Pairs | None = None,
                   damping: float = 1.0) -> tuple[Score, list[PhantomError]]:
    """The exact score and the certified errors of the phantom one.

    Args:
        equilibrium: proved.
        readout: log p on jets.
        steps: the numbers K wanted.
        pairs: second derivatives to carry; the Laplacian if None.
        damping: of the phantom steps.

    Returns:
        The score with its trace, and one `PhantomError` for each K in the order given.

    Raises:
        NotSmooth: f or the readout has a kink at the equilibrium.
        NotCertified: an enclosure became infinite.
    """
    chosen = laplacian_pairs(equilibrium.input_size) if pairs is None else pairs
    exact = enclose_derivatives(equilibrium, chosen)
    score = score_of(equilibrium, exact, readout)
    length = frobenius(score.value)
    if not length.is_finite():
        raise NotCertified("the enclosure of the score became infinite; raise the working precision")
    sequence = enclose_phantom_derivatives(equilibrium, max(steps, default=0), chosen, damping)
    errors = []
    for count in steps:
        phantom = sequence[count]
        rough = score_of(equilibrium, phantom, readout)
        gap = frobenius(score.value - rough.value)
        errors.append(PhantomError(count, frobenius(exact.first - phantom.first),
                                   frobenius(exact.second - phantom.second), gap, gap / length,
                                   frobenius(score.second - rough.second)))
    return score, errors
