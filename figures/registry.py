"""The register of figures: each draws named records on a given theme and never recomputes anything."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

Draw = Callable[..., Figure]


@dataclass(frozen=True)
class FigureSpec:
    """One picture.

    Attributes:
        name: as on the command line and in `Claim.figures`.
        title: a line.
        caption: what is to be seen, with units and what error bars mean.
        records: names of the records it reads; passed to `draw` as positional dictionaries, then the theme.
        draw: `draw(*records, theme) -> matplotlib Figure`; `theme` is a `figures.style.Theme`.
    """

    name: str
    title: str
    caption: str
    records: tuple[str, ...]
    draw: Draw


FIGURES: dict[str, FigureSpec] = {}


def figure(**data: Any) -> Callable[[Draw], Draw]:
    """Register the decorated function as a figure; keywords are the fields of `FigureSpec` but `draw`."""

    def register(draw: Draw) -> Draw:
        spec = FigureSpec(draw=draw, **data)
        if spec.name in FIGURES:
            raise ValueError(f"figure {spec.name!r} is registered twice")
        FIGURES[spec.name] = spec
        return draw

    return register


def load_figures() -> dict[str, FigureSpec]:
    """Import every `figures.fig_*` module and return all figures by name."""
    import_prefixed("fig_")
    return FIGURES


def import_prefixed(prefix: str) -> None:
    """Import every module of this package whose name starts with `prefix`, so that it registers what it holds."""
    root = importlib.import_module("figures")
    for module in pkgutil.iter_modules(root.__path__):
        if module.name.startswith(prefix):
            importlib.import_module(f"figures.{module.name}")
