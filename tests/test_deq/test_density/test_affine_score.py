"""The lean affine path against nested autograd through a long unroll and against the black-box forward Laplacian."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import deq
from deq.density.affine import AffineStructure, factorise_affine
from deq.density.affine_score import affine_score_and_laplacian
from tests.strategies import SMOOTH, Case, dense_case

OPTIONS = {"tol": 2e-15, "max_iter": 1000, "on_failure": "ignore"}


def separable(amplitude: torch.Tensor) -> deq.SeparableHead:
    return deq.SeparableHead(lambda z: (amplitude * z).sin() + 0.1 * z**2, lambda x: -0.5 * x**2 + x.cos())


def general(amplitude: torch.Tensor):
    return lambda z, x: (z @ amplitude).sin() + 0.1 * z.square().sum(1) * x.cos().sum(1) - 0.5 * x.square().sum(1)


def structure_of(case: Case, activation, x: torch.Tensor, parameters) -> AffineStructure:
    weight, injection, bias = parameters
    return AffineStructure(weight, injection, x @ injection.T + bias, activation)


def loss_gradients(score, laplacian, parameters):
    return torch.autograd.grad((0.5 * score.square().sum(1) + laplacian).mean(), parameters)


@given(st.integers(1, 9), st.integers(1, 4), st.floats(0.05, 0.8), st.sampled_from(sorted(SMOOTH)),
       st.sampled_from([separable, general]), st.integers(0, 999))
def test_loss_and_gradient_equal_the_unroll(n: int, d: int, q: float, activation: str, make_head, seed: int):
    case = dense_case(n, d, 3, q, activation, seed)
    x = case.x.clone().requires_grad_()
    amplitude = torch.linspace(0.5, 1.5, n, dtype=torch.float64, requires_grad=True)
    parameters = [p.clone().requires_grad_() for p in case.parameters]
    wanted = [*parameters, amplitude, x]
    head = make_head(amplitude)

    structure = structure_of(case, SMOOTH[activation], x, parameters)
    score, laplacian, _ = affine_score_and_laplacian(structure, head, x, case.start(), **OPTIONS)
    found = loss_gradients(score, laplacian, wanted)

    (truth,) = torch.autograd.grad(head(case.unroll(x, *parameters), x).sum(), x, create_graph=True)
    trace = sum(torch.autograd.grad(truth[:, i].sum(), x, create_graph=True)[0][:, i] for i in range(d))
    expected = loss_gradients(truth, trace, wanted)
    # third order: eps / (1 - q)^4 is 1.4e-13 at q = 0.8; sums over d directions and n units give the rest
    torch.testing.assert_close(score, truth, rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(laplacian, trace, rtol=1e-10, atol=1e-11)
    for a, b in zip(found, expected, strict=True):
        assert (a - b).norm() <= 1e-10 * (1 + b.norm())


def test_saturated_units_take_the_product_instead_of_the_division():
    """Slopes far below the limit of the division (tanh at pre-activations near 9: slope 1e-7)."""
    case = dense_case(6, 2, 3, 0.7, "tanh", 5)
    weight, injection, bias = (p.clone().requires_grad_() for p in case.parameters)
    shifted = (weight, injection, bias + 9 * torch.tensor([1.0, -1, 0, 1, 0, 0], dtype=torch.float64))
    amplitude = torch.ones(6, dtype=torch.float64)
    structure = structure_of(case, torch.tanh, case.x, shifted)
    score, laplacian, _ = affine_score_and_laplacian(structure, separable(amplitude), case.x, case.start(), **OPTIONS)
    found = loss_gradients(score, laplacian, [weight, injection, bias])
    x = case.x.clone().requires_grad_()
    (truth,) = torch.autograd.grad(separable(amplitude)(case.unroll(x, *shifted), x).sum(), x, create_graph=True)
    trace = sum(torch.autograd.grad(truth[:, i].sum(), x, create_graph=True)[0][:, i] for i in range(2))
    for a, b in zip(found, loss_gradients(truth, trace, [weight, injection, bias]), strict=True):
        assert (a - b).norm() <= 1e-10 * (1 + b.norm())


def density(gradient: deq.GradientRule, seed: int = 3) -> tuple[deq.EquilibriumDensity, torch.Tensor]:
    torch.manual_seed(seed)
    cell = deq.DenseCell(3, 6, margin=1.5).double()
    layer = deq.DEQ(cell, gradient=gradient, tol=2e-15, max_iter=1000, on_failure="ignore")
    return deq.EquilibriumDensity(layer, separable(torch.ones(6).double())), torch.randn(4, 3).double()


def test_score_matching_takes_the_forward_laplacian_by_itself(monkeypatch: pytest.MonkeyPatch):
    model, x = density(deq.Exact(3))
    calls = []
    original = type(model).score_and_laplacian
    monkeypatch.setattr(type(model), "score_and_laplacian", lambda self, x: calls.append(1) or original(self, x))
    fast = deq.losses.score_matching(model, x)
    assert len(calls) == 1
    slow = deq.losses.score_matching(model, x, mode="reverse")
    assert len(calls) == 1
    parameters = list(model.parameters())
    for a, b in zip(torch.autograd.grad(fast, parameters), torch.autograd.grad(slow, parameters), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_score_matching_keeps_an_approximate_rule():
    model, x = density(deq.Phantom(2))
    found = deq.losses.score_matching(model, x)
    torch.testing.assert_close(found, deq.losses.score_matching(model, x, mode="reverse"), rtol=1e-12, atol=0)
    assert abs((found - deq.losses.score_matching(model, x, mode="laplacian")).item()) > 1e-6


def test_mode_laplacian_of_any_density():
    # score 2 x, Laplacian 2 d: half of 4 * 3, and 6
    assert deq.losses.score_matching(lambda x: x.square().sum(1), torch.ones(2, 3), mode="laplacian").item() == 12.0


def test_a_second_derivative_raises():
    model, x = density(deq.Exact(3))
    x = x.requires_grad_()
    score, laplacian = model.score_and_laplacian(x)
    (gradient,) = torch.autograd.grad(score.square().sum() + laplacian.sum(), x, create_graph=True)
    with pytest.raises(deq.DerivativeOrderError, match="order 2"):
        gradient.sum().backward()


def test_a_singular_system_is_named():
    slope = torch.ones(3, 2, dtype=torch.float64)
    slope[1] = torch.tensor([0.5, 2.0])
    weight = torch.tensor([[2.0, 0.0], [1.0, 0.1]], dtype=torch.float64)  # 1 - 2 * 0.5 = 0 for sample 1
    with pytest.raises(deq.LinearSolveError, match=r"1 of 3 samples \(first: sample 1, "):
        factorise_affine(weight, slope)
    slope[1] = torch.nan  # a sample whose solve failed was reported there
    factorise_affine(weight, slope)


def test_where_the_shared_jacobian_fails_the_solver_of_the_layer_takes_over(seed: int):
    """Slopes 0 and 1 within a batch: the mean Jacobian fits no sample, and W contracts only by its spectral radius."""
    weight = torch.tensor([[0.0, 30.0], [0.0, 0.0]], dtype=torch.float64)
    x = torch.tensor([[-20.0, 3.0], [20.0, 25.0], [25.0, -9.0]], dtype=torch.float64)
    structure = AffineStructure(weight, torch.eye(2, dtype=torch.float64), x, nn.functional.softplus)
    head = deq.SeparableHead(lambda z: z)
    score, _, solution = affine_score_and_laplacian(structure, head, x, torch.zeros_like(x), tol=1e-12)
    assert bool(solution.converged.all())
    h1 = x[:, 1]  # z2 = softplus(x2), z1 = softplus(30 z2 + x1) in closed form
    h0 = 30 * nn.functional.softplus(h1) + x[:, 0]
    s0, s1 = torch.sigmoid(h0), torch.sigmoid(h1)
    torch.testing.assert_close(score, torch.stack([s0, s1 + 30 * s0 * s1], 1), rtol=1e-8, atol=0)


def test_float32():
    case = dense_case(8, 3, 5, 0.8, "softplus", 4)
    results = []
    for dtype in (torch.float32, torch.float64):
        x, *parameters = (t.to(dtype) for t in (case.x, *case.parameters))
        structure = structure_of(case, SMOOTH["softplus"], x, parameters)
        score, laplacian, _ = affine_score_and_laplacian(structure, separable(torch.ones(8, dtype=dtype)), x,
                                                         case.start().to(dtype), tol=2e-6, on_failure="ignore")
        results.append(torch.cat([score, laplacian[:, None]], 1))
    assert results[0].dtype == torch.float32
    # solver tolerance 2e-6 amplified by 1 / (1 - q)^2 = 25 and sums of 3 terms
    assert float((results[0].double() - results[1]).norm()) <= 2e-4 * float(results[1].norm())
