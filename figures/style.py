"""One look for every picture: two themes, a colour-blind safe palette, one size a column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

if TYPE_CHECKING:  # newer than the oldest matplotlib that is supported
    from matplotlib.typing import RcKeyType


@dataclass(frozen=True)
class Theme:
    """Colours of a theme. `palette` is Okabe and Ito's, reordered so that neighbours differ in lightness."""

    name: str
    ink: str
    muted: str
    grid: str
    palette: tuple[str, ...]


#: Sizes in points, and text that stays text; in force while a figure is made and while it is drawn.
SETTINGS: dict[RcKeyType, Any] = {"font.size": 9.5, "axes.titlesize": 10, "legend.fontsize": 8.5,
                                  "svg.fonttype": "none"}
LIGHT = Theme("light", "#1b1f24", "#5c6670", "#d9dee3",
              ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f5a00"))
DARK = Theme("dark", "#e6e9ec", "#9aa4ae", "#3a424a",
             ("#56b4e9", "#ff8c42", "#2ccf9f", "#e59cc3", "#f0b93a", "#8fd0f5", "#d3b15c"))


def canvas(theme: Theme, rows: int = 1, columns: int = 1, height: float = 3.4, width: float = 7.2,
           **kwargs: Any) -> tuple[Figure, list[Axes]]:
    """A transparent figure with `rows * columns` styled axes, flat in reading order; sizes in inches."""
    with plt.rc_context(SETTINGS):
        drawing, grid = plt.subplots(rows, columns, figsize=(width, height * rows), squeeze=False,
                                     layout="constrained", **kwargs)
    drawing.patch.set_alpha(0)
    axes = list(grid.flat)
    for ax in axes:
        style(ax, theme)
    return drawing, axes


def style(ax: Axes, theme: Theme) -> None:
    """Put an axes into the theme: ink, grid, no box."""
    ax.patch.set_alpha(0)
    ax.set_prop_cycle(color=theme.palette)
    ax.grid(True, color=theme.grid, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.tick_params(colors=theme.muted, which="both")
    for side in ax.spines:
        ax.spines[side].set_visible(side in ("left", "bottom"))
        ax.spines[side].set_color(theme.muted)
    for text in (ax.xaxis.label, ax.yaxis.label, ax.title):
        text.set_color(theme.ink)


def outside(drawing: Figure, ax: Axes, theme: Theme) -> None:
    """The legend of an axes above the whole figure, in a row: where data fill the axes, no corner of it is free."""
    handles, labels = ax.get_legend_handles_labels()
    drawing.legend(handles, labels, loc="outside upper left", ncols=len(labels), frameon=False, labelcolor=theme.ink,
                   fontsize=8.5, columnspacing=1.2, handletextpad=0.5)


def legend(ax: Axes, theme: Theme, **kwargs: Any) -> None:
    """A frameless legend in the theme's ink."""
    ax.legend(frameon=False, labelcolor=theme.ink, fontsize=8.5, **kwargs)
