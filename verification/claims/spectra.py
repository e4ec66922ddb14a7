"""Limit spectra of the kernels of a DEQ: bulk, isolated eigenvalues, alignment, and who shares a spectrum."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

import analysis
from analysis.rmt.mixtures import GaussianMixture, MixtureSample
from analysis.rmt.spectra import KernelSpectrum
from analysis.rmt.stieltjes import Population, density, mass, solve_delta, support
from verification.claim import Reading
from verification.context import Context
from verification.evidence import Evidence, Method, holds_if, largest, within
from verification.registry import Topic
from verification.verdict import Verdict

TOPIC = Topic("rmt-spectra", "Limit spectra of the kernels")
SIGMA_A2 = 0.2
Array = NDArray[np.float64]


def _mixture(p: int) -> GaussianMixture:
    """Two classes that differ in mean and trace; means short enough for p of a few hundred to be near the limit."""
    means = np.zeros((2, p))
    means[0, 0], means[1, 1] = 3.0, -4.0
    n = int(0.8 * p)
    return GaussianMixture(means, [1.0, 1 + 4 / math.sqrt(p)], [5 * n // 8, n - 5 * n // 8])


def _draws(context: Context, name: str, p: int, count: int) -> list[tuple[MixtureSample, analysis.DeqKernels]]:
    """Samples with their exact kernels, shared by the claims below."""
    def make() -> list[tuple[MixtureSample, analysis.DeqKernels]]:
        rng = context.rng(f"spectra/{p}")
        samples = [_mixture(p).sample(rng) for _ in range(count)]
        return [(sample, analysis.deq_kernels(sample.x, name, SIGMA_A2, centre=True)) for sample in samples]

    return context.shared(f"spectra/{name}/{p}/{count}", make)


def _spectrum(name: str, p: int, kind: str, sigma_a2: float = SIGMA_A2) -> KernelSpectrum:
    mixture = _mixture(p)
    eq = analysis.solve_equations(name, sigma_a2, mixture.tau0)
    return KernelSpectrum(eq, mixture.means, mixture.covariances, mixture.sizes, kind=kind)


def _distribution(spectrum: KernelSpectrum) -> tuple[Array, Array]:
    """Grid over the bulk and the cumulative distribution on it."""
    (low, high), = spectrum.support()
    theta = np.linspace(np.pi, 0, 401)
    x = (low + high) / 2 + (high - low) / 2 * np.cos(theta)
    height = spectrum.density(x) * (high - low) / 2 * np.sin(theta)
    steps = (height[1:] + height[:-1]) / 2 * np.diff(-theta)
    total = np.concatenate([[0.0], np.cumsum(steps)])
    return x, total / total[-1]


def _distance(values: NDArray[Any], spectrum: KernelSpectrum, isolated: int) -> float:
    """Kolmogorov's distance of the eigenvalues but the largest `isolated` from the bulk."""
    x, total = _distribution(spectrum)
    bulk = np.sort(values)[:len(values) - isolated]
    exact = np.interp(bulk, x, total)
    ranks = np.arange(len(bulk))
    return float(max(np.max(np.abs(exact - ranks / len(bulk))), np.max(np.abs(exact - (ranks + 1) / len(bulk)))))


def _bulk(context: Context, matched_at: float) -> list[Evidence]:
    sizes = context.choose((100, 200), (150, 300, 600), (250, 500, 1000, 2000))
    evidence = []
    for name in context.choose(("relu",), ("relu", "tanh"), ("relu", "tanh", "elu")):
        for kind in ("ck", "ntk"):
            gaps = []
            for p in sizes:
                (_, kernels), *_ = _draws(context, name, p, context.choose(1, 2, 4))
                values = np.asarray(np.linalg.eigvalsh(kernels.ck if kind == "ck" else kernels.ntk))
                gaps.append(_distance(values, _spectrum(name, p, kind, matched_at), 2))
            # The limit is approached at some p^-1/2; a wrong limit would leave a distance that stays.
            evidence.append(Evidence(Method.MEASUREMENT, holds_if(gaps[-1] < 0.08 and gaps[-1] < gaps[0]),
                                     f"{name}, {kind}: Kolmogorov distance of the eigenvalues from the bulk, p = "
                                     f"{sizes}",
                                     {f"p = {p}": gap for p, gap in zip(sizes, gaps, strict=True)}))
    return evidence


