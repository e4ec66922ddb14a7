"""Jets of balls: a vector with its first and chosen second derivatives, through any composition of smooth pieces.

A jet carries enclosures of h, of D h along m directions [n, m], and of p combinations of second derivatives [n, p]:
each combination is a list of direction pairs that are summed. All pairs give the Hessian; the one combination
(0,0) + (1,1) + ... gives the Laplacian, forwards in one column (the implicit forward Laplacian).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from flint import arb, arb_mat

from analysis.rigorous.balls import identity, largest, norm_two, scale_rows, shape, zeros
from analysis.rigorous.smooth import NotSmooth, ball_activation

Pairs = tuple[tuple[tuple[int, int], ...], ...]
NO_SECOND: Pairs = ()


def laplacian_pairs(count: int) -> Pairs:
    """One combination: the sum of all pure second derivatives."""
    return (tuple((i, i) for i in range(count)),)


def hessian_pairs(count: int) -> Pairs:
    """All pairs i <= j, row by row."""
    return tuple(((i, j),) for i in range(count) for j in range(i, count))


@dataclass(frozen=True)
class Jet:
    """A vector of n balls with derivatives.

    Attributes:
        value: [n, 1], or None for "anywhere": slopes are then those on the whole line.
        first: [n, m], derivatives along m directions.
        second: [n, p], or None when no second derivatives are carried.
        pairs: the direction pairs of each of the p columns.
        lipschitz: slopes across kinks are wanted (contraction, Krawczyk) rather than derivatives.
        norm: an upper bound of |first|_2 over the box, kept because wide balls forget that their entries move together;
            None where nobody asked for it.
    """

    value: arb_mat | None
    first: arb_mat
    second: arb_mat | None = None
    pairs: Pairs = NO_SECOND
    lipschitz: bool = False
    norm: arb | None = None

    @property
    def size(self) -> int:
        """The number of entries n."""
        return int(self.first.nrows())

    def __add__(self, other: Jet) -> Jet:
        """Sum; `lipschitz` is inherited."""
        return replace(self, value=_both(self.value, other.value), first=self.first + other.first,
                       second=_both(self.second, other.second),
                       norm=None if self.norm is None or other.norm is None else self.norm + other.norm)

    def __sub__(self, other: Jet) -> Jet:
        return self + other.scaled(arb(-1))

    def __mul__(self, other: Jet) -> Jet:
        """Elementwise product."""
        if self.value is None or other.value is None:
            raise NotSmooth("a product has no slope bound on the whole space")
        a, b = self.value.entries(), other.value.entries()
        second = None
        if self.second is not None and other.second is not None:
            second = scale_rows(a, other.second) + scale_rows(b, self.second) + _cross(self, other)
        return replace(self, value=arb_mat(self.size, 1, [x * y for x, y in zip(a, b, strict=True)]),
                       first=scale_rows(a, other.first) + scale_rows(b, self.first), second=second,
                       norm=None if self.norm is None or other.norm is None else
                       _size(a) * other.norm + _size(b) * self.norm)

    def scaled(self, factor: arb) -> Jet:
        """A number times the vector."""
        return replace(self, value=None if self.value is None else self.value * factor, first=self.first * factor,
                       second=None if self.second is None else self.second * factor,
                       norm=None if self.norm is None else self.norm * abs(factor))

    def shifted(self, vector: arb_mat) -> Jet:
        """The vector plus a constant one."""
        return self if self.value is None else replace(self, value=self.value + vector)

    def total(self) -> Jet:
        """The sum of the entries, a jet of size 1."""
        return affine(arb_mat(1, self.size, [1] * self.size), self)


def affine(weight: arb_mat, jet: Jet, bias: arb_mat | None = None) -> Jet:
    """`weight h + bias`; weight [k, n], bias [k, 1]."""
    moved = replace(jet, value=None if jet.value is None else weight * jet.value, first=weight * jet.first,
                    second=None if jet.second is None else weight * jet.second,
                    norm=None if jet.norm is None else _scaled_norm(weight, jet.norm))
    return moved if bias is None else moved.shifted(bias)


def activate(name: str, jet: Jet) -> Jet:
    """An activation, elementwise.

    Raises:
        NotSmooth: a needed derivative may not exist at some entry; the message names the entry.
        NotCertified: an unknown activation, or one whose slope is unbounded where it was asked for.
    """
    activation = ball_activation(name)
    if jet.value is None:
        return _sloped(jet, None, [activation.slope_everywhere()] * jet.size)
    arguments = jet.value.entries()
    value = arb_mat(jet.size, 1, [activation.derivative(0, x) for x in arguments])
    if jet.lipschitz:
        return _sloped(jet, value, [activation.slope(x) for x in arguments])
    slopes = [_derivative(activation.derivative, 1, x, unit) for unit, x in enumerate(arguments)]
    second = None
    if jet.second is not None:
        bends = [_derivative(activation.derivative, 2, x, unit) for unit, x in enumerate(arguments)]
        second = scale_rows(slopes, jet.second) + scale_rows(bends, _squares(jet))
    return replace(jet, value=value, first=scale_rows(slopes, jet.first), second=second)


def squared_distances(jet: Jet, points: arb_mat) -> Jet:
    """|h - y_m|^2 for the columns y_m of `points` [n, M]: a jet of size M. Smooth jets only.

    Raises:
        NotSmooth: asked for slopes on the whole space.
    """
    if jet.value is None:
        raise NotSmooth("a squared distance has no slope bound on the whole space")
    values = jet.value.entries()
    gaps = arb_mat(points.ncols(), jet.size, [value - entry for row in points.transpose().tolist()
                                              for value, entry in zip(values, row, strict=True)])
    value = arb_mat(gaps.nrows(), 1, [sum((gap * gap for gap in row), arb(0)) for row in gaps.tolist()])
    second = None
    if jet.second is not None:
        bent = _squares(jet)  # [n, p]: the same for every point once summed over the entries
        total = arb_mat(1, jet.size, [1] * jet.size) * bent
        second = 2 * (gaps * jet.second + arb_mat(gaps.nrows(), 1, [1] * gaps.nrows()) * total)
    return replace(jet, value=value, first=2 * (gaps * jet.first), second=second, norm=None)


def constant(value: arb_mat, like: Jet) -> Jet:
    """A vector that does not move with the directions of `like`."""
    second = None if like.second is None else zeros(value.nrows(), like.second.ncols())
    return replace(like, value=value, first=zeros(value.nrows(), like.first.ncols()), second=second)


def variable(value: arb_mat | None, size: int, offset: int, directions: int, *, lipschitz: bool = False,
             norm: bool = False) -> Jet:
    """A first-order jet whose entry i moves along direction `offset + i`; all others stand still.

    Args:
        value: [size, 1], or None for "anywhere".
        size: n.
        offset: where the entries' own directions begin; below 0 for a vector that does not move at all.
        directions: how many there are in all.
        lipschitz: as in `Jet`.
        norm: keep track of the spectral norm.
    """
    first = zeros(size, directions)
    bound = arb(1 if offset >= 0 else 0) if norm else None
    if offset >= 0:
        for i in range(size):
            first[i, offset + i] = 1
    return Jet(value, first, lipschitz=lipschitz, norm=bound)


def input_jet(x: arb_mat, pairs: Pairs = NO_SECOND) -> Jet:
    """The input as the variable itself: D x = I, second derivatives zero."""
    size = x.nrows()
    second = zeros(size, len(pairs)) if pairs else None
    return Jet(x, identity(size), second, pairs)


def _derivative(function: Callable[[int, arb], arb], order: int, x: arb, unit: int) -> arb:
    try:
        return function(order, x)
    except NotSmooth as error:
        raise NotSmooth(f"unit {unit}: {error}") from None


def _squares(jet: Jet) -> arb_mat:
    """For each combination the sum of D h[u] D h[v] over its pairs."""
    rows = jet.first.tolist()
    return arb_mat(jet.size, len(jet.pairs), [
        sum((row[i] * row[j] for i, j in pairs), arb(0)) for row in rows for pairs in jet.pairs])


def _cross(left: Jet, right: Jet) -> arb_mat:
    rows = list(zip(left.first.tolist(), right.first.tolist(), strict=True))
    return arb_mat(left.size, len(left.pairs), [
        sum((a[i] * b[j] + a[j] * b[i] for i, j in pairs), arb(0)) for a, b in rows for pairs in left.pairs])


def _both(a: arb_mat | None, b: arb_mat | None) -> arb_mat | None:
    if a is None or b is None:
        return None
    if shape(a) != shape(b):
        raise ValueError(f"jets of different shapes: {shape(a)} and {shape(b)}")
    return a + b


def _size(values: list[arb]) -> arb:
    return largest([entry.abs_upper() for entry in values])


def _scaled_norm(weight: arb_mat, norm: arb) -> arb:
    return norm if norm.is_zero() else norm_two(weight) * norm


def _sloped(jet: Jet, value: arb_mat | None, slopes: list[arb]) -> Jet:
    """The chain rule for slopes; the norm by |(D + E) F| <= |D F| + max|E| |F| or max|D + E| |F|, the lesser."""
    norm = None
    if jet.norm is not None:
        centred = norm_two(scale_rows([slope.mid() for slope in slopes], jet.first))
        split = centred + _size([slope.rad() for slope in slopes]) * jet.norm
        norm = split.min(_size(slopes) * jet.norm).upper()
    return replace(jet, value=value, first=scale_rows(slopes, jet.first), norm=norm)
