"""Checkpoints: tensors and a little JSON in one safetensors file, written whole or not at all; never a pickle."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


class DamagedCheckpointError(RuntimeError):
    """A checkpoint cannot be read or does not fit; it is named, not loaded."""


def save_state(path: Path, tensors: dict[str, Tensor], info: dict[str, Any]) -> None:
    """Write tensors and JSON-ready `info`; the file at `path` is replaced only by a complete one.

    Raises:
        OSError: the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    # sorted keys, copies: neither views nor dictionary order may leak into the file
    whole = {name: tensors[name].detach().cpu().contiguous().clone() for name in sorted(tensors)}
    save_file(whole, str(partial), metadata={"info": json.dumps(info, sort_keys=True)})
    os.replace(partial, path)


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save_state` wrote.

    Raises:
        DamagedCheckpointError: there is no file, or it is not a checkpoint.
    """
    try:
        with safe_open(str(path), framework="pt") as stream:
            info = json.loads((stream.metadata() or {})["info"])
            return {name: stream.get_tensor(name) for name in stream.keys()}, info  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise DamagedCheckpointError(f"checkpoint {path} cannot be read ({type(error).__name__}: {error}); delete it "
                                     "to start afresh, or take an older one") from error
