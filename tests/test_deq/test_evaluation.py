"""Estimators against closed forms: normalisers, Frechet distance, Langevin's stationary law, memory of a known
graph.
"""

import math

import pytest
import torch

import deq
from deq.evaluation import (
    FeatureClassifier,
    FeatureStatistics,
    GaussianBase,
    annealed_langevin,
    batch_moment_surrogate,
    fisher_divergence,
    frechet_distance,
    image_grid,
    importance_log_normalizer,
    inception_features,
    log_likelihood_bounds,
    log_normalizer,
    measure_step,
    peak_memory,
    save_image_grid,
)
from deq.evaluation.likelihood import score_matching_values
from deq.evaluation.normalizer import NormalizerEstimate, _Annealer

F64 = torch.float64


def test_gaussian_base_is_normalised(generator):
    base = GaussianBase(torch.tensor([1.0, -2.0], dtype=F64), torch.tensor([[0.5, 0.0], [0.3, 1.5]], dtype=F64))
    truth = torch.distributions.MultivariateNormal(base.mean, scale_tril=base.factor)
    x = base.sample(10, generator)
    torch.testing.assert_close(base.log_density(x), truth.log_prob(x))
    with pytest.raises(ValueError, match="rows"):
        GaussianBase.fit(torch.zeros(3, 3, dtype=F64))


def test_both_bounds_enclose_a_known_normaliser(generator):
    """A target with known Z: an anisotropic Gaussian with an offset of 3 nats, d = 20."""
    scale = torch.linspace(0.5, 1.5, 20, dtype=F64)
    truth = 3.0 + scale.log().sum().item() + 10 * math.log(2 * math.pi)
    samples = scale * torch.randn(48, 20, generator=generator, dtype=F64)
    estimate = log_normalizer(lambda x: 3.0 - 0.5 * (x / scale).square().sum(1), GaussianBase.isotropic(20, 2.0),
                              chains=48, temperatures=150, model_samples=samples, generator=generator)
    low, high = estimate.interval(0.999)  # wrong once in 1000 seeds at most; the seed is fixed by the test's name
    assert low <= truth <= high
    assert abs(estimate.gap) < 1.5
    assert 0.5 < estimate.acceptance <= 1


def test_bounds_agree_on_a_mixture_with_closed_form(generator):
    """Two unequal modes: 0.3 N(-2, 0.5^2) + 0.7 N(2, 1), times e^5, in one dimension."""
    weights, means, stds = (torch.tensor(v, dtype=F64) for v in ([0.3, 0.7], [-2.0, 2.0], [0.5, 1.0]))

    def log_density(x):
        parts = -0.5 * ((x - means) / stds) ** 2 - (stds * math.sqrt(2 * math.pi)).log() + weights.log()
        return 5.0 + torch.logsumexp(parts, 1)

    pick = torch.multinomial(weights, 200, replacement=True, generator=generator)
    samples = (means[pick] + stds[pick] * torch.randn(200, generator=generator, dtype=F64))[:, None]
    estimate = log_normalizer(log_density, GaussianBase.isotropic(1, 3.0), chains=200, temperatures=60,
                              model_samples=samples, generator=generator)
    low, high = estimate.interval(0.999)
    assert low <= 5.0 <= high
    assert abs(estimate.gap) < 0.5


def test_no_interval_without_exact_samples(generator):
    estimate = log_normalizer(lambda x: -0.5 * x.square().sum(1), GaussianBase.isotropic(2, 1.5), chains=8,
                              temperatures=5, generator=generator)
    with pytest.raises(ValueError, match="model_samples"):
        estimate.interval()
    with pytest.raises(ValueError, match="finite"):
        log_normalizer(lambda x: x.sum(1) / 0, GaussianBase.isotropic(2), chains=4, temperatures=3, generator=generator)
    with pytest.raises(ValueError, match="as many"):
        log_normalizer(lambda x: x.sum(1), GaussianBase.isotropic(2), model_samples=torch.zeros(3, 2))


def test_importance_sampling_knows_when_it_fails(generator):
    def quadratic(x):
        return -0.5 * x.square().sum(1)

    good = importance_log_normalizer(quadratic, GaussianBase.isotropic(3, 2.0), 20_000, generator=generator)
    # relative variance of the mean weight is (1.512^3 - 1) / 20000 = 1.2e-4: five standard deviations are 0.055
    assert abs(good.log_z - 1.5 * math.log(2 * math.pi)) < 0.055
    bad = importance_log_normalizer(quadratic, GaussianBase.isotropic(100, 2.0), 5_000, generator=generator)
    assert bad.effective_samples < 50
    assert bad.log_z < 50 * math.log(2 * math.pi) - 5


