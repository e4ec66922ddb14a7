"""An unnormalised density whose features are an equilibrium, with its score and Laplacian in one forward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from deq.density.affine_score import affine_score_and_laplacian
from deq.density.jets import coordinate_jet, push_forward
from deq.density.laplacian import affine_equilibrium_jet, equilibrium_jet
from deq.interop.transforms import transforms_active
from deq.layer import DEQ


class EquilibriumDensity(nn.Module):
    """log p(x) = head(z, x) up to a constant, z = cell(z, x).

    As a function it is differentiable like any module. `deq.losses.score_matching` recognises it and takes
    `score_and_laplacian` instead of nested automatic differentiation: as exact, several times cheaper.

    Args:
        layer: the equilibrium.
        head: head(z, x) -> [batch]; twice differentiable, samples independent.
    """

    def __init__(self, layer: DEQ, head: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.head = layer, head

    def forward(self, x: Tensor) -> Tensor:
        """Log density up to a constant, [batch]."""
        return self.head(self.layer(x), x)

    @property
    def exact(self) -> bool:
        """Whether the layer asks for exact derivatives; an approximate rule must not be replaced without a word."""
        return self.layer.gradient.exact

    def score_and_laplacian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient of the log density, [batch, ...], and its Laplacian (trace of the Hessian), [batch].

        Exact; differentiable once in all parameters and in x (a second derivative raises `DerivativeOrderError`).
        """
        layer = self.layer
        options: dict[str, Any] = {"solver": layer.solver, "tol": layer.tol, "max_iter": layer.max_iter,
                                   "on_failure": layer.on_failure}
        structure = getattr(layer.cell, "affine_structure", None)
        if structure is not None and x.dim() == 2 and not transforms_active():
            score, laplacian, layer.last = affine_score_and_laplacian(structure(x), self.head, x, layer.start(x),
                                                                      **options)
            return score, laplacian
        if structure is not None and x.dim() == 2:
            state, layer.last = affine_equilibrium_jet(structure(x), x, layer.start(x), **options)
        else:
            state, layer.last = equilibrium_jet(layer.cell, x, layer.start(x), **options)
        jet = push_forward(self.head, state, coordinate_jet(x))
        return jet.first.movedim(0, 1).reshape(x.shape), jet.laplacian
