"""Matrix-free spectral radius and norm against dense linear algebra."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from analysis import operator_norm, spectral_radius

F64 = torch.float64


def linear(matrix):
    return (lambda z, x: (matrix @ z.reshape(-1)).reshape(z.shape) + 0 * x.sum())


@given(st.integers(0, 10**6), st.sampled_from([1, 2, 5, 24, 25, 60]))
def test_random_matrices(seed, n):
    matrix = torch.randn(n, n, dtype=F64, generator=torch.Generator().manual_seed(seed))
    zero = torch.zeros(n, dtype=F64)
    radius, norm = spectral_radius(linear(matrix), zero, zero), operator_norm(linear(matrix), zero, zero)
    assert radius.converged
    assert norm.converged
    # ARPACK's tolerance 1e-8 times an eigenvalue condition of at most about 1e3 for these draws.
    assert radius.value == pytest.approx(float(torch.linalg.eigvals(matrix).abs().max()), rel=1e-5)
    assert norm.value == pytest.approx(float(torch.linalg.matrix_norm(matrix, 2)), rel=1e-8)
    assert norm.residual <= 1e-4 * norm.value


def test_complex_pair():
    # Rotations by one radian, scaled: every eigenvalue is complex.
    c, s = 0.9 * torch.cos(torch.tensor(1.0)), 0.9 * torch.sin(torch.tensor(1.0))
    block = torch.tensor([[c, -s], [s, c]], dtype=F64)
    matrix = torch.block_diag(block, *[0.3 * block] * 20)
    found = spectral_radius(linear(matrix), torch.zeros(1, dtype=F64), torch.zeros(42, dtype=F64))
    assert found.value == pytest.approx(0.9, rel=1e-6)
    assert found.residual <= 1e-6


@pytest.mark.parametrize("n", [3, 40])
def test_zero_and_nilpotent(n):
    zero = torch.zeros(n, dtype=F64)
    assert spectral_radius(linear(torch.zeros(n, n, dtype=F64)), zero, zero).value == 0.0
    assert operator_norm(linear(torch.zeros(n, n, dtype=F64)), zero, zero).value == 0.0
    rank_one = torch.zeros(n, n, dtype=F64)
    rank_one[0, -1] = 2.0
    assert spectral_radius(linear(rank_one), zero, zero).value <= 1e-6
    assert operator_norm(linear(rank_one), zero, zero).value == pytest.approx(2.0)


def test_shaped_state_and_bad_input():
    z = torch.zeros(1, 6, 6, dtype=F64)
    found = operator_norm(lambda z, x: torch.tanh(0.5 * z + x), torch.zeros(1, 6, 6, dtype=F64), z)
    assert found.value == pytest.approx(0.5)
    with pytest.raises(ValueError, match="float64"):
        operator_norm(lambda z, x: z, z.float(), z.float())
    with pytest.raises(ValueError, match="NaN"):
        spectral_radius(lambda z, x: z, z, z * float("nan"))
    with pytest.raises(ValueError, match="z's shape"):
        spectral_radius(lambda z, x: z[:, :2], z, z)
