"""The pictures of an audit: spectrum, bias against K, gradient by parameter, residual by evaluation."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no window is ever opened; must come before pyplot

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from figures.render import inline
from figures.style import DARK, LIGHT, SETTINGS, Theme, canvas, legend
from verification.audit.page import PICTURES
from verification.audit.result import AuditReport
from verification.report import FigureView

Draw = Callable[[Mapping[str, Any], Theme], Figure]
#: Below this an error is drawn at the edge: it is rounding.
FLOOR = 1e-12


def draw_all(report: AuditReport) -> list[FigureView]:
    """Every picture for which there are data, in both themes."""
    views = []
    for name, draw in DRAWERS.items():
        if not any(report.curves.get(key) for key in PICTURES[name].needs):
            continue
        view = FigureView(name, PICTURES[name].title, PICTURES[name].caption)
        for theme in (LIGHT, DARK):
            with plt.rc_context({**SETTINGS, "svg.hashsalt": name}):
                drawing = draw(report.curves, theme)
                buffer = io.StringIO()
                drawing.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
            plt.close(drawing)
            view.svg[theme.name] = inline(buffer.getvalue(), f"{name}-{theme.name}", view.title)
        views.append(view)
    return views


def spectrum(curves: Mapping[str, Any], theme: Theme) -> Figure:
    """Eigenvalues of J and the unit circle."""
    drawing, (ax,) = canvas(theme, height=4.4, width=4.8)
    values = np.asarray(curves["eigenvalues"], dtype=float).reshape(-1, 2)
    turn = np.linspace(0, 2 * np.pi, 200)
    ax.fill(np.cos(turn), np.sin(turn), color=theme.palette[0], alpha=0.08, linewidth=0)
    ax.plot(np.cos(turn), np.sin(turn), color=theme.muted, linewidth=1, label="unit circle")
    outside = np.hypot(values[:, 0], values[:, 1]) >= 1
    kind = "eigenvalues of J" if curves.get("eigenvalues_complete") else "Ritz values of J"
    ax.plot(values[~outside, 0], values[~outside, 1], "o", markersize=4, color=theme.palette[0], label=kind)
    if outside.any():
        ax.plot(values[outside, 0], values[outside, 1], "X", markersize=7, color=theme.palette[1], label="outside")
    reach = max(1.1, 1.1 * float(np.abs(values).max(initial=1.0)))
    ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xlabel="real part", ylabel="imaginary part")
    legend(ax, theme, loc="upper right")
    return drawing


def bias(curves: Mapping[str, Any], theme: Theme) -> Figure:
    """Adjoint bias and its bound, gradient error and cosine against K."""
    drawing, axes = canvas(theme, columns=2, height=3.2)
    left, right = axes
    rows = curves.get("bias") or []
    k = [row["steps"] for row in rows]
    left.semilogy(k, [max(row["bias"], FLOOR) for row in rows], "-", color=theme.palette[0],
                  label="adjoint, worst sample")
    bounded = [row for row in rows if row["bound"] is not None]
    if bounded:
        left.semilogy([row["steps"] for row in bounded], [max(row["bound"], FLOOR) for row in bounded], "--",
                      color=theme.palette[1], label="bound |J|^K")
    measured = curves.get("phantom") or []
    left.semilogy([row["steps"] for row in measured], [max(row["relative_error"], FLOOR) for row in measured], "o",
                  color=theme.palette[2], label="gradient")
    for level, text in ((0.1, "10 %"), (0.01, "1 %")):
        left.axhline(level, color=theme.muted, linewidth=0.8, linestyle=":")
        left.annotate(text, (1, level), xycoords=("axes fraction", "data"), ha="right", va="bottom", color=theme.muted,
                      fontsize=8.5)
    left.set(xlabel="phantom steps K", ylabel="relative error")
    legend(left, theme)
    right.plot([row["steps"] for row in measured], [row["cosine"] for row in measured], "o-", color=theme.palette[2])
    right.axhline(1, color=theme.muted, linewidth=0.8, linestyle=":")
    low = min([row["cosine"] for row in measured], default=0.9)
    right.set(xlabel="phantom steps K", ylabel="cosine with the exact gradient", ylim=(min(0.9, low - 0.05), 1.01))
    return drawing


def gradient(curves: Mapping[str, Any], theme: Theme) -> Figure:
    """Relative error of the owner's gradient by parameter, largest on top; cosine beside it."""
    largest = max((row["norm"] for row in curves["gradient"]), default=0.0)
    # What is zero but for rounding (the bias of attention's keys) has no relative error.
    heard = [row for row in curves["gradient"] if row["norm"] > 1e-6 * largest] or curves["gradient"]
    rows = sorted(heard, key=lambda row: min(row["relative_error"], 1e9))[-16:]
    drawing, axes = canvas(theme, columns=2, height=max(1.6, 0.9 + 0.24 * len(rows)), sharey=True)
    left, right = axes
    place = np.arange(len(rows))
    errors = [min(max(row["relative_error"], FLOOR), 1e3) for row in rows]
    left.barh(place, [np.log10(error / FLOOR) for error in errors], left=np.log10(FLOOR), color=theme.palette[0],
              height=0.6)
    left.set_yticks(place, [_short(row["name"]) for row in rows])
    ticks = range(-12, 4, 3)
    left.set_xticks(list(ticks), [f"1e{tick}" for tick in ticks])
    left.set(xlabel="relative error", xlim=(-12, max(0.3, np.log10(max(errors)) + 0.2)))
    right.barh(place, [row["cosine"] for row in rows], color=theme.palette[2], height=0.6)
    right.set(xlabel="cosine with the exact gradient", xlim=(min(0, *(row["cosine"] for row in rows)) - 0.02, 1.02))
    for ax in axes:
        ax.grid(False, axis="y")
    return drawing


def residual(curves: Mapping[str, Any], theme: Theme) -> Figure:
    """Residual by evaluation of f, theirs and ours."""
    drawing, (ax,) = canvas(theme, height=3.2)
    for key, text, colour in (("owner_residuals", "their solver", theme.palette[1]),
                              ("our_residuals", "ours (Anderson)", theme.palette[0])):
        values = curves.get(key) or []
        if values:
            shown = [max(value, 1e-17) if np.isfinite(value) else np.nan for value in values]
            ax.semilogy(np.arange(1, len(shown) + 1), shown, "-", marker=".", color=colour, label=text)
    ax.set(xlabel="evaluations of f", ylabel="relative residual, worst sample")
    legend(ax, theme)
    return drawing


def _short(name: str) -> str:
    return name if len(name) <= 30 else "…" + name[-29:]


DRAWERS: dict[str, Draw] = {"audit-spectrum": spectrum, "audit-bias": bias, "audit-gradient": gradient,
                            "audit-residual": residual}