def test_likelihood_bounds_use_the_opposite_bound(generator):
    base = GaussianBase.isotropic(2, 1.5)
    estimate = log_normalizer(lambda x: -0.5 * x.square().sum(1), base, chains=8, temperatures=5, generator=generator)
    x = torch.randn(50, 2, generator=generator, dtype=F64)
    low, high = log_likelihood_bounds(lambda y: -0.5 * y.square().sum(1), x, estimate)
    assert high.value - low.value == pytest.approx(estimate.gap)


def test_fisher_divergence_of_two_gaussians(generator):
    x = torch.randn(4000, 5, generator=generator, dtype=F64)
    result = fisher_divergence(-x / 4, -x)
    # 0.5 (1 - 1/4)^2 |x|^2, mean 5, so 1.40625; five standard errors
    assert abs(result.value - 0.5 * 0.75**2 * 5) < 5 * result.error
    with pytest.raises(ValueError, match="shape"):
        fisher_divergence(x, x[:1])


def test_score_matching_values_against_the_objective(generator):
    torch.manual_seed(0)
    model = deq.models.NICE(6, 5, 3, 2, "deq", tol=1e-12).double()
    x = torch.randn(3, 6, generator=generator, dtype=F64)
    expected = deq.losses.score_matching(model.log_density, x, reduction="none")
    # the same derivatives by two routes: rounding of a few hundred operations
    torch.testing.assert_close(score_matching_values(model.log_density, x, chunk=4), expected.detach(), rtol=1e-10,
                               atol=1e-10)


def test_surrogate_is_zero_beyond_reconstruction_for_standard_moments():
    z = torch.tensor([[-1.0], [1.0]], dtype=F64) / math.sqrt(2)
    assert batch_moment_surrogate(torch.tensor([2.0, 4.0], dtype=F64), z) == pytest.approx(3.0)
    with pytest.raises(ValueError, match="two"):
        batch_moment_surrogate(torch.zeros(1), torch.zeros(1, 3))


def gaussian_statistics(mean, std):
    mean, std = torch.tensor(mean, dtype=F64), torch.tensor(std, dtype=F64)
    return FeatureStatistics(mean, torch.diag(std**2), 1000)


def test_frechet_distance_closed_form():
    """Diagonal covariances: |dmu|^2 + sum (s1 - s2)^2."""
    a, b = gaussian_statistics([0.0, 1.0], [1.0, 2.0]), gaussian_statistics([2.0, 1.0], [1.5, 1.0])
    assert frechet_distance(a, b) == pytest.approx(4 + 0.25 + 1)
    assert frechet_distance(a, b, scale_first=0.642, scale_second=0.642) == pytest.approx(4 + 0.642 * 1.25)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-12)
    one_sided = (1 - math.sqrt(0.642)) ** 2 * 5
    assert frechet_distance(a, a, scale_first=0.642) == pytest.approx(one_sided)
    with pytest.raises(ValueError, match="positive"):
        frechet_distance(a, b, scale_first=0)


