"""What a run costs on this machine: a few steps of it measured, its evaluation estimated, the figure kept."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deq.training.dkef_evaluation import CHAINS
from deq.training.dkef_task import DKEFTask
from deq.training.folder import write_whole
from deq.training.sources import Batches, Source
from deq.training.start import make_task
from deq.training.task import Task
from verification.paper_queue.runs import CLOSED_FORM, PaperRun

STEPS = 3
#: Tables whose steps are measured on a few rows: their networks' time grows with the batch.
LARGE, FEW_ROWS = (1, 5), 4
#: Test images on which an image model's evaluation is measured.
FEW = 25


@dataclass(frozen=True)
class Cost:
    """Processor seconds on one thread (seconds on a GPU).

    Attributes:
        step: of one update.
        validation: of one validation; 0 where there is none.
        end: of what follows the last step.
    """

    step: float
    validation: float
    end: float

    def total(self, run: PaperRun, smoke: bool = False) -> float:
        """Of the whole run."""
        options = run.resolve(smoke).run
        every = options.validate_every if run.table in (2, 3) else 0
        looks = options.steps // options.evaluate_every if options.evaluate_every else 0
        return options.steps * self.step + (options.steps / every if every else 0) * self.validation + (
            1 + looks * (run.rule is not None)) * self.end


def machine(device: str) -> str:
    """What a measurement holds for."""
    about = platform.processor() or platform.machine()
    gpu = torch.cuda.get_device_name() if device == "cuda" else ""
    return f"{about} {os.cpu_count()} {gpu} torch {torch.__version__}"


def key(run: PaperRun, smoke: bool) -> str:
    """Runs that differ in their seed cost the same."""
    return f"{run.config} {run.variant}".strip() + (" smoke" if smoke else "")


class Costs:
    """Measured costs, kept in a file.

    Args:
        path: of the file.
        device: "cpu" or "cuda".
        data: data folder.
        smoke: of runs at their smoke sizes.
    """

    def __init__(self, path: Path, device: str = "cpu", data: Path | None = None, *, smoke: bool = False) -> None:
        self.path, self.device, self.data, self.smoke = path, device, data, smoke
        self.here = machine(device)
        self._kept: dict[str, Any] = {}
        if path.exists():
            stored = json.loads(path.read_text(encoding="utf-8"))
            self._kept = stored["costs"] if stored.get("machine") == self.here else {}

    def of(self, run: PaperRun) -> Cost:
        """Measured now where it was not before."""
        kind = key(run, self.smoke)
        if kind in self._kept:
            return Cost(**self._kept[kind])
        found = measure(run, self.device, self.data, smoke=self.smoke)
        self._kept[kind] = asdict(found)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, json.dumps({"machine": self.here, "costs": self._kept}, indent=1) + "\n")
        return found


def _clock(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def measure(run: PaperRun, device: str = "cpu", data: Path | None = None, *, smoke: bool = False) -> Cost:
    """Take a few steps, one validation and a small share of the evaluation, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        torch.manual_seed(0)
        config, share = run.resolve(smoke), 1.0
        if run.table in LARGE:
            share = min(FEW_ROWS, config.data.batch) / config.data.batch
            few = replace(config.data, batch=min(FEW_ROWS, config.data.batch))  # type: ignore[type-var]
            config = replace(config, data=few)
        task = make_task(config, torch.device(device), data)
        batches = Batches(task.rows, config.data.batch, 0)

        def apply(name: str, loss: Tensor) -> float:
            optimizer = task.optimizers[name]
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            return 0.0

        def once(action: Callable[[], Any]) -> float:
            began = _clock(device)
            action()
            return _clock(device) - began

        def updates() -> list[float]:
            return [once(partial(task.update, batches(index), apply)) for index in range(STEPS + 1)][1:]

        if run.variant == CLOSED_FORM:
            return Cost(0.0, 0.0, 10.0)
        if isinstance(task, DKEFTask):
            return _dkef(task, updates, once, run)
        step = statistics.median(updates()[-1:] if run.table in LARGE else updates())
        return Cost(step / share, 0.0, _images(task, once))
    finally:
        torch.set_num_threads(threads)


def _dkef(task: DKEFTask, updates: Callable[[], list[float]], once: Callable[[Callable[[], Any]], float],
          run: PaperRun) -> Cost:
    options = task.config.run
    task.trainer.result.steps = 1                       # the measured steps fall between validations
    step = statistics.median(updates())
    validation = once(lambda: task.trainer.validate(0.0)) if options.validate_every else 0.0
    if run.rule is not None:
        return Cost(step, validation, once(task.look))
    end = 2 * once(task._losses)
    trainer, whole = task.trainer, task.trainer.config

    def ridge_stage(steps: int) -> float:
        trainer.config = replace(whole, final_steps=steps)
        spent = once(lambda: trainer.finalise())
        trainer.config = whole
        return spent

    start, some = ridge_stage(0), ridge_stage(5)
    # the ridge stage comes twice: for the best state and for the one that early stopping would have kept
    end += 2 * (start + max(some - start, 0.0) / 5 * options.final_steps)
    x = torch.randn(CHAINS, task.model.dim, dtype=task.model.inducing.dtype, device=task.model.inducing.device)

    def gradient() -> None:
        point = x.clone().requires_grad_()
        task.model.log_density(point).sum().backward()  # type: ignore[no-untyped-call]

    gradient()
    # pilot, forward and reverse: six gradients and one value a temperature; temperatures are doubled once, as a rule
    end += 3 * 3 * 6.5 * options.temperatures * statistics.median(once(gradient) for _ in range(5))
    rows = torch.randn(2000, task.model.dim, dtype=x.dtype, device=x.device)
    with torch.no_grad():
        end += options.importance_draws / 2000 * once(lambda: task.model.log_density(rows))
    return Cost(step, validation, end)


def _images(task: Task, once: Callable[[Callable[[], Any]], float]) -> float:
    """By a few test images; the whole costs as many times more as it has images."""
    source: Source = task.source  # type: ignore[attr-defined]
    count = min(FEW, len(source.test))
    whole = task.config.data.test_limit or len(source.test)  # type: ignore[attr-defined]
    task.source = replace(source, test=source.test[:count])  # type: ignore[attr-defined]
    return once(task.evaluate) * whole / count
