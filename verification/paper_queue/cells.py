"""Result files of the papers' tables: a list of cells, one a run, changed under a lock and written whole."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from deq.training.folder import write_whole
from verification.paper_tables import SCHEMA, load_cells

#: Numbers of a run's log that a cell keeps, and how many of its lines at most.
CURVES = ("loss", "validation", "iterations", "spectral_radius")
LINES = 250


def save_cells(path: Path, cells: Sequence[dict[str, Any]]) -> None:
    """Write all cells, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"schema": SCHEMA, "cells": list(cells)}, indent=1)
    # A list of numbers is a curve: on one line, so that the file stays readable.
    text = re.sub(r"\[\s+((?:-?[\d.][\d.eE+-]*|null)(?:,\s+(?:-?[\d.][\d.eE+-]*|null))*)\s+\]",
                  lambda match: "[" + re.sub(r"\s+", " ", match[1]) + "]", text)
    write_whole(path, text + "\n")


def put_cell(path: Path, cell: dict[str, Any], same: tuple[str, ...]) -> None:
    """Add a cell, in place of one that agrees in the keys `same`; other processes may do so at the same time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        kept = [old for old in load_cells(path) if any(old.get(key) != cell.get(key) for key in same)]
        save_cells(path, [*kept, cell])


def log_lines(folder: Path, kind: str) -> list[dict[str, Any]]:
    """Lines of one kind of a run's stats.jsonl."""
    lines = (json.loads(line) for line in (folder / "stats.jsonl").read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line["kind"] == kind]


def curve(folder: Path) -> dict[str, list[float | None]]:
    """What a run logged along the way, by name: steps, and numbers to five digits, None where a line lacks one."""
    lines = log_lines(folder, "train")
    lines = lines[::max(1, -(-len(lines) // LINES))]
    kept = {key: [None if key not in line else float(f"{line[key]:.5g}") for line in lines] for key in CURVES}
    found = {key: values for key, values in kept.items() if any(value is not None for value in values)}
    return {"step": [line["step"] for line in lines], **found}
