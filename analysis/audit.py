"""The arithmetic that printed results of [SM] must obey: sampling noise, identities, parameter counts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Rows of the Gaussian test sets: 540 says the paper, 600 the released code.
TEST_ROWS = 540
#: Standard deviation of the noise that the code adds once to every data set.
DATA_NOISE = 0.05


@dataclass(frozen=True)
class GaussianRow:
    """A row of table 3: score-matching loss, log-likelihood, Fisher divergence on N(0, I_d)."""

    dim: int
    name: str
    loss: float
    log_likelihood: float
    fisher: float


def entropy_log_likelihood(dim: int) -> float:
    """`E log p` of N(0, I_d) under itself: `-(d/2) (1 + log 2 pi)`."""
    return -0.5 * dim * (1 + math.log(2 * math.pi))


def log_likelihood_error(dim: int, rows: int = TEST_ROWS) -> float:
    """Standard deviation of the mean log-likelihood of `rows` samples: `log p` has variance d/2."""
    return math.sqrt(dim / 2 / rows)


def identity_gap(row: GaussianRow) -> float:
    """`Fisher - (SM loss + d/2)`: zero on average for data from N(0, I_d).

    `0.5 |s + x|^2 = 0.5 |s|^2 + s.x + 0.5 |x|^2`, and by Stein's identity `E s.x = E tr Ds`, so
    `E 0.5 |s + x|^2 = E [0.5 |s|^2 + tr Ds] + d/2`.
    """
    return row.fisher - row.loss - 0.5 * row.dim


def identity_gap_scale(row: GaussianRow, rows: int = TEST_ROWS, *, degree: int = 1) -> float:
    """A generous standard deviation of `identity_gap` on `rows` test samples, plus the effect of the data noise.

    With `e = s + x` the gap of one sample is `e.x - tr De - 0.5 (|x|^2 - d)`. The last part has variance d/2. For a
    gradient field `e = D h`, h a Hermite polynomial of degree k + 1, `e.x - tr De = (k + 1) h` and `E |D h|^2 =
    (k + 1) E h^2`, so the first part has variance `(k + 1) E |e|^2 = 2 (k + 1) Fisher`: 4 Fisher for e = A x. Standard
    deviations add at most. Test data drawn with variance 1 + noise^2 shift the gap by `noise^2 |E tr Ds + d/2|`, at
    most `noise^2 d / 2` for scores between 0 and -x.

    Args:
        row: a row of table 3.
        rows: of the test set.
        degree: k, of the error field.
    """
    spread = math.sqrt(row.dim / 2 / rows) + math.sqrt(2 * (degree + 1) * row.fisher / rows)
    return spread + DATA_NOISE**2 * row.dim / 2


def simulate_identity_gap(dim: int, eigenvalues: Array, rows: int, replicates: int, rng: np.random.Generator) -> Array:
    """Gaps of a linear model `s = -(I - A) x`, A diagonal, on `replicates` test sets: `[replicates]`."""
    gaps = np.empty(replicates)
    for index in range(replicates):
        squares = rng.standard_normal((rows, dim)) ** 2
        fisher = 0.5 * (squares @ eigenvalues**2)
        loss = 0.5 * (squares @ (1 - eigenvalues) ** 2) - (1 - eigenvalues).sum()
        gaps[index] = (fisher - loss).mean() - 0.5 * dim
    return gaps


@dataclass(frozen=True)
class ImportanceRuns:
    """Repeated importance-sampling estimates of log Z of N(0, I_d) with proposal N(0, 4 I_d).

    Attributes:
        dim, draws: of each run.
        errors: estimate minus truth, `[replicates]`, nats.
        effective: effective sample sizes, `[replicates]`.
    """

    dim: int
    draws: int
    errors: Array
    effective: Array


def importance_sampling_runs(dim: int, draws: int, replicates: int, rng: np.random.Generator) -> ImportanceRuns:
    """The papers' normaliser on the perfect model; its weight depends on |x|^2 = 4 chi^2_d alone."""
    errors, effective = np.empty(replicates), np.empty(replicates)
    for index in range(replicates):
        # log w = -|x|^2/2 + |x|^2/8 + (d/2) log(8 pi); relative to Z the constant is d log 2
        log_weights = -1.5 * rng.chisquare(dim, draws) + dim * math.log(2)
        top = log_weights.max()
        weights = np.exp(log_weights - top)
        errors[index] = top + math.log(weights.mean())
        effective[index] = weights.sum() ** 2 / np.square(weights).sum()
    return ImportanceRuns(dim, draws, errors, effective)


def dkef_parameters(dim: int, layers: int, width: int, inducing: int, kernels: int = 3) -> int:
    """Parameters of a k-layer DKEF: feature nets with linear skip, mixture logits, length scales, points, ridge."""
    net = dim * width + width + (layers - 1) * (width**2 + width) + dim * width
    return kernels * (net + 2) + inducing * dim + 1


def matching_configurations(dim: int, layers: int, printed_thousands: float, widths: range, inducing: range,
                            count: Callable[..., int] = dkef_parameters) -> set[tuple[int, int]]:
    """All (width, inducing points) whose count rounds, or truncates, to the printed number of thousands."""
    hits = set()
    for width in widths:
        for points in inducing:
            thousands = count(dim, layers, width, points) / 1000
            if printed_thousands in (round(thousands), math.floor(thousands)):
                hits.add((width, points))
    return hits


def chance_of_equal_rows(errors: tuple[float, ...], resolution: float, seeds: int, draws: int,
                         rng: np.random.Generator) -> float:
    """Chance that two independent rows of means agree in every printed digit, were their expectations equal.

    Args:
        errors: standard deviations across seeds of the printed entries.
        resolution: of the printed digits.
        seeds: runs behind each mean (the entry's standard deviation is `error / sqrt(seeds)`).
        draws: pairs to simulate.
        rng: of the draws.
    """
    scale = np.asarray(errors) / math.sqrt(seeds)
    offset = rng.uniform(0, resolution, (draws, len(errors)))
    shape = (draws, len(errors))
    first, second = (np.round((offset + scale * rng.standard_normal(shape)) / resolution) for _ in range(2))
    return float((first == second).all(axis=1).mean())
