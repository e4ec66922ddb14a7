"""The training loop on Lightning Fabric: devices, precision, data-parallel runs, checkpoints, numbers, a progress bar.

Gradients are averaged over processes after each backward pass by this engine, not by a model wrapper: score matching
differentiates inside the loss, several optimisers take turns in a step, and a wrapper's hooks stand in the way of both.
`torchrun --nproc-per-node N -m figures.cli train CONFIG` therefore works unchanged; every process takes its share of
each batch.
"""

from __future__ import annotations

import importlib
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from deq.models import count_parameters
from deq.training import checkpoint
from deq.training.config import Config, ConfigError
from deq.training.folder import TrainingInterrupted, TrainingStopped, alone, check_same, find_run, new_run
from deq.training.monitor import EquilibriumMonitor, StatsWriter, memory_bytes
from deq.training.sources import Batches
from deq.training.task import Task


@dataclass(frozen=True)
class RunResult:
    """What a run left.

    Attributes:
        folder: of the run.
        step: updates done.
        stats: the last numbers of training, evaluation and finish, by name.
        seconds: of this process, from the first update.
    """

    folder: Path
    step: int
    stats: Mapping[str, float]
    seconds: float


class Trainer:
    """Runs a task to its last step.

    Args:
        config: resolved.
        make_task: called with the device after the processes have started and the seed is set.
        out: folder of runs.
        device: "cpu" or "cuda".
        devices: processes on this machine; None takes torchrun's number, else 1.
        resume: go on from the newest checkpoint of the newest run of this configuration.
        progress: show a bar.
    """

    def __init__(self, config: Config, make_task: Callable[[torch.device], Task], out: Path, *, device: str = "cpu",
                 devices: int | None = None, resume: bool = False, progress: bool = True) -> None:
        self.config, self.make_task, self.out, self.resume, self.progress = config, make_task, out, resume, progress
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        if device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("no CUDA device is to be seen here; leave out --device cuda, or see `nvidia-smi` and "
                              "whether this torch was built for CUDA")
        fabric = _fabric_module()
        count = devices or int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        nodes = int(os.environ.get("GROUP_WORLD_SIZE", "1"))
        strategy = "ddp" if count * nodes > 1 else "auto"
        self.fabric = fabric.Fabric(accelerator=device, devices=count, num_nodes=nodes, strategy=strategy,
                                    precision=config.run.precision)

    def run(self) -> RunResult:
        """Train.

        Raises:
            TrainingStopped: a loss or gradient is not finite, there is nothing that fits to resume, or another process
                writes to the folder.
            TrainingInterrupted: SIGTERM came; the state was saved.
            CheckpointError: the newest checkpoint is damaged, or a new one could not be written.
        """
        self.fabric.launch()
        rank, world = self.fabric.global_rank, self.fabric.world_size
        torch.manual_seed(self.config.run.seed)
        task = self.make_task(self.fabric.device)
        # parameters come from one seed on all processes; noise must differ between them
        torch.manual_seed(self.config.run.seed + 7919 * (rank + 1))
        folder = self._folder()
        with alone(folder) if rank == 0 else nullcontext(), _on_sigterm() as ended:
            return self._run(task, folder, ended, rank, world)

    def _run(self, task: Task, folder: Path, ended: threading.Event, rank: int, world: int) -> RunResult:
        start = self._restore(task, folder)
        batches = Batches(task.rows, self.config.data.batch, self.config.run.seed, rank, world)
        monitor = EquilibriumMonitor(task.module)
        writer = StatsWriter(folder, self.config.run.events, start) if rank == 0 else None
        try:
            return self._loop(task, batches, monitor, writer, folder, start, ended)
        finally:
            if writer is not None:
                writer.close()

    def _folder(self) -> Path:
        """The run folder, the same on all processes."""
        folder: Path | None = None
        if self.fabric.global_rank == 0:
            folder = find_run(self.out, self.config) if self.resume else new_run(self.out, self.config)
            if folder is None:
                raise TrainingStopped(f"no run of {self.config.name} in {self.out} to resume; leave out --resume")
            check_same(folder, self.config)
            if self.resume and not checkpoint.checkpoints(folder / "checkpoints"):
                raise TrainingStopped(f"{folder} has no checkpoint to go on from; leave out --resume to start anew")
        return self.fabric.broadcast(folder)

    def _restore(self, task: Task, folder: Path) -> int:
        """Put the newest checkpoint back where there is one; the step to start from."""
        kept = checkpoint.checkpoints(folder / "checkpoints")
        if not (self.resume and kept):
            return 0
        loaded = checkpoint.load(kept[-1])
        state = loaded.state
        checkpoint.unpack(state, task.module, task.optimizers)
        task.set_extra_state(state["extra"])
        if len(state["random"]) != self.fabric.world_size:
            raise TrainingStopped(f"{kept[-1]} was written by {len(state['random'])} processes, now there are "
                                  f"{self.fabric.world_size}; resume with as many")
        checkpoint.set_random_state(state["random"][self.fabric.global_rank], self.fabric.device)
        return loaded.step

    def _loop(self, task: Task, batches: Batches, monitor: EquilibriumMonitor, writer: StatsWriter | None, folder: Path,
              start: int, ended: threading.Event) -> RunResult:
        options, began = self.config.run, time.perf_counter()
        latest: dict[str, float] = {}
        bar = tqdm(range(start, options.steps), initial=start, total=options.steps, unit="step",
                   disable=not self.progress or writer is None)
        since, counted = began, 0
        step = start
        for index in bar:
            if task.done:
                break
            step = index + 1
            numbers = self._update(task, batches(index), step)
            counted += 1
            if step % options.log_every == 0 or step == options.steps:
                now = time.perf_counter()
                numbers |= monitor.read() | task.monitor() | {"seconds_per_step": (now - since) / counted,
                                             "memory_bytes": float(memory_bytes(self.fabric.device))}
                latest |= numbers
                self._tell(writer, bar, step, "train", numbers)
                since, counted = time.perf_counter(), 0
            if options.evaluate_every and step % options.evaluate_every == 0 and step < options.steps:
                self._tell(writer, bar, step, "evaluation", self._measure(task.look))
            if step % options.checkpoint_every == 0 and step < options.steps:
                self._save(task, folder, step)
            if ended.is_set() and step < options.steps:
                self._save(task, folder, step)
                raise TrainingInterrupted(f"SIGTERM came at step {step}; the state was saved, go on with --resume")
        if start < step:
            self._save(task, folder, step)
        for kind, measure in (("finish", task.finish), ("evaluation", task.evaluate)):
            numbers = self._measure(measure)
            latest |= numbers
            self._tell(writer, bar, step, kind, numbers)
        return RunResult(folder, step, latest, time.perf_counter() - began)

    def _measure(self, measure: Callable[[], dict[str, float]]) -> dict[str, float]:
        """Run an evaluation on draws of its own, so that evaluating more or less often changes nothing in training."""
        devices = [self.fabric.device.index or 0] if self.fabric.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self.config.run.seed + 104_729)
            return measure()

    def _update(self, task: Task, rows: Tensor, step: int) -> dict[str, float]:
        def apply(name: str, loss: Tensor) -> float:
            if not self._all_finite(loss.detach()):
                raise TrainingStopped(f"the loss of {name!r} is {float(loss.detach())} at step {step}; the last "
                                      f"checkpoint "
                                      f"is untouched. Lower optimizer.lr, set optimizer.clip, or start from another "
                                      f"seed")
            optimizer = task.optimizers[name]
            optimizer.zero_grad(set_to_none=True)
            self.fabric.backward(loss)
            parameters = [p for p in task.parameters(name) if p.grad is not None]
            self._average(parameters)
            clip = self.config.optimizer.clip or math.inf
            norm = float(nn.utils.clip_grad_norm_(parameters, clip))
            if not math.isfinite(norm):
                raise TrainingStopped(f"the gradient of {name!r} is not finite at step {step} (norm {norm}) while its "
                                      f"loss is "
                                      f"{float(loss.detach()):.6g}; no update was made")
            optimizer.step()
            return norm

        with self.fabric.autocast():
            return task.update(rows, apply)

    def _all_finite(self, loss: Tensor) -> bool:
        """Whether the loss is finite on every process: all stop together, or none."""
        finite = torch.isfinite(loss).float()
        if self.fabric.world_size > 1:
            finite = self.fabric.all_reduce(finite, reduce_op="mean")
        return float(finite) == 1.0

    def _average(self, parameters: list[nn.Parameter]) -> None:
        if self.fabric.world_size == 1 or not parameters:
            return
        flat = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
        flat = self.fabric.all_reduce(flat, reduce_op="mean")
        start = 0
        for p in parameters:
            p.grad = flat[start:start + p.numel()].view_as(p).clone()
            start += p.numel()

    def _save(self, task: Task, folder: Path, step: int) -> None:
        random = checkpoint.random_state(self.fabric.device)
        states = [random]
        if self.fabric.world_size > 1:
            gathered = {name: self.fabric.all_gather(value.to(self.fabric.device)) for name, value in random.items()}
            states = [{name: value[rank].cpu() for name,
                       value in gathered.items()} for rank in range(self.fabric.world_size)]
        if self.fabric.global_rank == 0:
            checkpoint.save(folder / "checkpoints", step,
                            checkpoint.pack(task.module, task.optimizers, states, task.extra_state()),
                            self.config.run.keep)
        self.fabric.barrier()

    def _tell(self, writer: StatsWriter | None, bar: Any, step: int, kind: str, numbers: Mapping[str, float]) -> None:
        if writer is None or not numbers:
            return
        writer.write(step, kind, numbers)
        shown = {"loss": "loss", "iterations": "iterations", "residual": "residual", "spectral_radius": "radius"}
        brief = {label: f"{numbers[key]:.3g}" for key, label in shown.items() if key in numbers}
        if "memory_bytes" in numbers:
            brief["memory"] = f"{numbers['memory_bytes'] / 2**20:.0f}M"
        if brief:
            bar.set_postfix(brief, refresh=False)


@contextmanager
def _on_sigterm() -> Iterator[threading.Event]:
    """An event that SIGTERM sets while the block runs; left alone outside the main thread, which alone gets signals."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, before)


def _fabric_module() -> Any:
    try:
        return importlib.import_module("lightning_fabric")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("training needs Lightning Fabric: pip install 'deqproof[train]'") from error


def describe(config: Config, model: nn.Module) -> dict[str, Any]:
    """The resolved configuration, parameter counts and what is proved of the model: what `--dry-run` prints."""
    parts = {name: count_parameters(part) for name, part in model.named_children() if count_parameters(part)}
    posed = getattr(model, "well_posedness", None)
    return {"config": config.as_dict(), "parameters": {"total": count_parameters(model), **parts},
            "well_posedness": str(posed) if posed is not None else "not stated"}
