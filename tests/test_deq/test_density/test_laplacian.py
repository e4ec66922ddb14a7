"""The implicit forward Laplacian against nested autograd through a long unroll."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import deq
from deq.density.jets import coordinate_jet, elementwise_derivatives, push_forward
from deq.density.laplacian import AffineStructure, affine_equilibrium_jet, equilibrium_jet
from tests.strategies import SMOOTH, Case, cases, dense_case

OPTIONS = {"tol": 2e-15, "max_iter": 1000, "on_failure": "ignore"}


def truth(case: Case) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """z, Dz [d, ...] and the Laplacian by the unroll, for one sample at a time."""
    def solve(x: torch.Tensor) -> torch.Tensor:
        return case.unroll(x[None], *case.parameters)[0]

    first = torch.stack([torch.autograd.functional.jacobian(solve, x) for x in case.x])
    first = first.reshape(len(case.x), *case.state_shape, -1).movedim(-1, 0)
    laplacian = []
    for x in case.x:
        hessian = torch.func.hessian(solve)(x)
        d = x.numel()
        laplacian.append(hessian.reshape(*case.state_shape, d, d).diagonal(dim1=-2, dim2=-1).sum(-1))
    return case.unroll(case.x, *case.parameters), first, torch.stack(laplacian)


@settings(max_examples=25)
@given(cases(max_contraction=0.7), st.sampled_from(["dense", "krylov"]))
def test_black_box_jet(case: Case, linear: str):
    jet, _ = equilibrium_jet(lambda z, x: case.f(z, x, *case.parameters), case.x, case.start(), linear=linear,
                             **OPTIONS)
    for found, expected in zip((jet.value, jet.first, jet.laplacian), truth(case), strict=True):
        # second order: eps / (1 - q)^3 < 1e-14 times sums over directions
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-11)


@given(st.integers(1, 9), st.integers(1, 4), st.floats(0.05, 0.7), st.sampled_from(sorted(SMOOTH)), st.integers(0, 999))
def test_affine_jet_equals_the_black_box(n: int, d: int, q: float, activation: str, seed: int):
    case = dense_case(n, d, 3, q, activation, seed)
    weight, injection, bias = case.parameters
    structure = AffineStructure(weight, injection, case.x @ injection.T + bias, SMOOTH[activation])
    fast, _ = affine_equilibrium_jet(structure, case.x, case.start(), **OPTIONS)
    general, _ = equilibrium_jet(lambda z, x: case.f(z, x, *case.parameters), case.x, case.start(), **OPTIONS)
    for name in ("value", "first", "laplacian"):
        torch.testing.assert_close(getattr(fast, name), getattr(general, name), rtol=1e-11, atol=1e-12)


def head(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    flat = z.flatten(1)
    y = x.flatten(1)
    return flat.sin().sum(1) + 0.1 * flat.square().sum(1) * y.cos().sum(1) - 0.5 * y.square().sum(1)


def cells() -> dict[str, tuple[nn.Module, torch.Tensor]]:
    torch.manual_seed(3)
    dense = deq.DenseCell(3, 6, margin=1.5).double()
    image = deq.ConvolutionCell(1, 2, activation=torch.tanh, margin=1.5).double()
    return {"affine": (dense, torch.randn(4, 3).double()), "convolution": (image, torch.randn(2, 1, 3, 3).double()),
            "black box": (nn.Module(), torch.randn(4, 3).double())}


@pytest.mark.parametrize("kind", ["affine", "convolution", "black box"])
def test_density_gives_the_exact_loss_gradient_in_one_backward_pass(kind: str):
    cell, x = cells()[kind]
    if kind == "black box":
        inner = cells()["affine"][0]
        cell.forward = lambda z, x: inner(z, x)
        cell.inner, cell.state_shape = inner, (6,)
    density = deq.EquilibriumDensity(deq.DEQ(cell, tol=2e-15, max_iter=1000, on_failure="ignore"), head)
    score, laplacian = density.score_and_laplacian(x)
    parameters = list(density.parameters())
    found = torch.autograd.grad((0.5 * score.flatten(1).square().sum(1) + laplacian).mean(), parameters)

    # Exact(3) with nested autograd: another mechanism, itself tested against the unroll.
    y = x.clone().requires_grad_()
    (nested,) = torch.autograd.grad(density(y).sum(), y, create_graph=True)
    flat = nested.flatten(1)
    trace = sum(torch.autograd.grad(flat[:, i].sum(), y, create_graph=True)[0].flatten(1)[:, i]
                for i in range(flat.shape[1]))
    expected = torch.autograd.grad((0.5 * flat.square().sum(1) + trace).mean(), parameters)
    torch.testing.assert_close(score, nested, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(laplacian, trace, rtol=1e-10, atol=1e-12)
    for a, b in zip(found, expected, strict=True):
        assert (a - b).norm() <= 1e-9 * b.norm()


@pytest.mark.parametrize("kind", ["affine", "convolution"])
def test_a_second_derivative_of_the_laplacian_raises(kind: str):
    cell, x = cells()[kind]
    density = deq.EquilibriumDensity(deq.DEQ(cell, tol=1e-12), head)
    score, _ = density.score_and_laplacian(x)
    parameters = list(density.parameters())
    gradients = torch.autograd.grad(score.square().sum(), parameters, create_graph=True)
    with pytest.raises(deq.DerivativeOrderError, match="order 2"):
        torch.autograd.grad(sum(g.square().sum() for g in gradients), parameters)


def test_jets_of_explicit_functions():
    x = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def function(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([(x[:, 0] * x[:, 1]).sin(), x[:, 2] ** 3], 1)

    jet = push_forward(function, coordinate_jet(x))
    p = x[:, 0] * x[:, 1]
    expected = torch.stack([-p.sin() * (x[:, 0] ** 2 + x[:, 1] ** 2), 6 * x[:, 2]], 1)
    torch.testing.assert_close(jet.laplacian, expected)
    composed = push_forward(lambda u: u.exp(), jet)
    direct = push_forward(lambda x: function(x).exp(), coordinate_jet(x))
    torch.testing.assert_close(composed.laplacian, direct.laplacian)


def test_silu_whose_second_forward_derivative_torch_lacks_outside_vmap():
    x = torch.linspace(-2, 2, 6, dtype=torch.float64).reshape(2, 3)
    jets = [equilibrium_jet(lambda z, x, phi=phi: 0.5 * phi(z + x), x, torch.zeros_like(x), tol=1e-14)[0]
            for phi in (nn.functional.silu, lambda h: h * torch.sigmoid(h))]
    torch.testing.assert_close(jets[0].laplacian, jets[1].laplacian, rtol=1e-11, atol=1e-13)


def test_elementwise_derivatives():
    h = torch.linspace(-3, 3, 7, dtype=torch.float64)
    value, first, second = elementwise_derivatives(torch.tanh, h)
    t = h.tanh()
    torch.testing.assert_close(value, t)
    torch.testing.assert_close(first, 1 - t**2)
    torch.testing.assert_close(second, -2 * t * (1 - t**2))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_compiled_map():
    """Jets are of the original code: what the compiler makes has no second derivative."""
    x, z0 = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3), torch.zeros(2, 3, dtype=torch.float64)

    def f(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(0.4 * z.flip(1) + x)

    torch.compiler.reset()
    found, _ = equilibrium_jet(torch.compile(f, backend="aot_eager"), x, z0, tol=1e-13)
    expected, _ = equilibrium_jet(f, x, z0, tol=1e-13)
    torch.testing.assert_close(found.first, expected.first, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(found.laplacian, expected.laplacian, rtol=1e-11, atol=1e-12)


def test_gradients_of_the_affine_jet_equal_those_of_an_unroll():
    """Of |Dz|^2 and of the Laplacian, in weight, injection and bias: nothing on the way may be held fixed."""
    case = dense_case(4, 3, 2, 0.6, "tanh", 5)
    parameters = [tensor.detach().clone().requires_grad_() for tensor in case.parameters]

    def unrolled(weight, injection, bias):
        def solve(x):
            z = torch.zeros(4, dtype=x.dtype)
            for _ in range(80):  # 0.6^80 < 1e-17
                z = torch.tanh(z @ weight.T + x @ injection.T + bias)
            return z

        first = torch.func.vmap(torch.func.jacrev(solve))(case.x)
        second = torch.func.vmap(torch.func.jacrev(torch.func.jacrev(solve)))(case.x)
        return first.square().sum(), second.diagonal(dim1=2, dim2=3).sum(-1).sin().sum()

    weight, injection, bias = parameters
    structure = AffineStructure(weight, injection, case.x @ injection.T + bias, torch.tanh)
    jet, _ = affine_equilibrium_jet(structure, case.x, torch.zeros(2, 4, dtype=torch.float64), **OPTIONS)
    for found, truth in zip((jet.first.square().sum(), jet.laplacian.sin().sum()), unrolled(*parameters), strict=True):
        torch.testing.assert_close(found, truth, rtol=1e-11, atol=0)
        gradients = torch.autograd.grad(found, parameters, retain_graph=True)
        for mine, right in zip(gradients, torch.autograd.grad(truth, parameters, retain_graph=True), strict=True):
            torch.testing.assert_close(mine, right, rtol=1e-9, atol=1e-10)
