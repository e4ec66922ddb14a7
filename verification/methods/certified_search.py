"""Random small systems for the rigorous engine: does any proved enclosure miss the 50-digit value?"""

from __future__ import annotations

from dataclasses import dataclass

import mpmath
import numpy as np
from flint import arb, arb_mat
from numpy.typing import NDArray

from analysis.rigorous.balls import (
    NotCertified,
    frobenius,
    largest,
    norm_two,
    scale_rows,
    to_float,
    working_precision,
)
from analysis.rigorous.certainty import Certainty, contains, less_equal
from analysis.rigorous.equilibrium import Equilibrium, enclose_derivatives, enclose_equilibrium, state_slopes
from analysis.rigorous.jets import Pairs, hessian_pairs, laplacian_pairs
from analysis.rigorous.maps import Layer
from analysis.rigorous.phantom import enclose_phantom_derivatives
from analysis.rigorous.reference import HIGH_PRECISION, layer_reference
from analysis.rigorous.smooth import ball_activation
from verification.evidence import largest as largest_number

Array = NDArray[np.float64]


@dataclass
class SearchCounts:
    """What became of the systems drawn.

    Attributes:
        inside: systems all of whose enclosures hold their 50-digit value; missed: systems of which one does not.
        refused: systems for which nothing was claimed.
        enclosures: single numbers compared.
        widest: the largest radius of an enclosure.
    """

    inside: int = 0
    missed: int = 0
    refused: int = 0
    enclosures: int = 0
    widest: float = 0.0

    @property
    def drawn(self) -> int:
        """All systems."""
        return self.inside + self.missed + self.refused


@dataclass(frozen=True)
class System:
    """One drawn layer and input."""

    weight: Array
    inputs: Array
    bias: Array
    activation: str
    x: Array


def draw_system(rng: np.random.Generator, *, smallest_size: int = 1, largest_size: int = 4, largest_gain: float = 1.2,
                activations: tuple[str, ...] = tuple(sorted(HIGH_PRECISION))) -> System:
    """Draw a layer with n within the sizes, d <= 2, |W|_2 up to `largest_gain`, inputs over several magnitudes."""
    size, inputs = int(rng.integers(smallest_size, largest_size + 1)), int(rng.integers(1, 3))
    weight = rng.normal(size=(size, size))
    weight *= rng.uniform(0.05, largest_gain) / np.linalg.norm(weight, 2)
    scale = 10.0 ** rng.uniform(-2, 0.7)
    return System(weight, scale * rng.normal(size=(size, inputs)), rng.normal(size=size), str(rng.choice(activations)),
                  rng.normal(size=inputs))


def search(rng: np.random.Generator, count: int, *, shrink: float = 1.0, bits: int = 128) -> SearchCounts:
    """Compare enclosures of z, D z, the Laplacian and their phantom counterparts with mpmath's values to 50 digits.

    Args:
        rng: the draws.
        count: how many systems.
        shrink: factor on every radius; 1 for the enclosures as proved, less for a mutant that must miss.
        bits: working precision of the enclosures, at most some 150 so that 50 digits are finer.
    """
    counts = SearchCounts()
    for _ in range(count):
        system = draw_system(rng)
        steps = int(rng.integers(1, 5))
        try:
            with working_precision(bits):
                enclosures = _enclosures(system, steps)
        except NotCertified:
            counts.refused += 1
            continue
        # with |W|_2 above one there may be several equilibria: the oracle starts at the one that was enclosed
        truth = layer_reference(system.weight, system.inputs, system.bias, system.activation, system.x, steps=steps,
                                start=to_float(enclosures[0]).ravel())
        values = [truth.z, truth.first, truth.laplacian, truth.phantom_first, truth.phantom_laplacian]
        with working_precision(4 * bits), mpmath.workdps(70):
            answers = [_holds(ball, value, shrink) for matrix, reference in zip(enclosures, values, strict=True)
                       for ball, value in zip(matrix.entries(), reference, strict=True)]
        counts.enclosures += len(answers)
        widths = (float(ball.rad()) for matrix in enclosures for ball in matrix.entries())
        counts.widest = largest_number((counts.widest, *widths))
        if all(answers):
            counts.inside += 1
        else:
            counts.missed += 1
    return counts


