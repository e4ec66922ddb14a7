"""Limit spectra: closed forms, conservation of mass, residuals, and the equivalents' own eigenvalues."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import analysis
from analysis.rmt.commuting import NonCommuting
from analysis.rmt.mixtures import paper_mixture
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


def two_equal_classes(size=6.0, p=200):
    means = np.zeros((2, p))
    means[0, 0] = means[1, 1] = size
    return analysis.GaussianMixture(means, [1.0, 1.0], [60, 60])


def test_a_double_outlier_is_there_twice(rng):
    """Two classes alike but for their means: one position of multiplicity two, where two sample eigenvalues lie."""
    mixture = two_equal_classes()
    eq = analysis.solve_equations("tanh", 0.3, mixture.tau0)
    spectrum = KernelSpectrum(eq, mixture)
    found = spectrum.outliers()
    assert [o.multiplicity for o in found] == [2, 2]
    assert found[0].position == pytest.approx(found[1].position, rel=1e-12)
    again = KernelSpectrum(eq, mixture.means, mixture.covariances, mixture.sizes).outliers(points=7)
    assert [o.position for o in again] == [o.position for o in found]
    values, vectors = np.linalg.eigh(analysis.equivalent_kernel(eq, mixture.sample(rng)))
    np.testing.assert_allclose(values[-2:], found[0].position, rtol=0.12)  # two standard deviations at p = 200
    assert values[-3] < 1.05 * spectrum.support()[-1][1]
    span = np.stack([np.repeat([1.0, 0.0], 60), np.repeat([0.0, 1.0], 60)]) / np.sqrt(60)
    measured = np.sum((span @ vectors[:, -2:]) ** 2)
    assert measured == pytest.approx(sum(o.class_alignment.sum() for o in found), abs=0.1)


def test_every_outlier_of_many_classes_and_how_they_split():
    """K classes of one size have two positions: K - 1 differences at one of them, and the common direction."""
    p, k = 300, 5
    means = np.zeros((k, p))
    means[np.arange(k), np.arange(k)] = 7.0
    mixture = analysis.GaussianMixture(means, [1.0] * k, [50] * k)
    found = KernelSpectrum(analysis.solve_equations("tanh", 0.3), mixture).outliers()
    assert len(found) == k  # with tanh (alpha_2 = alpha_3 = 0) all five coincide
    assert {o.multiplicity for o in found} == {k}
    relu = KernelSpectrum(analysis.solve_equations("relu", 0.3), mixture).outliers()
    assert sorted(o.multiplicity for o in relu)[-(k - 1):] == [k - 1] * (k - 1)
    nudged = [c + 1e-9 * a for a, c in enumerate([1.0] * k)]
    mixture = analysis.GaussianMixture(means * (1 + 1e-6 * np.arange(k))[:, None], nudged, [50] * k)
    assert len(KernelSpectrum(analysis.solve_equations("tanh", 0.3), mixture).outliers()) == k


def test_the_papers_mixture_at_a_thousand_dimensions():
    """A sample's two largest eigenvalues are 6.32 and 6.00; they lie closer together than any scan of 96 points."""
    mixture = paper_mixture(1000)
    found = KernelSpectrum(analysis.solve_equations("relu", 0.2, mixture.tau0), mixture).outliers()
    assert [o.position for o in found] == pytest.approx([6.32, 6.00], abs=0.05)


def plain_outliers_above(spectrum, edge):
    """Zeros of det(I + B S) right of the bulk by the argument principle, with S from plain iteration."""
    population, k = spectrum.population, len(spectrum.sizes)
    far = edge + 40 * (edge - spectrum.shift)
    centre, radius = (edge + far) / 2, (far - edge) / 2
    z = centre + radius * np.exp(2j * np.pi * (np.arange(4000) + 0.5) / 4000)
    zeta = (z - spectrum.shift) / spectrum.slope
    delta = np.zeros((len(z), k), dtype=complex)
    for _ in range(4000):
        pull = population.ratios / (1 + delta)
        new = (population.weights / (-zeta[:, None] + pull @ population.eigenvalues)) @ population.eigenvalues.T
        moved, delta = np.abs(new - delta).max(), new
        if moved < 1e-13:
            break
    g = -1 / (zeta[:, None] * (1 + delta))
    q = 1 / (-zeta[:, None] + (population.ratios / (1 + delta)) @ spectrum._basis_eigenvalues)
    s = np.zeros((len(z), 2 * k + 1, 2 * k + 1), dtype=complex)
    index = np.arange(k)
    s[:, index, index] = population.ratios * g
    s[:, k:2 * k, k:2 * k] = ((1 + zeta[:, None] * q)[:, None, :] * spectrum._basis_means) @ spectrum._basis_means.T
    s[:, -1, -1] = g @ (population.ratios * spectrum._energy)
    middle = spectrum._turn * spectrum._signs @ spectrum._turn.T
    phase = np.unwrap(np.angle(np.linalg.det(np.eye(2 * k + 1) + middle @ (s / spectrum.slope))))
    return round((phase[-1] - phase[0]) / (2 * np.pi) + (phase[1] - phase[0]) / (2 * np.pi))


@pytest.mark.parametrize("seed", range(6))
def test_the_number_of_outliers_by_the_argument_principle(seed):
    rng = np.random.default_rng(seed)
    p, k = 60, int(rng.integers(1, 4))
    means = np.zeros((k, p))
    means[np.arange(k), np.arange(k)] = rng.uniform(0, 9, k)
    if k == 3:
        means[2, 2] = means[0, 0]
    covariances = [rng.uniform(0.5, 1.5, p) if seed % 2 else float(rng.uniform(0.8, 1.2)) for _ in range(k)]
    mixture = analysis.GaussianMixture(means, covariances, rng.integers(5, 50, k))
    spectrum = KernelSpectrum(analysis.solve_equations("relu", 0.3, mixture.tau0), mixture)
    edge = spectrum.support()[-1][1]
    beyond = edge + 0.02 * (edge - spectrum.shift)
    found = [o.position for o in spectrum.outliers()]
    assert all(abs(position - beyond) > 1e-3 for position in found)  # else this seed decides nothing
    assert sum(position > beyond for position in found) == plain_outliers_above(spectrum, beyond)


