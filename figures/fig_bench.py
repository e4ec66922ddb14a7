"""Cost against size of every benchmark, beside its baselines, with the machine's floor as a line."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from figures.registry import figure
from figures.style import Theme, canvas, legend

_MARKERS = {"ours": "o", "baseline": "s", "peer": "^"}
_STYLES = {"ours": "-", "baseline": "--", "peer": ":"}


@figure(name="bench-time", title="Time against size, beside baselines and peers",
        caption="Median time of one call with quartiles as bars; circles and full lines: this package; squares "
                "and dashes: baselines; triangles and dots: other libraries. Open markers: the answer is wrong or "
                "approximate by more than the benchmark's tolerance. Grey: the floor, the larger of operations over "
                "measured matrix throughput and bytes over measured bandwidth. A benchmark of one size is a chart of "
                "its ways, fastest first.", records=("bench",))
def draw_time(record: dict[str, Any], theme: Theme) -> Figure:
    """One panel a benchmark."""
    results = [result for result in record["benchmarks"].values() if any(row["median"] for row in result["rows"])]
    drawing, axes = canvas(theme, max(1, len(results)), height=3.1, width=8.4)
    for ax, result in zip(axes, results, strict=False):
        _draw(ax, result, theme, "median", 1e3, "time [ms]")
        _floor(ax, result, theme)
        if len(_sizes(result)) > 1:
            _legend(ax, theme)
    for ax in axes[len(results):]:
        ax.set_visible(False)
    return drawing


@figure(name="bench-memory", title="Peak memory against size",
        caption="Largest sum of live tensor bytes that one call adds, from the allocator's record. Markers and lines "
                "as in the figure of times.", records=("bench",))
def draw_memory(record: dict[str, Any], theme: Theme) -> Figure:
    """One panel a benchmark that measured it."""
    results = [result for result in record["benchmarks"].values() if any(row["peak_bytes"] for row in result["rows"])]
    drawing, axes = canvas(theme, max(1, len(results)), height=3.1, width=8.4)
    for ax, result in zip(axes, results, strict=False):
        _draw(ax, result, theme, "peak_bytes", 2.0**-20, "peak memory [MiB]")
        if len(_sizes(result)) > 1:
            _legend(ax, theme)
    for ax in axes[len(results):]:
        ax.set_visible(False)
    return drawing


def _sizes(result: dict[str, Any]) -> list[float]:
    return sorted({row["size"] for row in result["rows"]})


def _draw(ax: Axes, result: dict[str, Any], theme: Theme, key: str, unit: float, quantity: str) -> None:
    """A panel of lines over size, or of rows where there is one size."""
    if len(_sizes(result)) > 1:
        _panel(ax, result, theme, key, unit)
        ax.set(title=result["name"], xlabel=result["size"], ylabel=quantity)
    else:
        _rows(ax, result, theme, key, unit)
        ax.set(title=f"{result['name']}, {result['size']} = {_sizes(result)[0]}", xlabel=quantity)


def _rows(ax: Axes, result: dict[str, Any], theme: Theme, key: str, unit: float) -> None:
    rows = sorted((row for row in result["rows"] if row[key]), key=lambda row: row[key], reverse=True)
    colours = {"ours": theme.palette[0], "baseline": theme.muted, "peer": theme.palette[1]}
    for place, row in enumerate(rows):
        bar = None
        if key == "median":
            bar = [[(row[key] - row["low"]) * unit], [(row["high"] - row[key]) * unit]]
        colour = colours[row["role"]]
        ax.errorbar([row[key] * unit], [place], xerr=bar, color=colour, marker=_MARKERS[row["role"]], linestyle="none",
                    capsize=2, markersize=6, markerfacecolor=colour if row["right"] else "none")
    ax.set_yticks(range(len(rows)), [row["name"] for row in rows])
    ax.set_ylim(-0.6, len(rows) - 0.4)
    ax.set(xscale="log")
    values = [row[key] * unit for row in rows]
    ax.set_xlim(min(values) / 1.6, max(values) * 1.6)
    wide = max(values) > 300 * min(values)
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())


def _panel(ax: Axes, result: dict[str, Any], theme: Theme, key: str, unit: float) -> None:
    names = list(dict.fromkeys(row["name"] for row in result["rows"] if row[key]))
    colours = [*theme.palette, theme.ink, theme.muted]
    for index, name in enumerate(names):
        rows = [row for row in result["rows"] if row["name"] == name and row[key]]
        sizes = np.array([row["size"] for row in rows], dtype=float)
        values = np.array([row[key] for row in rows]) * unit
        bars = None
        if key == "median":
            bars = np.abs(np.array([[row["low"], row["high"]] for row in rows]).T * unit - values)
        colour = colours[index % len(colours)]
        role = rows[0]["role"]
        fill = colour if all(row["right"] for row in rows) else "none"
        ax.errorbar(sizes, values, yerr=bars, color=colour, marker=_MARKERS[role], linestyle=_STYLES[role], capsize=2,
                    markersize=5, linewidth=1.3, markerfacecolor=fill, label=name)
    ax.set(xscale="log", yscale="log")
    ticks = _sizes(result)
    ax.set_xticks(ticks, [str(size) for size in ticks])
    ax.minorticks_off()


def _floor(ax: Axes, result: dict[str, Any], theme: Theme) -> None:
    points = [(item["size"], item["floor"] * 1e3) for item in result["rounds"] if item.get("floor")]
    if not points:
        return
    if len(_sizes(result)) == 1:
        ax.axvline(points[0][1], color=theme.muted, linewidth=2.5, alpha=0.6)
        ax.set_xlim(left=min(ax.get_xlim()[0], points[0][1] / 1.6))
        ax.annotate("floor", (points[0][1], 0.02), xycoords=("data", "axes fraction"), xytext=(4, 0),
                    textcoords="offset points", color=theme.muted, fontsize=8.5)
        return
    ax.plot(*zip(*points, strict=True), color=theme.muted, linewidth=2.5, alpha=0.6,
            marker="_", markersize=12, label="floor")


def _legend(ax: Axes, theme: Theme) -> None:
    legend(ax, theme, loc="center left", bbox_to_anchor=(1.02, 0.5))