@TOPIC.claim(
    id="rmt-5d71", title="The bulk of a DEQ's kernels is a shifted and scaled Silverstein density",
    source="[RMT] theorems 1 and 2",
    statement=r"But for isolated eigenvalues, the eigenvalues of the exact CK and NTK of a DEQ on a Gaussian mixture "
              r"approach, as $p \to \infty$, "
              r"the law of $c + \alpha_1\lambda$ with $\lambda$ from Silverstein's equation and $c = \gamma^2 - "
              r"\tau_0^2\alpha_1$ "
              r"(for the NTK $\beta_1$ and $\kappa^2$).",
    quote="to analyze the eigenspectra of conjugate kernel and neural tangent kernel matrices for implicit deep "
          "equilibrium models on high-dimensional Gaussian mixture data",
    reading=Reading.OURS,
    reading_note="the limit law is ours, from the equivalent",
    expected=Verdict.SUPPORTED, control=lambda context: _bulk(context, 0.6), control_note="the limit at sigma_a^2 = "
                                                                                          "0.6",
    figures=("kernel-spectra",))
def bulk(context: Context) -> list[Evidence]:
    """Exact infinite-width kernels of growing samples against the limit."""
    return _bulk(context, SIGMA_A2)


def _outlier_gaps(context: Context, name: str, kind: str, p: int, sigma_a2: float) -> tuple[list[float],
                                                                                            list[dict[str, Any]]]:
    outliers = _spectrum(name, p, kind, sigma_a2).outliers()
    rows, gaps = [], []
    draws = _draws(context, name, p, context.choose(1, 2, 4))
    top = np.array([np.sort(np.linalg.eigvalsh(k.ck if kind == "ck" else k.ntk))[::-1][:4] for _, k in draws])
    for index, outlier in enumerate(outliers):
        gaps.append(abs(float(top[:, index].mean()) / outlier.position - 1))
        rows.append({"name": name, "kind": kind, "p": p, "predicted": outlier.position,
                     "found": top[:, index].tolist()})
    return gaps, rows


def _outliers(context: Context, sigma_a2: float) -> list[Evidence]:
    sizes = context.choose((100, 200), (150, 300, 600), (250, 500, 1000, 2000))
    evidence, rows = [], []
    for name in context.choose(("relu",), ("relu", "tanh"), ("relu", "tanh", "elu")):
        for kind in ("ck", "ntk"):
            worst = []
            for p in sizes:
                gaps, found = _outlier_gaps(context, name, kind, p, sigma_a2)
                worst.append(max(gaps) if len(gaps) == 2 else math.inf)
                rows += found
            evidence.append(Evidence(Method.MEASUREMENT, holds_if(worst[-1] < 0.1), f"{name}, {kind}: two isolated "
                                                                                    f"eigenvalues",
                                     {f"relative error, p = {p}": gap for p, gap in zip(sizes, worst, strict=True)}))
    if sigma_a2 == SIGMA_A2:
        context.record("rmt-outliers", {"rows": rows})
    return evidence


@TOPIC.claim(
    id="own-e91b", title="Isolated eigenvalues sit where a small determinant vanishes", source="deqproof",
    statement=r"The isolated eigenvalues of the CK and the NTK tend to the real zeros of $\det(I + B S(z))$, a "
              r"determinant of size $2K+1$ "
              r"built from class sizes, means, $t$, $T$ and the coefficients; two classes here give two.",
    expected=Verdict.SUPPORTED, control=lambda context: _outliers(context, 0.7), control_note="positions at sigma_a^2 "
                                                                                              "= 0.7",
    figures=("outlier-positions",))
