"""Where training ends under phantom and exact gradients: loss against step, and the paired difference."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from figures.registry import figure
from figures.style import Theme, canvas, legend

LABELS = {"exact": "exact gradients", "phantom-1": "phantom, K = 1", "phantom-2": "phantom, K = 2",
          "phantom-4": "phantom, K = 4"}


@figure(name="training-outcome", title="Training under phantom and exact gradients, same seeds (stored runs)",
        caption="A DEQ-SM of table 2 on Parkinson, from the same weights and over the same batches under either rule. "
                "Left: exact score-matching loss on the test set, lower is better, alpha solved anew under exact "
                "derivatives (solid), and for the phantom also what its own derivatives say (dotted); mean, bars the "
                "95 % t interval over seeds. Right: the paired difference, phantom minus exact, mean with its 95 % t "
                "interval, a thin line a seed; the band is the margin within which the two count as equal. Seeds "
                "scatter more than rules, which is why the difference is taken within a seed. Reduced: the paper "
                "trains 11,100 steps.",
        records=("training-outcome",))
def draw_outcome(record: dict[str, Any], theme: Theme) -> Figure:
    """Losses of all rules and their difference from exact training."""
    drawing, (left, right) = canvas(theme, 1, 2, height=3.4, width=9.0)
    steps = np.array(record["steps"])
    markers = "os^D"
    for index, (rule, losses) in enumerate(record["losses"].items()):
        color, shift = theme.palette[index], 0.06 * index * (steps[-1] - steps[-2])
        mean, half = np.array(losses["exact"]["mean"]), np.array(losses["exact"]["half_width"])
        left.errorbar(steps + shift, mean, yerr=half, color=color, capsize=2, marker=markers[index], markersize=3,
                      linewidth=1.2, elinewidth=0.8, label=LABELS[rule])
        if rule != "exact":
            left.plot(steps, losses["own"]["mean"], color=color, linestyle=":",
                      label=f"{LABELS[rule]}, by its own derivatives")
    left.set(xlabel="training step", ylabel="score-matching loss on test rows")
    legend(left, theme, loc="upper right")
    gap = record["difference"]
    for row in gap["seeds"]:
        right.plot(steps, row, color=theme.muted, linewidth=0.7)
    right.axhspan(-record["margin"], record["margin"], color=theme.palette[2], alpha=0.15, linewidth=0,
                  label="margin, 1 % of the loss")
    right.errorbar(steps, gap["mean"], yerr=gap["half_width"], color=theme.palette[1], capsize=2, marker="s",
                   markersize=3, label="K = 2 minus exact")
    right.axhline(0, color=theme.ink, linewidth=0.8)
    right.set(xlabel="training step", ylabel="difference of the losses")
    legend(right, theme, loc="best")
    return drawing
