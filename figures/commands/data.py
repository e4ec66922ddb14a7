"""`deqproof data`: list the data sets, fetch them from their public sources, check the copies at hand."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from deq.data.catalogue import CELEBA_SOURCE, DATASETS, Dataset
from deq.data.images import find_celeba
from deq.data.locate import DataError, MissingDataError, check, find, locate, search_path
from deq.names import unknown
from verification.errors import UserError


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("data", help="list, fetch and check data sets",
                                   description="Data sets of the papers. Looked for in --data, then in DEQPROOF_DATA, "
                                               "then in the download cache; a damaged copy is never loaded.")
    parser.add_argument("action", choices=("list", "fetch", "check"),
                        help="list: what is where; fetch: download what is missing; check: verify checksums")
    parser.add_argument("names", nargs="*", metavar="NAME", help="data sets (default: all)")
    parser.add_argument("--data", type=Path, metavar="DIR", help="data folder, looked in first")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Do it and return the exit status: 1 where something that was asked for is missing or damaged."""
    known = [*DATASETS, "celeba"]
    for name in arguments.names:
        if name not in known:
            raise UserError(unknown("data set", name, known))
    try:
        folders = search_path(arguments.data)
    except MissingDataError as error:
        raise UserError(str(error)) from error
    if arguments.action == "list":
        print("folders, first to last: " + ", ".join(map(str, folders)))
    chosen = [DATASETS[name] for name in arguments.names or DATASETS if name in DATASETS]
    results = [_handle(dataset, arguments.action, arguments.data) for dataset in chosen]
    if not arguments.names or "celeba" in arguments.names:
        results.append(_celeba(arguments.data))
    return 0 if arguments.action == "list" or all(results) else 1


def _handle(dataset: Dataset, action: str, folder: Path | None) -> bool:
    present = [file for file in dataset.files if find(file, folder) is not None]
    complete = bool(present) if dataset.alternatives else len(present) == len(dataset.files)
    if action == "list":
        print(f"{dataset.name:<14} {'at hand' if complete else 'missing':<8} {dataset.title}")
        return complete
    wanted = (present or list(dataset.files[:1])) if dataset.alternatives else list(dataset.files)
    good = True
    for file in wanted:
        try:
            path = find(file, folder)
            path = locate(file, folder, download=action == "fetch") if path is None else check(path, file)
            print(f"{dataset.name:<14} good     {path}")
        except DataError as error:
            print(f"{dataset.name:<14} {error}", file=sys.stderr)
            good = False
    return good


def _celeba(folder: Path | None) -> bool:
    try:
        print(f"{'celeba':<14} at hand  {find_celeba(folder)} (no checksum: a folder of images)")
    except MissingDataError:
        print(f"{'celeba':<14} missing  aligned images; only a person can fetch them: {CELEBA_SOURCE}")
        return False
    return True
