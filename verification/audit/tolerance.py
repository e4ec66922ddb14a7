"""Reads off what tolerance somebody's solver is given: from the subject, a layer, or the text of their forward."""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import Any

from deq.subject import Subject
from verification.audit.keep import Reached

NAMES = ("tol", "f_tol", "rtol", "tolerance", "stop_tol", "threshold", "eps_tol", "fixed_point_tol")


def stated_tolerance(subject: Subject) -> tuple[float, str] | None:
    """The tolerance that can be read off, and where; None where there is none to see.

    Of several the largest counts, and what a call gives counts before a default: a guess must raise no alarm.
    """
    if subject.tol is not None:
        return subject.tol, "Subject(tol=...)"
    if subject.forward is None:
        return None
    reached = Reached(subject.forward)
    found: list[tuple[float, str]] = []
    defaults: list[tuple[float, str]] = []
    for item in (*reached.modules, *reached.objects):
        found += [(value, f"{type(item).__name__}.{name}") for name in NAMES
                  if (value := _number(getattr(item, name, None))) is not None]
    for function in reached.functions:
        if function.__module__.split(".")[0] in ("torch", "deq", "numpy"):
            continue
        for given, number, place in _in_text(function):
            (found if given else defaults).append((number, place))
    return max(found or defaults, default=None)


def _number(value: Any) -> float | None:
    return value if isinstance(value, float) and 0 < value < 0.5 else None


def _in_text(function: Any) -> list[tuple[bool, float, str]]:
    """Numbers for names like `tol` in the source of a function: given (keywords, assignments) or a default."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError, ValueError):  # typed at a prompt, or a piece of a line
        return []
    found: list[tuple[bool, float, str]] = []
    for node in ast.walk(tree):
        pairs: list[tuple[str, ast.expr | None]] = []
        if isinstance(node, ast.keyword) and node.arg:
            pairs = [(node.arg, node.value)]
        elif isinstance(node, ast.Assign):
            pairs = [(target.id, node.value) for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.arguments):
            names = node.args[len(node.args) - len(node.defaults):]
            pairs = [(name.arg, value) for name, value in zip(names, node.defaults, strict=True)]
            pairs += [(name.arg, value) for name, value in zip(node.kwonlyargs, node.kw_defaults, strict=True)]
        for name, value in pairs:
            if name in NAMES and isinstance(value, ast.Constant):
                number = _number(value.value)
                if number is not None:
                    found.append((not isinstance(node, ast.arguments), number,
                                  f"{name}={number:g} in {function.__name__}"))
    return found
