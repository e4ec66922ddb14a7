"""Pictures of certificates: the proved error of the phantom gradient around the measured one."""

from __future__ import annotations

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
