"""Printed results of [SM] and the arithmetic that they must obey: tables as data, sampling noise, counts."""

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


TABLE_3 = (
    GaussianRow(100, "3-layer", -43.60, -141.25, 6.73), GaussianRow(100, "8-layer", -43.86, -140.85, 6.56),
    GaussianRow(100, "16-layer", -44.92, -141.25, 6.84), GaussianRow(100, "DEQ", -46.03, -138.86, 6.72),
    GaussianRow(200, "3-layer", -66.32, -314.22, 33.86), GaussianRow(200, "8-layer", -66.99, -313.35, 33.09),
    GaussianRow(200, "16-layer", -67.58, -311.84, 32.27), GaussianRow(200, "DEQ", -75.03, -292.56, 25.42),
)
#: The "ground truth" log-likelihoods of table 3.
TABLE_3_TRUTH = {100: -137.14, 200: -283.79}

#: Table 2, three-layer rows: (score-matching loss, its error, log-likelihood) by data set; identical in print.
TABLE_2_WINE = {
    "SSM": {"red": (-27.2, 5.9, -13.8), "white": (-33.7, 5.2, -14.8)},
    "SSM-VR": {"red": (-27.2, 5.9, -13.8), "white": (-33.7, 5.2, -14.8)},
    "SM": {"red": (-27.2, 5.9, -13.8), "white": (-33.7, 5.2, -14.8)},
}

#: Table 1: seconds "per iteration" as printed; the text trains for 1e5 iterations.
TABLE_1_SECONDS = {
    "CelebA SSM": 8.22, "CelebA Aug(8)": 37.57, "CelebA Aug(16)": 73.27, "CelebA DEQ": 21.95,
    "CIFAR-10 SSM": 3.97, "CIFAR-10 Aug(8)": 17.45, "CIFAR-10 Aug(16)": 40.12, "CIFAR-10 DEQ": 9.98,
}
TABLE_1_ITERATIONS = 100_000
#: Table 5: milliseconds per iteration; 200,000 iterations.
TABLE_5_MILLISECONDS = {"SSM-VR": 871.0, "TwoRes": 391.0, "DEQ": 481.0}
TABLE_5_ITERATIONS = 200_000

#: "#Param" of tables 2 and 3 in thousands: layers or "DEQ" to count.
TABLE_2_PARAMETERS = {("parkinson", 3): 10, ("parkinson", 8): 26, ("parkinson", 16): 51, ("wine", 3): 9, ("wine", 8):
                      25, ("wine", 16): 50}
TABLE_3_PARAMETERS = {(100, 3): 22, (100, 8): 41, (100, 16): 66, (200, 3): 33, (200, 8): 50, (200, 16): 76}


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


def identity_gap_scale(row: GaussianRow, rows: int = TEST_ROWS) -> float:
    """A generous standard deviation of `identity_gap` on `rows` test samples, plus the effect of the data noise.

    With `e = s + x` the gap of one sample is `e.x - tr De - 0.5 (|x|^2 - d)`. The last part has variance d/2. For e =
    A x, symmetric, the first has variance `2 |A|_F^2 = 4 Fisher`. Standard deviations add at most. Test data drawn
    with variance 1 + noise^2 shift the gap by `noise^2 |E tr Ds + d/2|`, at most `noise^2 d / 2` for scores between 0
    and -x.
    """
    spread = math.sqrt(row.dim / 2 / rows) + math.sqrt(4 * row.fisher / rows)
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
