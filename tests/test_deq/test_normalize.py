"""The normalisations hold their promise: operator norms by dense SVD of the whole linear map."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import deq
from deq.normalize import operator_norm_bound


def dense_norm(module: nn.Module, shape: tuple[int, ...]) -> float:
    """2-norm of the module's linear part on inputs [1, *shape], from its full matrix."""
    matrix = torch.autograd.functional.jacobian(lambda x: module(x[None])[0], torch.zeros(shape, dtype=torch.float64))
    size = torch.Size(shape).numel()
    return float(torch.linalg.matrix_norm(matrix.reshape(-1, size), 2))


@given(st.integers(1, 3), st.integers(1, 3), st.sampled_from([1, 2, 3, 5]), st.integers(1, 2), st.integers(1, 2),
       st.sampled_from(["zeros", "circular"]), st.booleans(), st.floats(1.01, 4), st.integers(0, 99))
@settings(max_examples=15)
def test_convolution_bound_is_valid(
        out_channels, in_channels, kernel, stride, dilation, padding, grouped, margin, seed):
    torch.manual_seed(seed)
    groups = 2 if grouped else 1
    conv = nn.Conv2d(groups * in_channels, groups * out_channels, kernel, stride=stride, dilation=dilation,
                     padding=dilation * (kernel - 1) // 2, padding_mode=padding, groups=groups, bias=False).double()
    if seed % 3 == 0:
        nn.init.constant_(conv.weight, 0.1)  # the worst case for Frobenius
    deq.operator_normalize(conv, "weight", margin)
    assert dense_norm(conv, (groups * in_channels, 6, 5)) < 1 / margin


def test_transposed_convolution_bound_is_valid():
    torch.manual_seed(0)
    conv = nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2, bias=False).double()
    deq.operator_normalize(conv, "weight", 1.2)
    assert dense_norm(conv, (4, 5, 5)) < 1 / 1.2


@given(st.integers(1, 9), st.integers(1, 9), st.floats(1.01, 3))
def test_dense_bounds(rows: int, columns: int, margin: float):
    torch.manual_seed(rows * 10 + columns)
    frobenius = deq.frobenius_normalize(nn.Linear(columns, rows).double(), "weight", margin)
    operator = deq.operator_normalize(nn.Linear(columns, rows).double(), "weight", margin)
    assert torch.linalg.vector_norm(frobenius.weight) < 1 / margin
    norm = torch.linalg.matrix_norm(operator.weight, 2)
    assert 0.99 / margin < norm < 1 / margin  # exact up to eps = 1e-6, so no contraction is given away


def test_frobenius_does_not_bound_a_convolution():
    """The classical counterexample: |k|_F < 1 with an operator norm above 4."""
    conv = nn.Conv2d(1, 1, 5, padding=2, bias=False).double()
    nn.init.constant_(conv.weight, 1.0)
    deq.frobenius_normalize(conv, "weight", 1 / 0.9)
    assert float(torch.linalg.vector_norm(conv.weight.detach())) < 0.9001
    assert dense_norm(conv, (1, 32, 32)) > 4.4


def test_gradient_flows_through_the_normaliser():
    layer = deq.frobenius_normalize(nn.Linear(3, 3, bias=False).double(), "weight", 2.0)
    raw = layer.parametrizations.weight.original
    assert torch.autograd.gradcheck(lambda w: layer.parametrizations.weight[0](w), raw)
    conv = deq.operator_normalize(nn.Conv2d(2, 2, 3, bias=False).double(), "weight", 2.0)
    assert torch.autograd.gradcheck(lambda w: conv.parametrizations.weight[0](w), conv.parametrizations.weight.original)


def test_refusals():
    with pytest.raises(ValueError, match="no parameter named 'wight'"):
        deq.frobenius_normalize(nn.Linear(2, 2), "wight", 2.0)
    with pytest.raises(ValueError, match="margin"):
        deq.operator_normalize(nn.Linear(2, 2), "weight", 1.0)
    with pytest.raises(ValueError, match="reflect"):
        deq.operator_normalize(nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"), "weight", 2.0)
    with pytest.raises(ValueError, match="twice"):  # found by the property test above: norm 4/3 of the bound
        deq.operator_normalize(nn.Conv2d(1, 1, 2, padding=1, padding_mode="circular"), "weight", 2.0)
    with pytest.raises(TypeError, match="LayerNorm"):
        deq.operator_normalize(nn.LayerNorm(3), "weight", 2.0)


@pytest.mark.parametrize("weight", [[[3.0], [1.0]], [[3.0, 1.0]], [[3.0, 0.0], [0.0, 1.0]]])
def test_schur_bound_takes_the_largest_row_and_column(weight: list[list[float]]):
    """Kernels of one pixel: the map is the matrix itself, and its norm is known."""
    matrix = torch.tensor(weight, dtype=torch.float64)
    rows, columns = matrix.shape
    conv = nn.Conv1d(columns, rows, 1, bias=False).double()
    bound = float(operator_norm_bound(conv, matrix[:, :, None]))
    assert bound == pytest.approx(float(torch.linalg.matrix_norm(matrix, 2)), rel=1e-14)
    # Two shifts of it, side by side on the circle: the sum of shifts is 2 |W| and exact, Schur's is at least that.
    double = float(operator_norm_bound(nn.Conv1d(columns, rows, 2).double(), matrix[:, :, None].expand(-1, -1, 2)))
    assert double >= 2 * float(torch.linalg.matrix_norm(matrix, 2)) * (1 - 1e-14)


def test_the_bound_of_groups_is_that_of_the_largest():
    conv = nn.Conv1d(2, 2, 1, groups=2, bias=False).double()
    assert float(operator_norm_bound(conv, torch.tensor([[[3.0]], [[1.0]]], dtype=torch.float64))) == 3.0
