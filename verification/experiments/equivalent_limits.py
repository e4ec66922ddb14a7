"""Where the paper's equivalent holds at finite sizes, and which of its assumptions it needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import analysis
from analysis.rmt.equivalents import KernelKind, equivalent_kernel, spectral_norm
from analysis.rmt.mixtures import MixtureSample
from analysis.rmt.refined_equivalents import refined_equivalent
from analysis.rmt.trust import EquivalentError, equivalent_error

Array = NDArray[np.float64]

TOLERANCES = (0.01, 0.05, 0.1)
DEPARTURES = ("none", "heavy tails", "correlated features", "samples of unlike size", "few samples a class",
              "growing separation")


def two_classes(p: int, n: int, separation: float, extra: float = 4.0) -> analysis.GaussianMixture:
    """Means of the given length along two axes, traces apart by `extra` sqrt(p)."""
    means = np.zeros((2, p))
    means[0, 0] = means[1, 1] = separation
    return analysis.GaussianMixture(means, [1.0, 1 + extra / np.sqrt(p)], [n // 2, n - n // 2])


def held_out(rng: np.random.Generator, count: int, largest: int) -> list[tuple[dict[str, Any], EquivalentError]]:
    """Random settings with the predicted and the measured error on the same draws."""
    found = []
    for _ in range(count):
        p = int(np.exp(rng.uniform(np.log(30), np.log(largest))))
        n = max(8, int(p * np.exp(rng.uniform(np.log(0.25), np.log(1.5)))))
        setting: dict[str, Any] = {
            "activation": str(rng.choice(["relu", "tanh", "softplus", "gelu", "erf", "elu"])), "p": p, "n": n,
            "separation": float(rng.uniform(0, 8)), "sigma_a2": float(rng.uniform(0.05, 0.85)),
            "extra": float(rng.uniform(0, 6)), "kind": str(rng.choice(["ck", "ntk"]))}
        mixture = two_classes(p, n, setting["separation"], setting["extra"])
        found.append((setting, equivalent_error(setting["activation"], setting["sigma_a2"], mixture,
                                                kind=setting["kind"], draws=2, seed=int(rng.integers(2**31)),
                                                exact=True)))
    return found


def _sample(departure: str, p: int, rng: np.random.Generator) -> MixtureSample:
    """A sample that breaks one assumption, with the statistics of its population."""
    n = (4 * p) // 5
    if departure == "few samples a class":
        classes = max(2, n // 5)
        means = np.zeros((classes, p))
        means[np.arange(classes), np.arange(classes)] = 4.0
        return analysis.GaussianMixture(means, [1.0] * classes, [5] * classes).sample(rng)
    # means that lie close leave what norms of unlike size do to be seen
    separation = {"growing separation": 8.0 * (p / 100) ** 0.5, "samples of unlike size": 2.0}.get(departure, 8.0)
    mixture = two_classes(p, n, separation)
    sample = mixture.sample(rng)
    if departure == "none" or departure == "growing separation":
        return sample
    stats = sample.statistics
    noise = sample.x - stats.means[sample.labels].T / np.sqrt(p)
    if departure == "heavy tails":  # five degrees of freedom: kurtosis nine, unit variance
        noise = rng.standard_t(5, noise.shape) / np.sqrt(5 / 3) * np.sqrt(stats.traces[sample.labels] / p)
    elif departure == "samples of unlike size":  # one random factor a sample: norms do not concentrate
        noise = noise * np.sqrt(rng.gamma(4, 1 / 4, noise.shape[1]))
    elif departure == "correlated features":  # neighbours at 0.9: the statistics change with it
        gaps = np.abs(np.subtract.outer(np.arange(p), np.arange(p)))
        mixture = analysis.GaussianMixture(mixture.means, [c * 0.9**gaps for c in mixture.covariances],
                                           mixture.sizes.tolist())
        return mixture.sample(rng)
    else:
        raise ValueError(f"unknown departure {departure!r}; known: {', '.join(DEPARTURES)}")
    return MixtureSample(stats.means[sample.labels].T / np.sqrt(p) + noise, sample.labels, stats)


def departures(activation: str, sigma_a2: float, sizes: Sequence[int], draws: int,
               rng: np.random.Generator) -> dict[str, list[list[float]]]:
    """Errors |G - equivalent| with one assumption of the paper broken at a time, a list of draws a size."""
    errors: dict[str, list[list[float]]] = {}
    for departure in DEPARTURES:
        rows = []
        for p in sizes:
            row = []
            # a few large factors decide this one: its errors scatter three times as much
            for _ in range(draws * (6 if departure == "samples of unlike size" else 1)):
                sample = _sample(departure, p, rng)
                eq = analysis.solve_equations(activation, sigma_a2, sample.statistics.tau0)
                exact = analysis.deq_kernels(sample.x, activation, sigma_a2, centre=float(eq.shift)).ck
                row.append(spectral_norm(exact - equivalent_kernel(eq, sample)))
            rows.append(row)
        errors[departure] = rows
    return errors


def uncentred(activation: str, sigma_a2: float, sizes: Sequence[int], draws: int,
              rng: np.random.Generator) -> dict[str, list[list[float]]]:
    """Kernels of phi as it is: errors of equivalents with and without the term that centring removes, and its size."""
    rows: dict[str, list[list[float]]] = {"paper's": [], "with the term": [], "its share": []}
    for p in sizes:
        mixture = two_classes(p, (4 * p) // 5, 4.0)
        eq = analysis.solve_equations(activation, sigma_a2, mixture.tau0)
        parts: dict[str, list[float]] = {name: [] for name in rows}
        for _ in range(draws):
            sample = mixture.sample(rng)
            exact = analysis.deq_kernels(sample.x, activation, sigma_a2).ck
            size = spectral_norm(exact)
            parts["paper's"].append(spectral_norm(exact - equivalent_kernel(eq, sample)) / size)
            parts["with the term"].append(
                spectral_norm(exact - refined_equivalent(eq, sample, KernelKind.CK, centred=False)) / size)
            parts["its share"].append(float(exact.sum() / len(exact) / size))
        for name, part in parts.items():
            rows[name].append(part)
    return rows


def error_map(activation: str, sizes: Sequence[int], others: Sequence[float], which: str) -> list[list[float]]:
    """Predicted errors for every dimension (columns) and separation or sigma_a^2 (rows), n = 0.8 p."""
    result = []
    for value in others:
        separation, sigma_a2 = (value, 0.3) if which == "separation" else (4.0, value)
        result.append([float(equivalent_error(activation, sigma_a2, two_classes(p, (4 * p) // 5, separation), draws=2)
                             .predicted.mean()) for p in sizes])
    return result
