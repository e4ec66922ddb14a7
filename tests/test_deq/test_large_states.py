"""Score, Hessian trace and score-matching gradient at spectral radius 0.9; dense and convolutional, n up to 4096."""

import pytest
import torch
from torch.nn import functional

import deq
from tests.strategies import Case
from tests.test_deq.test_equilibrium import attach, relative, score_matching


def reflection_case(n: int) -> Case:
    """W = 0.9 times a reflection (its norm without an SVD); bias 3 makes slopes near 1, so J has radius about 0.9."""
    generator = torch.Generator().manual_seed(n)
    axis = torch.randn(n, generator=generator, dtype=torch.float64)
    axis = axis / axis.norm()
    injection = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    bias = torch.full((n,), 3.0, dtype=torch.float64)
    x = torch.randn(1, 2, generator=generator, dtype=torch.float64)

    def f(z: torch.Tensor, x: torch.Tensor, v: torch.Tensor, u: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        reflected = z - 2 * (z @ v)[:, None] * v
        return functional.softplus(0.9 * reflected + x @ u.T + b)

    return Case(f"reflection n={n}", f, x, (axis, injection, bias), (n,), 0.9)


def shift_case(channels: int, size: int) -> Case:
    """A circular convolution that shifts and permutes channels: norm exactly 0.9."""
    generator = torch.Generator().manual_seed(channels)
    kernel = torch.zeros(channels, channels, 3, 3, dtype=torch.float64)
    kernel[torch.arange(channels), torch.randperm(channels, generator=generator), 0, 1] = 0.9
    injection = torch.randn(channels, 2, generator=generator, dtype=torch.float64)
    x = torch.randn(1, 2, generator=generator, dtype=torch.float64)

    def f(z: torch.Tensor, x: torch.Tensor, k: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        moved = functional.conv2d(functional.pad(z, (1, 1, 1, 1), mode="circular"), k)
        return functional.softplus(moved + (x @ u.T)[:, :, None, None] + 3)

    return Case(f"shift c={channels} size={size}", f, x, (kernel, injection), (channels, size, size), 0.9)


@pytest.mark.parametrize("case", [
    reflection_case(1), reflection_case(64), reflection_case(1024), reflection_case(4096),
    shift_case(4, 4), shift_case(64, 8),
], ids=repr)
def test_all_orders_at_radius_09(case: Case):
    z = case.unroll(case.x, *case.parameters).detach()
    radius = deq_radius(case, z)
    assert case.start()[0].numel() == 1 or 0.8 < radius < 0.92
    truth = score_matching(lambda x, p: case.unroll(x, *p), case)
    found = score_matching(lambda x, p: attach(case, x, p, deq.Exact(3)), case)
    for name, a, b in zip(("score", "trace", "parameter gradient"), found, truth, strict=True):
        assert relative(a, b) < 1e-9, name


def deq_radius(case: Case, z: torch.Tensor) -> float:
    """Growth rate of J^k v over 400 steps: the spectral radius."""
    def step(v: torch.Tensor) -> torch.Tensor:
        return torch.func.jvp(lambda z: case.f(z, case.x, *case.parameters), (z,), (v,))[1]

    v = torch.randn(z.shape, generator=torch.Generator().manual_seed(0), dtype=z.dtype)
    growth = 0.0
    for _ in range(400):
        v = step(v)
        norm = v.norm()
        growth, v = growth + float(norm.log()), v / norm
    return float(torch.tensor(growth / 400).exp())
