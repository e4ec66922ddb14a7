"""What to say about a name that is not known: the nearest ones first, then all."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """At most `count` of the known names that `name` may be a slip of, nearest first; none where none is near.

    Case does not count, and a known name that holds `name`, or starts as it does, is near whatever its length.

    Example:
        >>> nearest("andersen", ["picard", "anderson", "newton"])
        ['anderson']
        >>> nearest("xyz", ["picard"])
        []
    """
    by_lower = {item.lower(): item for item in known}
    wanted = name.lower()
    close = difflib.get_close_matches(wanted, by_lower, n=count, cutoff=0.6)
    holding = [item for item in by_lower if len(wanted) > 2 and wanted in item and item not in close]
    return [by_lower[item] for item in [*close, *holding][:count]]


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The message about a name that is not among `known`.

    Args:
        kind: what it should have been a name of, such as "solver".
        name: what was given.
        known: all names of that kind, in the order in which to list them.

    Example:
        >>> unknown("solver", "newtn", ["picard", "newton"])
        "unknown solver 'newtn'; did you mean 'newton'? Known are picard, newton"
    """
    names = list(known)
    near = nearest(name, names)
    listed = f"nown are {', '.join(names)}" if names else "one is registered"
    if near:
        return f"unknown {kind} {name!r}; did you mean {' or '.join(map(repr, near))}? {'KN'[not names]}{listed}"
    return f"unknown {kind} {name!r}; {'kn'[not names]}{listed}"
