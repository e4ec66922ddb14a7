"""The audit's arithmetic against independent routes."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from analysis import audit
from verification.experiments.iteration_cost import FlopCounter, vae_iteration_flops


@pytest.mark.parametrize("dim", [1, 7, 100])
def test_entropy_and_its_error_against_scipy(dim):
    law = stats.multivariate_normal(np.zeros(dim))
    assert audit.entropy_log_likelihood(dim) == pytest.approx(-law.entropy())
    # log p = const - chi^2_d / 2
    assert audit.log_likelihood_error(dim, rows=1) == pytest.approx(stats.chi2(dim).std() / 2)


def test_identity_gap_of_a_perfect_model_is_zero():
    assert audit.identity_gap(audit.GaussianRow(100, "perfect", -50.0, -141.89, 0.0)) == 0


def test_simulated_gap_is_unbiased_and_within_the_scale(rng):
    eigenvalues = np.linspace(-0.3, 0.3, 10)
    gaps = audit.simulate_identity_gap(10, eigenvalues, 200, 300, rng)
    assert abs(gaps.mean()) < 5 * gaps.std(ddof=1) / math.sqrt(len(gaps))
    row = audit.GaussianRow(10, "linear", 0, 0, float(0.5 * np.square(eigenvalues).sum()))
    assert gaps.std() < audit.identity_gap_scale(row, 200)


def test_importance_sampling_is_right_where_it_can_be(rng):
    runs = audit.importance_sampling_runs(3, 100_000, 5, rng)
    # relative standard deviation of the mean weight: sqrt((1.512^3 - 1) / 100000) = 0.005
    assert np.abs(runs.errors).max() < 5 * 0.005
    assert runs.effective.min() > 0.9 * 100_000 / 1.512**3


def test_importance_weights_match_a_direct_draw(rng):
    """One chi-square draw a weight, or d normals: the same law of weights (two-sample Kolmogorov-Smirnov)."""
    x = 2 * rng.standard_normal((4000, 6))
    direct = -0.5 * (x**2).sum(1) + (x**2).sum(1) / 8 + 6 * math.log(2)
    short = -1.5 * rng.chisquare(6, 4000) + 6 * math.log(2)
    assert stats.ks_2samp(direct, short).pvalue > 1e-4


def test_dkef_count_by_hand():
    # d = 2, 2 layers of width 3, 1 kernel, 4 points: (6+3) + (9+3) + skip 6, logit, length scale, points 8, ridge 1
    assert audit.dkef_parameters(2, 2, 3, 4, kernels=1) == 9 + 12 + 6 + 2 + 8 + 1
    assert audit.dkef_parameters(15, 3, 32, 64) == 10_279
    assert (32, 64) in audit.matching_configurations(15, 3, 10, range(30, 34), range(60, 70))


def test_chance_of_equal_rows_without_noise_is_one(rng):
    assert audit.chance_of_equal_rows((0.0, 0.0), 0.1, 3, 1000, rng) == 1
    # far wider than the resolution: about resolution / (sqrt(4 pi) sd) = 0.1 / (3.545 * 5)
    chance = audit.chance_of_equal_rows((5.0,), 0.1, 1, 200_000, rng)
    assert chance == pytest.approx(0.1 / (math.sqrt(4 * math.pi) * 5), rel=0.15)


def test_flops_scale_with_the_batch_and_refuse_equilibria():
    one, two = (vae_iteration_flops("base", image_size=16, channels=2, batch=b) for b in (1, 2))
    assert two == 2 * one
    with pytest.raises(ValueError, match="convergence"):
        vae_iteration_flops("deq")


def test_flop_counter_counts_a_matrix_product():
    with FlopCounter() as counter:
        torch.ones(3, 4) @ torch.ones(4, 5)
    assert counter.total == 2 * 3 * 4 * 5
