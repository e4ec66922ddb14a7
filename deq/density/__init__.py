"""Densities on equilibria: log-densities, their scores and Laplacians by jets, and the closed form for affine cells.

`EquilibriumDensity` and `SeparableHead` are imported on first use: cells declare their affine structure in terms of
this package, and the density is built on the layer that is built on cells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deq.density.density import EquilibriumDensity as EquilibriumDensity
    from deq.density.heads import SeparableHead as SeparableHead

__all__ = ["EquilibriumDensity", "SeparableHead"]


def __getattr__(name: str) -> Any:
    if name == "EquilibriumDensity":
        from deq.density.density import EquilibriumDensity
        return EquilibriumDensity
    if name == "SeparableHead":
        from deq.density.heads import SeparableHead
        return SeparableHead
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