def test_alpha1_of_zero_leaves_the_low_rank_part(rng):
    mixture = two_equal_classes()
    eq = analysis.solve_equations("cos", 0.3, mixture.tau0)
    spectrum = KernelSpectrum(eq, mixture)
    assert spectrum.atom == (pytest.approx(eq.gamma2), 1.0)
    assert spectrum.support() == [(pytest.approx(eq.gamma2),) * 2]
    assert not spectrum.density([0.1, eq.gamma2]).any()
    values = np.linalg.eigvalsh(analysis.equivalent_kernel(eq, mixture.sample(rng)))
    positions = sorted(o.position for o in spectrum.outliers())
    np.testing.assert_allclose(values[-len(positions):], positions, rtol=0.05)


@pytest.mark.parametrize("n", [1, 360, 380, 398, 399, 400, 401, 405, 4000])
def test_plain_marchenko_pastur_at_every_ratio(n):
    ratio = n / 400
    population = Population.build(np.ones((1, 400)), [n])
    (low, high), = support(population)
    assert low == pytest.approx((1 - ratio**0.5) ** 2, abs=1e-13)
    assert high == pytest.approx((1 + ratio**0.5) ** 2, rel=1e-13)
    scaled = support(Population.build(np.full((3, 400), 1e-6), [max(n // 3, 1)] * 3))
    if n % 3 == 0:
        np.testing.assert_allclose(scaled, [(low * 1e-6, high * 1e-6)], rtol=1e-9)


def test_edges_of_many_distinct_eigenvalues_agree_with_the_scan(rng):
    """One class by its explicit inverse against the same class twice with an invisible difference, which is scanned."""
    for values in (rng.uniform(0.5, 2, 40), np.concatenate([rng.uniform(1, 1.1, 30), rng.uniform(9, 9.5, 10)])):
        for n in (20, 60):
            exact = support(Population.build(values[None], [2 * n]))
            nudged = values * (1 + 1e-9 * rng.standard_normal(40))
            scanned = support(Population.build(np.stack([values, nudged]), [n, n]))
            np.testing.assert_allclose(scanned, exact, rtol=1e-5)


def test_four_hundred_distinct_eigenvalues_are_no_work(rng):
    mixture = analysis.GaussianMixture(np.zeros((1, 400)), [rng.uniform(0.5, 2, 400)], [300])
    spectrum = KernelSpectrum(analysis.solve_equations("tanh", 0.3, mixture.tau0), mixture)
    start = time.process_time()
    assert len(spectrum.support()) == 1
    spectrum.outliers()
    assert time.process_time() - start < 3  # 9 to 21 s once; about 0.5 s on a free core


def test_rotating_a_mixture_changes_nothing(rng):
    p = 40
    ramp = np.linspace(0.5, 1.5, p)
    means = np.zeros((2, p))
    means[0, 0] = means[1, 1] = 5.0
    turn = np.linalg.qr(rng.standard_normal((p, p)))[0]
    plain = analysis.GaussianMixture(means, [ramp, ramp[::-1]], [30, 20])  # the mean covariance is the identity
    turned = analysis.GaussianMixture(means @ turn.T, [turn * ramp @ turn.T, turn * ramp[::-1] @ turn.T], [30, 20])
    eq = analysis.solve_equations("relu", 0.3, plain.tau0)
    first, second = KernelSpectrum(eq, plain), KernelSpectrum(eq, turned)
    np.testing.assert_allclose(second.support(), first.support(), rtol=1e-6)
    np.testing.assert_allclose([o.position for o in second.outliers()], [o.position for o in first.outliers()],
                               rtol=1e-9)
    assert len(first.outliers()) >= 2


def test_what_does_not_fit_is_refused_with_the_reason(rng):
    p = 20
    turn = np.linalg.qr(rng.standard_normal((p, p)))[0]
    ramp = np.linspace(0.5, 1.5, p)
    mixture = analysis.GaussianMixture(np.zeros((2, p)), [np.diag(ramp), turn * ramp @ turn.T], [10, 10])
    eq = analysis.solve_equations("relu", 0.3, mixture.tau0)
    with pytest.raises(NonCommuting, match="do not commute"):
        KernelSpectrum(eq, mixture)
    assert KernelSpectrum(eq, mixture, non_commuting="mean").support()
    with pytest.raises(ValueError, match="'refuse' or 'mean'"):
        KernelSpectrum(eq, mixture, non_commuting="maybe")
    other = analysis.GaussianMixture(np.zeros((1, p)), [2.0], [10])
    with pytest.raises(ValueError, match=r"solved at tau0 = 1"):
        KernelSpectrum(eq, other)
    with pytest.raises(ValueError, match="give them only without one"):
        KernelSpectrum(eq, mixture, mixture.covariances, mixture.sizes)
    with pytest.raises(ValueError, match="give a GaussianMixture"):
        KernelSpectrum(eq, mixture.means)
    with pytest.raises(ValueError, match="not symmetric"):
        KernelSpectrum(eq, np.zeros((1, 3)), [np.triu(np.ones((3, 3)))], [4])
    with pytest.raises(ValueError, match="shape"):
        KernelSpectrum(eq, np.zeros((1, 3)), [np.ones(4)], [4])
