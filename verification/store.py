"""The results folder: `claims.json`, `run.json` and `records/NAME.json`, written atomically as claims finish.

`claims.json` is a list of objects (`verification.result.ClaimResult`), in registry order. `run.json` holds the schema
number, the state of the run (`running`, `partial`, `complete`), its provenance and the names of its records.
A second run into a folder with finished results gathers its own in `.new` and puts them in place when it ends.
All three are strict JSON; non-finite numbers are the strings "NaN", "Infinity" and "-Infinity".
"""

from __future__ import annotations

import errno
import json
import os
import shutil
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
        self._root = self.out  # where the results of the run in progress gather

    def prepare(self) -> None:
        """Make the folder and see that it takes files, before any work is done.

        Raises:
            UserError: it does not.
        """
        try:
            records = self.out / "records"
            records.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.out), tempfile.NamedTemporaryFile(dir=records):
                pass
        except OSError as error:
            raise UserError(f"cannot write to the output folder {self.out}: {error.strerror or error}. "
                            "Choose another with --out.") from error

    def begin(self) -> None:
        """Make room for a new run. Finished results of the last one stay as they are until `finish`.

        A folder without finished results takes those of the new run as they come; else they gather in `OUT/.new`.
        """
        shutil.rmtree(self._new, ignore_errors=True)  # of a run that was killed
        try:
            kept = bool(self.load_claims())
        except UserError:
            kept = False
        if kept:
            self._root = self._new
            self._new.mkdir()
        else:
            self._forget(self.out)

    def finish(self, complete: bool) -> bool:
        """Put the results of the new run into the place of the last one's, whose report goes too.

        Args:
            complete: whether the new run ended by itself; if not, the last one's results move to `OUT/previous`.

        Returns:
            Whether results were put there: a run that was stopped before its first result leaves the last one's.
        """
        if self._root == self.out:
            return True
        some = bool(self.load_claims())
        names = self.load_run()["records"]
        if complete or some:
            if not complete:
                self._set_aside()
            self._forget(self.out)
            for name in (*(f"records/{name}.json" for name in names), "claims.json", "run.json"):
                (self.out / name).parent.mkdir(exist_ok=True)
                os.replace(self._new / name, self.out / name)
        self._root = self.out
        shutil.rmtree(self._new, ignore_errors=True)
        return complete or some

    @property
    def previous(self) -> Path:
        """Where the results of the last run are, after one that was stopped."""
        return self.out / "previous"

    @property
    def _new(self) -> Path:
        return self.out / ".new"

    def _set_aside(self) -> None:
        shutil.rmtree(self.previous, ignore_errors=True)
        names = [f"records/{name}.json" for name in Store(self.out).load_run()["records"]]
        for name in (*names, "claims.json", "run.json", "report.html"):
            if (self.out / name).is_file():
                (self.previous / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(self.out / name, self.previous / name)

    @staticmethod
    def _forget(folder: Path) -> None:
        """Remove the report and the records that the last run in this folder left: a folder never mixes two runs."""
        (folder / "report.html").unlink(missing_ok=True)
        last = Store(folder)
        try:
            names = last.load_run()["records"]
        except UserError:
            return  # nothing here that this schema wrote
        for name in names:
            if RECORD_NAME.fullmatch(name):
                last._record_path(name).unlink(missing_ok=True)

    def save_claims(self, results: Iterable[ClaimResult]) -> None:
        """Write `claims.json` whole, by a temporary file and a rename: a reader never sees half of it."""
        _write(self._root / "claims.json", [result.to_json() for result in results])

    def save_run(self, state: str, about: Mapping[str, Any], records: Sequence[str]) -> None:
        """Write `run.json`."""
        _write(self._root / "run.json", {"schema": SCHEMA, "state": state, **about, "records": sorted(records)})

    def save_record(self, name: str, values: Mapping[str, Any]) -> None:
        """Write one record for figures."""
        _write(self._record_path(name), values)

    def load_claims(self) -> list[ClaimResult]:
        """Read `claims.json`.

        Raises:
            UserError: missing, damaged or of a newer schema; the message names the file.
        """
        self.load_run()
        path = self._root / "claims.json"
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
        path = self._root / "run.json"
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
        return self._root / "records" / f"{name}.json"


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader, or a crash, sees the old one or the new one and nothing in between.

    Raises:
        UserError: it cannot be written: a full disk, a folder that takes no files; the file of before is untouched.
    """
    try:
        _replace(path, text)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise UserError(f"cannot write {path}: {error.strerror or error}"
                        f"{'. Free some space, or choose another folder' if full else ''}; what had been written "
                        "before is untouched") from error


def _replace(path: Path, text: str) -> None:
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
