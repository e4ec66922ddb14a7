"""Pictures of appendix C of [SM], rebuilt, and what the paper does not show: errors against K, bounds, training."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.registry import figure
from figures.style import Theme, canvas, legend

NAMES = {"sm": "SM", "ssm": "SSM"}
#: Cosines closer to 1 than rounding are drawn here.
FLOOR = 1e-16


def _histogram(ax: Axes, values: Any, bins: Any, label: str, **kwargs: Any) -> None:
    data = np.maximum(np.asarray(values, dtype=float).ravel(), bins[0])
    ax.hist(data, bins=bins, weights=np.full(len(data), 100 / len(data)), label=label, **kwargs)


@figure(name="appendix-c-histograms", title="Figures 5, 6 and 7 of [SM]: phantom (K = 2) against exact during training",
        caption="Top: trained with SM; bottom: with SSM. Left: relative error of the score, a sample a count, alpha "
                "solved again under each derivative (filled) or shared (line). Middle: one minus the cosine similarity "
                "of the scores. Right: one minus the cosine similarity of the loss gradients, a training step a count, "
                "over all parameters (filled) and those of the equilibrium alone (line). Logarithmic axes: on the "
                "paper's linear ones all mass falls into one bin. The first bin holds what lies below it too.",
        records=("appendix-c-sm", "appendix-c-ssm"))
def draw_histograms(sm: dict[str, Any], ssm: dict[str, Any], theme: Theme) -> Figure:
    """Three histograms an objective."""
    drawing, axes = canvas(theme, 2, 3, height=2.5, width=8.4)
    for row, record in enumerate((sm, ssm)):
        route = record["routes"]["K=2"]
        left, middle, right = axes[3 * row:3 * row + 3]
        bins = np.logspace(-3, 1.5, 40)
        _histogram(left, 100 * np.array(route["score"]), bins, "alpha solved again", color=theme.palette[0], alpha=0.6)
        _histogram(left, 100 * np.array(route["score_shared"]), bins, "alpha shared", color=theme.palette[1],
                   histtype="step", linewidth=1.6)
        left.set(xscale="log", xlabel="relative error of score [%]",
                 ylabel=f"{NAMES[record['objective']]}: samples [%]")
        _histogram(middle, 1 - np.array(route["score_cosine"]), np.logspace(-9, -2, 36), "", color=theme.palette[0],
                   alpha=0.6)
        middle.set(xscale="log", xlabel="1 - cosine of scores", ylabel="samples [%]")
        bins = np.logspace(-6, -1, 36)
        _histogram(right, 1 - np.array(route["gradient_cosine"]), bins, "all parameters", color=theme.palette[0],
                   alpha=0.6)
        _histogram(right, 1 - np.array(route["inner_cosine"]), bins, "equilibrium alone", color=theme.palette[1],
                   histtype="step", linewidth=1.6)
        right.set(xscale="log", xlabel="1 - cosine of loss gradients", ylabel="steps [%]")
        if row == 0:
            for ax in (left, right):
                ax.set_ylim(0, 1.45 * ax.get_ylim()[1])
                legend(ax, theme, loc="upper left")
    return drawing


@figure(name="appendix-c-training", title="Errors over training as the Jacobian moves",
        caption="Left: spectral radius (solid, largest over samples and kernels) and 2-norm (dashed) of J at the "
                "equilibria of the measured batches. Middle and right: relative error of the loss gradient by route, "
                "SM and SSM. Exact with one step is the usual implicit gradient.",
        records=("appendix-c-sm", "appendix-c-ssm"))
def draw_training(sm: dict[str, Any], ssm: dict[str, Any], theme: Theme) -> Figure:
    """Radius and gradient errors against training step."""
    drawing, (left, *others) = canvas(theme, 1, 3, height=3.2, width=9.0)
    for color, record in zip(theme.palette, (sm, ssm), strict=False):
        name = NAMES[record["objective"]]
        left.plot(record["steps"], record["radius"], color=color, label=f"{name}, spectral radius")
        left.plot(record["steps"], record["norm"], color=color, linestyle="--", label=f"{name}, 2-norm")
    left.set(xlabel="training step", ylabel="size of J", ylim=(0, None))
    left.set_ylim(0, 1.5 * left.get_ylim()[1])
    legend(left, theme, loc="upper left")
    markers = "osv^D*Px"
    for ax, record in zip(others, (sm, ssm), strict=True):
        for index, (name, route) in enumerate(record["routes"].items()):
            sparse = len(route["steps"]) < len(record["steps"])
            ax.plot(route["steps"], np.maximum(route["gradient"], FLOOR), marker=markers[index],
                    markersize=4 if sparse else 2.5, color=theme.palette[index % len(theme.palette)],
                    linestyle="--" if name.startswith("exact") else "-", label=name)
        ax.set(yscale="log", xlabel="training step", ylabel="relative error of loss gradient",
               title=NAMES[record["objective"]], ylim=(1e-16, 3))
    handles, labels = others[0].get_legend_handles_labels()
    key = drawing.legend(handles, labels, loc="outside lower center", ncols=8, frameon=False, fontsize=8.5,
                         labelcolor=theme.ink)
    key.set_in_layout(True)
    return drawing


@figure(name="appendix-c-orders", title="Errors against the number of phantom steps on the trained model, with bounds",
        caption="Left and middle: errors of the first and second derivatives of one kernel's equilibrium, relative to "
                "the derivative: at one equilibrium (large dots) with its sharp bound, the bound by norms of powers "
                "of J and the law q^K or K q^(K-1) (lines), and at others (small dots, without their bounds). Right: "
                "relative error of the model's score (median; bar to the 90 % quantile) and of its loss gradient.",
        records=("appendix-c-orders",))
def draw_orders(record: dict[str, Any], theme: Theme) -> Figure:
    """Derivatives with bounds, then score and gradient."""
    drawing, (left, middle, right) = canvas(theme, 1, 3, height=3.3, width=9.0)
    entries = record["sm"]["derivatives"]
    for ax, order in ((left, "first"), (middle, "second")):
        for index, entry in enumerate(reversed(entries)):
            last = index == len(entries) - 1
            ax.plot(entry["steps"], np.array(entry[order]) / entry[f"{order}_size"], marker="o", linestyle="none",
                    markersize=5 if last else 2.5, color=theme.palette[0] if last else theme.muted,
                    label="measured" if last else "elsewhere" if index == 0 else None)
        first = entries[0]
        for color, level in zip(theme.palette[1:], ("sharp", "powers", "law"), strict=False):
            ax.plot(first["steps"], np.array(first[f"{order}_{level}"]) / first[f"{order}_size"], color=color,
                    linewidth=1.3, label=f"{level} bound")
        ax.set(yscale="log", xlabel="phantom steps K", ylabel=f"relative error, {order} derivative")
        ax.locator_params(axis="x", integer=True)
        legend(ax, theme, loc="lower left")
    for color, objective in zip(theme.palette, ("sm", "ssm"), strict=False):
        model = record[objective]["model"]
        median, high = np.array(model["score_median"]), np.array(model["score_high"])
        right.errorbar(model["steps"], median, yerr=[np.zeros_like(median), high - median], marker="o", markersize=4,
                       capsize=2, color=color, label=f"{NAMES[objective]}, score")
        right.plot(model["steps"], model["gradient"], marker="s", markersize=4, linestyle="--", color=color,
                   label=f"{NAMES[objective]}, loss gradient")
    right.set(yscale="log", xlabel="phantom steps K", ylabel="relative error")
    right.locator_params(axis="x", integer=True)
    legend(right, theme, loc="lower left")
    return drawing


@figure(name="appendix-c-law", title="The second-order error carries a factor K",
        caption="Errors of first and second derivatives divided by rho^K, rho the spectral radius of J, at equilibria "
                "of the models trained with SM and SSM (a line each). The first order levels off; the second grows "
                "like K (dotted guide). Wiggles come from complex eigenvalues.",
        records=("appendix-c-law",))
def draw_law(record: dict[str, Any], theme: Theme) -> Figure:
    """Scaled errors against K, both axes logarithmic."""
    drawing, axes = canvas(theme, 1, 2, height=3.2)
    for ax, (objective, entries) in zip(axes, record.items(), strict=True):
        for index, entry in enumerate(entries):
            steps = np.array(entry["steps"])[1:]
            for color, order in zip(theme.palette, ("first", "second"), strict=False):
                values = np.array(entry[order])[1:]
                ax.plot(steps, values / values[0], color=color, linewidth=1,
                        label=f"{order} derivative" if index == 0 else None)
        guide = np.array([10, entries[0]["steps"][-1]])
        ax.plot(guide, guide / 10, linestyle=":", color=theme.muted, label="slope 1")
        ax.set(xscale="log", yscale="log", xlabel="phantom steps K", ylabel="error / rho^K, relative to K = 1",
               title=NAMES[objective])
    legend(axes[0], theme, loc="upper left")
    return drawing


@figure(name="appendix-c-long", title="What a long training does to the phantom (a stored run)",
        caption="Left: spectral radius and 2-norm of J, the largest over samples and kernels. Middle: relative error "
                "of the score (median; bar to the 90 % quantile). Right: relative error of the loss gradient, all "
                "parameters (solid) and those of the equilibrium alone (dotted). Training is by SM under K = 2.",
        records=("appendix-c-long",))
def draw_long(record: dict[str, Any], theme: Theme) -> Figure:
    """Radius, score and gradient errors over thousands of steps."""
    drawing, (left, middle, right) = canvas(theme, 1, 3, height=3.2, width=9.0)
    left.plot(record["steps"], record["radius"], color=theme.palette[0], label="spectral radius")
    left.plot(record["steps"], record["norm"], color=theme.palette[0], linestyle="--", label="2-norm")
    left.set(xlabel="training step", ylabel="size of J", ylim=(0, 1))
    legend(left, theme, loc="upper left")
    chosen = [name for name in ("K=1", "K=2", "K=4", "K=8", "exact(1)") if name in record["routes"]]
    for index, name in enumerate(chosen):
        route, color = record["routes"][name], theme.palette[index]
        if not name.startswith("exact"):
            median, high = 100 * np.array(route["score"]), 100 * np.array(route["score_high"])
            middle.errorbar(route["steps"], median, yerr=[np.zeros_like(median), high - median], color=color, capsize=2,
                            marker="o", markersize=3, label=name)
        right.plot(route["steps"], 100 * np.array(route["gradient"]), color=color, marker="o", markersize=3, label=name)
        right.plot(route["steps"], 100 * np.array(route["inner"]), color=color, linestyle=":")
    middle.set(yscale="log", xlabel="training step", ylabel="relative error of score [%]")
    right.set(yscale="log", xlabel="training step", ylabel="relative error of loss gradient [%]")
    for ax in (middle, right):
        low, top = ax.get_ylim()
        ax.set_ylim(low, top * (top / low) ** 0.35)
        legend(ax, theme, loc="upper left", ncols=2)
    return drawing
