"""The four packages of the house, found as one; what to say where a stranger's folder hides one, or an extra lacks.

`analysis`, `verification` and `figures` are ordinary words, so a folder of that name where Python looks first hides
ours, and what follows would be an ImportError about a module that nobody has heard of.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path

ROOMS = ("deq", "analysis", "verification", "figures")


class ShadowedError(ImportError):
    """Another package or folder of the same name is found in place of one of ours; the text says which and where."""


def check_rooms() -> None:
    """Make sure that each room that Python finds is the one beside `deq`.

    Raises:
        ShadowedError: one is somebody else's, or is missing.

    Example:
        >>> check_rooms()
    """
    home = Path(__file__).resolve().parents[1]
    for name in ROOMS:
        spec = importlib.util.find_spec(name)
        if spec is None:
            raise ShadowedError(f"the package {name!r} of deqproof is missing beside {home / 'deq'}; install it again")
        found = Path(spec.origin or next(iter(spec.submodule_search_locations or ["?"]))).resolve()
        if home / name not in (found, found.parent):
            raise ShadowedError(f"{found} hides the package {name!r} of deqproof, which is {home / name}: rename it, "
                                f"or run from another folder (and look at PYTHONPATH)")


def need(room: str, extra: str, modules: Sequence[str]) -> None:
    """Make sure that the third-party modules that a room needs are installed.

    Args:
        room: name of the package that asks.
        extra: the extra of `deqproof` that installs them.
        modules: their import names.

    Raises:
        ModuleNotFoundError: one is missing; the text says how to get it.

    Example:
        >>> need("deq", "verify", ["torch"])
        >>> need("analysis", "verify", ["no_such_module"])
        Traceback (most recent call last):
        ...
        ModuleNotFoundError: analysis needs no_such_module, which is not installed: pip install 'deqproof[verify]'
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(f"{room} needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} "
                                  f"not installed: pip install 'deqproof[{extra}]'", name=missing[0])


def command() -> int:
    """What the script `deqproof` starts: `figures.cli.main`, once it is sure to be ours.

    It is found by name: this package imports nothing above it, and the check must run before any room above is touched.
    """
    try:
        check_rooms()
        main = importlib.import_module("figures.cli").main
    except (ShadowedError, ModuleNotFoundError) as error:
        raise SystemExit(f"deqproof: {error}") from None
    return int(main())
