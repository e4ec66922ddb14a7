"""Power laws: recovered exactly, covered by their interval, refused where there is none."""

import numpy as np
import pytest

from analysis.rates import fit_rate


def test_exact_power_law():
    rate = fit_rate([10, 20, 40], 3.0 * np.array([10, 20, 40]) ** -0.5)
    assert rate.slope == pytest.approx(-0.5, abs=1e-12)
    assert rate.constant == pytest.approx(3.0, rel=1e-10)


def test_interval_covers_at_its_level(rng):
    sizes = np.array([50, 100, 200, 400])
    hits = 0
    for _ in range(400):
        errors = sizes[:, None] ** -0.5 * np.exp(0.2 * rng.standard_normal((4, 3)))
        rate = fit_rate(sizes, errors)
        hits += rate.low <= -0.5 <= rate.high
    # 400 draws at 95 %: mean 380, standard deviation 4.4; five of them either way
    assert 358 <= hits <= 400


@pytest.mark.parametrize(("sizes", "errors"), [([1, 2], [[1.0]]), ([1, 2], [1.0, 2.0]), ([1, 2, 3], [1.0, 0.0, 1.0])])
def test_refusals(sizes, errors):
    with pytest.raises(ValueError, match="errors"):
        fit_rate(sizes, errors)
