"""A trained model back from its run folder, for sampling, evaluation or certification."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deq.evaluation.langevin import annealed_langevin
from deq.models import NCSN, NICE, SSMVAE
from deq.training import checkpoint
from deq.training.config import Config, ConfigError, from_dict, list_configs, load_config
from deq.training.task import MovingAverage, build_model


def load_trained(folder: Path, step: int | None = None) -> tuple[nn.Module, Config]:
    """The model of a run, with its moving average in place of its weights where one was kept, in evaluation mode.

    Args:
        folder: of the run, as `deqproof train` made it.
        step: of the checkpoint; the newest where None.

    Raises:
        ConfigError: not a run folder, or no such checkpoint.
        CheckpointError: the checkpoint is damaged or does not fit.
    """
    try:
        config = from_dict(json.loads((folder / "options.json").read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise ConfigError(f"{folder} is not a folder of a run: it has no options.json") from error
    kept = {int(path.name.removeprefix("step-")): path for path in checkpoint.checkpoints(folder / "checkpoints")}
    if not kept or (step is not None and step not in kept):
        have = ", ".join(map(str, kept)) or "none"
        raise ConfigError(f"{folder} has no checkpoint{'' if step is None else f' of step {step}'}; it has {have}")
    state = checkpoint.load(kept[max(kept) if step is None else step]).state["module"]
    model = build_model(config)
    model.to(torch.float64 if config.run.precision.startswith("64") else torch.float32)
    if config.optimizer.ema > 0:
        parts = nn.ModuleDict({"model": model, "average": MovingAverage(model, config.optimizer.ema)})
        checkpoint.unpack({"module": state, "optimizers": {}}, parts, {})
        model = parts["average"].model  # type: ignore[assignment]
    elif any(name.startswith("model.") for name in state):
        checkpoint.unpack({"module": state, "optimizers": {}}, nn.ModuleDict({"model": model}), {})
    else:
        checkpoint.unpack({"module": state, "optimizers": {}}, model, {})
    return model.eval(), config


def summary(folder: Path) -> dict[str, Any]:
    """A run in brief, JSON-ready: options, first and last numbers, best ones, provenance, and whether it is reduced.

    "Reduced" compares model, data and steps with the packaged configuration of the same name.

    Raises:
        ConfigError: not a run folder, or a run without a logged step.
    """
    try:
        options = json.loads((folder / "options.json").read_text(encoding="utf-8"))
        lines = [json.loads(line) for line in (folder / "stats.jsonl").read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError as error:
        raise ConfigError(f"{folder} is not a folder of a run: {error.filename} is missing") from error
    training = [line for line in lines if line["kind"] == "train"]
    if not training:
        raise ConfigError(f"{folder} has no logged training step")
    final = {key: value for line in lines if line["kind"] != "train" for key,
             value in line.items() if key not in ("kind",)}
    full = load_config(options["name"]).as_dict() if options["name"] in list_configs() else None
    done = training[-1]["step"]
    reduced = full is None or done < full["run"]["steps"] or any(
        json.loads(json.dumps(full[key])) != options[key] for key in ("model", "optimizer", "objective")) or any(
        full["data"][key] != options["data"][key] for key in ("name", "batch", "limit"))
    every = max(1, len(training) // 50)
    return {"config": options["name"], "table": options["run"]["table"], "row": options["run"]["row"],
            "reduced": reduced,
            "steps": done, "seed": options["run"]["seed"],
            "options": {k: v for k, v in options.items() if k != "provenance"},
            "final": final, "training": [*training[::every], training[-1]], "provenance": options["provenance"]}


def sample_images(model: nn.Module, count: int, shape: tuple[int, int, int], seed: int = 0, *,
                  sampler: str = "standard",
                  steps_per_level: int = 5) -> Tensor:
    """Images `[count, *shape]` in [0, 1] from a trained NICE, VAE or NCSN.

    Args:
        model: as `load_trained` gives it.
        count: how many.
        shape: channels, height, width.
        seed: of the draws.
        sampler: "standard" or "released" annealed Langevin steps (NCSN).
        steps_per_level: Langevin steps at each noise level (NCSN).

    Raises:
        ConfigError: a model without images.
    """
    generator = torch.Generator().manual_seed(seed)
    if isinstance(model, NICE):
        return model.sample(count, generator).sigmoid().view(count, *shape)
    if isinstance(model, SSMVAE):
        return (model.generate(count, generator) + 1) / 2
    if isinstance(model, NCSN):
        start = torch.rand(count, *shape, generator=generator)
        return annealed_langevin(model, start, model.sigmas, steps_per_level=steps_per_level, variant=sampler,
                                 generator=generator)
    raise ConfigError(f"{type(model).__name__} is no model of images")

