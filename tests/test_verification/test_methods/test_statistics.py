"""Tests against closed forms and tables."""

import math

import numpy as np
import pytest
from scipy import stats

from verification.evidence import Outcome
from verification.methods.statistics import equivalence, holm, paired_accuracy, power


def test_holm_steps_down_and_stops():
    assert holm([0.01, 0.04, 0.03, 0.005]) == [True, False, False, True]
    assert holm([0.2, 0.0125, 0.0166]) == [False, True, True]
    assert holm([math.nan, 0.001]) == [False, True]
    assert holm([]) == []


def test_holm_keeps_the_false_alarm_rate():
    rng = np.random.default_rng(0)
    alarms = sum(any(holm(list(rng.uniform(size=5)))) for _ in range(4000))
    # binomial, 4000 trials at 0.05: five standard deviations are 69
    assert alarms <= 200 + 69


def test_mcnemar_is_the_exact_sign_test_of_discordant_images():
    first = np.array([1] * 90 + [1] * 8 + [0] * 1 + [0] * 1, dtype=bool)
    second = np.array([1] * 90 + [0] * 8 + [1] * 1 + [0] * 1, dtype=bool)
    found = paired_accuracy(first, second)
    assert (found.first_only, found.second_only) == (8, 1)
    # two-sided binomial: 2 (1 + 9) / 2^9
    assert found.chance == pytest.approx(20 / 512)
    assert found.difference == pytest.approx(0.07)
    # paired variance (n10 + n01 - (n10 - n01)^2 / n) / (n - 1), the classical formula
    error = math.sqrt((9 - 49 / 100) / 99 / 100)
    assert found.half_width == pytest.approx(stats.norm.ppf(0.975) * error)


def test_seeds_on_the_same_images_are_no_new_images():
    rng = np.random.default_rng(1)
    first, second = rng.random(400) < 0.9, rng.random(400) < 0.9
    one = paired_accuracy(first, second)
    same = paired_accuracy(np.stack([first] * 5), np.stack([second] * 5))
    assert same.half_width == pytest.approx(one.half_width)
    with pytest.raises(ValueError, match="not paired"):
        paired_accuracy(first, second[:-1])


@pytest.mark.parametrize(("difference", "half", "outcome"), [
    (0.0, 0.5, Outcome.HOLDS), (0.6, 0.5, Outcome.FAILS), (0.4, 0.7, Outcome.UNKNOWN), (-3.0, 1.0, Outcome.FAILS),
    (math.nan, 0.1, Outcome.UNKNOWN), (0.0, math.nan, Outcome.UNKNOWN)])
def test_equivalence_needs_the_whole_interval_inside(difference, half, outcome):
    assert equivalence(difference, half, 1.0) is outcome


def test_power_is_what_simulation_says():
    rng = np.random.default_rng(2)
    margin, error = 1.0, 0.3
    half = stats.norm.ppf(0.975) * error
    held = np.mean(np.abs(rng.normal(0, error, 20_000)) + half <= margin)
    # standard error of a share over 20,000 draws is below 0.0036
    assert power(half, margin) == pytest.approx(held, abs=5 * 0.0036)
    assert power(2.0, margin) == 0.0
