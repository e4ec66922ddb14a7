"""A small equilibrium model trained in seconds by exact score matching: a trained model for claims about losses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

import deq
from analysis.phantom.equilibrium_point import newton_equilibrium
from analysis.phantom.loss_gradient_error import LayerModel
from deq.linear.factorise import solve

WIDTHS = (0.5, 0.7)          # standard deviations of the two Gaussians that make the data
CENTRES = ((-1.2, 0.4), (1.0, -0.6))


@dataclass(frozen=True)
class TrainedModel:
    """The model, held-out inputs with their equilibria, and the training losses."""

    model: LayerModel
    inputs: Tensor
    equilibria: Tensor
    losses: list[float]


@dataclass(frozen=True)
class LossValues:
    """Score [d], Hessian trace, score-matching loss and its parameter gradient (flat), one sample."""

    score: Tensor
    trace: float
    loss: float
    gradient: Tensor


def draw_mixture(rng: np.random.Generator, count: int) -> Tensor:
    """Samples [count, 2] of an even mixture of two round Gaussians."""
    which = rng.integers(0, 2, size=count)
    noise = rng.normal(size=(count, 2)) * np.array(WIDTHS)[which][:, None]
    return torch.tensor(np.array(CENTRES)[which] + noise)


def mixture_score(x: Tensor) -> Tensor:
    """Its exact score, [count, 2]."""
    gaps = x[:, None, :] - torch.tensor(CENTRES, dtype=torch.float64)
    variances = torch.tensor(WIDTHS, dtype=torch.float64) ** 2
    weights = torch.softmax(-(gaps**2).sum(-1) / (2 * variances) - torch.log(variances), dim=1)
    return -(weights[:, :, None] * gaps / variances[:, None]).sum(1)


def train_small(rng: np.random.Generator, *, size: int = 12, steps: int = 150, batch: int = 64,
                gain: float = 0.9) -> TrainedModel:
    """Train `z = softplus(W z + U x + b)`, log p = a.z + c |z|^2 - |x|^2 / (2 s^2), with exact derivatives.

    The weight is scaled back to spectral norm `gain` after each step, so that the map contracts.
    """
    weight = torch.tensor(rng.normal(size=(size, size)) / np.sqrt(size))
    leaves = [weight, torch.tensor(rng.normal(size=(size, 2))), torch.zeros(size, dtype=torch.float64),
              torch.tensor(0.1 * rng.normal(size=size))]
    for leaf in leaves:
        leaf.requires_grad_()
    optimiser = torch.optim.Adam(leaves, lr=0.02)
    losses = []
    for _ in range(steps):
        _rescale(leaves[0], gain)
        optimiser.zero_grad()
        loss = _batch_loss(_model(leaves), draw_mixture(rng, batch))
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    _rescale(leaves[0], gain)
    model = _model([leaf.detach().clone() for leaf in leaves])
    inputs = draw_mixture(rng, 24)
    start = torch.zeros(size, dtype=torch.float64)
    equilibria = torch.stack([newton_equilibrium(model.step, x, start) for x in inputs])
    return TrainedModel(model, inputs, equilibria, losses)


def loss_values(model: LayerModel, x: Tensor, z_star: Tensor, rule: deq.GradientRule) -> LossValues:
    """Everything that the bounds speak of, by the library's autograd under a gradient rule."""
    leaves = [leaf.detach().clone().requires_grad_() for leaf in
              (model.weight, model.inputs, model.bias, model.linear)]
    moving = _model(leaves, model.quadratic, model.base_width)
    point = x.detach().clone().requires_grad_()
    z = deq.equilibrium(_cell(moving, point), z_star[None], gradient=rule, solver="newton", tol=1e-13)[0]
    score, = torch.autograd.grad(moving.log_density(z, point), point, create_graph=True)
    trace = sum(torch.autograd.grad(score[i], point, create_graph=True)[0][i] for i in range(len(x)))
    loss = 0.5 * score @ score + trace
    gradient = torch.autograd.grad(loss, leaves)
    return LossValues(score.detach(), float(torch.as_tensor(trace).detach()), float(loss.detach()),
                      torch.cat([part.flatten() for part in gradient]))


def _model(leaves: list[Tensor], quadratic: float = -0.02, base_width: float | None = 2.5) -> LayerModel:
    weight, inputs, bias, linear = leaves
    return LayerModel(weight, inputs, bias, linear, torch.nn.functional.softplus, quadratic, base_width)


def _rescale(weight: Tensor, gain: float) -> None:
    with torch.no_grad():
        weight *= min(1.0, gain / float(torch.linalg.matrix_norm(weight, 2)))


def _cell(model: LayerModel, x: Tensor) -> Callable[[Tensor], Tensor]:
    def step(z: Tensor) -> Tensor:
        return model.activation(z @ model.weight.T + x @ model.inputs.T + model.bias)
    return step


def _batch_loss(model: LayerModel, data: Tensor) -> Tensor:
    """The exact score-matching loss in one pass: z by one Newton step from its own value, D z and L z by solves."""
    drive = data @ model.inputs.T + model.bias
    unit = torch.eye(len(model.bias), dtype=torch.float64)
    with torch.no_grad():
        z = torch.zeros_like(drive)
        for _ in range(60):
            z = model.activation(z @ model.weight.T + drive)
        regular = unit - torch.sigmoid(z @ model.weight.T + drive)[:, :, None] * model.weight
    step = model.activation(z @ model.weight.T + drive) - z
    z = z + solve(regular, step)                 # carries the exact first derivative
    slope = torch.sigmoid(z @ model.weight.T + drive)         # sigma' of softplus
    regular = unit - slope[:, :, None] * model.weight
    first = solve(regular, slope[:, :, None] * model.inputs)
    moved = (model.weight @ first + model.inputs).square().sum(2)
    laplacian = solve(regular, slope * (1 - slope) * moved)
    gamma = model.linear + 2 * model.quadratic * z
    variance = float(model.base_width or 1.0) ** 2
    score = (gamma[:, None, :] @ first)[:, 0] - data / variance
    trace = (gamma * laplacian).sum(1) + 2 * model.quadratic * first.square().sum((1, 2)) - data.shape[1] / variance
    return (0.5 * (score**2).sum(1) + trace).mean()
