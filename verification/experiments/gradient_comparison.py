"""Parameter gradients of a training step under several gradient rules, at the same weights, rows and noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from deq import Exact, GradientRule
from deq.models import equilibrium_layers
from deq.training.config import Config
from deq.training.sources import Batches
from deq.training.start import make_task
from deq.training.task import Task


@dataclass(frozen=True)
class GradientDifference:
    """One rule against exact derivatives.

    Attributes:
        step: updates done before.
        rule: its name.
        relative_error: `|g - g_exact| / |g_exact|`.
        cosine: of the angle between them.
    """

    step: int
    rule: str
    relative_error: float
    cosine: float


def step_gradient(task: Task, rows: Tensor, rule: GradientRule, seed: int, optimizer: str) -> Tensor:
    """Flat float64 gradient that one step would hand to an optimiser, under `rule`; nothing is updated."""
    layers = equilibrium_layers(task.module).values()
    before = [layer.gradient for layer in layers]
    found: dict[str, Tensor] = {}

    def keep(name: str, loss: Tensor) -> float:
        parameters = task.parameters(name)
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        found[name] = torch.cat([(torch.zeros_like(p) if g is None else g).flatten()
                                 for p, g in zip(parameters, gradients, strict=True)]).double()
        return 0.0

    try:
        for layer in layers:
            layer.gradient = rule
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            task.update(rows, keep)
    finally:
        for layer, old in zip(layers, before, strict=True):
            layer.gradient = old
    return found[optimizer]


def compare_during_training(config: Config, rules: Mapping[str, GradientRule], optimizer: str, steps: Sequence[int],
                            device: str = "cpu") -> list[GradientDifference]:
    """Train by the configuration's own rule and compare `rules` with exact gradients before the given steps.

    Args:
        config: of a model with equilibria; run in float64.
        rules: by name.
        optimizer: which of the task's optimisers gets the gradient.
        steps: rising step numbers at which to compare.
        device: where.
    """
    torch.manual_seed(config.run.seed)
    task = make_task(config, torch.device(device))
    task.module.double()
    batches = Batches(task.rows, config.data.batch, config.run.seed)

    def apply(name: str, loss: Tensor) -> float:
        task.optimizers[name].zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        task.optimizers[name].step()
        return 0.0

    out = []
    for step in range(max(steps) + 1):
        if step in steps:
            exact = step_gradient(task, batches(step), Exact(order=3), step, optimizer)
            for name, rule in rules.items():
                other = step_gradient(task, batches(step), rule, step, optimizer)
                out.append(GradientDifference(step, name, float((other - exact).norm() / exact.norm()),
                                              float(torch.cosine_similarity(other, exact, dim=0))))
        torch.manual_seed(10_000 + step)
        task.update(batches(step), apply)
    return out
