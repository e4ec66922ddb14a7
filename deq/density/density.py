"""An unnormalised density whose features are an equilibrium, with its score and Laplacian in one forward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from deq.density.affine_score import affine_score_and_laplacian
from deq.density.jets import coordinate_jet, push_forward
from deq.density.laplacian import equilibrium_jet
from deq.density.trust import has_hooks, speaks_for, trusted_structure
from deq.gradients.rules import Exact
from deq.interop.transforms import transforms_active
from deq.layer import DEQ
from deq.losses.score import differentiable_input, jacobian_trace, score_of


class EquilibriumDensity(nn.Module):
    """log p(x) = head(z, x) up to a constant, z = cell(z, x).

    As a function it is differentiable like any module. `deq.losses.score_matching` recognises it and takes
    `score_and_laplacian` instead of nested automatic differentiation: as exact, several times cheaper.

    Args:
        layer: the equilibrium.
        head: head(z, x) -> [batch]; twice differentiable, samples independent.

    Example:
        >>> import torch, deq
        >>> layer = deq.DEQ(deq.DenseCell(3, 8))
        >>> density = deq.EquilibriumDensity(layer, lambda z, x: z.sum(1) - 0.5 * x.square().sum(1))
        >>> x = torch.randn(5, 3)
        >>> score, laplacian = density.score_and_laplacian(x)
        >>> density(x).shape, score.shape, laplacian.shape
        (torch.Size([5]), torch.Size([5, 3]), torch.Size([5]))
    """

    def __init__(self, layer: DEQ, head: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.head = layer, head

    def forward(self, x: Tensor) -> Tensor:
        """Log density up to a constant, [batch]."""
        return self.head(self.layer(x), x)

    @property
    def exact(self) -> bool:
        """Whether `score_and_laplacian` may stand for nested derivatives of this density without being asked for.

        Not where the layer's rule is approximate (it must not be replaced without a word), and not where something
        else than this class's own `forward` and `deq.DEQ`'s is in use: a subclass's, a hook's.
        """
        return self.layer.gradient.exact and self._own()

    def _own(self) -> bool:
        """Whether calling this density is head(layer(x), x) and calling the layer its equilibrium, nothing else."""
        return (speaks_for(self, "score_and_laplacian") and speaks_for(self.layer, "start")
                and not has_hooks(self) and not has_hooks(self.layer))

    def score_and_laplacian(self, x: Tensor, *, chunk: int | None = None) -> tuple[Tensor, Tensor]:
        """Gradient of the log density, [batch, ...], and its Laplacian (trace of the Hessian), [batch].

        Exact; differentiable once in all parameters and in x (a second derivative raises `DerivativeOrderError`). The
        structure that a cell or head declares is used where it proves to be that of what is called; a density whose
        `forward` is another one is differentiated as it is, by nested automatic differentiation.

        Args:
            x: [batch, ...].
            chunk: how many directions run together (memory); all where None.
        """
        layer = self.layer
        if not self._own() or chunk is not None:
            return self._by_backward_passes(x, chunk)
        options: dict[str, Any] = {"solver": layer.solver, "tol": layer.tol, "max_iter": layer.max_iter,
                                   "on_failure": layer.on_failure}
        start = layer.start(x)
        structure = None if transforms_active() else trusted_structure(layer.cell, x, start)
        if structure is not None:
            score, laplacian, solution = affine_score_and_laplacian(structure, self.head, x, start, **options)
            layer.keep(solution)
            return score, laplacian
        state, solution = equilibrium_jet(layer.cell, x, start, **options)
        layer.keep(solution)
        jet = push_forward(self.head, state, coordinate_jet(x))
        assert jet.laplacian is not None
        return jet.first.movedim(0, 1).reshape(x.shape), jet.laplacian

    def _by_backward_passes(self, x: Tensor, chunk: int | None) -> tuple[Tensor, Tensor]:
        """The same of whatever this density computes, by d backward passes through its gradient."""
        rule, x = self.layer.gradient, differentiable_input(x)
        self.layer.gradient = Exact(3)  # what is asked for here is exact, whatever the layer trains with
        try:
            score = score_of(self)(x)
            return score, jacobian_trace(score, x, chunk=chunk)
        finally:
            self.layer.gradient = rule
