"""Finds the subject that a command line names: FILE.py:make or package.module:make. Every trouble is one line."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

from deq.subject import Subject, SubjectError
from verification.errors import UserError


def load_subject(target: str) -> Subject:
    """The subject that `target` makes.

    Raises:
        UserError: the target cannot be read, imported or called, or returns something else than a subject.
    """
    place, colon, name = target.rpartition(":")
    if not colon or not place or not name.isidentifier():
        raise UserError(f"{target!r} names no subject: give FILE.py:make or package.module:make, where make() returns "
                        "a deq.Subject")
    module = _from_file(Path(place)) if place.endswith(".py") or os.sep in place else _by_name(place)
    make = getattr(module, name, None)
    if make is None:
        raise UserError(f"{place} has no {name!r}{_others(module)}; it should be a function that returns a deq.Subject")
    if isinstance(make, Subject):
        return _named(make, place, name)
    if not callable(make):
        raise UserError(f"{place}:{name} is {_kind(make)}, not a function that returns a deq.Subject")
    try:
        subject = make()
    except SubjectError as error:
        raise UserError(f"{place}:{name}: {one_line(error)}") from error
    except Exception as error:
        raise UserError(f"{place}:{name}() raised {type(error).__name__}: {one_line(error)}{_where(error, place)}"
                        ) from error
    if not isinstance(subject, Subject):
        raise UserError(f"{place}:{name}() returned {_kind(subject)}, not a deq.Subject(f, z0, ...)")
    return _named(subject, place, name)


def _named(subject: Subject, place: str, name: str) -> Subject:
    if not subject.name:
        object.__setattr__(subject, "name", f"{Path(place).name}:{name}")
    return subject


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    path = path.resolve()
    name = f"audited_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} cannot be read as a Python file; its name should end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look their module up
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        sys.modules.pop(name, None)
        raise UserError(f"{path} cannot be imported: {type(error).__name__}: {one_line(error)}"
                        f"{_where(error, str(path))}") from error
    finally:
        sys.path.remove(str(path.parent))
    return module


def _by_name(name: str) -> ModuleType:
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise UserError(f"module {name} cannot be imported: {type(error).__name__}: {one_line(error)}") from error


def _where(error: BaseException, place: str) -> str:
    """The line of the user's file at which an error arose."""
    if isinstance(error, SyntaxError):
        return "" if "line" in str(error) else f" (line {error.lineno})"
    step, line = error.__traceback__, None
    while step is not None:
        if step.tb_frame.f_code.co_filename.endswith(Path(place).name):
            line = step.tb_lineno
        step = step.tb_next
    return f" (line {line})" if line else ""


def _others(module: ModuleType) -> str:
    names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")
             and getattr(value, "__module__", None) == module.__name__ and not isinstance(value, type)]
    return f" (it has {', '.join(names[:5])})" if names else ""


def _kind(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def one_line(error: BaseException) -> str:
    """The message of an error on one line."""
    words = " ".join(str(error).split())
    return words if len(words) <= 300 else words[:299] + "…"


def quietly() -> Any:
    """A context in which warnings of somebody's file are not printed among the results."""
    return warnings.catch_warnings(action="ignore")
