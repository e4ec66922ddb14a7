"""States that are trees of tensors, complex, scaled or of low precision, as the one real tensor that solvers work on.

Everything below (solvers, gradient rules, linear solves) sees a matrix w [batch, n] and a map of it; `TreeMap` is that
map, and takes its answers back to the user's structure. Packing and unpacking are differentiable, so derivatives of
every order and every transform go through them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from deq.interop.pytree import Layout, flatten, unflatten
from deq.solution import Solution

__all__ = ["TreeMap", "is_plain"]

_PLAIN = (torch.float32, torch.float64)
_LOW = (torch.bfloat16, torch.float16)


def is_plain(z0: Any, inputs: Sequence[Any], scale: Any) -> bool:
    """Whether the solvers can take the state and its inputs as they are."""
    return (scale is None and isinstance(z0, Tensor) and (z0.dtype in _PLAIN or z0.dim() == 0 or not _is_state(z0))
            and all(isinstance(item, Tensor) for item in inputs))


def _is_state(tensor: Tensor) -> bool:
    return tensor.dtype.is_floating_point or tensor.dtype.is_complex


class TreeMap:
    """A map of trees as a map of matrices w [batch, n], float32 or float64.

    Args:
        f: f(z, *inputs) -> z on trees whose tensors have the batch first.
        z0: the start, a tree of floating or complex tensors.
        inputs: trees of tensors with the batch first.
        scale: a positive number, or a tree of such in the structure of z0: the units in which the entries of a leaf
            count in a sample's residual norm, 1 for each by default.

    Raises:
        TypeError, ValueError: a state that is none (integers, no batch dimension, leaves that disagree), or a scale or
            an input that does not fit.
    """

    def __init__(self, f: Callable[..., Any], z0: Any, inputs: Sequence[Any] = (), scale: Any = None) -> None:
        self._f = f
        self._layout = Layout.of(z0)
        self._dtype = torch.float32 if self._layout.dtype in _LOW else self._layout.dtype
        self._scale = None if scale is None else self._scales(scale)
        self._take_apart, self._put_together = _codec(z0, self._layout)
        #: A tree around one plain tensor is that tensor: nothing to pack.
        self._alone = len(self._layout.dtypes) == 1 and self._layout.dtypes[0] == self._dtype and scale is None
        values, self._input_structure = flatten(tuple(inputs))
        for index, leaf in enumerate(values):
            if not isinstance(leaf, Tensor):
                raise TypeError(f"the inputs hold {leaf!r} of type {type(leaf).__name__} (leaf {index}), but inputs "
                                "are tensors with one row a sample; let f close over what is not")
            if leaf.dim() == 0 or len(leaf) != self._layout.batch:
                raise ValueError(f"the inputs hold a tensor of shape {tuple(leaf.shape)} (leaf {index}), but its first "
                                 f"dimension must be the batch of z0, {self._layout.batch}; what all samples share "
                                 "goes elsewhere (`shared=` of a layer, or a name that f closes over)")
        self.inputs: tuple[Tensor, ...] = tuple(values)
        flat = _flat_tuple(inputs)
        self._inputs_of = (lambda found: found) if flat else (lambda found: unflatten(found, self._input_structure))
        self.start = self._pack(self._take_apart(z0)).detach()

    @property
    def rounding(self) -> float | None:
        """The rounding unit of the state's own dtype where that is coarser than the matrix's, else None."""
        coarsest = max(torch.finfo(kind.to_real()).eps for kind in self._layout.dtypes)
        return coarsest if coarsest > torch.finfo(self._dtype).eps else None

    def __call__(self, w: Tensor, *inputs: Tensor) -> Tensor:
        """The map at the tree of w, packed."""
        values = self._take_apart(self._f(self.tree(w), *self._inputs_of(inputs)))
        self._require_same(values, len(w))
        return self._pack(values)

    def tree(self, w: Tensor) -> Any:
        """The tree of a matrix [b, n], leaves in their own dtypes; differentiable."""
        if self._alone:
            return self._put_together([w])
        return self._layout.unpack(w if self._scale is None else w * self._scale)

    def solution(self, solution: Solution) -> Solution:
        """The same solution with z as a tree; residuals stay in the units of the scale."""
        return replace(solution, z=self.tree(solution.z))

    def _pack(self, values: Sequence[Tensor]) -> Tensor:
        if self._alone:
            return values[0]
        packed = self._layout.pack(self._put_together(list(values)), self._dtype)
        return packed if self._scale is None else packed / self._scale

    def _scales(self, scale: Any) -> Tensor:
        """One factor a column, [n]."""
        count = len(self._layout.shapes)
        given, structure = flatten(scale)
        values = given * count if len(given) == 1 else given
        if len(values) != count or (len(given) > 1 and structure != self._layout.structure):
            raise ValueError(f"scale must be one number, or have the structure of z0 ({self._layout.describe()})")
        numbers = [float(value) for value in values]
        for number in numbers:
            if not 0 < number < float("inf"):
                raise ValueError(f"scale holds {number}; the unit of a leaf is a positive number")
        columns = [torch.full((size,), number, dtype=self._dtype, device=self._layout.device)
                   for size, number in zip(self._layout.sizes, numbers, strict=True)]
        return torch.cat(columns)

    def _require_same(self, values: Sequence[Any], rows: int) -> None:
        """Shape, dtype and device of each leaf that f returned."""
        for leaf, shape, kind in zip(values, self._layout.shapes, self._layout.dtypes, strict=True):
            if not isinstance(leaf, Tensor) or leaf.shape[1:] != shape or leaf.shape[:1] != (rows,):
                got = f"one of shape {tuple(leaf.shape)}" if isinstance(leaf, Tensor) else type(leaf).__name__
                raise ValueError(f"expected a state like {self._layout.describe()}, but f returned {got} for a tensor "
                                 f"of shape {(rows, *shape)}")
            if leaf.device != self._layout.device:
                raise ValueError(f"f returned a tensor on {leaf.device} where z has one on {self._layout.device}; move "
                                 "z0 or the parameters of f")
            # A map of a low-precision state may well end in float32 (a norm, a sum): that loses nothing.
            widened = kind in _LOW and leaf.dtype.is_floating_point
            if leaf.dtype != kind and not widened:
                raise TypeError(f"f returned a tensor of {leaf.dtype} where z has {kind}; convert z0 or the parameters "
                                "of f so that they agree")


def _flat_tuple(tree: Any) -> bool:
    return type(tree) is tuple and all(isinstance(item, Tensor) for item in tree)


def _codec(tree: Any, layout: Layout) -> tuple[Callable[[Any], list[Any]], Callable[[list[Any]], Any]]:
    """Leaves of a tree like this one, and back; without a walk for plain tuples, lists and dicts of tensors."""

    def other(found: Any) -> ValueError:
        return ValueError(f"expected a state like {layout.describe()}, but f returned another structure: "
                          f"{type(found).__name__}")

    kind = type(tree)
    if isinstance(tree, Tensor):
        return lambda found: [found], lambda values: values[0]
    if kind in (tuple, list) and all(isinstance(item, Tensor) for item in tree):
        def parts(found: Any) -> list[Any]:
            if type(found) is not kind or len(found) != len(tree):
                raise other(found)
            return list(found)
        return parts, kind
    if kind is dict and all(isinstance(item, Tensor) for item in tree.values()):
        order, _ = flatten({name: index for index, name in enumerate(tree)})
        names = [list(tree)[index] for index in order]  # as the layout has them

        def entries(found: Any) -> list[Any]:
            if type(found) is not dict or found.keys() != tree.keys():
                raise other(found)
            return [found[name] for name in names]
        return entries, lambda values: dict(zip(names, values, strict=True))

    def leaves_of(found: Any) -> list[Any]:
        values, structure = flatten(found)
        if structure != layout.structure:
            raise other(found)
        return values
    return leaves_of, lambda values: unflatten(values, layout.structure)
