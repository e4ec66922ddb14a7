"""The coefficients of the four equations against the strength of the recurrence."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from figures.registry import figure
from figures.style import Theme, canvas, legend

_PANELS = (("tau", r"$\tau$"), ("alpha1", r"$\alpha_1$"), ("gamma2", r"$\gamma^2$"),
           ("alpha2", r"$\alpha_2$"), ("alpha3", r"$\alpha_3$"), ("alpha4", r"$\alpha_4$"))
_STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)))


@figure(name="four-equations", title="Coefficients of the four equations",
        caption="Solutions of the four equations against the variance of the recurrent weights, for inputs of unit "
                "mean "
                "square and an input variance of 1 minus that of the recurrent weights. All are dimensionless. For "
                "the odd tanh and "
                "erf the second and third coefficients vanish.",
        records=("rmt-coefficients",))
def draw_equations(record: dict[str, Any], theme: Theme) -> Figure:
    """Six small panels, one line an activation."""
    drawing, axes = canvas(theme, 2, 3, height=2.5)
    for ax, (field, label) in zip(axes, _PANELS, strict=True):
        for (name, curve), dashes in zip(record["curves"].items(), _STYLES, strict=False):
            ax.plot(record["sigma_a2"], curve[field], linestyle=dashes, label=name.replace("_", " "))
        ax.set(xlabel=r"$\sigma_a^2$", ylabel=label, xlim=(0, 1))
        ax.set_ylim(bottom=0)
    legend(axes[0], theme)
    return drawing
