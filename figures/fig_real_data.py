"""Pictures of the real-data studies: kernel errors, spectra, accuracies, costs."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from figures.registry import figure
from figures.style import Theme, canvas, legend

MODELS = ("relu DEQ", "leaky ReLU equivalent", "plain ReLU", "tanh DEQ", "hard tanh equivalent", "plain tanh")
MARKERS = "os^Dv*"
_BARS = ("explicit equivalent", "plain", "deterministic equivalent", "refined order 1", "refined order 2",
         "refined order 3")
_SETS = ("real-kernels-mnist-2", "real-kernels-mnist-10", "real-kernels-fashion-mnist-10")


@figure(name="real-kernel-errors", title="Kernels on real images: who is close to the DEQ",
        caption="Spectral norm of the difference to the DEQ's exact conjugate kernel, relative to it, on real images "
                "(sigma_a^2 = 0.2): the matched explicit network, a plain network of the same depth and mean "
                "diagonal, the paper's deterministic equivalent with estimated statistics, and ours of orders 1 to 3.",
        records=_SETS)
def draw_errors(*records: dict[str, Any], theme: Theme) -> Figure:
    """Grouped bars, one panel an activation."""
    drawing, axes = canvas(theme, 1, 2, height=3.7, width=10.0, sharey=True)
    for ax, activation in zip(axes, ("relu", "tanh"), strict=True):
        place = np.arange(len(records))
        for n, label in enumerate(_BARS):
            errors = [record["activations"][activation]["errors"][label] for record in records]
            ax.bar(place + 0.13 * (n - 2.5), errors, 0.12, color=theme.palette[n], label=label)
        names = [f"{record['data']}\n{record['classes']} classes" for record in records]
        ax.set(yscale="log", xticks=place, xticklabels=names, title=f"{activation} DEQ")
    low, high = axes[0].get_ylim()
    axes[0].set_ylim(low, high * 30)
    axes[0].set_ylabel("relative spectral-norm error")
    legend(axes[0], theme, loc="upper left", ncols=2)
    return drawing


@figure(name="real-spectra", title="Eigenvalues of implicit and explicit kernels on real images",
        caption="Eigenvalues of the conjugate kernel on real images (sigma_a^2 = 0.2), largest first: the DEQ, the "
                "matched explicit network, a plain network of the same depth, and the paper's equivalent; "
                "ReLU above, tanh below. Wide pale lines are the DEQ's.",
        records=_SETS)
def draw_spectra(*records: dict[str, Any], theme: Theme) -> Figure:
    """Ordered eigenvalues on logarithmic axes, a row an activation, a column a data set."""
    drawing, axes = canvas(theme, 2, len(records), height=3.1, width=10.5, sharex=True, sharey="row")
    styles = {"DEQ": "-", "explicit equivalent": "--", "plain": "-.", "deterministic equivalent": ":"}
    for row, activation in enumerate(("relu", "tanh")):
        for column, record in enumerate(records):
            ax = axes[row * len(records) + column]
            for n, (label, style) in enumerate(styles.items()):
                values = np.sort(record["activations"][activation]["eigenvalues"][label])[::-1]
                ax.plot(np.arange(1, len(values) + 1), values, style, color=theme.palette[n], label=label,
                        linewidth=4 if label == "DEQ" else 1.6, alpha=0.45 if label == "DEQ" else 1)
            ax.set(xscale="log", yscale="log",
                   title=f"{record['data']}, {record['classes']} classes, {activation}")
            if row:
                ax.set_xlabel("rank")
            if not column:
                ax.set_ylabel("eigenvalue")
    legend(axes[0], theme, loc="lower left")
    return drawing


def _means(rows: list[dict[str, Any]], model: str, arm: str) -> tuple[list[int], list[float], list[float]]:
    """Widths, mean accuracies and standard errors over seeds."""
    widths = sorted({row["width"] for row in rows if arm in row})
    values = [[row[arm]["accuracy"] for row in rows if row["model"] == model and row["width"] == width and arm in row]
              for width in widths]
    return (widths, [float(np.mean(v)) for v in values],
            [float(np.std(v, ddof=1) / np.sqrt(len(v))) if len(v) > 1 else 0.0 for v in values])


@figure(name="real-accuracy", title="Accuracy of DEQs, their explicit equivalents and plain networks on MNIST",
        caption="Test accuracy against width with one sigma_a^2 = 0.2 throughout: ridge readout on random weights, "
                "readout by gradient descent as in the released code, and all weights trained. Means over networks, "
                "bars one standard error; MNIST at the size of the run, training statistics applied to the test set.",
        records=("accuracy-mnist",))
def draw_accuracy(record: dict[str, Any], theme: Theme) -> Figure:
    """One panel a way of training."""
    arms = {"ridge": "readout, ridge", "descent": "readout, gradient descent", "all weights": "all weights"}
    drawing, axes = canvas(theme, 1, 3, height=3.8, width=11.0)
    for ax, (arm, title) in zip(axes, arms.items(), strict=True):
        every = sorted({row["width"] for row in record["rows"] if arm in row})
        for n, model in enumerate(MODELS):
            widths, means, errors = _means(record["rows"], model, arm)
            spread = np.array(widths) * 1.04 ** (n - 2.5)  # side by side, so that bars can be told apart
            ax.errorbar(spread, means, errors, fmt=MARKERS[n] + ("-" if len(widths) > 1 else ""),
                        color=theme.palette[n], markersize=5, capsize=2, linewidth=1, label=model)
        ax.set(xscale="log", xlabel="width", title=title)
        ax.set_xticks(every, [str(width) for width in every])
        ax.xaxis.set_minor_locator(NullLocator())
        if len(every) == 1:
            ax.set_xlim(every[0] / 1.5, every[0] * 1.5)
    axes[0].set_ylabel("test accuracy")
    legend(axes[0], theme, loc="lower right")
    return drawing


@figure(name="real-cost", title="What a DEQ and its explicit equivalent cost",
        caption="Operations (left) and time (right) of the features of one sample against width, on the machine of "
                "the run; means over networks, bars one standard error.",
        records=("accuracy-mnist",))
def draw_cost(record: dict[str, Any], theme: Theme) -> Figure:
    """Operations and seconds."""
    drawing, axes = canvas(theme, 1, 2, height=3.4, width=8.4)
    rows = [row for row in record["rows"] if "operations" in row]
    widths = sorted({row["width"] for row in rows})
    for ax, key, label in zip(axes, ("operations", "feature seconds"), ("operations a sample", "seconds a sample"),
                              strict=True):
        for n, model in enumerate(MODELS):
            values = [[row[key] for row in rows if row["model"] == model and row["width"] == width] for width in widths]
            means = [float(np.mean(v)) for v in values]
            errors = [float(np.std(v, ddof=1) / np.sqrt(len(v))) for v in values]
            ax.errorbar(widths, means, errors, fmt=f"{MARKERS[n]}-", color=theme.palette[n], markersize=4, capsize=2,
                        linewidth=1, label=model)
        ax.set(xscale="log", yscale="log", xlabel="width", ylabel=label)
        ax.set_xticks(widths, [str(width) for width in widths])
        ax.xaxis.set_minor_locator(NullLocator())
    legend(axes[0], theme)
    return drawing
