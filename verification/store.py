"""The results folder: `claims.json`, `run.json` and `records/NAME.json`, written atomically as claims finish.

`claims.json` is a list of objects (`verification.result.ClaimResult`), in registry order. `run.json` holds the schema
number, the state of the run (`running`, `partial`, `complete`), its provenance and the names of its records.
All three are strict JSON; non-finite numbers are the strings "NaN", "Infinity" and "-Infinity".
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from verification.context import RECORD_NAME
from verification.errors import UserError
from verification.plain import plain, restore
from verification.result import ClaimResult

SCHEMA = 1


class Store:
    """Reads and writes one results folder."""

    def __init__(self, out: Path) -> None:
        self.out = Path(out)
        self.records_folder = self.out / "records"

    def prepare(self) -> None:
        """Make the folder and see that it takes files, before any work is done.

        Raises:
            UserError: it does not.
        """
        try:
            self.records_folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.out), tempfile.NamedTemporaryFile(dir=self.records_folder):
                pass
        except OSError as error:
            raise UserError(f"cannot write to the output folder {self.out}: {error.strerror or error}. "
                            "Choose another with --out.") from error

    def forget_last_run(self) -> None:
        """Remove the report and the records that the last run in this folder left: a folder never mixes two runs."""
        (self.out / "report.html").unlink(missing_ok=True)
        try:
            names = self.load_run()["records"]
        except UserError:
            return  # nothing here that this schema wrote
        for name in names:
            if RECORD_NAME.fullmatch(name):
                self._record_path(name).unlink(missing_ok=True)

    def save_claims(self, results: Iterable[ClaimResult]) -> None:
        """Write `claims.json` whole, by a temporary file and a rename: a reader never sees half of it."""
        _write(self.out / "claims.json", [result.to_json() for result in results])

    def save_run(self, state: str, about: Mapping[str, Any], records: Sequence[str]) -> None:
        """Write `run.json`."""
        _write(self.out / "run.json", {"schema": SCHEMA, "state": state, **about, "records": sorted(records)})

    def save_record(self, name: str, values: Mapping[str, Any]) -> None:
        """Write one record for figures."""
        _write(self._record_path(name), values)

    def load_claims(self) -> list[ClaimResult]:
        """Read `claims.json`.

        Raises:
            UserError: missing, damaged or of a newer schema; the message names the file.
        """
        self.load_run()
        path = self.out / "claims.json"
        data = _read(path)
        if not isinstance(data, list):
            raise UserError(f"{path} is damaged: it holds a {type(data).__name__} where a list belongs")
        results = []
        for index, item in enumerate(data):
            try:
                results.append(ClaimResult.from_json(item))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise UserError(f"{path} is damaged: entry {index}: {error}") from error
        return results

    def load_run(self) -> dict[str, Any]:
        """Read `run.json`; raises UserError as `load_claims` does."""
        path = self.out / "run.json"
        data = _read(path)
        if not isinstance(data, dict) or not isinstance(data.get("schema"), int):
            raise UserError(f"{path} is damaged: it has no schema number")
        if data["schema"] > SCHEMA:
            raise UserError(f"{path} has schema {data['schema']}, newer than this deqproof's {SCHEMA}; update deqproof")
        if not isinstance(data.get("records"), list) or not isinstance(data.get("state"), str):
            raise UserError(f"{path} is damaged: `records` or `state` is missing")
        return data

    def has_record(self, name: str) -> bool:
        """Whether the record is there."""
        return self._record_path(name).is_file()

    def load_record(self, name: str) -> dict[str, Any]:
        """Read one record, NaN and infinities as floats again; raises UserError where it is missing or damaged."""
        data = _read(self._record_path(name))
        if not isinstance(data, dict):
            raise UserError(f"{self._record_path(name)} is damaged: it holds a {type(data).__name__}")
        return restore(data)

    def _record_path(self, name: str) -> Path:
        return self.records_folder / f"{name}.json"


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader, or a crash, sees the old one or the new one and nothing in between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)  # mkstemp makes private files; these are meant to be shared
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _write(path: Path, data: Any) -> None:
    write_text(path, json.dumps(plain(data, path.name), indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def _refuse_token(token: str) -> float:
    raise ValueError(f"{token} is not JSON")


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_token)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; `deqproof verify --out {path.parent}` writes it") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from error
