"""Numbers to strict JSON and back: arrays become lists, non-finite floats become the strings that `restore` knows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any

_TO_TEXT = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
_FROM_TEXT = {text: float(text) for text in _TO_TEXT.values()}


def plain(value: Any, where: str = "value") -> Any:
    """Return `value` as strict JSON can hold it.

    Tuples, sets of numbers, numpy and torch scalars and arrays become numbers and lists; NaN and infinities become
    "NaN", "Infinity" and "-Infinity" (JSON has no token for them).

    Raises:
        TypeError: something that is no data, with the path at which it sits.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return plain(value.value, where)
    if isinstance(value, str | PurePath):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else _TO_TEXT[str(float(value))]
    if isinstance(value, Mapping):
        return {str(key): plain(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    if hasattr(value, "tolist"):
        return plain(value.tolist(), where)
    raise TypeError(f"{where} is a {type(value).__name__}; only numbers, strings, lists and dictionaries of them "
                    "can be stored")


def restore(value: Any) -> Any:
    """Undo what `plain` does to non-finite floats."""
    if isinstance(value, str):
        return _FROM_TEXT.get(value, value)
    if isinstance(value, list):
        return [restore(item) for item in value]
    if isinstance(value, dict):
        return {key: restore(item) for key, item in value.items()}
    return value
