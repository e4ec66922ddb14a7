"""Checkpoints: safetensors and JSON in a folder that appears whole or not at all, with a checksum of each file."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

SCHEMA = 1
_FOLDER = re.compile(r"step-(\d{9})")


class CheckpointError(RuntimeError):
    """A checkpoint that is damaged or belongs to something else; the message names the file."""


@dataclass(frozen=True)
class Checkpoint:
    """What was read back.

    Attributes:
        step: updates done.
        state: what `save` was given.
    """

    step: int
    state: dict[str, Any]


def _flatten(prefix: str, value: Any, tensors: dict[str, Tensor]) -> Any:
    """Move the tensors of a nested state into `tensors`; return the rest with references in their place."""
    if isinstance(value, Tensor):
        tensors[prefix] = value.detach().cpu().contiguous().clone()
        return {"__tensor__": prefix}
    if isinstance(value, Mapping):
        return {"__items__": [[key, _flatten(f"{prefix}/{key}", item, tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return [_flatten(f"{prefix}/{index}", item, tensors) for index, item in enumerate(value)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{prefix} holds a {type(value).__name__}, which a checkpoint cannot keep")


def _restore(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if "__tensor__" in value:
            return tensors[value["__tensor__"]]
        return {key: _restore(item, tensors) for key, item in value["__items__"]}
    return [_restore(item, tensors) for item in value] if isinstance(value, list) else value


def random_state(device: torch.device) -> dict[str, Tensor]:
    """States of the CPU generator and, on CUDA, of the device's."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: Mapping[str, Tensor], device: torch.device) -> None:
    """Put the generators back.

    Raises:
        CheckpointError: the state comes from another kind of device.
    """
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda":
        if "cuda" not in state:
            raise CheckpointError("the checkpoint was written on a CPU and holds no CUDA generator state; resume it "
                                  "there")
        torch.cuda.set_rng_state(state["cuda"], device)


def pack(module: nn.Module, optimizers: Mapping[str, Optimizer], random: list[dict[str, Tensor]],
         extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """All state of a run that is not its step number. `random` has an entry a process."""
    return {"module": dict(module.state_dict()), "random": random, "extra": dict(extra or {}),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in optimizers.items()}}


def unpack(state: Mapping[str, Any], module: nn.Module, optimizers: Mapping[str, Optimizer]) -> None:
    """Load what `pack` gave, generators excepted.

    Raises:
        CheckpointError: parameters or optimisers do not fit the configuration.
    """
    try:
        module.load_state_dict(state["module"])
        for name, optimizer in optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
    except (RuntimeError, KeyError, ValueError) as error:
        raise CheckpointError(f"the checkpoint does not fit this model: {error}") from error


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def save(folder: Path, step: int, state: Mapping[str, Any], keep: int = 2) -> Path:
    """Write `folder/step-NNN` atomically, then drop all but the newest `keep`.

    Everything is written to a hidden folder, synced, and renamed; a kill at any moment leaves the old ones.

    Raises:
        CheckpointError: it could not be written (a full disk, no permission); older ones are as they were.
    """
    try:
        return _save(folder, step, state, keep)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(folder / f".writing-{step}", ignore_errors=True)
        kept = checkpoints(folder)
        have = f"the one before it, {kept[-1]}, is whole" if kept else "there is none before it"
        raise CheckpointError(f"the checkpoint of step {step} cannot be written ({error}); {have}. Make room, then go "
                              f"on with --resume") from error


def _save(folder: Path, step: int, state: Mapping[str, Any], keep: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob(".writing-*"):
        shutil.rmtree(stale)
    final, temporary = folder / f"step-{step:09d}", folder / f".writing-{step}"
    temporary.mkdir()
    tensors: dict[str, Tensor] = {}
    tree = _flatten("", state, tensors)
    save_file(tensors, temporary / "tensors.safetensors")
    descriptor = os.open(temporary / "tensors.safetensors", os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    meta = {"schema": SCHEMA, "step": step, "torch": torch.__version__, "tree": tree,
            "sha256": {"tensors.safetensors": _digest(temporary / "tensors.safetensors")}}
    text = json.dumps(meta, indent=1)
    _write(temporary / "state.json", text)
    _write(temporary / "state.json.sha256", hashlib.sha256(text.encode()).hexdigest() + "\n")
    if final.exists():
        shutil.rmtree(final)
    temporary.rename(final)
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def checkpoints(folder: Path) -> list[Path]:
    """All whole checkpoints in a folder, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _FOLDER.fullmatch(path.name))


def load(path: Path) -> Checkpoint:
    """Read a checkpoint after checking every file.

    Raises:
        CheckpointError: a file is missing or its checksum differs; names it and says how to go on.
    """
    remedy = f"delete {path} to resume from the one before it"
    try:
        text = (path / "state.json").read_text(encoding="utf-8")
        expected = (path / "state.json.sha256").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); {remedy}") from error
    if hashlib.sha256(text.encode()).hexdigest() != expected:
        raise CheckpointError(f"{path / 'state.json'} is damaged (its checksum differs); {remedy}")
    meta = json.loads(text)
    if meta["schema"] != SCHEMA:
        raise CheckpointError(f"{path} has schema {meta['schema']}, this version reads {SCHEMA}")
    for name, digest in meta["sha256"].items():
        if not (path / name).is_file():
            raise CheckpointError(f"{path / name} is missing; {remedy}")
        if _digest(path / name) != digest:
            raise CheckpointError(f"{path / name} is damaged (its checksum differs); {remedy}")
    tensors = load_file(path / "tensors.safetensors")
    return Checkpoint(meta["step"], _restore(meta["tree"], tensors))
