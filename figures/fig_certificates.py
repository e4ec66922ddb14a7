"""Pictures of certificates: the proved error of the phantom gradient around the measured one."""

from __future__ import annotations

from statistics import median
from typing import Any

from matplotlib.figure import Figure

from figures.registry import figure
from figures.style import Theme, canvas, legend


@figure(name="certified-phantom-error", title="Phantom error, proved and measured",
        caption="Error of the phantom score and of the trace of its Jacobian, relative to the exact ones, against the "
                "number K of phantom steps, for one softplus layer. Line: the interval that the certificate proves "
                "(its two ends differ by less than the line's width). Circles: the library's float64 values. Bars: "
                "allowance for float64 rounding. Dashes: a K-step decay at the certified contraction factor q.",
        records=("certified_phantom_error",))
def draw_certified_error(record: dict[str, Any], theme: Theme) -> Figure:
    """Two panels, score and trace, on logarithmic axes."""
    drawing, axes = canvas(theme, 1, 2, height=3.2)
    rows = record["rows"]
    steps = [row["steps"] for row in rows]
    for ax, name, label in zip(axes, ("score", "trace"), ("Score", "Trace"), strict=True):
        scale = abs(record[name])
        low, high = ([row[f"{name}_{end}"] / scale for row in rows] for end in ("low", "high"))
        ax.fill_between(steps, low, high, color=theme.palette[0], linewidth=2, label="proved interval")
        ax.errorbar(steps, [row[name] / scale for row in rows], yerr=[row[f"{name}_slack"] / scale for row in rows],
                    fmt="o", markerfacecolor="none", color=theme.palette[1], capsize=2, label="measured in float64")
        power = [high[0] * record["q"] ** (k - steps[0]) for k in steps]
        ax.plot(steps, power, "--", color=theme.muted, linewidth=1, label=f"decay at q = {record['q']:.3f}")
        ax.set_yscale("log")
        ax.set_xticks(steps)
        ax.set_xlabel("phantom steps K")
        ax.set_ylabel("relative error")
        ax.set_title(f"{label}, n = {record['n']}, d = {record['d']}")
    legend(axes[0], theme)
    return drawing


@figure(name="certified-dkef", title="Phantom error of the trained deep kernel model, proved and measured",
        caption="Relative error of the score of the trained log-density under K phantom steps, at test rows. Bars: the "
                "range over the rows of the certified errors; line: their median. Circles: the library's float64 "
                "values, one a row.",
        records=("certified_dkef",))
def draw_certified_dkef(record: dict[str, Any], theme: Theme) -> Figure:
    """One panel, logarithmic."""
    drawing, (ax,) = canvas(theme, height=3.2, width=5.2)
    steps = sorted({row["steps"] for row in record["rows"]})
    groups = [[row for row in record["rows"] if row["steps"] == k] for k in steps]
    proved = [sorted(row["relative"] for row in group) for group in groups]
    middle = [median(values) for values in proved]
    bars = [[centre - values[0] for centre, values in zip(middle, proved, strict=True)],
            [values[-1] - centre for centre, values in zip(middle, proved, strict=True)]]
    ax.errorbar(steps, middle, yerr=bars, color=theme.palette[0], capsize=3, label="proved, range over rows")
    ax.plot([row["steps"] for row in record["rows"]], [row["measured"] for row in record["rows"]], "o",
            markerfacecolor="none", color=theme.palette[1], label="measured in float64")
    ax.set_yscale("log")
    ax.set_xticks(steps)
    ax.set_xlabel("phantom steps K")
    ax.set_ylabel("relative error of the score")
    ax.set_title(f"Trained deep kernel model, {record['data']} data, {record['inputs']} rows")
    legend(ax, theme)
    return drawing
