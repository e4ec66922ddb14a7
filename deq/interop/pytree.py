"""States and inputs that are trees of tensors: as one real matrix [batch, n] and back, as slices, in another dtype.

A tree is a tensor or nested tuples, lists, dicts, named tuples and dataclasses of tensors (`torch.utils._pytree`, whose
private name appears here alone). Solvers and Krylov methods work on the matrix; the map sees the tree.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree

__all__ = ["Layout", "cast", "flatten", "leaves", "map_tensors", "rows_of", "unflatten"]


def flatten(tree: Any) -> tuple[list[Any], Any]:
    """Leaves in a fixed order, and the structure; dataclasses met on the way are registered as nodes."""
    _register_dataclasses(tree)
    return _pytree.tree_flatten(tree)


def unflatten(values: Sequence[Any], structure: Any) -> Any:
    """The tree of this structure with these leaves."""
    return _pytree.tree_unflatten(list(values), structure)


def leaves(tree: Any) -> list[Any]:
    """The leaves alone."""
    return flatten(tree)[0]


def map_tensors(function: Callable[[Tensor], Tensor], tree: Any) -> Any:
    """The tree with the function applied to its tensors; other leaves stay."""
    values, structure = flatten(tree)
    return unflatten([function(leaf) if isinstance(leaf, Tensor) else leaf for leaf in values], structure)


def rows_of(tree: Any, rows: Tensor, batch: int) -> Any:
    """These samples of every tensor whose first dimension is the batch; others are shared by all samples and stay."""
    return map_tensors(lambda leaf: leaf[rows] if leaf.dim() and len(leaf) == batch else leaf, tree)


def cast(tree: Any, dtype: torch.dtype) -> Any:
    """Floating tensors in this real dtype, complex ones in its complex partner; others stay."""
    return map_tensors(lambda leaf: leaf.to(_like(leaf.dtype, dtype)), tree)


def _like(kind: torch.dtype, dtype: torch.dtype) -> torch.dtype:
    """`dtype` for a real floating kind, its complex partner for a complex one, the kind itself else."""
    return dtype.to_complex() if kind.is_complex else dtype if kind.is_floating_point else kind


def _register_dataclasses(tree: Any) -> None:
    """Make nodes of the dataclass instances in a tree of plain containers."""
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        fields = [field.name for field in dataclasses.fields(tree) if field.init]
        if type(tree) not in _pytree.SUPPORTED_NODES:
            others = [field.name for field in dataclasses.fields(tree) if not field.init]
            _pytree.register_dataclass(type(tree), field_names=fields, drop_field_names=others)
        children: Sequence[Any] = [getattr(tree, name) for name in fields]
    elif isinstance(tree, dict):
        children = list(tree.values())
    else:
        children = tree if isinstance(tree, list | tuple) else ()
    for child in children:
        _register_dataclasses(child)


@dataclass(frozen=True)
class Layout:
    """How a tree of tensors [batch, ...] lies in a real matrix [batch, n]; complex entries take two columns.

    Attributes:
        structure: of the tree.
        shapes: of the leaves behind the batch dimension.
        dtypes: of the leaves.
        batch: samples.
        dtype: of the matrix, the widest real one among the leaves.
        device: of all leaves.

    Example:
        >>> layout = Layout.of((torch.zeros(2, 3), {"a": torch.ones(2)}))
        >>> layout.pack((torch.zeros(2, 3), {"a": torch.ones(2)})).shape
        torch.Size([2, 4])
    """

    structure: Any
    shapes: tuple[torch.Size, ...]
    dtypes: tuple[torch.dtype, ...]
    batch: int
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, tree: Any, name: str = "z0") -> Layout:
        """The layout of a state.

        Raises:
            TypeError: a leaf is no tensor, or one of integers.
            ValueError: no leaf, a leaf without batch dimension, or leaves that disagree in batch or device.
        """
        values, structure = flatten(tree)
        if not values:
            raise ValueError(f"{name} has no tensors")
        for leaf in values:
            if not isinstance(leaf, Tensor):
                raise TypeError(f"{name} holds {type(leaf).__name__}, but a state is made of tensors")
            if not (leaf.dtype.is_floating_point or leaf.dtype.is_complex):
                raise TypeError(f"{name} holds a tensor of {leaf.dtype}; a state is made of floating or complex ones")
            if leaf.dim() == 0:
                raise ValueError(f"{name} has no batch dimension; its first dimension counts the samples "
                                 "(unsqueeze(0) for one)")
        if len({len(leaf) for leaf in values}) > 1:
            raise ValueError(f"the tensors of {name} disagree in their batch dimension: "
                             f"{', '.join(str(tuple(leaf.shape)) for leaf in values)}")
        if len({leaf.device for leaf in values}) > 1:
            raise ValueError(f"the tensors of {name} are on several devices")
        dtype = values[0].dtype.to_real()
        for leaf in values[1:]:
            dtype = torch.promote_types(dtype, leaf.dtype.to_real())
        return cls(structure, tuple(leaf.shape[1:] for leaf in values), tuple(leaf.dtype for leaf in values),
                   len(values[0]), dtype, values[0].device)

    @property
    def sizes(self) -> list[int]:
        """Real columns of each leaf."""
        return [shape.numel() * (2 if kind.is_complex else 1)
                for shape, kind in zip(self.shapes, self.dtypes, strict=True)]

    @property
    def size(self) -> int:
        """n, real entries of a sample."""
        return sum(self.sizes)

    def pack(self, tree: Any, dtype: torch.dtype | None = None) -> Tensor:
        """The tree as a matrix [batch, n] of this dtype (default: the layout's); differentiable.

        Raises:
            ValueError: the tree has another structure, or a leaf another trailing shape.
        """
        values, structure = flatten(tree)
        if structure != self.structure:
            raise ValueError(f"expected a state like {self.describe()}, got another structure")
        parts = []
        for leaf, shape, kind in zip(values, self.shapes, self.dtypes, strict=True):
            if not isinstance(leaf, Tensor) or leaf.shape[1:] != shape or leaf.dtype.is_complex != kind.is_complex:
                got = f"a tensor {tuple(leaf.shape)}, {leaf.dtype}" if isinstance(leaf, Tensor) else repr(leaf)[:60]
                raise ValueError(f"expected a state like {self.describe()}, got {got} in it")
            real = torch.view_as_real(leaf.resolve_conj()) if leaf.is_complex() else leaf
            parts.append(real.reshape(len(leaf), -1 if len(leaf) else 0).to(dtype or self.dtype))
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def unpack(self, flat: Tensor, *, native: bool = True) -> Any:
        """The tree of a matrix [b, n], any b; leaves in their own dtypes, or with native=False in the matrix's."""
        values = []
        for part, shape, kind in zip(flat.split(self.sizes, 1), self.shapes, self.dtypes, strict=True):
            if kind.is_complex:
                leaf = torch.view_as_complex(part.reshape(len(part), *shape, 2).contiguous())
            else:
                leaf = part.reshape(len(part), *shape)
            values.append(leaf.to(kind) if native else leaf)
        return unflatten(values, self.structure)

    def describe(self) -> str:
        """Shapes and dtypes in words."""
        kinds = ", ".join(f"{(self.batch, *shape)} {str(kind).removeprefix('torch.')}"
                          for shape, kind in zip(self.shapes, self.dtypes, strict=True))
        return kinds if len(self.shapes) == 1 else f"[{kinds}]"