def law_ratios(rng: np.random.Generator, count: int, steps: int, *,
               exponent_shift: int = 0) -> tuple[dict[Certainty, int], float]:
    """Test the finite-K bounds of first and second order with everything enclosed.

    |D z - D z^(K)|_F <= q^K |D z|_F and |D^2 z - D^2 z^(K)|_F <= q^K |D^2 z| + K q^(K-1) L1 + q^(K-1) (1-q^K)/(1-q) L2
    with q an upper bound of |J|_2, L1 = 2 (|f_zx| |D z| + |f_zz| |D z|^2), L2 = |f_zz| |D z|^2.

    Args:
        rng: the draws; n >= 2, because one unit attains the first bound and leaves nothing to decide.
        count: how many systems that contract.
        steps: K = 1, ..., steps.
        exponent_shift: added to every exponent of q, for a mutant.

    Returns:
        How many inequalities certainly hold, certainly do not, or stay open; and the largest ratio of error to bound.
    """
    counts = dict.fromkeys(Certainty, 0)
    worst = 0.0
    for _ in range(count):
        system = draw_system(rng, smallest_size=2, largest_gain=0.95, activations=("softplus", "tanh", "sigmoid"))
        with working_precision(128):
            for error, bound in _law(system, steps, exponent_shift):
                counts[less_equal(error, bound)] += 1
                worst = largest_number((worst, float((error / bound).mid())))
    return counts, worst


def _enclosures(system: System, steps: int) -> list[arb_mat]:
    layer = Layer.from_arrays(system.weight, system.inputs, system.bias, system.activation)
    pairs = laplacian_pairs(len(system.x))
    point = enclose_equilibrium(layer, system.x, layer.size)
    exact, phantom = enclose_derivatives(point, pairs), enclose_phantom_derivatives(point, steps, pairs)[-1]
    return [point.z, exact.first, exact.second, phantom.first, phantom.second]


def _holds(ball: arb, value: object, shrink: float) -> bool:
    enclosure = ball if shrink == 1.0 else arb(ball.mid(), ball.rad() * arb(shrink))
    return contains(enclosure, value) is Certainty.CERTAINLY


def _law(system: System, steps: int, shift: int) -> list[tuple[arb, arb]]:
    layer = Layer.from_arrays(system.weight, system.inputs, system.bias, system.activation)
    point = enclose_equilibrium(layer, system.x, layer.size)
    pairs = hessian_pairs(len(system.x))
    exact = enclose_derivatives(point, pairs)
    q, mixed, bend = _constants(layer, point)
    first, second = frobenius(exact.first), _tensor_norm(exact.second, pairs)
    slow, fast = 2 * (mixed * first + bend * first ** 2), bend * first ** 2
    results = []
    for k, phantom in enumerate(enclose_phantom_derivatives(point, steps, pairs)[1:], start=1):
        geometric = sum((q ** j for j in range(k)), arb(0))
        power, below = q ** (k + shift), q ** (k - 1 + shift)
        results.append((frobenius(exact.first - phantom.first), power * first))
        results.append((_tensor_norm(exact.second - phantom.second, pairs),
                        power * second + below * (k * slow + geometric * fast)))
    return results


def _constants(layer: Layer, point: Equilibrium) -> tuple[arb, arb, arb]:
    """Upper bounds of |J|_2, |f_zx|, |f_zz| at the equilibrium; the last two such that |f[A, .]|_F <= |f| |A|_F."""
    slopes = state_slopes(layer, point.z, point.x, layer.size)
    argument = layer.weight * point.z + layer.inputs * point.x + layer.bias
    bends = [ball_activation(layer.activation).derivative(2, t) for t in argument.entries()]
    weight = norm_two(layer.weight)
    rows = scale_rows(bends, layer.inputs).tolist()
    drive = largest([sum((entry * entry for entry in row), arb(0)).sqrt() for row in rows])
    return norm_two(slopes), drive * weight, largest([abs(bend) for bend in bends]) * weight ** 2


def _tensor_norm(values: arb_mat, pairs: Pairs) -> arb:
    """The Frobenius norm of the symmetric tensor whose entries i <= j are the columns."""
    total = arb(0)
    for row in values.tolist():
        for entry, ((i, j),) in zip(row, pairs, strict=True):
            total += entry * entry * (1 if i == j else 2)
    return total.sqrt()
