"""When the paper's equivalent can be trusted: predicted errors over sizes, and predictions beside measurements."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from figures.registry import figure
from figures.style import Theme, canvas


@figure(name="equivalent-trust", title="When the paper's equivalent can be trusted",
        caption="Left and middle: predicted relative error (per cent, spectral norm) of the paper's equivalent of a "
                "ReLU DEQ's conjugate kernel on two classes, n = 0.8 p, against the dimension and the length of the "
                "class means (sigma_a^2 = 0.3) or sigma_a^2 (means of length 4). Right: predicted against measured "
                "errors of random settings; the line is equality.",
        records=("equivalent-map", "equivalent-trust"))
def draw_trust(grid: dict[str, Any], trust: dict[str, Any], theme: Theme) -> Figure:
    """Two maps and the test of the predictions."""
    drawing, axes = canvas(theme, 1, 3, height=2.9, width=9.6)
    sizes = np.arange(len(grid["sizes"]))
    for ax, key, values, label in ((axes[0], "by separation", grid["separations"], "length of the class means"),
                                   (axes[1], "by strength", grid["strengths"], r"$\sigma_a^2$")):
        errors = 100 * np.array(grid[key])
        ax.imshow(np.log10(errors), origin="lower", aspect="auto", cmap="cividis", vmin=0, vmax=2)
        ax.set_xticks(sizes, [str(size) for size in grid["sizes"]])
        ax.set_yticks(np.arange(len(values)), [f"{value:g}" for value in values])
        ax.set(xlabel="dimension p", ylabel=label)
        ax.grid(False)
        for row, column in np.ndindex(errors.shape):
            error = float(errors[row, column])
            ax.text(column, row, f"{error:.2g}", ha="center", va="center", fontsize=8,
                    color="#ffffff" if error < 12 else "#1b1f24")  # on the map's dark and light ends
    axes[0].set_title("predicted error, %")
    axes[1].set_title("predicted error, %")
    predicted, measured = (100 * np.array(trust[name]) for name in ("predicted", "measured"))
    ends = [0.7 * min(predicted.min(), measured.min()), 1.4 * max(predicted.max(), measured.max())]
    axes[2].plot(ends, ends, color=theme.muted, linewidth=0.9)
    axes[2].plot(predicted, measured, "o", markersize=4, color=theme.palette[0])
    axes[2].set(xscale="log", yscale="log", xlabel="predicted, %", ylabel="measured, %", xlim=ends, ylim=ends,
                title="random settings")
    ticks = [tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if ends[0] < tick < ends[1]]
    for axis in (axes[2].xaxis, axes[2].yaxis):
        axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.set_minor_locator(NullLocator())
    return drawing
