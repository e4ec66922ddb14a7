"""What a check may ask of its run: scale, seeds, data folder, shared artifacts, a place for records."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from verification.plain import plain

RECORD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
T = TypeVar("T")


class Scale(StrEnum):
    """How much work a run does: `smoke` seconds, `cpu` minutes on two cores, `paper` the published sizes."""

    SMOKE = "smoke"
    CPU = "cpu"
    PAPER = "paper"


@dataclass
class Context:
    """Handed to every check.

    Attributes:
        scale: how much to do.
        seed: of the whole run.
        data: the data folder, or None.
        out: where the run writes.
        records: JSON-ready dictionaries for figures, by name; `record` fills it.
    """

    scale: Scale = Scale.CPU
    seed: int = 0
    data: Path | None = None
    out: Path = Path("out")
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    _shared: dict[str, Any] = field(default_factory=dict, repr=False)

    def choose(self, smoke: T, cpu: T, paper: T) -> T:
        """The value that belongs to the run's scale."""
        return {Scale.SMOKE: smoke, Scale.CPU: cpu, Scale.PAPER: paper}[self.scale]

    def generator(self, key: str) -> torch.Generator:
        """A torch generator that depends on the run's seed and `key` alone, not on what ran before."""
        return torch.Generator().manual_seed(self._number(key))

    def rng(self, key: str) -> np.random.Generator:
        """The same for numpy."""
        return np.random.default_rng(self._number(key))

    def shared(self, name: str, make: Callable[[], T]) -> T:
        """An expensive result (a trained model, say) that several claims look at: made once a run."""
        if name not in self._shared:
            # A random start (a module's weights) must not depend on which claim asks first.
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self._number(name))
                self._shared[name] = make()
        return self._shared[name]

    def record(self, name: str, values: dict[str, Any]) -> None:
        """Keep numbers for figures: only numbers, strings, lists (or arrays) and dictionaries of them.

        Raises:
            ValueError: a name that cannot be a file name.
            TypeError: a value that is no data; the message says where it sits.
        """
        if not RECORD_NAME.fullmatch(name):
            raise ValueError(f"record name {name!r} must be letters, digits, dots, dashes and underscores")
        self.records[name] = plain(values, name)

    def _number(self, key: str) -> int:
        return zlib.crc32(f"{self.seed}/{key}".encode())
