"""Eigenvalues of the kernels of DEQs and explicit networks beside their limit."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from figures.registry import figure
from figures.style import Theme, canvas, legend

_COLUMNS = (("deq", "DEQ"), ("equivalent", "equivalent network"), ("plain", "plain network"))


@figure(name="kernel-spectra", title="Spectra of a DEQ, its equivalent network and a plain one",
        caption="Eigenvalue densities of exact conjugate kernels (infinite width) on one sample of a two-class "
                "Gaussian mixture. Top: ReLU DEQ "
                "and its leaky-ReLU equivalent; bottom: tanh DEQ and its hard-tanh equivalent; right: plain networks "
                "of equal depth. Line and triangles: limit density and isolated eigenvalues of the DEQ, the same in "
                "each row. "
                "Isolated eigenvalues found are drawn as ticks on the axis.",
        records=("rmt-spectra",))
def draw_spectra(record: dict[str, Any], theme: Theme) -> Figure:
    """One row a DEQ, one column a kernel."""
    panels = record["panels"]
    drawing, axes = canvas(theme, len(panels), 3, height=2.4)
    for row, panel in enumerate(panels):
        limit = np.array(panel["density"])
        edge = panel["x"][-1]
        reach = 1.08 * max(*panel["outliers"], panel["deq"][-1], panel["equivalent"][-1], edge)
        for column, (key, label) in enumerate(_COLUMNS):
            ax, values = axes[3 * row + column], np.array(panel[key])
            bulk = values[values <= 1.15 * max(edge, 1e-9)] if key != "plain" else values[:-2]
            ax.hist(bulk, bins=28, weights=np.full(len(bulk), 28 / len(values) / np.ptp(bulk)),
                    color=theme.palette[column],
                    alpha=0.55, linewidth=0)
            ax.plot(panel["x"], limit, color=theme.ink, linewidth=1.3)
            ax.plot(panel["outliers"], np.full(len(panel["outliers"]), 0.05 * limit.max()), "v", color=theme.ink,
                    markersize=5)
            single = values[values > bulk.max()]
            ax.vlines(single, 0, 0.16 * limit.max(), color=theme.palette[column], linewidth=2)
            name = panel["name"] if key != "equivalent" else panel["family"].replace("_", " ")
            ax.set_title(f"{label} ({name})")
            ax.set(xlim=(0, reach), ylim=(0, 1.35 * limit.max()))
            if column == 0:
                ax.set(ylabel="density")
            if row == len(panels) - 1:
                ax.set(xlabel="eigenvalue")
    return drawing


@figure(name="outlier-positions", title="Isolated eigenvalues, predicted and found",
        caption="Largest two eigenvalues of the exact kernels of samples of a two-class Gaussian mixture, divided by "
                "their predicted limits, "
                "against the dimension p (n = 0.8 p). Points: mean over samples; bars: smallest to largest.",
        records=("rmt-outliers",))
def draw_outliers(record: dict[str, Any], theme: Theme) -> Figure:
    """Ratio found/predicted for each activation and kernel."""
    drawing, axes = canvas(theme, 1, 2, sharey=True)
    names = list(dict.fromkeys(row["name"] for row in record["rows"]))
    for ax, kind in zip(axes, ("ck", "ntk"), strict=True):
        for index, name in enumerate(names):
            for rank, marker in ((0, "o"), (1, "s")):
                rows = [row for row in record["rows"] if row["name"] == name and row["kind"] == kind]
                sizes = sorted({row["p"] for row in rows})
                ratios = []
                for size in sizes:
                    of_size = sorted((row for row in rows if row["p"] == size), key=lambda row: -row["predicted"])
                    ratios.append(np.array(of_size[rank]["found"]) / of_size[rank]["predicted"])
                mean = np.array([ratio.mean() for ratio in ratios])
                bars = np.abs(np.array([[ratio.min() for ratio in ratios], [ratio.max() for ratio in ratios]]) - mean)
                ax.errorbar(np.array(sizes) * (1 + 0.03 * (2 * index + rank)), mean, yerr=bars, marker=marker,
                            markersize=5,
                            capsize=3, linestyle="-" if rank == 0 else "--", color=theme.palette[index],
                            label=f"{name}, {'largest' if rank == 0 else 'second'}")
        ax.axhline(1, color=theme.muted, linewidth=0.8)
        ax.set(xlabel="dimension p", xscale="log", title=kind.upper())
        ax.set_xticks(sizes, [str(size) for size in sizes])
        ax.minorticks_off()
    axes[0].set(ylabel="found / predicted", ylim=(0.9, 1.25))
    legend(axes[1], theme, loc="upper right")
    return drawing
