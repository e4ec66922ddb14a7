"""Pictures of exact kernels against finite networks and against the authors' sampling."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from analysis.rates import fit_rate
from figures.registry import figure
from figures.style import Theme, canvas, legend

_LABELS = {"ck": "CK", "readout+A": "NTK, readout and A", "readout+A+B": "NTK, readout, A and B",
           "crossed": "NTK with B, limit without"}


@figure(name="kernel-width", title="Finite DEQs approach the infinite-width kernels",
        caption="Frobenius error of the conjugate and the empirical tangent kernel of finite, tied-weight DEQs "
                "against width; points are means over networks, bars one standard error, lines the fitted power laws "
                "with their 95 % intervals. The wrong pairing of tangent kernel and limit does not fall.",
        records=("kernel-width-tanh", "kernel-width-relu"))
def draw_width(tanh: dict[str, Any], relu: dict[str, Any], theme: Theme) -> Figure:
    """Two panels, one an activation."""
    drawing, axes = canvas(theme, 1, 2, height=3.6, width=8.4)
    for ax, record, name in zip(axes, (tanh, relu), ("tanh", "relu"), strict=True):
        for n, (key, label) in enumerate(_LABELS.items()):
            errors = np.array(record[key])
            widths = np.array(record["widths" if key == "ck" else "tangent widths"], dtype=float)
            mean, error = errors.mean(axis=1), errors.std(axis=1, ddof=1) / np.sqrt(errors.shape[1])
            rate = fit_rate(widths, errors)
            text = f"{label}: {rate.slope:.2f} ({rate.low:.2f}, {rate.high:.2f})"
            colour = theme.palette[n]
            ax.errorbar(widths, mean, error, fmt="os^D"[n], color=colour, markersize=4, capsize=2, label=text)
            ax.plot(widths, rate.constant * widths**rate.slope, color=colour, linewidth=1)
        ax.set(xscale="log", yscale="log", xlabel="width m", ylabel="Frobenius error", title=name)
        ax.set_ylim(top=8 * max(np.mean(row) for row in record["crossed"]))
        ax.set_xticks(record["widths"], [str(width) for width in record["widths"]])
        ax.xaxis.set_minor_locator(NullLocator())
        legend(ax, theme, loc="upper right")
    return drawing


@figure(name="kernel-sampling", title="Exact conjugate kernel beside the authors' sampling",
        caption="Time (left) and relative spectral-norm error (right) of the exact kernel and of the released sampling "
                "scheme with all its draws, on the same data (relu, sigma_a^2 = 0.2). Where fewer networks were drawn, "
                "time is in proportion and the error scaled by the root of the number of draws; the exact error is a "
                "bound.",
        records=("kernel-sampling",))
def draw_sampling(record: dict[str, Any], theme: Theme) -> Figure:
    """Bars by dimension."""
    runs = record["runs"]
    drawing, (left, right) = canvas(theme, 1, 2, height=3.0)
    place = np.arange(len(runs))
    for ax, exact, sampled, label in (
            (left, [r["exact_seconds"] for r in runs], [r["sampled_full_seconds"] for r in runs], "time (seconds)"),
            (right, [r["exact_relative_error_bound"] for r in runs],
             [r["sampled_relative_error"] * np.sqrt(r["draws"] / r["full_draws"]) for r in runs], "relative error")):
        bars = ax.bar(place - 0.2, exact, 0.36, color=theme.palette[0], label="exact")
        others = ax.bar(place + 0.2, sampled, 0.36, color=theme.palette[1], label="sampled")
        for group in (bars, others):
            ax.bar_label(group, fmt="%.2g", color=theme.ink, fontsize=8.5, padding=2)
        ax.set(yscale="log", ylabel=label, xticks=place, xticklabels=[f"p = {r['p']}" for r in runs])
        low, high = ax.get_ylim()
        ax.set_ylim(low, high * (high / low) ** 0.25)
    legend(left, theme, loc="upper left")
    return drawing
