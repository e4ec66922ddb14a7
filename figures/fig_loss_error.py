"""Pictures of loss error: measured against the three levels of bounds."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from figures.registry import figure
from figures.style import Theme, canvas, legend

_PANELS = {"score": "Score", "trace": "Hessian trace", "loss": "Score-matching loss", "gradient": "Parameter gradient"}
_CURVES = {"measured": ("measured", "o-"), "sharp": ("sharp bound", "s--"), "powers": (r"bound with $\|J^j\|$", "^--"),
           "law": (r"law $\kappa q^j$", "v:")}


@figure(name="loss-error-bounds", title="What K phantom steps cost: errors and their bounds",
        caption="Error of score, Hessian trace, score-matching loss and its parameter gradient against the number K of "
                "phantom steps, relative to the root mean square of the exact quantity, on held-out samples of a layer "
                "trained by exact score matching. Symbols: median over the samples; bars: smallest and largest. Every "
                "bound lies above the error on every sample.",
        records=("loss_error_bounds",))
def draw_loss_error(record: dict[str, Any], theme: Theme) -> Figure:
    """Four panels on logarithmic axes."""
    drawing, axes = canvas(theme, 2, 2, height=2.9)
    steps = record["steps"]
    for ax, (name, title) in zip(axes, _PANELS.items(), strict=True):
        for index, (key, (label, mark)) in enumerate(_CURVES.items()):
            low, middle, high = zip(*record["panels"][name][key], strict=True)
            bars = [[centre - end for centre, end in zip(middle, low, strict=True)],
                    [end - centre for centre, end in zip(middle, high, strict=True)]]
            shifted = [k + 0.08 * (index - 1.5) for k in steps]  # so that bars stand side by side
            ax.errorbar(shifted, middle, yerr=bars, fmt=mark, markersize=3.5, linewidth=1.1, elinewidth=0.7,
                        capsize=1.5, color=theme.palette[index], label=label)
        ax.set_yscale("log")
        ax.set_xticks(steps)
        ax.set_title(title)
        ax.set_xlabel("phantom steps K")
        ax.set_ylabel("relative error")
    legend(axes[0], theme, loc="lower left")
    return drawing
