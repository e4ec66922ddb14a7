"""The engines behind the loss-error claims: the small trained model and the scalar rates."""

import numpy as np
import pytest
import torch

import deq
from verification.experiments.small_trained import (
    CENTRES,
    WIDTHS,
    _batch_loss,
    draw_mixture,
    loss_values,
    mixture_score,
    train_small,
)
from verification.methods.scalar_rates import error_ratios


def test_training_lowers_the_loss_and_leaves_equilibria():
    trained = train_small(np.random.default_rng(0), steps=25)
    assert np.mean(trained.losses[-5:]) < np.mean(trained.losses[:5])
    gaps = torch.stack([trained.model.step(z, x) - z for x, z in zip(trained.inputs, trained.equilibria, strict=True)])
    assert float(gaps.abs().max()) < 1e-12
    assert float(torch.linalg.matrix_norm(trained.model.weight, 2)) <= 0.9 + 1e-12


def test_the_training_loss_and_its_gradient_are_those_of_autograd():
    trained = train_small(np.random.default_rng(1), steps=3)
    values = [loss_values(trained.model, x, z, deq.Exact(order=3))
              for x, z in zip(trained.inputs[:3], trained.equilibria[:3], strict=True)]
    model = trained.model
    leaves = [t.clone().requires_grad_() for t in (model.weight, model.inputs, model.bias, model.linear)]
    loss = _batch_loss(type(model)(*leaves, model.activation, model.quadratic, model.base_width), trained.inputs[:3])
    assert float(loss.detach()) == pytest.approx(np.mean([item.loss for item in values]), rel=1e-9)
    gradient = torch.cat([part.flatten() for part in torch.autograd.grad(loss, leaves)])
    torch.testing.assert_close(gradient, torch.stack([item.gradient for item in values]).mean(0), rtol=1e-8, atol=1e-9)


def test_mixture_score_is_the_gradient_of_its_density():
    x = draw_mixture(np.random.default_rng(2), 20).requires_grad_()
    variances = torch.tensor(WIDTHS, dtype=torch.float64) ** 2
    gaps = (x[:, None, :] - torch.tensor(CENTRES, dtype=torch.float64)).square().sum(-1)
    log_density = torch.logsumexp(-gaps / (2 * variances) - torch.log(variances), dim=1).sum()
    wanted, = torch.autograd.grad(log_density, x)
    torch.testing.assert_close(mixture_score(x.detach()), wanted, rtol=1e-12, atol=1e-12)


def test_rates_tend_to_constants():
    assert error_ratios("score", 0, (10, 20)) == pytest.approx([error_ratios("score", 0, (30,))[0]] * 2, rel=1e-12)
    trace = error_ratios("trace", 1, (50, 100, 200))
    assert abs(trace[2] / trace[1] - 1) < abs(trace[1] / trace[0] - 1)
    with pytest.raises(ValueError, match="unknown quantity"):
        error_ratios("energy", 0, (2,))
