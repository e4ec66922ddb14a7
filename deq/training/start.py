"""From a configuration to a run: picks the task that belongs to the model and hands it to the engine."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch

from deq.training.config import Config
from deq.training.dkef_task import DKEFTask, load_table
from deq.training.engine import RunResult, Trainer
from deq.training.image_tasks import NCSNTask, NICETask, VAETask
from deq.training.sources import Source, load_source
from deq.training.task import Task

_IMAGE_TASKS: dict[str, Callable[[Config, Source, torch.device], Task]] = {
    "nice": NICETask, "ssmvae": VAETask, "ncsn": NCSNTask}


def make_task(config: Config, device: torch.device, data: str | os.PathLike[str] | None = None) -> Task:
    """The task of a configuration.

    Raises:
        ConfigError: options do not fit together.
        deq.data.DataError: data missing or damaged.
    """
    if config.model.kind == "dkef":
        return DKEFTask(config, load_table(config, data), device)
    return _IMAGE_TASKS[config.model.kind](config, load_source(config.data, data), device)


def train(config: Config, out: Path, *, device: str = "cpu", devices: int | None = None, resume: bool = False,
          data: str | os.PathLike[str] | None = None, progress: bool = True) -> RunResult:
    """Run a configuration to its last step in a numbered folder of `out`; see `Trainer`."""
    return Trainer(config, lambda place: make_task(config, place, data), out, device=device, devices=devices,
                   resume=resume,
                   progress=progress).run()
