"""Memory and time of one training step for the rows of a table, side by side."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from deq.evaluation.measure import measure_step
from deq.models import count_parameters, equilibrium_layers
from deq.training.config import Config, load_config
from deq.training.sources import Batches
from deq.training.start import make_task

#: What [SM] prints: gigabytes (tables 1 and 4; table 5: the score network's graph) and seconds a step as labelled
#: there.
PAPER: dict[str, tuple[float, float | None]] = {
    "table1/celeba-ssm": (4.0, 8.22), "table1/celeba-aug8": (7.3, 37.57), "table1/celeba-aug16": (16.0, 73.27),
    "table1/celeba-deq": (5.4, 21.95), "table1/cifar10-ssm": (3.8, 3.97), "table1/cifar10-aug8": (6.3, 17.45),
    "table1/cifar10-aug16": (14.0, 40.12), "table1/cifar10-deq": (4.4, 9.98), "table4/ssm": (6.5, None),
    "table4/deq-ssm": (5.5, None), "table5/ssm-vr": (7.36, 0.871), "table5/two-res": (1.66, 0.391),
    "table5/deq": (2.05, 0.481),
}


@dataclass(frozen=True)
class RowCost:
    """What a step of one row costs.

    Attributes:
        config: its name.
        row: the paper's name.
        parameters: of the whole model, at this size.
        seconds: median time of a step.
        seconds_low, seconds_high: quartiles.
        cpu_seconds: median processor time.
        peak_bytes: most live bytes above those before the step.
        iterations: mean solver iterations of the last solve, 0 for explicit models.
        paper_gigabytes, paper_seconds: printed values, None where there are none.
    """

    config: str
    row: str
    parameters: int
    seconds: float
    seconds_low: float
    seconds_high: float
    cpu_seconds: float
    peak_bytes: int
    iterations: float
    paper_gigabytes: float | None
    paper_seconds: float | None


def measure_row(config: Config, *, device: str = "cpu", repeats: int = 5, data: str | os.PathLike[str] | None = None,
                warmup: int = 1) -> RowCost:
    """Measure one configuration on its own data source."""
    torch.manual_seed(config.run.seed)
    task = make_task(config, torch.device(device), data)
    rows = Batches(task.rows, config.data.batch, config.run.seed)(0)

    def apply(name: str, loss: Tensor) -> float:
        optimizer = task.optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return 0.0

    cost = measure_step(lambda: task.update(rows, apply), device, repeats=repeats, warmup=warmup)
    solved = [layer.last for layer in equilibrium_layers(task.module).values() if layer.last is not None]
    iterations = torch.cat([s.iterations.float() for s in solved]).mean().item() if solved else 0.0
    gigabytes, seconds = PAPER.get(config.name, (None, None))
    return RowCost(config.name, config.run.row, count_parameters(task.module), cost.seconds, cost.seconds_low,
                   cost.seconds_high, cost.cpu_seconds, cost.peak_bytes, iterations, gigabytes, seconds)


def measure_rows(names: Sequence[str], overrides: Mapping[str, Mapping[str, Any]], *, device: str = "cpu",
                 repeats: int = 5, data: str | os.PathLike[str] | None = None) -> list[dict[str, Any]]:
    """`measure_row` of several configurations with the same overrides, JSON-ready."""
    return [asdict(measure_row(load_config(name, overrides=overrides), device=device, repeats=repeats, data=data))
            for name in names]