def outliers(context: Context) -> list[Evidence]:
    """Exact kernels of growing samples against the predicted positions."""
    return _outliers(context, SIGMA_A2)


def _alignment(context: Context, shuffled: bool) -> list[Evidence]:
    p = context.choose(200, 600, 2000)
    evidence = []
    for name in ("relu", "tanh") if context.scale != "smoke" else ("relu",):
        predicted = sum(outlier.class_alignment.sum() for outlier in _spectrum(name, p, "ck").outliers())
        values = []
        for sample, kernels in _draws(context, name, p, context.choose(1, 2, 4)):
            labels = sample.labels if not shuffled else context.rng("shuffle").permutation(sample.labels)
            span = np.stack([(labels == a) / math.sqrt(np.sum(labels == a)) for a in (0, 1)])
            values.append(float(np.sum((span @ np.linalg.eigh(kernels.ck)[1][:, -2:]) ** 2)))
        gap = abs(float(np.mean(values)) - predicted)
        # The projections fluctuate like p^{-1/2}: 0.04 at p = 600, twice that allowed.
        evidence.append(Evidence(Method.MEASUREMENT, within(gap, 2 / math.sqrt(p), 1.0), f"{name}, CK, p = {p}",
                                 {"predicted": float(predicted), "found": float(np.mean(values)),
                                  "tolerance": 2 / math.sqrt(p)}))
    return evidence


@TOPIC.claim(
    id="own-3fa8", title="Alignment of the top eigenvectors with the classes", source="deqproof",
    statement=r"The squared projections of the isolated eigenvectors on the class vectors $j_a/\sqrt{n_a}$ tend to "
              r"minus the residues of "
              r"$S (I + B S)^{-1}$; summed over the two eigenvectors and classes they agree with those of the exact "
              r"CK.",
    expected=Verdict.SUPPORTED, control=lambda context: _alignment(context, shuffled=True),
    control_note="labels shuffled")
def alignment(context: Context) -> list[Evidence]:
    """The sum over both eigenvectors is insensitive to their mixing when two positions are close."""
    return _alignment(context, shuffled=False)


