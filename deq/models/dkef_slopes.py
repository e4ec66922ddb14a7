"""First derivatives of R feature maps side by side, `J_n [d, R h]` at each sample, kept as small as they are.

In few dimensions J is written out. In many, a feature map meets x only through its first linear map A and its linear
skip S, both of h rows, so `J = A^T T + S^T` with T `[h, h]` a sample: what is needed of J (its Gram matrix, products
with vectors) never costs or stores anything of size n h d.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor


class Slopes(ABC):
    """`J_n [m, R h]`: derivatives of R h features along m directions at each of n samples."""

    @abstractmethod
    def rows(self, chosen: slice) -> Slopes:
        """Those of some samples."""

    @abstractmethod
    def gram(self) -> Tensor:
        """`J^T J`, `[n, R h, R h]`."""

    @abstractmethod
    def blocks(self) -> Tensor:
        """The diagonal blocks of `gram` alone, `[R, n, h, h]`."""

    @abstractmethod
    def along(self, u: Tensor) -> Tensor:
        """`J u`, `[n, m]`, for u `[n, R h]`."""

    @abstractmethod
    def against(self, v: Tensor) -> Tensor:
        """`J^T v`, `[n, R h]`, for v `[n, m]`."""

    @property
    @abstractmethod
    def directions(self) -> int:
        """The number m."""

    @abstractmethod
    def times(self, c: Tensor) -> Tensor:
        """`J c`, `[n, m, M]`, for c `[n, R h, M]`."""


@dataclass(frozen=True)
class WrittenSlopes(Slopes):
    """J written out.

    Attributes:
        first: `[R, n, m, h]`.
    """

    first: Tensor

    def rows(self, chosen: slice) -> Slopes:
        """Those of some samples."""
        return WrittenSlopes(some(self.first, chosen))

    @property
    def _matrix(self) -> Tensor:
        return self.first.permute(1, 2, 0, 3).flatten(2)

    @property
    def directions(self) -> int:
        """The number m."""
        return self.first.shape[2]

    def gram(self) -> Tensor:
        """`J^T J`, `[n, R h, R h]`."""
        matrix = self._matrix
        return matrix.transpose(1, 2) @ matrix

    def blocks(self) -> Tensor:
        """Of each map alone, `[R, n, h, h]`."""
        return self.first.transpose(2, 3) @ self.first

    def along(self, u: Tensor) -> Tensor:
        """`J u`, `[n, m]`."""
        return (self._matrix @ u[..., None])[..., 0]

    def against(self, v: Tensor) -> Tensor:
        """`J^T v`, `[n, R h]`."""
        return (v[:, None] @ self._matrix)[:, 0]

    def times(self, c: Tensor) -> Tensor:
        """`J c`, `[n, m, M]`."""
        return self._matrix @ c


@dataclass(frozen=True)
class FactoredSlopes(Slopes):
    """`J = A^T T + S^T` along the unit vectors of R^d.

    Attributes:
        inner: T, `[R, n, h, h]`: derivatives of the features (last axis) in the first linear map's outputs.
        entry: A, `[R, h, d]`.
        skip: S, `[R, h, d]`, or None.
    """

    inner: Tensor
    entry: Tensor
    skip: Tensor | None

    def rows(self, chosen: slice) -> Slopes:
        """Those of some samples."""
        return FactoredSlopes(some(self.inner, chosen), self.entry, self.skip)

    @property
    def directions(self) -> int:
        """The number d."""
        return self.entry.shape[2]

    def gram(self) -> Tensor:
        """`J^T J`, `[n, R h, R h]`, from the products of A and S among themselves."""
        # rows T_r^T (A_r A_s^T) for all s side by side, then each s by its own T_s: no product with a zero block
        total = self._half(self.entry).unflatten(2, (len(self.inner), -1)).permute(2, 0, 1, 3)
        total = (total @ self.inner).permute(1, 2, 0, 3).flatten(2)
        if self.skip is None:
            return total
        mixed = self._half(self.skip)
        skip = self.skip.flatten(0, 1)
        return total + mixed + mixed.transpose(1, 2) + skip @ skip.T

    def _half(self, other: Tensor) -> Tensor:
        """`T_r^T A_r B_s^T`, `[n, R h, R h]`, for B `[R, h, d]`."""
        copies, n, width = self.inner.shape[:3]
        rows = self.inner.transpose(2, 3).reshape(copies, n * width, width)
        product = rows @ (self.entry @ other.flatten(0, 1).T)
        return product.unflatten(1, (n, width)).transpose(0, 1).flatten(1, 2)

    def blocks(self) -> Tensor:
        """Of each map alone, `[R, n, h, h]`."""
        inner, turned = self.inner, self.entry.transpose(1, 2)
        total = inner.transpose(2, 3) @ ((self.entry @ turned)[:, None] @ inner)
        if self.skip is None:
            return total
        mixed = inner.transpose(2, 3) @ (self.entry @ self.skip.transpose(1, 2))[:, None]
        return total + mixed + mixed.transpose(2, 3) + (self.skip @ self.skip.transpose(1, 2))[:, None]

    def along(self, u: Tensor) -> Tensor:
        """`J u`, `[n, d]`."""
        split = u.unflatten(1, self.entry.shape[:2]).transpose(0, 1)                             # [R, n, h]
        total = ((self.inner @ split[..., None])[..., 0] @ self.entry).sum(0)
        return total if self.skip is None else total + u @ self.skip.flatten(0, 1)

    def against(self, v: Tensor) -> Tensor:
        """`J^T v`, `[n, R h]`."""
        total = ((v @ self.entry.transpose(1, 2))[:, :, None] @ self.inner)[:, :, 0].transpose(0, 1).flatten(1)
        return total if self.skip is None else total + v @ self.skip.flatten(0, 1).T

    def times(self, c: Tensor) -> Tensor:
        """`J c`, `[n, d, M]`; this one does write J out."""
        written = self.entry.transpose(1, 2)[:, None] @ self.inner
        if self.skip is not None:
            written = written + self.skip.transpose(1, 2)[:, None]
        return WrittenSlopes(written).times(c)


def some(first: Tensor, chosen: slice) -> Tensor:
    """Some samples of `[R, n, ...]`, or of `[R, 1, ...]` where all samples share it."""
    return first if first.shape[1] == 1 else first[:, chosen]
