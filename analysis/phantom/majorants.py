"""Pairs (size of an exact quantity, size of its error) that pass through sums and products by the triangle inequality.

If |a| <= A with error a', and |b| <= B with error b', a bilinear product of norm c has size c A B and error at most
c (A b' + B a' + a' b'): the product of (a - error) with (b - error) differs from that of a with b by no more.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Majorant:
    """Upper bounds of a norm and of the norm of an error.

    Attributes:
        size: of the exact quantity.
        error: of its difference from the approximation.
    """

    size: float
    error: float = 0.0

    def __add__(self, other: Majorant) -> Majorant:
        """The sum of two quantities."""
        return Majorant(self.size + other.size, self.error + other.error)

    def __mul__(self, other: Majorant) -> Majorant:
        """A bilinear product of norm one."""
        return Majorant(self.size * other.size,
                        self.size * other.error + self.error * other.size + self.error * other.error)

    def times(self, factor: float) -> Majorant:
        """A linear map of that norm, the same for the exact quantity and its approximation."""
        return Majorant(factor * self.size, factor * self.error)
