"""The NICE run of 1000 iterations: loss, solver iterations and contraction."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from figures.registry import figure
from figures.style import Theme, canvas


@figure(name="nice-run", title="NICE with equilibrium couplings over its 1000 iterations on MNIST",
        caption="A stored run at full width, one seed, phantom gradients with K = 2. Left: sliced score-matching loss "
                "of the "
                "minibatch. Middle: mean plain iterations a solve; the dashed line is the mean that table 10 prints. "
                "Right: "
                "largest growth rate of df/dz over the four couplings; its square is the size of the phantom error.",
        records=("nice-run",))
def draw(record: dict[str, Any], theme: Theme) -> Figure:
    """Three panels over the training step."""
    drawing, (loss, iterations, radius) = canvas(theme, 1, 3)
    lines = record["training"]
    steps = [line["step"] for line in lines]
    for ax, key, label in ((loss, "loss", "minibatch loss"), (iterations, "iterations", "iterations a solve"),
                           (radius, "spectral_radius", "growth rate of df/dz")):
        ax.plot(steps, [line[key] for line in lines])
        ax.set(xlabel="training step", ylabel=label)
    loss.set_yscale("symlog", linthresh=1000)
    iterations.axhline(11.8, color=theme.muted, linestyle="--", linewidth=1)
    iterations.set_ylim(0, None)
    radius.set_ylim(0, None)
    return drawing
