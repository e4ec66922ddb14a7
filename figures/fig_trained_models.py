"""Pictures of the image models: memory of a step by variant, and phantom gradients while they train."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from figures.registry import figure
from figures.style import Theme, canvas, legend


@figure(name="variant-memory", title="Memory of a training step, relative to the base row",
        caption="Peak memory of one training step divided by that of the first row of the same model. Dots: counted "
                "here, every "
                "tensor's storage on a CPU at reduced width. Crosses: the paper's figures (GPU, full width; for NCSN "
                "those of "
                "the score graph).",
        records=("variant-memory",))
def draw_memory(record: dict[str, Any], theme: Theme) -> Figure:
    """One line a variant."""
    rows = record["rows"]
    base: dict[str, dict[str, Any]] = {}
    for row in rows:
        base.setdefault(row["label"].split()[0], row)
    drawing, (ax,) = canvas(theme, height=0.27 * len(rows) + 0.9)
    heights = np.arange(len(rows))[::-1]
    ours = [row["bytes"] / base[row["label"].split()[0]]["bytes"] for row in rows]
    printed = [row["paper"] / base[row["label"].split()[0]]["paper"] for row in rows]
    ax.plot(ours, heights, marker="o", linestyle="none", label="counted, reduced width")
    ax.plot(printed, heights, marker="x", markersize=7, linestyle="none", color=theme.ink, label="printed")
    ax.axvline(1, color=theme.muted, linewidth=0.8)
    ax.set_yticks(heights, [row["label"] for row in rows])
    ax.set(xlabel="memory of a step / memory of the base row", xlim=(0, None))
    legend(ax, theme, loc="lower right")
    return drawing


@figure(name="phantom-image-models", title="Phantom parameter gradients of the image models while they train",
        caption="Relative error of the parameter gradient under K phantom steps against exact derivatives, at the "
                "same weights, "
                "rows and noise, before the given training step. Reduced widths, float64, trained with K = 2.",
        records=("phantom-image-models",))
def draw_phantom(record: dict[str, Any], theme: Theme) -> Figure:
    """One panel a model, one line a number of steps."""
    models = record["models"]
    drawing, axes = canvas(theme, 1, len(models), sharey=True)
    for ax, model in zip(axes, models, strict=True):
        rules = list(dict.fromkeys(point["rule"] for point in model["points"]))
        for marker, rule in zip("osv^D", rules, strict=False):
            points = [point for point in model["points"] if point["rule"] == rule]
            ax.plot([p["step"] for p in points], [p["relative_error"] for p in points], marker=marker, label=rule)
        ax.set(title=model["label"], xlabel="training step", yscale="log")
    axes[0].set_ylabel("relative error of the gradient")
    legend(axes[1], theme, loc="lower left")
    return drawing
