"""Coefficients of the deterministic equivalents, read off exact kernels along the directions in which they live.

The theorems bound a norm, in which a coefficient of a low-rank part that is 2 % off hides for every p that fits a
machine. Along `X^T X`, the energies and the classes it does not: the entries of an exact kernel off the diagonal are
regressed on what each coefficient multiplies, its diagonal on the energies. One draw needs few samples, so p may be
large: the entries do not depend on how many samples there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

import analysis
from analysis.rmt.equivalents import CovarianceTerm, KernelKind, low_rank_part
from analysis.rmt.mixtures import GaussianMixture, MixtureSample

Array = NDArray[np.float64]
Indices = NDArray[np.intp]
NAMES = {KernelKind.CK: ("alpha_1", "alpha_2", "alpha_3", "gamma^2"),
         KernelKind.NTK: ("beta_1", "beta_2", "beta_3", "kappa^2")}


def gentle_mixture(p: int, count: int) -> GaussianMixture:
    """Two classes with means 2 e_0 and 2 e_8 and covariances I and (1 + 4 / sqrt(p)) I.

    The means of the paper's mixture, 8 e, add mu^4 / p^2 to the mean square of `x_i.x_j`, two fifths of T / p at
    p = 10^4; the theorem drops it as vanishing, and a coefficient could not be read.
    """
    means = np.zeros((2, p))
    means[0, 0] = means[1, 8] = 2.0
    return GaussianMixture(means, [1.0, 1 + 4 / np.sqrt(p)], [count // 2, count - count // 2])


@dataclass(frozen=True)
class Fitted:
    """Coefficients fitted over theirs by the theory, a row a draw.

    Attributes:
        ratios: [draws, 4], in the order of `NAMES`.
    """

    ratios: Array

    def deviation(self, index: int, level: float, factor: float = 1.0) -> tuple[float, float]:
        """Mean of fitted over (factor * theory) minus one, and the half width of its t interval.

        For a factor of 0 the theory says zero, and the deviation is infinite.
        """
        values = self.ratios[:, index]
        if factor == 0:
            return float("inf"), 0.0
        half = stats.t.ppf(0.5 + level / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
        return float(values.mean() / factor - 1), float(half / abs(factor))


def _features(sample: MixtureSample, third: Array) -> tuple[Array, Array, tuple[Indices, Indices]]:
    """What alpha_1, alpha_2 and alpha_3 multiply, off the diagonal, and the energies |x_i|^2 - tau_0^2."""
    count = len(sample.labels)
    rows, columns = np.triu_indices(count, 1)
    gram = (sample.x.T @ sample.x)[rows, columns]
    stat = sample.statistics
    energy = stat.t[sample.labels] / np.sqrt(stat.p) + sample.energies
    classes = third[sample.labels][:, sample.labels][rows, columns] / stat.p
    # The last one, D X^T X + X^T X D with D the energies, vanishes in norm and would only add noise.
    mixed = (energy[rows] + energy[columns]) * gram
    return np.stack([gram, energy[rows] * energy[columns], classes, mixed], 1), energy, (rows, columns)


def _third(eq: analysis.FourEquations, sample: MixtureSample, term: CovarianceTerm) -> Array:
    """T_ab as the library builds it, alpha_2 t t^T taken out of the class block."""
    c = low_rank_part(eq, sample, KernelKind.CK, covariance_term=term)[1]
    t = sample.statistics.t
    return np.asarray((c[:-1, :-1] - float(eq.alpha2) * np.outer(t, t)) / float(eq.alpha3))


def fit_coefficients(activation: str, sigma_a2: float, p: int, count: int, draws: int, rng: np.random.Generator, *,
                     terms: Sequence[CovarianceTerm] = (CovarianceTerm.PRODUCT,)) -> dict[str, Fitted]:
    """Fit the four coefficients of both kernels on exact kernels of a centred DEQ.

    Args:
        activation: phi, with alpha_2 and alpha_3 not zero (not odd).
        sigma_a2: of the DEQ.
        p: dimension.
        count: samples a draw.
        draws: independent ones.
        rng: for the data.
        terms: which T the classes are regressed on.

    Returns:
        by kernel and term, "ck tr(C_a C_b)/p".
    """
    mixture = gentle_mixture(p, count)
    eq = analysis.solve_equations(activation, sigma_a2, tau0=mixture.tau0)
    theory = {KernelKind.CK: (eq.alpha1, eq.alpha2, eq.alpha3, eq.gamma2),
              KernelKind.NTK: (eq.beta1, eq.beta2, eq.beta3, eq.kappa2)}
    rows: dict[str, list[Array]] = {}
    for _ in range(draws):
        sample = mixture.sample(rng)
        exact = analysis.deq_kernels(sample.x, activation, sigma_a2, centre=float(eq.shift))
        for term in terms:
            features, energy, places = _features(sample, _third(eq, sample, term))
            scale = features.std(0)
            for kind, values in theory.items():
                kernel = exact.ck if kind is KernelKind.CK else exact.ntk
                found = np.linalg.lstsq(features / scale, kernel[places], rcond=None)[0] / scale
                diagonal = np.polyfit(energy, np.diag(kernel), 2)[-1]
                fitted = np.append(found[:3], diagonal) / np.array([float(value) for value in values])
                rows.setdefault(f"{kind} {term}", []).append(fitted)
    return {name: Fitted(np.array(values)) for name, values in rows.items()}
