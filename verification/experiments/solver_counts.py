"""How many iterations each solver takes on the equilibria of a model in training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import deq
from deq.models import equilibrium_layers
from deq.training.config import Config
from deq.training.sources import Batches
from deq.training.start import make_task

Cell = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class SolverCount:
    """One solver on all equilibria of a model.

    Attributes:
        solver: its name.
        iterations: mean over samples and layers.
        evaluations: of f, mean.
        converged: share of samples.
    """

    solver: str
    iterations: float
    evaluations: float
    converged: float


def solver_counts(config: Config, solvers: Sequence[str], steps: int, tol: float) -> list[SolverCount]:
    """Train by the configuration for `steps` updates in float64, then solve the last equilibria anew, from zero.

    Each sample is held against `tol + tol |f(z)|` on its own; the solver "printed stop", added at the end, is plain
    iteration until the 2-norm of the whole batch's step is at most `tol`, as table 10 of [SM] has it.
    """
    torch.manual_seed(config.run.seed)
    task = make_task(config, torch.device("cpu"))
    task.module.double()
    inputs: dict[str, Tensor] = {}

    def keep(name: str) -> None:
        def hook(layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            inputs[name] = arguments[0].detach()
        layers[name].register_forward_pre_hook(hook)

    def apply(name: str, loss: Tensor) -> float:
        task.optimizers[name].zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        task.optimizers[name].step()
        return 0.0

    layers = equilibrium_layers(task.module)
    for name in layers:
        keep(name)
    batches = Batches(task.rows, config.data.batch, config.run.seed)
    for step in range(steps):
        task.update(batches(step), apply)
    used = {name: layers[name] for name in inputs}
    out = []
    for solver in solvers:
        with torch.no_grad():
            found = [deq.solve(lambda z, u, cell=layer.cell: cell(z, u), torch.zeros_like(inputs[name]),
                               inputs=(inputs[name],), solver=solver, tol=tol, max_iter=500)
                     for name, layer in used.items()]
        out.append(SolverCount(
            solver, float(torch.cat([s.iterations.double() for s in found]).mean()),
            float(torch.cat([s.evaluations.double() for s in found]).mean()),
            float(torch.cat([s.converged.double() for s in found]).mean())))
    return [*out, _printed_stop({name: layer.cell for name, layer in used.items()}, inputs, tol)]


@torch.no_grad()
def _printed_stop(cells: Mapping[str, Cell], inputs: Mapping[str, Tensor], tol: float, most: int = 128) -> SolverCount:
    """Plain iteration from zero under one absolute tolerance for the whole batch."""
    counts, reached = [], []
    for name, cell in cells.items():
        z, count, step = torch.zeros_like(inputs[name]), 0, float("inf")
        while count < most and not step <= tol:
            after = cell(z, inputs[name])
            z, count, step = after, count + 1, float((after - z).norm())
        counts.append(count)
        reached.append(step <= tol)
    mean = sum(counts) / len(counts)
    return SolverCount("printed stop", mean, mean, sum(reached) / len(reached))
