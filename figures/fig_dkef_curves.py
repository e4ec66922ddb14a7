"""Training of the deep kernel models of tables 2 and 3: validation loss by row, contraction of the equilibrium."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.fig_training_outcome import TABLES
from figures.registry import figure
from figures.style import Theme, canvas, legend

ROWS = {"sm": "explicit, 3 layers", "sm-8": "explicit, 8 layers", "sm-16": "explicit, 16 layers",
        "deq-sm": "equilibrium"}
TITLES = {**TABLES, "gaussian-100": "Gaussian, d = 100"}


@figure(name="dkef-curves", title="Deep kernel models in training, tables 2 and 3 (stored runs; [SM] figures 2, 3)",
        caption="Above: score-matching loss on validation rows, a thin line a seed, thick the mean for as long as all "
                "seeds train (patience ends runs early); the equilibrium's is by its phantom derivatives, K = 2, as "
                "in the paper, and overstates how good it is (own-b2d7). Steps of the paper's protocol in the titles. "
                "Below: spectral radius of df/dz of the equilibrium row, the largest over a batch.",
        records=("dkef-curves",))
def draw_curves(record: dict[str, Any], theme: Theme) -> Figure:
    """Losses and contraction, a data set a column."""
    drawing, axes = canvas(theme, 2, len(record), height=2.7, width=2.9 * len(record) + 0.6, sharex="col")
    grid = np.array(axes, dtype=object).reshape(2, len(record))
    for column, (data, runs) in enumerate(record.items()):
        grid[0, column].set_title(f"{TITLES.get(data, data)}\n{runs['of']:,} steps printed")
        for index, (row, name) in enumerate(ROWS.items()):
            if row in runs["rows"]:
                _lines(grid[0, column], runs["rows"][row], "validation", theme.palette[index], name)
        _frame(grid[0, column], runs["rows"], theme.ink)
        if "deq-sm" in runs["rows"]:
            _lines(grid[1, column], runs["rows"]["deq-sm"], "spectral_radius", theme.palette[len(ROWS) - 1], "")
        grid[1, column].set(xlabel="training step", ylim=(0, 1))
    grid[0, 0].set_ylabel("SM loss, validation rows")
    grid[1, 0].set_ylabel("spectral radius")
    legend(grid[0, 0], theme, loc="upper right")
    return drawing


def _lines(ax: Axes, curves: list[dict[str, Any]], key: str, colour: str, name: str) -> None:
    series = []
    for curve in curves:
        steps = np.array(curve["step"], dtype=float)
        values = np.array([np.nan if value is None else value for value in curve[key]], dtype=float)
        ax.plot(steps, values, color=colour, linewidth=0.6, alpha=0.5)
        series.append(dict(zip(steps, values, strict=True)))
    shared = sorted(set.intersection(*(set(one) for one in series)))
    mean = [np.mean([one[step] for one in series]) for step in shared]
    ax.plot(shared, mean, color=colour, linewidth=1.8, label=name)


def _frame(ax: Axes, rows: dict[str, list[dict[str, Any]]], ink: str) -> None:
    """Leave off the steep start, the first tenth, and losses far below all others, which are written there."""
    values = [value for curves in rows.values() for curve in curves
              for value in curve["validation"][len(curve["validation"]) // 10:] if value is not None]
    lowest, (quarter, middle, high) = min(values), np.quantile(values, (0.25, 0.5, 0.97))
    low = max(lowest, middle - 8 * (middle - quarter) - 1e-9)
    if low > lowest:
        ax.annotate(f"down to {lowest:,.0f}", (0.97, 0.03), xycoords="axes fraction", ha="right", color=ink)
    ax.set_ylim(low - 0.04 * (high - low), high + 0.1 * (high - low))
