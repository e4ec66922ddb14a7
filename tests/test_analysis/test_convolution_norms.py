"""Convolution norms: the chain of bounds, against the dense matrix."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from analysis import convolution_norms

F64 = torch.float64


@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 3), st.sampled_from([1, 3, 5]), st.sampled_from([1, 3]),
       st.integers(1, 7), st.integers(1, 7))
def test_chain_of_bounds(seed, out, into, kh, kw, height, width):
    kernel = torch.randn(out, into, kh, kw, dtype=F64, generator=torch.Generator().manual_seed(seed))
    found = convolution_norms(kernel, height, width)
    basis = torch.eye(into * height * width, dtype=F64).reshape(-1, into, height, width)
    dense = torch.nn.functional.conv2d(basis, kernel, padding=(kh // 2, kw // 2)).reshape(basis.shape[0], -1)
    assert found.operator == pytest.approx(float(torch.linalg.matrix_norm(dense, 2)), rel=1e-8)
    slack = 1 + 1e-12
    assert found.operator <= found.fourier * slack
    assert found.fourier <= found.shifts * slack
    assert found.shifts <= found.frobenius_bound * slack


def test_the_constant_kernel_of_frobenius_norm_below_one():
    found = convolution_norms(torch.full((1, 1, 5, 5), 0.18, dtype=F64), 32, 32)
    assert found.frobenius == pytest.approx(0.9)
    assert found.operator == pytest.approx(4.42, abs=5e-3)
    assert found.fourier == pytest.approx(4.5)


def test_zero_kernel_and_bad_input():
    assert convolution_norms(torch.zeros(2, 2, 3, 3, dtype=F64), 8, 8).operator == 0.0
    with pytest.raises(ValueError, match="float64"):
        convolution_norms(torch.zeros(1, 1, 3, 3), 8, 8)
    with pytest.raises(ValueError, match="odd"):
        convolution_norms(torch.zeros(1, 1, 2, 3, dtype=F64), 8, 8)
    with pytest.raises(ValueError, match="NaN"):
        convolution_norms(torch.full((1, 1, 3, 3), float("nan"), dtype=F64), 8, 8)
    with pytest.raises(ValueError, match="at least 1"):
        convolution_norms(torch.zeros(1, 1, 3, 3, dtype=F64), 0, 8)
