"""The authors' sampling scheme approaches the exact kernel as draws grow, and counts its work."""

import numpy as np
import pytest

import analysis
from analysis.kernels.sampling import sampled_kernel


def test_error_falls_with_draws_and_work_is_counted(rng):
    x = rng.standard_normal((20, 6)) / np.sqrt(20)
    exact = analysis.deq_kernels(x, "tanh", 0.3).ck
    few, many = (sampled_kernel(x, np.tanh, 0.3, rng, width=100, draws=draws) for draws in (4, 100))
    assert np.linalg.norm(many.ck - exact) < np.linalg.norm(few.ck - exact)
    # entries have variance of about 2/width a draw; 100 draws and a finite-width bias of order 1/width
    assert np.abs(many.ck - exact).max() < 5 * np.sqrt(2 / 100 / 100) + 3 / 100
    assert many.full_draws == 4
    assert many.full_seconds == pytest.approx(many.seconds * 4 / 100)
    assert many.steps >= 100
    assert many.unfinished == 0


def test_the_whole_scheme_and_the_step_cap(rng):
    x = rng.standard_normal((20, 3)) / np.sqrt(20)
    found = sampled_kernel(x, np.tanh, 0.3, rng, width=100, most_steps=2)
    assert found.draws == found.full_draws == 4
    assert found.unfinished == 4
    with pytest.raises(ValueError, match="draws"):
        sampled_kernel(x, np.tanh, 0.3, rng, draws=0)
