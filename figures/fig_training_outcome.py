"""Where training ends under phantom and exact gradients: loss against step, and the paired difference."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.registry import figure
from figures.style import Theme, canvas, legend

LABELS = {"exact": "exact gradients", "phantom-1": "phantom, K = 1", "phantom-2": "phantom, K = 2",
          "phantom-4": "phantom, K = 4"}


TABLES = {"parkinson": "Parkinson", "redwine": "red wine", "whitewine": "white wine"}


@figure(name="training-outcome", title="Training under phantom and exact gradients, same seeds (stored runs)",
        caption="A DEQ-SM of table 2, from the same weights and over the same batches under either rule; one column a "
                "table, the number of steps of the paper's protocol in its title. Above: exact score-matching loss on "
                "the test set, lower is better, alpha solved anew under exact derivatives (solid), and for the phantom "
                "also what its own derivatives say (dotted, where it leaves the frame its last value is written "
                "there); mean, bars the 95 % t interval over seeds; the steep first fifth is left off. Below: the "
                "paired difference, phantom minus exact, mean with its interval, a thin line a seed, and how far the "
                "loss that the phantom reports lies from the true one of the same weights (dotted, a thin line a "
                "seed). The band is the margin within which two losses count as equal; the scale is linear between -1 "
                "and 1.",
        records=("training-outcome",))
def draw_outcome(record: dict[str, Any], theme: Theme) -> Figure:
    """Losses of both rules and their difference from exact training, a table a column."""
    drawing, axes = canvas(theme, 2, len(record), height=2.9, width=3.6 * len(record) + 0.6)
    grid = np.array(axes, dtype=object).reshape(2, len(record))
    for column, (table, runs) in enumerate(record.items()):
        steps = np.array(runs["steps"])
        part = "all" if steps[-1] >= runs["of"] else f"{steps[-1]:,}"
        grid[0, column].set_title(f"{TABLES.get(table, table)}, {part} of {runs['of']:,} steps")
        _losses(grid[0, column], runs, steps, theme)
        _differences(grid[1, column], runs, steps, theme)
    grid[0, 0].set_ylabel("score-matching loss on test rows")
    grid[1, 0].set_ylabel("difference of the losses")
    legend(grid[0, 0], theme, loc="upper right")
    handles, labels = grid[1, 0].get_legend_handles_labels()
    drawing.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False,
                   labelcolor=theme.ink, fontsize="small")
    return drawing


def _losses(axes: Axes, runs: dict[str, Any], steps: np.ndarray, theme: Theme) -> None:
    shown = steps >= steps[-1] / 5
    reach = []
    for index, (rule, losses) in enumerate(runs["losses"].items()):
        mean, half = np.array(losses["exact"]["mean"])[shown], np.array(losses["exact"]["half_width"])[shown]
        axes.errorbar(steps[shown] + 0.12 * index * (steps[-1] - steps[-2]), mean, yerr=half,
                      color=theme.palette[index], capsize=2, linewidth=1.2, marker="os"[index], markersize=3,
                      elinewidth=0.8, label=LABELS[rule])
        reach += [*(mean - half), *(mean + half)]
    low, high = min(reach), max(reach)
    low, high = low - 0.12 * (high - low), high + 0.05 * (high - low)
    own = np.array(runs["losses"]["phantom-2"]["own"]["mean"])
    axes.plot(steps[shown], own[shown], color=theme.palette[1], linestyle=":", label="phantom, by its own derivatives")
    if own[-1] < low - 0.1 * (high - low):
        axes.annotate(f"reported {own[-1]:.0f}", (0.97, 0.03), xycoords="axes fraction", ha="right",
                      color=theme.palette[1])
    axes.set(ylim=(low, high), xlabel="training step")


def _differences(axes: Axes, runs: dict[str, Any], steps: np.ndarray, theme: Theme) -> None:
    gap, told, margin = runs["difference"], runs["reported"], runs["margin"]
    for rows, color in ((gap["seeds"], theme.palette[1]), (told["seeds"], theme.palette[3])):
        for row in rows:
            axes.plot(steps, row, color=color, linewidth=0.6, alpha=0.45)
    axes.axhspan(-margin, margin, color=theme.palette[2], alpha=0.15, linewidth=0, label="margin, 1 % of the loss")
    axes.errorbar(steps, gap["mean"], yerr=gap["half_width"], color=theme.palette[1], capsize=2, marker="s",
                  markersize=3, elinewidth=0.8, label="K = 2 minus exact")
    axes.errorbar(steps, told["mean"], yerr=told["half_width"], color=theme.palette[3], capsize=2, linestyle=":",
                  elinewidth=0.8, label="K = 2: reported minus true")
    axes.axhline(0, color=theme.ink, linewidth=0.8)
    axes.set_yscale("symlog", linthresh=1.0)
    axes.set(xlabel="training step")
