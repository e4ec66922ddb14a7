"""Pictures of deterministic equivalents: errors against dimension, the released covariance term, the refined ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.rates import fit_rate
from figures.registry import figure
from figures.style import Theme, canvas, legend

MARKERS = "os^Dv"


def _power_law(ax: Axes, sizes: list[int], errors: list[list[float]], colour: str, marker: str, label: str,
               line: str = "-") -> None:
    """Means with their spread (least to most of the draws) and the fitted law; the label gains the rate."""
    values, x = np.array(errors), np.array(sizes, dtype=float)
    rate = fit_rate(x, values)
    mean = values.mean(axis=1)
    bars = np.abs(np.stack([mean - values.min(axis=1), values.max(axis=1) - mean]))
    ax.errorbar(x, mean, bars, fmt=marker, color=colour, markersize=4, capsize=2,
                label=f"{label}: {rate.slope:.2f} ± {rate.high - rate.slope:.2f}")
    ax.plot(x, rate.constant * x**rate.slope, color=colour, linewidth=1, linestyle=line)


@figure(name="equivalent-errors", title="The paper's equivalents against the exact kernels",
        caption="Spectral norm of kernel minus equivalent against dimension p (n = 0.8 p, the paper's two classes), "
                "for CK (above) and NTK (below) and three sigma_a^2. Points are means over draws, bars their range; "
                "legends give the fitted rate in p with half its 95 % interval.",
        records=("equivalent-ck", "equivalent-ntk"))
def draw_errors(ck: dict[str, Any], ntk: dict[str, Any], theme: Theme) -> Figure:
    """Two rows, one panel a sigma_a^2."""
    panels = len(ck["sigmas"])
    drawing, axes = canvas(theme, 2, panels, height=3.3, width=3.5 * panels, sharex=True)
    for row, (record, name) in enumerate(((ck, "CK"), (ntk, "NTK"))):
        for column, sigma in enumerate(record["sigmas"]):
            ax = axes[panels * row + column]
            for n, (activation, errors) in enumerate(record["errors"].items()):
                _power_law(ax, record["sizes"], errors[column], theme.palette[n], MARKERS[n], activation)
            ax.set(xscale="log", yscale="log", title=rf"{name}, $\sigma_a^2$ = {sigma}")
            low, high = ax.get_ylim()
            ax.set_ylim(low / 12, high)
            ax.set_xticks(record["sizes"], [str(p) for p in record["sizes"]])
            ax.minorticks_off()
            if row:
                ax.set_xlabel("dimension p")
            if not column:
                ax.set_ylabel("spectral-norm error")
            legend(ax, theme, loc="lower left")
    return drawing


@figure(name="equivalent-released", title="What the released code's covariance term costs",
        caption="Left: spectral-norm error of the CK equivalent with the right and with the released T (relu, "
                "sigma_a^2 = 0.2, the paper's two classes); bars are the range over draws. Right: ratio of the two "
                "errors over sigma_a^2, for the paper's classes and for three classes with unequal covariances.",
        records=("equivalent-released",))
def draw_released(record: dict[str, Any], theme: Theme) -> Figure:
    """Errors and their ratio."""
    drawing, (left, right) = canvas(theme, 1, 2, height=3.3, width=8.4)
    _power_law(left, record["sizes"], record["right"], theme.palette[0], "o", "tr(CaCb)/p")
    _power_law(left, record["sizes"], record["released"], theme.palette[1], "s", "released T", "--")
    left.set(xscale="log", yscale="log", xlabel="dimension p", ylabel="spectral-norm error")
    left.set_xticks(record["sizes"], [str(p) for p in record["sizes"]])
    left.minorticks_off()
    legend(left, theme)
    cost = record["cost"]
    for n, label in enumerate(("paper", "three classes")):
        right.plot(cost["sigma_a2"], cost[label], marker="os"[n], color=theme.palette[n], label=label)
    right.axhline(1, color=theme.muted, linewidth=1)
    right.set(xlabel=r"$\sigma_a^2$", ylabel="error with released T / with right T", title=f"p = {cost['p'][0]:.0f}")
    legend(right, theme)
    return drawing


@figure(name="equivalent-refined", title="Refined equivalents beside the paper's",
        caption="Spectral-norm error of CK equivalents against dimension p (n = 0.8 p, three classes with unequal "
                "covariances, sigma_a^2 = 0.5): the paper's, and ours with own norms and Hadamard powers up to order "
                "1, 2, 3. Bars are the range over draws; legends give the rate in p with half its 95 % interval.",
        records=("equivalent-refined",))
def draw_refined(record: dict[str, Any], theme: Theme) -> Figure:
    """One panel an activation."""
    names = list(record["errors"])
    drawing, axes = canvas(theme, 1, len(names), height=3.6, width=10.5, sharey=True)
    keys = {"ck": "paper", "ck order 1": "order 1", "ck order 2": "order 2", "ck order 3": "order 3"}
    for ax, name in zip(axes, names, strict=True):
        for n, (key, label) in enumerate(keys.items()):
            _power_law(ax, record["sizes"], record["errors"][name][key], theme.palette[n], MARKERS[n], label)
        ax.set(xscale="log", yscale="log", xlabel="dimension p", title=name)
        ax.set_xticks(record["sizes"], [str(p) for p in record["sizes"]])
        ax.minorticks_off()
        legend(ax, theme, loc="lower left")
    low, high = axes[0].get_ylim()
    axes[0].set_ylim(low / 300, high)
    axes[0].set_ylabel("spectral-norm error")
    return drawing
