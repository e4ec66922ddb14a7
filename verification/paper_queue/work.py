"""One run of the queue: trained or resumed in a folder of its own, then stored with its provenance."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from deq import NotConverged
from deq.evaluation.diagonal import diagonal_gaussian
from deq.training import CheckpointError, checkpoint
from deq.training.engine import RunResult
from deq.training.folder import TrainingInterrupted, TrainingStopped, find_run
from deq.training.image_tasks import NICETask
from deq.training.start import make_task, train
from verification.context import Context
from verification.paper_queue.cells import curve, log_lines, put_cell
from verification.paper_queue.runs import CLOSED_FORM, PaperRun
from verification.paper_tables import load_cells
from verification.provenance import provenance


@dataclass(frozen=True)
class Place:
    """Where and how a queue works; goes to every worker.

    Attributes:
        runs: folder of the runs.
        results: folder of the result files.
        data: data folder, or None.
        device: "cpu" or "cuda".
        command: for provenance.
        smoke: runs at their smoke sizes: a trial of the machinery, stored as reduced.
    """

    runs: Path
    results: Path
    data: Path | None
    device: str
    command: str
    smoke: bool = False


def stored(run: PaperRun, place: Place) -> dict[str, Any] | None:
    """The finished cell of a run, or None; a run of other length or protocol does not count."""
    for cell in load_cells(run.results(place.results)):
        mine = (cell.get("table") == run.row.partition("-")[0] and cell.get("rule") == run.rule) if run.rule else (
            cell["row"] == run.row and cell.get("variant", "") == run.variant)
        if mine and cell["seed"] == run.seed and cell.get("queue") == _protocol(run, place):
            return cell
    return None


def _protocol(run: PaperRun, place: Place) -> dict[str, Any]:
    """What has to agree for a stored cell to be this run's."""
    config = run.resolve(place.smoke)
    return {"steps": config.run.steps, "patience": config.optimizer.patience, "lr": config.optimizer.lr,
            "batch": config.data.batch, "smoke": place.smoke}


def work(run: PaperRun, place: Place) -> str:
    """Do a run to its end and store it; one line on how it went.

    A folder with a checkpoint is resumed; one without holds nothing worth keeping. What stops a run (a loss that is
    not finite, no equilibrium) is stored as its outcome; a damaged newest checkpoint is dropped for the one before it.

    Raises:
        TrainingInterrupted: SIGTERM came; the run goes on when it is next worked on.
    """
    if place.device == "cpu":
        torch.set_num_threads(1)
    config, folder = run.resolve(place.smoke), place.runs / run.name
    began, processor = time.monotonic(), time.process_time()
    resumed = progress_of(run, place) > 0
    about = provenance(Context(data=None), place.command, 1)
    about = {key: value for key, value in about.items() if key not in ("data", "scale", "seed", "jobs")}
    cell: dict[str, Any] = {"seed": run.seed, "queue": _protocol(run, place), "provenance": about | {
        "device": place.device}}
    try:
        if run.variant == CLOSED_FORM:
            return _closed_form(run, place, cell)
        result = _train(config, folder, place)
    except TrainingInterrupted:
        raise
    except (TrainingStopped, NotConverged) as error:
        if "another process" in str(error):
            return f"{run.name}: {error}"
        cell |= {"steps": None, "stopped": str(error), "stopped_by": "failure"}
        line = f"stopped: {error}"
    else:
        cell |= {"steps": result.step, "stopped_by": "patience" if result.step < config.run.steps else "steps"}
        cell |= _numbers(run, result)
        loss = cell.get("numbers", {}).get("test_sm_loss", cell.get("losses", {}).get("exact", [None])[-1])
        line = f"whole after {result.step} steps" + ("" if loss is None else f", loss {loss:.4g}")
    cell["seconds"] = round(time.monotonic() - began, 1)
    if not resumed and place.device == "cpu":
        cell["processor_seconds"] = round(time.process_time() - processor, 1)
    _put(run, place, cell)
    return f"{run.name}: {line}"


def _closed_form(run: PaperRun, place: Place, cell: dict[str, Any]) -> str:
    task = make_task(run.resolve(place.smoke), torch.device("cpu"), place.data)
    if not isinstance(task, NICETask):
        raise TypeError(f"{run.config} is no NICE")
    torch.manual_seed(run.seed)
    numbers = diagonal_gaussian(task.prepare(task.source.train), task.prepare(task.source.test))
    _put(run, place, cell | {"steps": 0, "stopped_by": "steps", "numbers": numbers, "curve": {}}, full=0)
    return f"{run.name}: closed form, loss {numbers['test_sm_loss']:.4g}"


def _train(config: Any, folder: Path, place: Place) -> RunResult:
    before = find_run(folder, config) if folder.is_dir() else None
    kept = checkpoint.checkpoints(before / "checkpoints") if before else []
    while kept:
        try:
            checkpoint.load(kept[-1])
            break
        except CheckpointError:
            shutil.rmtree(kept.pop())
    return train(config, folder, device=place.device, resume=bool(kept), data=place.data, progress=False)


def _numbers(run: PaperRun, result: RunResult) -> dict[str, Any]:
    if run.rule is None:
        return {"numbers": dict(result.stats), "curve": curve(result.folder)}
    looks = [line for line in log_lines(result.folder, "evaluation") if "own" in line]
    return {"steps": [line["step"] for line in looks], "stopped": "",
            "losses": {kind: [line[kind] for line in looks] for kind in ("own", "exact", "deployed")}}


def _put(run: PaperRun, place: Place, cell: dict[str, Any], full: int | None = None) -> None:
    full = run.resolve().run.steps if full is None else full
    done = cell["steps"][-1] if isinstance(cell["steps"], list) else cell["steps"]
    cell |= {"steps_of_the_paper": full, "reduced": place.smoke or (done is not None and done < full)}
    if run.rule is not None:
        cell |= {"table": run.row.partition("-")[0], "rule": run.rule, "objective": "sm"}
        cell = {"losses": {}, **cell, "steps": cell["steps"] or []}
        put_cell(run.results(place.results), cell, ("table", "rule", "seed"))
        return
    config = run.resolve(place.smoke)
    cell |= {"row": run.row, "variant": run.variant, "title": config.run.row, "steps_asked": config.run.steps,
             "overrides": [f"{section}.{key}={value}" for section, items in run.overrides.items()
                           for key, value in items.items()]}
    put_cell(run.results(place.results), cell, ("row", "variant", "seed", "queue"))


def progress_of(run: PaperRun, place: Place) -> float:
    """The share of a run that its newest checkpoint has, for the progress line."""
    config = run.resolve(place.smoke)
    found = find_run(place.runs / run.name, config)
    kept = checkpoint.checkpoints(found / "checkpoints") if found else []
    return int(kept[-1].name.removeprefix("step-")) / config.run.steps if kept else 0.0
