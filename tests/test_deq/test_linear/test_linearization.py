import numpy as np
import pytest
import torch

from deq.linear.linearization import Linearization
from deq.linear.spectrum import arnoldi, dense_spectrum, largest_singular_value, numerical_radius

N = 9


@pytest.fixture
def weight():
    return torch.randn(N, N, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) / N**0.5


@pytest.fixture
def line(weight):
    z = torch.randn(2, N, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return Linearization(lambda z: torch.tanh(z @ weight.T), z)


def jacobian(line, weight):
    z = line.z.detach()
    return (1 - torch.tanh(z @ weight.T) ** 2)[:, :, None] * weight


def test_products_are_those_of_the_jacobian(line, weight):
    truth, v = jacobian(line, weight), torch.randn(2, N, dtype=torch.float64)
    assert torch.allclose(line.dense(), truth, rtol=0, atol=1e-14)
    assert torch.allclose(line.forward(v), torch.einsum("bij,bj->bi", truth, v), rtol=0, atol=1e-13)
    assert torch.allclose(line.transposed(v), torch.einsum("bij,bi->bj", truth, v), rtol=0, atol=1e-13)
    assert torch.allclose(line.difference(v), torch.einsum("bij,bj->bi", truth, v), rtol=0, atol=1e-8)


def test_solves_are_those_of_the_jacobian(line, weight):
    truth, c = torch.eye(N) - jacobian(line, weight), torch.randn(2, N, dtype=torch.float64)
    assert torch.allclose(line.solve(c, rtol=1e-12).value, torch.linalg.solve(truth, c), rtol=0, atol=1e-9)
    assert torch.allclose(line.adjoint(c, rtol=1e-12).value, torch.linalg.solve(truth.mT, c), rtol=0, atol=1e-9)


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return z.sin()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return g * ctx.saved_tensors[0].cos()


def test_forward_products_without_second_derivatives():
    z = torch.randn(2, 4, dtype=torch.float64)
    v = torch.randn(2, 4, dtype=torch.float64)
    assert torch.allclose(Linearization(Once.apply, z).forward(v), z.cos() * v, rtol=0, atol=1e-8)


def test_a_map_without_a_graph_says_so():
    line = Linearization(lambda z: z.detach() * 0.5, torch.ones(1, 3))
    assert not line.differentiable
    assert not bool(line.transposed(torch.ones(1, 3)).any())


def test_a_full_krylov_space_knows_all_eigenvalues(line, weight):
    truth = jacobian(line, weight)
    found = arnoldi(line.transposed, torch.ones(2, N, dtype=torch.float64), N)
    for row in range(2):
        exact = np.sort_complex(np.linalg.eigvals(truth[row].numpy()))
        assert np.allclose(np.sort_complex(found.values[row].numpy()), exact, atol=1e-9)
    assert torch.allclose(found.radius, dense_spectrum(truth).radius, atol=1e-9)
    assert bool((found.error < 1e-9).all())


def test_a_space_that_ends_early_is_no_failure():
    found = arnoldi(lambda v: 0.5 * v, torch.ones(1, 6, dtype=torch.float64), 5)
    assert float(found.radius[0]) == pytest.approx(0.5, abs=1e-14)
    assert float(arnoldi(torch.zeros_like, torch.ones(1, 6), 3).radius[0]) == 0


def test_norms(line, weight):
    truth = jacobian(line, weight)
    found = largest_singular_value(line.forward, line.transposed, torch.ones(2, N, dtype=torch.float64), N)
    assert torch.allclose(found, torch.linalg.matrix_norm(truth, 2), atol=1e-9)
    nilpotent = torch.tensor([[0.0, 2.0], [0.0, 0.0]], dtype=torch.float64)
    assert numerical_radius(nilpotent) == pytest.approx(1.0, rel=2e-3)  # |v^* A v| <= 1, spectral radius 0


def test_steps_must_be_positive():
    with pytest.raises(ValueError, match="at least 1"):
        arnoldi(lambda v: v, torch.ones(1, 2), 0)
