"""Equivalent networks: the least depth, and both branches of the two-layer solutions."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from figures.registry import figure
from figures.style import Theme, canvas, legend


@figure(name="equivalent-depth", title="Least number of leaky-ReLU layers that match a ReLU DEQ",
        caption="Least depth of a leaky-ReLU network with the conjugate kernel of the ReLU DEQ, against the variance "
                "of the recurrent "
                "weights (it does not depend on that of the input weights). Dashed: where a further layer is needed. "
                "Solid vertical: no depth is enough beyond. Shaded: reachable with variances that add up to one.",
        records=("rmt-depth",))
def draw_depth(record: dict[str, Any], theme: Theme) -> Figure:
    """A staircase with its thresholds."""
    drawing, (ax,) = canvas(theme, height=3.2)
    ax.step(record["sigma_a2"], record["depth"], where="mid", color=theme.palette[0], linewidth=1.8)
    for index, threshold in enumerate(record["thresholds"]):
        ax.axvline(threshold, color=theme.palette[1], linestyle="--", linewidth=0.9,
                   label="thresholds" if index == 0 else None)
        ax.annotate(f"{threshold:.4f}", (threshold, 0.98), xycoords=("data", "axes fraction"), rotation=90, va="top",
                    ha="right", fontsize=7.5, color=theme.muted)
    ax.axvline(record["limit"], color=theme.palette[2], linewidth=1.4, label=r"limit $4/(3-2/\pi)$")
    ax.axvspan(0, 1, color=theme.grid, alpha=0.35, linewidth=0, label=r"$\sigma_a^2+\sigma_b^2=1$")
    ax.set(xlabel=r"variance of the recurrent weights, $\sigma_a^2$", ylabel="least depth [layers]", yscale="log",
           xlim=(0, record["limit"] * 1.03))
    ticks = [1, 2, 3, 5, 10, 20, 30]
    ax.set_yticks(ticks, [str(tick) for tick in ticks])
    ax.minorticks_off()
    legend(ax, theme, loc="center left")
    return drawing


@figure(name="equivalent-branches", title="The two two-layer equivalents, and what a local optimiser returns",
        caption="Left: bends $u_l = d_l^2/s_l^2$ of the layers $s x + d|x|$ of both exact two-layer equivalents; they "
                "merge and end at "
                "$\\sigma_a^2 = 0.8528$ (vertical). Right: largest relative residual of the four equations left by "
                "SLSQP from the "
                "released start; the exact solutions are at rounding (below $10^{-14}$) wherever they exist.",
        records=("rmt-branches",))
def draw_branches(record: dict[str, Any], theme: Theme) -> Figure:
    """Bends of both layers on both branches; residuals of the released fit."""
    drawing, (left, right) = canvas(theme, 1, 2)
    a2, bends = np.array(record["sigma_a2"]), record["bends"]
    names = ("first layer most bent", "second layer most bent")
    for branch, (color, name) in enumerate(zip(theme.palette, names, strict=False)):
        for layer, dashes in ((0, "-"), (1, "--")):
            left.plot(a2, [nets[min(branch, len(nets) - 1)][layer] for nets in bends], linestyle=dashes, color=color,
                      label=f"{name}: layer {layer + 1}")
    fits = np.array(record["released"])
    right.semilogy(fits[:, 0], fits[:, 1], marker="o", markersize=4, color=theme.palette[1],
                   label="SLSQP, released start")
    right.axhline(1e-14, color=theme.palette[0], linestyle="--", linewidth=1, label="bracketed solver")
    for ax in (left, right):
        ax.axvline(0.852786533896, color=theme.muted, linewidth=0.9)
        ax.set(xlabel=r"$\sigma_a^2$", xlim=(0, 1))
    left.set(ylabel=r"bend $u_l = d_l^2/s_l^2$")
    right.set(ylabel="largest relative residual")
    left.set_ylim(-0.05, 1.55)
    legend(left, theme, loc="upper left")
    legend(right, theme, loc="center right")
    return drawing