def _law(context: Context, ratio_error: float) -> list[Evidence]:
    evidence = []
    for ratio in (0.2, 0.8, 2.5):
        population = Population.build(np.ones((1, 40)), [int(40 * ratio)])
        (low, high), = support(population)
        edge = largest((abs(low - (1 - math.sqrt(ratio)) ** 2), abs(high - (1 + math.sqrt(ratio)) ** 2)))
        x = np.linspace(low, high, 13)[1:-1]
        exact = np.sqrt((high - x) * (x - low)) / (2 * math.pi * ratio * (1 + ratio_error) * x)
        gap = float(np.max(np.abs(density(population, x) - exact)))
        whole = abs(mass(population, order=100) + population.atom - 1)
        # Densities are read 1e-11 above the axis, which blurs edges by about its square root.
        evidence.append(Evidence(Method.NUMERICAL, holds_if(largest((edge, gap, whole)) < 1e-5),
                                 f"identity covariance, n/p = {ratio}",
                                 {"edges": edge, "density": gap, "mass": whole, "tolerance": 1e-5}))
    ramp = np.linspace(0.4, 1.6, context.choose(20, 60, 300))
    mixed = Population.build(np.stack([ramp, ramp[::-1], np.ones_like(ramp)]), [len(ramp) // 2, len(ramp) // 3,
                                                                                len(ramp) // 4])
    _, residual = solve_delta(mixed, np.linspace(0.05, 4, 40) + 1e-8j)
    total = abs(mass(mixed, order=150) + mixed.atom - 1)
    return [*evidence, Evidence(Method.NUMERICAL, holds_if(residual <= 1e-11 and total < 1e-4),
                                "three classes of different covariance", {"residual": residual, "mass": total})]


@TOPIC.claim(
    id="own-c50d", title="The density solver: residual, mass, edges, Marchenko-Pastur", source="deqproof",
    statement=r"The vectorised Newton path solves Silverstein's equation for several classes to a relative residual "
              r"of $10^{-11}$; densities "
              r"integrate to one with the atom at zero, and one class of identity covariance is the Marchenko-Pastur "
              r"law.",
    expected=Verdict.SUPPORTED, control=lambda context: _law(context, 0.01), control_note="the ratio n/p one per cent "
                                                                                          "off")
def density_solver(context: Context) -> list[Evidence]:
    """Closed forms, conservation of mass, residuals."""
    return _law(context, 0.0)


def _norm(matrix: Array) -> float:
    return float(np.max(np.abs(np.linalg.eigvalsh(matrix))))


def _side_by_side(context: Context, matched_at: float) -> list[Evidence]:
    p = context.choose(150, 500, 1500)
    evidence, panels = [], []
    plans = (("relu", "leaky_relu", "relu"), ("tanh", "hard_tanh", "tanh"))
    for name, family, plain in plans:
        sample, kernels = _draws(context, name, p, context.choose(1, 2, 4))[0]
        tau0 = _mixture(p).tau0
        nets = analysis.equivalent_networks(analysis.solve_equations(name, matched_at, tau0), family)
        eq = analysis.solve_equations(name, SIGMA_A2, tau0)
        same = [analysis.explicit_kernels(sample.x, net.layers, centre=True).ck for net in nets]
        other = analysis.explicit_kernels(sample.x, [plain] * nets[0].depth, centre=True).ck
        size = _norm(kernels.ck)
        gaps = [_norm(kernels.ck - kernel) / size for kernel in same]
        apart = _norm(kernels.ck - other) / size
        floor = _norm(kernels.ck - analysis.equivalent_kernel(eq, sample)) / size
        # Both kernels are within the equivalent's own error of one limit.
        near = largest(gaps) <= 2.5 * floor and apart > 4 * largest(gaps)
        evidence.append(Evidence(Method.MEASUREMENT, holds_if(near),
                                 f"{name}: DEQ, {family} equivalent, plain {plain} of equal depth; p = {p}, relative "
                                 f"norms",
                                 {"to the equivalent network": max(gaps), "to its deterministic equivalent": floor,
                                  "to the plain network": apart}))
        spectrum = _spectrum(name, p, "ck")
        x, _ = _distribution(spectrum)
        panels.append({"name": name, "family": family, "p": p, "x": x[::4].tolist(),
                       "density": spectrum.density(x[::4]).tolist(),
                       "outliers": [outlier.position for outlier in spectrum.outliers()],
                       "deq": np.linalg.eigvalsh(kernels.ck).tolist(),
                       "equivalent": np.linalg.eigvalsh(same[0]).tolist(),
                       "plain": np.linalg.eigvalsh(other).tolist()})
    if matched_at == SIGMA_A2:
        context.record("rmt-spectra", {"panels": panels})
    return evidence


@TOPIC.claim(
    id="rmt-1e6a", title="The DEQ and its equivalent network share kernel and spectrum; a plain network does not",
    source="[RMT] section 4",
    statement=r"On a Gaussian mixture the exact CK of the ReLU (tanh) DEQ differs from that of its leaky-ReLU "
              r"(hard-tanh) equivalent by no more than "
              r"its distance from the deterministic equivalent, and from that of a plain network of equal depth by "
              r"several times as much.",
    quote="shallow explicit neural networks that exhibit identical CK or NTK eigenspectral behavior as a given "
          "implicit DEQ",
    reading=Reading.OURS,
    reading_note="identical is read as no farther than both are from the equivalent",
    expected=Verdict.SUPPORTED, control=lambda context: _side_by_side(context, 0.6),
    control_note="networks matched at sigma_a^2 = 0.6 beside DEQs at 0.2", figures=("kernel-spectra",))
def side_by_side(context: Context) -> list[Evidence]:
    """Exact kernels at infinite width on one sample."""
    return _side_by_side(context, SIGMA_A2)