def test_frechet_distance_of_rotated_covariances(generator):
    """Against tr (AB)^(1/2) from the eigenvalues of the product, which is not symmetric."""
    features = [torch.randn(200, 6, generator=generator, dtype=F64) @ torch.randn(6, 6, generator=generator, dtype=F64)
                for _ in range(2)]
    a, b = map(FeatureStatistics.of, features)
    eigenvalues = torch.linalg.eigvals(a.covariance @ b.covariance)
    cross = eigenvalues.sqrt().real.sum()
    expected = (a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace() - 2 * cross
    assert frechet_distance(a, b) == pytest.approx(expected.item(), rel=1e-9)
    assert not a.rank_deficient
    assert FeatureStatistics.of(features[0][:5]).rank_deficient


def test_classifier_features_separate_what_it_learned(generator):
    images = torch.zeros(64, 1, 8, 8)
    labels = torch.arange(64) % 2
    images[labels == 1] += 1.0
    images += 0.1 * torch.randn(images.shape, generator=generator)
    torch.manual_seed(0)
    model = FeatureClassifier(1, 2, width=4, features=8)
    assert model.fit(images, labels, epochs=10, batch=16, lr=1e-2, generator=generator) > 0.9
    zeros, ones = (FeatureStatistics.of(model.features(images[labels == k])) for k in (0, 1))
    halves = [FeatureStatistics.of(f) for f in model.features(images[labels == 0]).chunk(2)]
    assert frechet_distance(zeros, ones) > 10 * frechet_distance(*halves)


def test_missing_inception_says_what_to_do():
    with pytest.raises(ModuleNotFoundError, match="pytorch-fid"):
        inception_features(torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize("variant", ["standard", "released"])
def test_langevin_stationary_variance(variant, generator):
    r"""Score -x: x' = (1 - a) x + sqrt(2a) n has variance 2a / (1 - (1-a)^2) = 1 / (1 - a/2).

    The released recursion x' = (1 - 2a/3) x + sqrt(2a) (n_t - n_{t-1}/3) from its second step on: with c = 1 - 2a/3 the
    stationary variance is 2a (1 + 1/9 - 2c/3) / (1 - c^2), which tends to 2/3 as a tends to 0.
    """
    alpha, count = 0.05, 20_000
    x = annealed_langevin(lambda y, sigma: -y, torch.randn(count, 1, generator=generator, dtype=F64), torch.ones(1,
                          dtype=F64), step=alpha, steps_per_level=150, variant=variant, clamp=None, generator=generator)
    c = 1 - 2 * alpha / 3
    truth = 1 / (1 - alpha / 2) if variant == "standard" else 2 * alpha * (1 + 1 / 9 - 2 * c / 3) / (1 - c * c)
    # a sample variance of 20,000 normals has relative standard deviation 0.01; what is left of the start is below 1e-4
    assert float(x.var()) == pytest.approx(truth, rel=0.05)


def test_langevin_refuses_bad_input():
    with pytest.raises(ValueError, match="not known"):
        annealed_langevin(lambda x, s: x, torch.zeros(1, 1), torch.ones(1), variant="hamiltonian")
    with pytest.raises(ValueError, match="fall"):
        annealed_langevin(lambda x, s: x, torch.zeros(1, 1), torch.tensor([1.0, 2.0]))


def test_image_grid_places_every_image(tmp_path):
    images = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 1, 2, 2) / 4
    grid = image_grid(images, columns=2, padding=1)
    assert grid.shape == (3, 7, 7)
    assert grid[0, 1, 4] == 0.25
    assert grid[0, 4, 1] == 0.5
    assert grid[0, 4, 4] == 1.0
    save_image_grid(tmp_path / "grid.png", images)
    assert (tmp_path / "grid.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="images must be"):
        image_grid(torch.zeros(2, 2, 4, 4))


def test_peak_memory_of_a_known_sequence():
    """Two blocks of 8000 bytes live together, a third comes after the first is freed."""
    def step():
        a = torch.ones(1000, dtype=F64)
        b = a + 1
        del a
        return b * 2

    # scalar operands are tensors of 8 bytes of their own
    assert 16_000 <= peak_memory(step) <= 16_000 + 4 * 8


def test_views_and_in_place_operations_cost_nothing():
    def step():
        a = torch.zeros(100, dtype=F64)
        a.add_(1)
        a.view(10, 10).t()

    assert 800 <= peak_memory(step) <= 800 + 4 * 8


def test_deeper_graph_needs_more_memory():
    def step(depth):
        x = torch.ones(1000, dtype=F64, requires_grad=True)
        y = x
        for _ in range(depth):
            y = y.sin()
        y.sum().backward()

    # each sin keeps its input: ten more of them keep ten more blocks
    assert peak_memory(lambda: step(20)) - peak_memory(lambda: step(10)) == 10 * 8000
    cost = measure_step(lambda: step(3), repeats=3)
    assert cost.seconds_low <= cost.seconds <= cost.seconds_high


def test_leapfrog_keeps_the_energy_to_second_order():
    """For N(0, I) the energy error of small steps is of order step^2; a wrong kick makes it of order step."""
    base = GaussianBase.isotropic(8, 1.0)
    generator = torch.Generator().manual_seed(0)
    rates = []
    for step in (0.1, 0.05):
        annealer = _Annealer(base.log_density, base, 7, generator)
        rates.append(annealer.move(base.sample(4000, generator), 1.0, step)[1])
    # |change| <= step^2 / 4 times a sum over 8 coordinates of order one
    assert 1 - rates[0] < 0.1**2
    assert 1 - rates[1] < 0.05**2


def test_the_level_is_shared_by_both_sides():
    """Markov's inequality at (1 - level) / 2 on each side: log 40 for 95 percent."""
    weights = torch.zeros(3)
    estimate = NormalizerEstimate(1.0, 2.0, 3.0, 3.0, True, 1.0, 3, weights, weights)
    assert estimate.interval(0.95) == pytest.approx((1.0 - math.log(40), 2.0 + math.log(40)), rel=1e-12)
