"""Pictures of truncation: error and bounds against K, the laws, radius near one, curl, bias, diverging Picard."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from figures.registry import figure
from figures.style import Theme, canvas, legend, outside


@figure(name="truncation-error", title="Error of K phantom steps and its bounds",
        caption="A dense tanh equilibrium (n = 16, d = 3, |W|_2 = 0.95). Error of first (left) and second (right) "
                "derivatives relative to the exact ones, in Frobenius norm, with three bounds: sharp (from the "
                "identity), powers (norms of J^k), law (kappa q^K and its K q^K continuation, q = |J|_2). Bounds level "
                "off at their allowance for float64 rounding. Deterministic; no error bars.",
        records=("truncation-sweep",))
def draw_error(sweep: dict[str, Any], theme: Theme) -> Figure:
    """Two panels, first and second order."""
    drawing, axes = canvas(theme, 1, 2, height=3.2)
    steps = sweep["K"]
    for ax, order in zip(axes, ("first", "second"), strict=True):
        ax.plot(steps, sweep[f"{order}_law"], color=theme.palette[4], linestyle=":", label="law")
        ax.plot(steps, sweep[f"{order}_powers"], color=theme.palette[2], linestyle="-.", label="powers")
        ax.plot(steps, sweep[order], color=theme.palette[1], linestyle="--", label="sharp")
        ax.plot(steps, sweep[f"{order}_error"], color=theme.palette[0], marker="o", markersize=3, linewidth=0,
                label="error")
        ax.set(yscale="log", xlabel="steps K", title=f"{order} derivative", ylim=(1e-16, 1e3))
    axes[0].set_ylabel("relative error")
    legend(axes[0], theme, loc="upper right")
    return drawing


@figure(name="truncation-laws", title="The laws of the three orders",
        caption="One softplus equilibrium in 160 digits. Left: error of the derivative of order 1, 2, 3 (the third "
                "mixed, as in a score-matching gradient) against K. Right: the same over q^K, with lines of slope 0, 1 "
                "and 2: the orders decay like q^K, K q^K and K^2 q^K. Deterministic; no error bars.",
        records=("truncation-laws",))
def draw_laws(laws: dict[str, Any], theme: Theme) -> Figure:
    """Errors, and errors over q^K on logarithmic axes."""
    drawing, (left, right) = canvas(theme, 1, 2, height=3.2)
    steps = np.array(laws["K"], dtype=float)
    for order, name in ((1, "score"), (2, "Hessian"), (3, "SM gradient")):
        values = np.array(laws[f"order {order}"])
        colour, marker = theme.palette[order - 1], "os^"[order - 1]
        left.plot(steps, np.log10(values) + steps * np.log10(laws["q"]), color=colour, marker=marker, markersize=4,
                  label=f"order {order} ({name})")
        right.plot(steps, values, color=colour, marker=marker, markersize=4, linewidth=0)
        right.plot(steps, values[-1] * (steps / steps[-1]) ** (order - 1), color=colour, linewidth=1, linestyle="--")
        right.annotate(f"slope {order - 1}", (steps[-1], values[-1]), xytext=(-6, 6), textcoords="offset points",
                       color=colour, ha="right", fontsize=8.5)
    left.set(xlabel="steps K", ylabel="log10 of the error")
    right.set(xlabel="steps K", ylabel="error / q^K", xscale="log", yscale="log")
    right.set_xticks(steps, [f"{int(k)}" for k in steps])
    right.minorticks_off()
    legend(left, theme)
    return drawing


@figure(name="truncation-radius", title="As the spectral radius tends to one",
        caption="Quadratic equilibria with a symmetric J whose largest eigenvalue is the radius. Left: size of "
                "the first and second derivative; right: steps K for a relative error of 0.001. Dashed: the powers 1 "
                "and 3 of 1/(1 - radius). Deterministic; no error bars.",
        records=("truncation-radius",))
def draw_radius(sweep: dict[str, Any], theme: Theme) -> Figure:
    """Growth of the derivatives, and of the steps that are needed."""
    drawing, (left, right) = canvas(theme, 1, 2, height=3.2)
    inverse = 1 / (1 - np.array(sweep["radius"]))
    for ax, names, powers in ((left, ("first", "second"), (1, 3)), (right, ("K first", "K second"), (1, 1))):
        for index, (name, power) in enumerate(zip(names, powers, strict=True)):
            values, colour = np.array(sweep[name]), theme.palette[index]
            ax.plot(inverse, values, color=colour, marker="os"[index], markersize=4,
                    label=f"{name.split()[-1]} derivative")
            ax.plot(inverse, values[-1] * (inverse / inverse[-1]) ** power, color=colour, linewidth=1, linestyle="--")
        ax.set(xscale="log", yscale="log", xlabel="1 / (1 - spectral radius)")
    left.set_ylabel("Frobenius norm")
    right.set_ylabel("steps K for a relative error of 0.001")
    legend(left, theme)
    return drawing


@figure(name="phantom-curl", title="Phantom scores rotate",
        caption="z = x2 + x1 z with log p = z, whose exact score is a gradient field. Left: the curl of the phantom "
                "score (it depends on x1 alone) in closed form. Right: its size at x1 = 1/2 against K.",
        records=("phantom-curl",))
def draw_curl(record: dict[str, Any], theme: Theme) -> Figure:
    """Curl along x1, and its decay."""
    drawing, (left, right) = canvas(theme, 1, 2, height=3.0)
    for index, (name, values) in enumerate(record["curves"].items()):
        left.plot(record["x1"], values, color=theme.palette[index], linestyle=("-", "--", "-.", ":")[index],
                  label=name.replace("=", " = "))
    left.set(xlabel="x1", ylabel="curl of the phantom score")
    right.plot(record["K"], np.abs(record["at half"]), color=theme.palette[1], marker="o", markersize=3)
    right.set(yscale="log", xlabel="steps K", ylabel="|curl| at x1 = 1/2")
    legend(left, theme)
    return drawing


@figure(name="phantom-optimum", title="What phantom score matching learns",
        caption="Data N(0, 1), a model whose exact score is -theta x, so theta = 1 is right. The theta that minimises "
                "the score-matching loss with phantom derivatives: with the trace autograd returns (bars; dots: "
                "through deq), and with the true divergence of the phantom score. 30-digit quadrature; no error bars.",
        records=("phantom-optimum",))
def draw_optimum(record: dict[str, Any], theme: Theme) -> Figure:
    """Bars for K = 1, 2, 3."""
    drawing, (ax,) = canvas(theme, height=3.0, width=5.4)
    names = list(record["rows"])
    at = np.arange(len(names))
    ax.bar(at - 0.18, [record["rows"][n]["frozen"] for n in names], 0.34, color=theme.palette[0],
           label="trace of autograd")
    ax.bar(at + 0.18, [record["rows"][n]["divergence"] for n in names], 0.34, color=theme.palette[4],
           label="true divergence")
    ax.plot(at - 0.18, [record["rows"][n]["deq"] for n in names], "o", color=theme.ink, markersize=4, label="through "
                                                                                                            "deq")
    ax.axhline(1.0, color=theme.palette[1], linewidth=1.4, linestyle="--", label="right optimum")
    ax.set(xticks=at, xticklabels=names, ylabel="learned theta")
    outside(drawing, ax, theme)
    return drawing


@figure(name="convolution-picard", title="A normalised convolution that diverges",
        caption="Picard iteration on z = softplus(k * z) + x with a constant 5x5 kernel of Frobenius norm 0.9 on 32x32 "
                "images: the difference of successive iterates grows by the operator norm, 4.42, a step.",
        records=("convolution-picard",))
def draw_picard(record: dict[str, Any], theme: Theme) -> Figure:
    """Differences against the step, with the rate of the operator norm."""
    drawing, (ax,) = canvas(theme, height=3.0, width=5.4)
    steps, sizes = np.array(record["step"]), np.array(record["difference"])
    ax.plot(steps, sizes, color=theme.palette[0], marker="o", markersize=3.5, label="difference of iterates")
    for rate, colour, name in ((record["operator"], theme.palette[1], "operator norm"),
                               (record["frobenius"], theme.palette[2], "Frobenius norm (what [SM] bounds)")):
        ax.plot(steps, sizes[0] * rate ** (steps - 1.0), color=colour, linestyle="--", linewidth=1,
                label=f"{name}, {rate:.3g} a step")
    ax.set(yscale="log", xlabel="Picard step", ylabel="|z(k+1) - z(k)|")
    legend(ax, theme)
    return drawing
