"""Gaussian mixtures: exact statistics, unbiased estimates, refusals."""

import numpy as np
import pytest

from analysis.rmt.mixtures import (
    ClassStatistics,
    GaussianMixture,
    MixtureSample,
    NotEnoughSamples,
    SingularCovariance,
    structured_mixture,
)


def random_mixture(rng, p=12, sizes=(30, 50)):
    roots = rng.standard_normal((2, p, 2 * p)) / np.sqrt(p)
    return GaussianMixture(rng.standard_normal((2, p)), [r @ r.T for r in roots], sizes)


def test_exact_statistics_by_their_definitions(rng):
    mixture = random_mixture(rng)
    stats, (first, second), p = mixture.statistics, mixture.covariances, mixture.p
    mean = (30 * first + 50 * second) / 80
    assert stats.tau0 == pytest.approx(np.sqrt(np.trace(mean) / p), rel=1e-13)
    np.testing.assert_allclose(stats.t, [np.trace(c - mean) / np.sqrt(p) for c in (first, second)], atol=1e-12)
    products = [[np.trace(a @ b) / p for b in (first, second)] for a in (first, second)]
    np.testing.assert_allclose(stats.T, products, rtol=1e-12)
    released = [[np.trace((a - mean) * (b - mean)) / p for b in (first, second)] for a in (first, second)]
    np.testing.assert_allclose(stats.released_T, released, rtol=1e-11)


def test_number_diagonal_and_matrix_are_the_same_covariance():
    kinds = [2.0, np.full(5, 2.0), 2.0 * np.eye(5)]
    found = [GaussianMixture(np.zeros((2, 5)), [c, 1.0], [4, 4]) for c in kinds]
    for mixture in found:
        np.testing.assert_allclose(mixture.statistics.T, found[0].statistics.T)
        drawn, first = (m.sample(np.random.default_rng(1)).x for m in (mixture, found[0]))
        np.testing.assert_allclose(drawn, first)


def test_estimates_are_unbiased(rng):
    mixture = random_mixture(rng)
    draws = [ClassStatistics.estimate(s.x, s.labels) for s in (mixture.sample(rng) for _ in range(400))]
    exact = mixture.statistics
    for name in ("T", "traces", "means"):
        values = np.array([getattr(d, name) for d in draws])
        deviation = (values.mean(axis=0) - getattr(exact, name)) / (values.std(axis=0, ddof=1) / 20)
        # at most 28 normal deviates: 5 standard errors has a false alarm rate below 2e-5
        assert np.abs(deviation).max() < 5
    # the plain estimate of tr C^2 is biased by (tr C)^2 / n: forty standard errors here
    plain = np.mean([np.square(np.cov(np.sqrt(12) * s.x[:, s.labels == 0])).sum() / 12
                     for s in (mixture.sample(rng) for _ in range(100))])
    assert plain > 1.2 * exact.T[0, 0]


def test_sample_has_its_classes_and_energies(rng):
    mixture = structured_mixture(400)
    sample = mixture.sample(rng)
    assert sample.x.shape == (400, 320)
    np.testing.assert_array_equal(np.bincount(sample.labels), mixture.sizes)
    # psi has mean 0 and variance 2 tr(C^2)/p^2 ~ 2.2/p: the mean over 320 within 5 standard errors
    assert abs(sample.energies.mean()) < 5 * np.sqrt(2.2 / 400 / 320)
    again = MixtureSample.from_data(sample.x, sample.labels)
    np.testing.assert_allclose(again.statistics.T, mixture.statistics.T, rtol=0.1)


def test_estimated_mixture_draws_like_the_data(rng):
    mixture = random_mixture(rng, sizes=(4000, 4000))
    sample = mixture.sample(rng)
    found = GaussianMixture.estimate(sample.x, sample.labels)
    for a in range(2):
        scale = np.trace(mixture.covariances[a]) / 12
        assert np.abs(found.covariances[a] - mixture.covariances[a]).max() < 6 * 2 * scale / np.sqrt(4000)


@pytest.mark.parametrize(("arguments", "error", "message"), [
    ((np.zeros((2, 3)), [1.0], [5, 5]), ValueError, "do not fit"),
    ((np.zeros((1, 3)), [1.0], [0]), ValueError, "at least one sample"),
    ((np.full((1, 3), np.inf), [1.0], [5]), ValueError, "not finite"),
    ((np.zeros((1, 3)), [0.0], [5]), SingularCovariance, "eigenvalue"),
    ((np.zeros((1, 3)), [np.ones((3, 3))], [5]), SingularCovariance, "singular"),
    ((np.zeros((1, 3)), [-np.eye(3)], [5]), SingularCovariance, "negative eigenvalue"),
    ((np.zeros((1, 3)), [np.triu(np.ones((3, 3)))], [5]), SingularCovariance, "symmetric"),
    ((np.zeros((1, 3)), [np.eye(2)], [5]), ValueError, "shape"),
])
def test_refusals(arguments, error, message):
    with pytest.raises(error, match=message):
        GaussianMixture(*arguments)


def test_estimate_refusals(rng):
    x = rng.standard_normal((10, 12))
    with pytest.raises(NotEnoughSamples, match="class 1 has 2"):
        ClassStatistics.estimate(x, [0] * 10 + [1] * 2)
    with pytest.raises(NotEnoughSamples, match="shrinkage"):
        GaussianMixture.estimate(x, [0] * 6 + [1] * 6)
    with pytest.raises(SingularCovariance):
        GaussianMixture.estimate(np.concatenate([np.zeros((1, 40)), rng.standard_normal((3, 40))]), [0] * 20 + [1] * 20)
    with pytest.raises(ValueError, match="label"):
        ClassStatistics.estimate(x, [0, 1])
    with pytest.raises(ValueError, match="shrinkage"):
        GaussianMixture.estimate(x, [0] * 6 + [1] * 6, shrinkage=2.0)


@pytest.mark.parametrize("sizes", [[1.5, 2.7], [3, np.inf], [np.nan, 2]])
def test_sizes_that_are_no_numbers_of_samples_are_refused(sizes):
    with pytest.raises(ValueError, match="whole numbers"):
        GaussianMixture(np.zeros((2, 3)), [1.0, 1.0], sizes)


def test_whole_sizes_of_any_type_and_masked_means():
    assert GaussianMixture(np.zeros((2, 3)), [1.0, 1.0], [4.0, np.int8(5)]).sizes.tolist() == [4, 5]
    with pytest.raises(ValueError, match="masked"):
        GaussianMixture(np.ma.masked_greater(np.ones((2, 3)), 0), [1.0, 1.0], [4, 5])
