"""The Jacobian J = df/dz from a recorded evaluation of f: products without forming it, or dense blocks, one a sample.

Everything here differentiates the graph of one evaluation; f itself is never called again. What a name in f stands for
later, what a hook or a cache does then, cannot matter.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from deq.status import MapError

__all__ = ["JacobianProducts", "as_rows", "leaves_torch"]

# Dense blocks are formed with at most this many cotangent elements at a time (64 MiB in float64).
_CHUNK_ELEMENTS = 2**23


def as_rows(tensor: Tensor) -> Tensor:
    """[batch, ...] -> [batch, n], also for no trailing dimensions (n = 1) and for an empty batch."""
    return tensor.reshape(tensor.shape[0], tensor.shape[1:].numel())


def leaves_torch(function: Callable[[Tensor], Tensor], z: Tensor) -> bool:
    """Whether f depends on z in a way that automatic differentiation does not see; ask where no dependence shows."""
    with torch.no_grad():
        still, moved = z.detach(), z.detach() + 1e-3 * (1 + z.detach().abs())
        return not torch.equal(function(still), function(moved))


class JacobianProducts:
    """Products with J and its transpose at one point, from the graph of one evaluation of f (plain tensors only).

    Vectors are [*stack, batch, ...] with any number of stacked right-hand sides in front. Stacked ones go through the
    graph together where its operations allow that, else one by one.

    Args:
        point: the z that f was evaluated at, [batch, ...], requiring grad.
        value: f(z), with its graph.
        usable: samples whose graph holds finite numbers, bool [batch]; J counts as zero for the others. None for all.
        varies: whether f was seen to give different values at different z.
        rounding: unit of rounding of f's dtype where that is coarser than z's.
    """

    def __init__(self, point: Tensor, value: Tensor, usable: Tensor | None = None, varies: bool = False,
                 rounding: float | None = None) -> None:
        self._point, self._value, self._usable, self._varies = point, value, usable, varies
        self._rounding = rounding
        self._constant = not value.requires_grad
        self._pullback: tuple[Tensor, Tensor] | None = None
        self._stacking = True
        self._trusted = False

    @property
    def shape_of_z(self) -> torch.Size:
        """[batch, ...]."""
        return self._point.shape

    def transposed(self, cotangent: Tensor) -> Tensor:
        """J^T v, of the shape of v."""
        return self._masked(self._many(self._value, self._point, cotangent))

    def direct(self, tangent: Tensor) -> Tensor:
        """J v: the transpose of the (linear) pullback, so f need not support forward mode."""
        if self._pullback is None:
            with torch.enable_grad():
                dummy = torch.zeros_like(self._value).requires_grad_()
                pulled = self._pull(self._value, self._point, dummy, create_graph=True)
            self._pullback = dummy, dummy.new_zeros(()) if pulled is None else pulled
        dummy, pulled = self._pullback
        return self._masked(self._many(pulled, dummy, tangent))

    def _masked(self, product: Tensor) -> Tensor:
        if self._usable is None:
            return product
        return torch.where(self._usable.reshape(-1, *(1,) * (self._point.dim() - 1)), product, 0.0)

    def _pull(self, value: Tensor, point: Tensor, v: Tensor, **options: bool) -> Tensor | None:
        if not value.requires_grad:
            return None
        try:
            return torch.autograd.grad(value, point, v, retain_graph=True, allow_unused=True, **options)[0]
        except RuntimeError as error:
            if "modified by an inplace operation" in str(error):
                error.add_note("f changes a tensor in place that its own derivative needs (a buffer, a cache), and an "
                               "equilibrium evaluates f several times: use a copy in f (buffer.clone()).")
            raise

    def _many(self, value: Tensor, point: Tensor, v: Tensor, unchecked: bool = False) -> Tensor:
        """Pull v [*stack, *value.shape] back to the point, [*stack, *point.shape], without a graph."""
        if v.dim() == value.dim() or not value.requires_grad:
            found = None if self._constant else self._pull(value, point, v)
            if found is None:
                if value is self._value:
                    self._note_independence()
                return v.new_zeros((*v.shape[:v.dim() - value.dim()], *point.shape))
            return found.detach()
        rows = v.reshape(-1, *value.shape)
        pulled = self._stacked(value, point, rows, unchecked) if self._stacking and len(rows) > 1 else None
        if pulled is None:
            singles = [self._many(value, point, row) for row in rows]
            pulled = torch.stack(singles) if singles else v.new_zeros((0, *point.shape))
        return pulled.reshape(*v.shape[:v.dim() - value.dim()], *point.shape)

    def _note_independence(self) -> None:
        """No derivative of f in z was recorded: f is constant in z, or it hides how it depends on it.

        Raises:
            ValueError: it was seen to depend on z.
        """
        if self._varies:
            raise ValueError(
                "f depends on z, but its result carries no derivative with respect to z: it leaves torch on the way "
                "(numpy, .detach(), .item(), torch.no_grad()). Write f in torch operations on z")
        self._constant = True

    def _stacked(self, value: Tensor, point: Tensor, rows: Tensor, unchecked: bool) -> Tensor | None:
        """All rows in one pass; None where the graph does not take them together."""
        try:
            pulled = self._pull(value, point, rows, is_grads_batched=True)
        except Exception:  # of any kind, from operations without a batching rule: one by one it shows if it is real
            self._stacking = False
            return None
        if pulled is None:
            return None
        if not self._trusted and not unchecked:
            # Batching can go wrong without a word where f brings its own backward code: the sum of all tells.
            once = self._pull(value, point, rows.sum(0))
            assert once is not None
            total = pulled.sum(0)
            limit = torch.finfo(value.dtype).eps ** 0.5 * pulled.abs().sum(0)
            wrong = ~((total - once).abs() <= limit) & once.isfinite()
            if bool(wrong.any()):
                self._stacking = False
                return None
            self._trusted = True
        return pulled.detach()

    def blocks(self) -> Tensor:
        """J for each sample, [batch, n, n], n = number of state elements of a sample; J^T of all samples checked.

        Raises:
            MapError: one sample depends on another, so that no block a sample holds the whole J.
        """
        point = self._point
        batch, n = as_rows(point).shape
        jacobian = point.new_empty((batch, n, n))
        if not jacobian.numel():
            return jacobian
        rows = max(1, min(n, _CHUNK_ELEMENTS // (batch * n)))
        for start in range(0, n, rows):
            count = min(rows, n - start)
            seeds = torch.zeros((count, n), dtype=point.dtype, device=point.device)
            seeds[torch.arange(count), torch.arange(start, start + count)] = 1
            cotangents = seeds.reshape(count, 1, *point.shape[1:]).expand(count, *point.shape)
            block = self._masked(self._many(self._value, point, cotangents, unchecked=True))
            if self._constant:
                return jacobian.zero_()
            jacobian[:, start:start + count] = block.reshape(count, batch, n).transpose(0, 1)
        if not self._is_whole(jacobian):
            if batching := self._stacking and n > 1:
                self._stacking = False  # the fault may be in the batching alone: once more, row by row
            if not batching:
                raise MapError(
                    "f couples the samples of the batch (batch normalisation in training mode, a mean over the batch), "
                    "so its Jacobian is not one block a sample, which Exact(linear='dense') needs. Take "
                    "Exact(linear='krylov'), which is right for coupled samples too, or make f work sample by sample "
                    "(.eval(), or a normalisation within each sample)")
            return self.blocks()
        return jacobian

    def _is_whole(self, jacobian: Tensor) -> bool:
        """Whether the blocks give J^T v for one v of the whole batch, whose weights differ from sample to sample."""
        batch, n = jacobian.shape[:2]
        angles = torch.arange(1, batch * n + 1, dtype=jacobian.dtype, device=jacobian.device)
        weights = torch.sin(1.7 * angles + 0.1 * angles.square().remainder(97.0)).reshape(batch, n)
        whole = as_rows(self.transposed(weights.reshape(self._point.shape)))
        blockwise = torch.matmul(weights.unsqueeze(1), jacobian).squeeze(1)
        size = torch.linalg.vector_norm(jacobian, dim=(1, 2)) * n**0.5
        eps = torch.finfo(jacobian.dtype).eps
        relative = eps**0.75 if jacobian.device.type == "cpu" else eps**0.5
        bound = max(relative, 4 * (self._rounding or 0.0)) * size.nan_to_num(0.0).amax()
        finite = as_rows(jacobian).isfinite().all(1)
        return not bool((((whole - blockwise).abs() > bound).any(1) & finite).any())
