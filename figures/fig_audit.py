"""Pictures of the audit: the normaliser by two estimators, and parameter counts beside the printed ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from figures.registry import figure
from figures.style import Theme, canvas, legend, outside


@figure(name="audit-normalizer", title="What the normaliser estimates of a perfect Gaussian model are off by",
        caption="Left: error of log Z in nats against the dimension, for importance sampling with 10^6 draws from "
                "N(0, 4 I) (mean, "
                "bars from smallest to largest repetition) and for the two annealed estimates, lower and upper. A log "
                "Z that "
                "is too small makes log-likelihoods too large by as much. Right: effective number of the 10^6 draws "
                "(median).",
        records=("audit-normalizer",))
def draw_normalizer(record: dict[str, Any], theme: Theme) -> Figure:
    """Error and effective sample size against dimension."""
    drawing, (left, right) = canvas(theme, 1, 2)
    rows, annealed = record["importance"], record["annealed"]
    dims = np.array([row["dim"] for row in rows])
    mean = np.array([row["mean"] for row in rows])
    spread = np.abs(np.array([[row["low"] for row in rows], [row["high"] for row in rows]]) - mean)
    left.errorbar(dims, mean, yerr=spread, marker="o", capsize=3, label="importance sampling")
    left.plot(dims, [row["lower"] for row in annealed], marker="^", linestyle="none", label="annealed, lower")
    left.plot(dims, [row["upper"] for row in annealed], marker="v", linestyle="none", markerfacecolor="none",
              label="annealed, upper")
    left.axhline(0, color=theme.muted, linewidth=0.8)
    left.set(xlabel="dimension d", ylabel="estimate of log Z minus truth [nats]", xscale="log")
    right.plot(dims, [row["effective"] for row in rows], marker="o")
    right.axhline(1, color=theme.muted, linewidth=0.8)
    right.set(xlabel="dimension d", ylabel="effective samples of 10^6", xscale="log", yscale="log")
    for ax in (left, right):
        ax.set_xticks(dims, [str(d) for d in dims])
        ax.minorticks_off()
    outside(drawing, left, theme)
    return drawing


@figure(name="audit-counts", title="Parameter counts rebuilt from the architectures, beside the printed ones",
        caption="Millions of parameters of each row of tables 1, 4 and 5, as printed (crosses) and rebuilt (dots: the "
                "paper's "
                "tables read literally; squares: the released code's network). Agreement is a dot under a cross.",
        records=("audit-counts",))
def draw_counts(record: dict[str, Any], theme: Theme) -> Figure:
    """One line a row."""
    rows = record["rows"]
    labels = list(dict.fromkeys(row["label"] for row in rows))
    drawing, (ax,) = canvas(theme, height=0.28 * len(labels) + 0.9)
    position = {label: index for index, label in enumerate(reversed(labels))}
    groups = (("rebuilt, literal", "o", lambda row: not row["note"].startswith("released")),
              ("rebuilt, released code", "s", lambda row: row["note"].startswith("released")))
    for name, marker, chosen in groups:
        kept = [row for row in rows if chosen(row)]
        ax.plot([row["rebuilt"] for row in kept], [position[row["label"]] for row in kept], marker=marker,
                linestyle="none", markersize=5, label=name)
    ax.plot([row["printed"] for row in rows], [position[row["label"]] for row in rows], marker="x", markersize=8,
            linestyle="none", color=theme.ink, label="printed")
    ax.set_yticks(list(position.values()), list(position))
    ax.set(xlabel="parameters [millions]", xlim=(0, None))
    legend(ax, theme, loc="lower right")
    return drawing
