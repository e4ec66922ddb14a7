"""The DEQ module: wiring, warm start, state that survives a checkpoint, and training."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

import deq


def layer(**options) -> deq.DEQ:
    torch.manual_seed(0)
    return deq.DEQ(deq.DenseCell(3, 5).double(), tol=1e-10, **options)


def test_output_is_the_equilibrium_and_last_is_kept(generator: torch.Generator):
    module, x = layer(), torch.randn(4, 3, generator=generator, dtype=torch.float64)
    assert module.last is None
    z = module(x)
    torch.testing.assert_close(module.cell(z, x), z, rtol=1e-9, atol=1e-9)
    assert module.last.converged.all()
    assert not module.last.z.requires_grad
    assert z.requires_grad


def test_reuse_starts_at_the_last_solution(generator: torch.Generator):
    module, x = layer(reuse=True), torch.randn(4, 3, generator=generator, dtype=torch.float64)
    module(x)
    cold = int(module.last.iterations.max())
    module(x)
    assert int(module.last.iterations.max()) == 0 < cold
    module(x[:2])  # another batch size: a fresh start, no error
    assert module.last.converged.all()


def test_state_survives_state_dict(tmp_path: Path, generator: torch.Generator):
    module, x = layer(reuse=True), torch.randn(4, 3, generator=generator, dtype=torch.float64)
    module(x)
    torch.save(module.state_dict(), tmp_path / "layer.pt")
    twin = layer(reuse=True)
    twin.load_state_dict(torch.load(tmp_path / "layer.pt", weights_only=True))
    twin(x)
    assert int(twin.last.iterations.max()) == 0


def test_explicit_start_and_cell_without_state_shape(generator: torch.Generator):
    x = torch.randn(2, 1, 4, 4, generator=generator, dtype=torch.float64)
    convolution = deq.DEQ(deq.ConvolutionCell(1, 3).double(), tol=1e-11)
    a, b = convolution(x), convolution(x, z0=torch.ones(2, 3, 4, 4, dtype=torch.float64))
    torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)
    plain = deq.DEQ(lambda z, x: torch.tanh(z / 2 + x), tol=1e-11)
    assert plain(x).shape == x.shape


def test_parameters_train_to_a_known_target(generator: torch.Generator):
    """With exact gradients a one-unit DEQ z = w z + x / 2 learns the factor 1 / (2 (1 - w)) = 2, so w = 3/4."""
    weight = nn.Parameter(torch.zeros((), dtype=torch.float64))
    module = deq.DEQ(lambda z, x: weight * z + x / 2, gradient=deq.Exact(1), tol=1e-12)
    optimiser = torch.optim.Adam([weight], lr=0.02)
    x = torch.randn(16, 1, generator=generator, dtype=torch.float64)
    for _ in range(800):
        optimiser.zero_grad()
        (module(x) - 2 * x).square().mean().backward()
        optimiser.step()
    assert float(weight.detach()) == pytest.approx(0.75, abs=1e-3)


def test_copies_and_prints(generator: torch.Generator):
    module, x = layer(reuse=True), torch.randn(4, 3, generator=generator, dtype=torch.float64)
    module(x)
    twin = copy.deepcopy(module)
    torch.testing.assert_close(twin(x), module(x))
    assert "Exact(order=3" in repr(module)


def test_failure_policy_reaches_the_solver():
    module = deq.DEQ(lambda z, x: 3 * z + x, solver="picard", max_iter=10)
    with pytest.raises(deq.NotConverged):
        module(torch.ones(1, 2))
    quiet = deq.DEQ(lambda z, x: 3 * z + x, solver="picard", max_iter=10, on_failure="ignore")
    quiet(torch.ones(1, 2))
    assert not quiet.last.converged.any()


def test_a_failed_sample_leaves_no_start_behind(generator: torch.Generator):
    module = layer(reuse=True)
    x = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    truth = module(x).detach()
    module._previous[1] = torch.nan  # what a failed solve leaves
    torch.testing.assert_close(module(x).detach(), truth, rtol=0, atol=1e-4)  # both within tol of the equilibrium
    assert bool(module.last.converged.all())
