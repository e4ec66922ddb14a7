"""Roots, minimisers and the Jacobian penalty against closed forms."""

import pytest
import torch

import deq

D = torch.float64


def test_square_root_has_its_derivatives_to_third_order():
    a = torch.tensor([[2.0], [9.0]], dtype=D, requires_grad=True)
    z = deq.root(lambda z: z * z - a, torch.ones(2, 1, dtype=D), tol=1e-14)
    powers = [0.5 * a**-0.5, -0.25 * a**-1.5, 0.375 * a**-2.5]
    current = z
    for power in powers:
        (current,) = torch.autograd.grad(current.sum(), a, create_graph=True)
        assert torch.allclose(current, power, rtol=1e-10)


def test_parameters_need_not_be_leaves():
    theta = torch.tensor(1.5, dtype=D, requires_grad=True)
    scaled = theta**2
    z = deq.root(lambda z, x: z + 0.3 * torch.sin(z) - scaled * x, torch.zeros(3, 2, dtype=D),
                 inputs=(torch.linspace(0.1, 1.0, 6, dtype=D).reshape(3, 2),), tol=1e-13)
    (found,) = torch.autograd.grad(z.sum(), theta)
    x = torch.linspace(0.1, 1.0, 6, dtype=D).reshape(3, 2)
    expected = (2 * theta * x / (1 + 0.3 * torch.cos(z))).sum()
    assert torch.allclose(found, expected.detach(), rtol=1e-10)


def test_ridge_regression_is_an_argmin(generator):
    design = torch.randn(7, 4, generator=generator, dtype=D)
    target = torch.randn(3, 7, generator=generator, dtype=D, requires_grad=True)
    ridge = torch.tensor(0.4, dtype=D, requires_grad=True)

    def loss(z, y):
        return 0.5 * (z @ design.T - y).square().sum(1) + 0.5 * ridge * z.square().sum(1)

    z = deq.argmin(loss, torch.zeros(3, 4, dtype=D), inputs=(target,), tol=1e-13)
    closed = target @ design @ torch.linalg.inv(design.T @ design + ridge * torch.eye(4, dtype=D))
    assert torch.allclose(z, closed, atol=1e-11)
    weights = torch.randn(3, 4, generator=generator, dtype=D)
    for found, expected in zip(torch.autograd.grad((z * weights).sum(), (target, ridge), create_graph=True),
                               torch.autograd.grad((closed * weights).sum(), (target, ridge), create_graph=True),
                               strict=True):
        assert torch.allclose(found, expected, atol=1e-10)
        (second,) = torch.autograd.grad(found.sum(), ridge, retain_graph=True)
        (truth,) = torch.autograd.grad(expected.sum(), ridge, retain_graph=True)
        assert torch.allclose(second, truth, atol=1e-9)


def test_a_singular_root_and_wrong_shapes_are_refused():
    a = torch.zeros(1, 1, dtype=D, requires_grad=True)
    z = deq.root(lambda z: z**3 - a, torch.zeros(1, 1, dtype=D))
    with pytest.raises(deq.LinearSolveError):
        z.sum().backward()
    with pytest.raises(ValueError, match="shape of z"):
        deq.root(lambda z: z.sum(1), torch.zeros(2, 3, dtype=D))
    with pytest.raises(ValueError, match="one number a sample"):
        deq.argmin(lambda z: z.square().sum(), torch.zeros(2, 3, dtype=D))


def test_the_penalty_is_unbiased_and_has_a_gradient(generator):
    weight = torch.randn(5, 5, generator=generator, dtype=D, requires_grad=True)
    z = torch.zeros(4000, 5, dtype=D)
    penalty = deq.jacobian_penalty(lambda z: z @ weight.T, z, generator=generator)
    truth = weight.detach().square().sum() / 5
    # |J^T v|^2 has variance 2 |J J^T|_F^2 <= 2 |J|_F^4: six standard errors of the mean of 4000 draws
    assert abs(float(penalty.detach().mean() - truth)) < 6 * (2 / 4000) ** 0.5 * float(truth)
    (gradient,) = torch.autograd.grad(penalty.mean(), weight)
    assert float((gradient - 2 * weight / 5).detach().norm()) < 0.2 * float((2 * weight / 5).detach().norm())


@pytest.mark.parametrize(("f", "text"), [(lambda z: torch.zeros_like(z), "does not depend"),
                                         (lambda z: z.sum(1), "shape of z")])
def test_the_penalty_refuses_what_has_no_jacobian(f, text):
    with pytest.raises(ValueError, match=text):
        deq.jacobian_penalty(f, torch.zeros(2, 3, dtype=D))
    with pytest.raises(ValueError, match="at least 1"):
        deq.jacobian_penalty(lambda z: z, torch.zeros(2, 3, dtype=D), samples=0)
