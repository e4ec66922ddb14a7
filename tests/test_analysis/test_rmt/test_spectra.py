"""Limit spectra: closed forms, conservation of mass, residuals, and the equivalents' own eigenvalues."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import analysis
from analysis.rmt.spectra import KernelSpectrum
from analysis.rmt.stieltjes import Population, density, mass, solve_delta, stieltjes, support


def marchenko_pastur(ratio, x):
    """Density of W^T W, n = ratio p samples of identity covariance (continuous part)."""
    low, high = (1 - ratio**0.5) ** 2, (1 + ratio**0.5) ** 2
    return np.sqrt(np.maximum((high - x) * (x - low), 0)) / (2 * np.pi * ratio * x)


@pytest.mark.parametrize("ratio", [0.2, 0.8, 3.0])
def test_one_isotropic_class_is_marchenko_pastur(ratio):
    population = Population.build(np.ones((1, 100)), [int(100 * ratio)])
    (low, high), = support(population)
    # The density is read at a height of 1e-11: edges blur by about its square root times the local curvature.
    assert low == pytest.approx((1 - ratio**0.5) ** 2, abs=1e-6)
    assert high == pytest.approx((1 + ratio**0.5) ** 2, abs=1e-6)
    x = np.linspace(low + 0.05 * (high - low), high - 0.05 * (high - low), 15)
    np.testing.assert_allclose(density(population, x), marchenko_pastur(ratio, x), atol=1e-9)
    assert population.atom == pytest.approx(max(0, 1 - 1 / ratio))
    assert mass(population, order=120) + population.atom == pytest.approx(1, abs=1e-8)


def test_classes_of_one_covariance_are_one_class():
    z = np.linspace(-1, 5, 9) + 0.01j
    ramp = np.linspace(0.5, 2, 40)
    whole, parts = Population.build(ramp[None], [60]), Population.build(np.stack([ramp, ramp]), [20, 40])
    np.testing.assert_allclose(stieltjes(parts, z), stieltjes(whole, z), rtol=1e-10)


def test_silversteins_equation_by_an_independent_form():
    """One class: z = -1/m + (1/p) sum_j lambda_j / (1 + (n/p) lambda_j m), the inverse function of m."""
    ramp, n = np.linspace(0.5, 2, 50), 80
    p = len(ramp)
    z = np.linspace(0.1, 6, 12) + 0.05j
    m = stieltjes(Population.build(ramp[None], [n]), z)
    scaled = m * (n / p)
    back = -1 / m + np.mean(ramp / (1 + ramp * scaled[:, None]), axis=1)
    np.testing.assert_allclose(back, z, rtol=1e-9)


@given(st.lists(st.floats(0.2, 5), min_size=3, max_size=6), st.integers(2, 20), st.integers(2, 20))
def test_the_residual_is_small_and_the_trace_is_right(eigenvalues, first, second):
    both = np.stack([eigenvalues, eigenvalues[::-1]])
    population = Population.build(both, [first, second])
    _, residual = solve_delta(population, np.linspace(-1, population.scale, 7) + 1e-6j)
    assert residual <= 1e-11
    far = 1e4j * population.scale
    # m(z) = -1/z - E lambda / z^2 + O(z^-3), and E lambda = sum_a (n_a/n) tr C_a / p.
    mean = float(population.ratios @ both.mean(axis=1) / population.ratios.sum())
    assert (-far**2 * (stieltjes(population, far)[0] + 1 / far)).real == pytest.approx(mean, rel=1e-3)


def test_two_bands():
    population = Population.build(np.repeat([[1.0, 20.0]], 50, axis=1), [10])
    bands = support(Population.build(np.array([[1.0] * 95 + [40.0] * 5]), [400]))
    assert len(support(population)) == 1
    assert len(bands) == 2
    assert bands[0][1] < bands[1][0]


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="do not fit"):
        Population.build(np.ones((2, 5)), [3])
    with pytest.raises(ValueError, match="not negative"):
        Population.build(-np.ones((1, 5)), [3])
    with pytest.raises(ValueError, match="upper half plane"):
        solve_delta(Population.build(np.ones((1, 5)), [3]), np.array([1.0]))
    eq = analysis.solve_equations("relu", 0.2)
    with pytest.raises(ValueError, match="unknown kind"):
        KernelSpectrum(eq, np.zeros((1, 5)), [1.0], [4], kind="nngp")
    with pytest.raises(ValueError, match="do not fit"):
        KernelSpectrum(eq, np.zeros((1, 5)), [1.0, 1.0], [4])


@pytest.mark.parametrize("kind", ["ck", "ntk"])
def test_outliers_and_alignments_of_an_equivalent_kernel(kind, rng):
    """Positions fluctuate by a few per cent at p = 500; 8 per cent and 0.1 in cosines are two standard deviations."""
    p = 500
    means = np.zeros((2, p))
    means[0, 0], means[1, 1] = 3.0, -4.0
    mixture = analysis.GaussianMixture(means, [1.0, 1 + 4 / np.sqrt(p)], [250, 150])
    eq = analysis.solve_equations("relu", 0.2, mixture.tau0)
    spectrum = KernelSpectrum(eq, means, mixture.covariances, mixture.sizes, kind=kind)
    outliers = spectrum.outliers()
    sample = mixture.sample(rng)
    values, vectors = np.linalg.eigh(analysis.equivalent_kernel(eq, sample, kind))
    (low, high), = spectrum.support()
    assert len(outliers) == 2
    assert np.sum(values > 1.02 * high) == 2
    assert low * 0.95 < values[0]
    for index, outlier in enumerate(outliers):
        assert values[-1 - index] == pytest.approx(outlier.position, rel=0.08)
    span = np.stack([(sample.labels == a) / np.sqrt(size) for a, size in enumerate(mixture.sizes)])
    found = np.sum((span @ vectors[:, -2:]) ** 2)
    assert found == pytest.approx(sum(outlier.class_alignment.sum() for outlier in outliers), abs=0.1)


def test_density_of_the_kernel_integrates_to_one():
    eq = analysis.solve_equations("tanh", 0.3)
    spectrum = KernelSpectrum(eq, np.zeros((1, 100)), [1.0], [60])
    (low, high), = spectrum.support()
    theta = (np.arange(200) + 0.5) * np.pi / 200
    x = (low + high) / 2 + (high - low) / 2 * np.cos(theta)
    total = np.sum(spectrum.density(x) * np.sin(theta)) * np.pi / 200 * (high - low) / 2
    assert total == pytest.approx(1, abs=1e-6)
    assert spectrum.outliers() == []
