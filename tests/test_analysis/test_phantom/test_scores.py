"""Relative error and cosine, with zero vectors and extreme scales."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from analysis import score_error


@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 5), st.sampled_from([1e-200, 1.0, 1e200]))
def test_matches_the_definition_at_any_scale(seed, batch, d, scale):
    generator = torch.Generator().manual_seed(seed)
    exact, phantom = (torch.randn(batch, d, dtype=torch.float64, generator=generator) for _ in range(2))
    found = score_error(scale * exact, scale * phantom)
    for i in range(batch):
        relative = math.dist(exact[i], phantom[i]) / math.hypot(*exact[i])
        cosine = sum(a * b for a, b in zip(exact[i].tolist(), phantom[i].tolist(), strict=True)) / (
            math.hypot(*exact[i]) * math.hypot(*phantom[i]))
        assert float(found.relative[i]) == pytest.approx(relative, rel=1e-12)
        assert float(found.cosine[i]) == pytest.approx(cosine, abs=1e-14)
    assert bool(found.defined.all())


def test_zero_vectors():
    exact = torch.tensor([[0.0, 0.0], [0.0, 0.0], [3.0, 4.0]], dtype=torch.float64)
    phantom = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    found = score_error(exact, phantom)
    assert found.relative.tolist() == [0.0, math.inf, 1.0]
    assert float(found.cosine[0]) == 1.0
    assert found.cosine.isnan().tolist() == [False, True, True]
    assert found.defined.tolist() == [True, False, False]


def test_single_vector_and_float32():
    found = score_error(torch.ones(3), -torch.ones(3))
    assert found.relative.shape == ()
    assert float(found.cosine) == pytest.approx(-1.0)
    assert float(found.relative) == pytest.approx(2.0)


def test_bad_input_is_named():
    one = torch.ones(2, 3)
    with pytest.raises(ValueError, match="must agree"):
        score_error(one, one[:1])
    with pytest.raises(ValueError, match="must agree"):
        score_error(one, one.double())
    with pytest.raises(ValueError, match="phantom has NaN"):
        score_error(one, one * float("nan"))
    with pytest.raises(ValueError, match="floating point"):
        score_error(one.long(), one.long())
    with pytest.raises(TypeError, match="torch tensors"):
        score_error([1.0], one)
