r"""Left Riemann sums of 1/r^2: which leaky-ReLU networks share a conjugate kernel.

A layer phi(x) = s x + d |x| has, at any tau, g_1 = s^2, g_2 = 2 d^2 / (pi tau^2), Var phi = tau^2 (s^2 + kap d^2), kap
= 1 - 2/pi. With u = d^2/s^2 and r_l = prod_{j<=l} (1 + kap u_j) a network's three scale-free numbers are

    R = gamma^2 / (tau_0^2 alpha_1) = r_L,
    P = 2 pi tau_0^2 alpha_2 / alpha_1 = sum_l u_l r_{l-1} = (R - 1) / kap,
    Q = pi tau_0^2 alpha_3 / alpha_1 = sum_l u_l / r_{l-1},    kap Q = S(r) := sum_l (r_l - r_{l-1}) / r_{l-1}^2,

so a partition 1 = r_0 <= r_1 <= ... <= r_L = R with S(r) = kap Q is all there is to find.

The range of S over partitions with L cells is [m_L(R), R - 1]. The maximum is the single cell. For the minimum:
splitting a cell lowers S strictly, so the minimum over the (compact) set of partitions has no empty cell and is
stationary; stationarity in r_l reads t_{l+1} = (1 + t_l^2)/2 for the ratios t_l = r_l / r_{l-1}, and the product of
the ratios increases with t_1, so there is exactly one stationary point. As L grows m_L falls to the integral 1 - 1/R,
which no finite L reaches.

A DEQ with the same kind of phi has, with A = sigma_a^2 s^2 and k = kap d^2/s^2,

    R = (1 + k)(1 - A) / (1 - A (1 + k)),     kap Q = k (1 - A (1 + k)) / (1 - A)^2,    R - 1 = k / (1 - A (1 + k)) =
    kap P,

hence kap Q <= R - 1 always, and kap Q > 1 - 1/R exactly if A < 1/(2 + k): beyond that no depth is enough.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np
from scipy import optimize

from analysis.activations import Array

KAP = 1 - 2 / math.pi
DEEPEST = 4096  # layers


def left_sum(partition: Sequence[float] | Array) -> float:
    """S(r) for r_0 <= ... <= r_L."""
    return float(sum((b - a) / a**2 for a, b in itertools.pairwise(partition)))


def steepest_ratios(first: Any, depth: int) -> list[Any]:
    """The stationary ratios t_1 = first, t_{l+1} = (1 + t_l^2)/2; works on floats, mpmath numbers and balls."""
    ratios = [first]
    for _ in range(depth - 1):
        ratios.append((1 + ratios[-1] ** 2) / 2)
    return ratios


def minimal_partition(end: float, depth: int) -> list[float]:
    """The partition of [1, end] into `depth` cells with the least S, as floats.

    Raises:
        ValueError: end < 1 or depth < 1.
    """
    if not (end >= 1 and depth >= 1):
        raise ValueError(f"a partition needs end >= 1 and depth >= 1, not {end} and {depth}")
    if end == 1:
        return [1.0] * (depth + 1)

    def excess(log_first: float) -> float:
        return math.log(math.prod(steepest_ratios(math.exp(log_first), depth)) / end)

    top = math.log(end) / depth  # the ratios increase, so the first is at most their geometric mean
    log_first = float(optimize.brentq(excess, 0.0, top, xtol=1e-16, rtol=1e-15)) if depth > 1 else top
    partition = [1.0, *np.cumprod(steepest_ratios(math.exp(log_first), depth)).tolist()]
    partition[-1] = end
    return partition


def least_sum(end: mpmath.mpf, depth: int) -> mpmath.mpf:
    """m_L(R) in the working precision of mpmath."""
    if depth == 1:
        return end - 1
    first = mpmath.findroot(lambda t: mpmath.fprod(steepest_ratios(t, depth)) - end,
                            (mpmath.mpf(1), end ** (mpmath.mpf(1) / depth)), solver="anderson", tol=mpmath.eps**1.5)
    total, start = mpmath.mpf(0), mpmath.mpf(1)
    for ratio in steepest_ratios(first, depth):
        total += (ratio - 1) / start
        start *= ratio
    return total


def deq_ratios(strength: mpmath.mpf, bend: mpmath.mpf) -> tuple[mpmath.mpf, mpmath.mpf]:
    """(R, kap Q) of the DEQ with A = `strength` and k = `bend`, in the arithmetic of its arguments."""
    rest = 1 - strength * (1 + bend)
    return (1 + bend) * (1 - strength) / rest, bend * rest / (1 - strength) ** 2


def least_depth(end: float, target: float) -> int | None:
    """The least L with m_L(R) <= kap Q <= R - 1, or None where that is more than `DEEPEST`.

    m_L falls with L, so L is found by doubling and halving.
    """
    if not SolutionSet.build(end, target, 1).empty:
        return 1
    low, high = 1, 2
    while SolutionSet.build(end, target, high).empty:
        low, high = high, 2 * high
        if high > DEEPEST:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if SolutionSet.build(end, target, middle).empty else (low, middle)
    return high


@dataclass(frozen=True)
class SolutionSet:
    """All partitions of [1, end] into `depth` cells with S = target.

    In the coordinates Y_l = log r_l the solutions are sought along rays from the minimal partition. For depth 1 there
    is one solution, for depth 2 there are two (one on each side, by the convexity of S in Y_1), for depth L >= 3 a
    hypersurface of dimension L - 2, of which `along` returns a point on each ray that meets it.

    Attributes:
        end: R.
        target: kap Q.
        depth: L.
        lowest: the partition of least S.
        minimum: its S, m_L(R).
    """

    end: float
    target: float
    depth: int
    lowest: tuple[float, ...]
    minimum: float

    @classmethod
    def build(cls, end: float, target: float, depth: int) -> SolutionSet:
        """The set for given R, kap Q and depth; it may be empty."""
        lowest = minimal_partition(end, depth)
        return cls(end, target, depth, tuple(lowest), left_sum(lowest))

    @property
    def slack(self) -> float:
        """Rounding allowed on S: a few sums of terms below `end`."""
        return 1e-14 * self.depth * max(1.0, self.end)

    @property
    def empty(self) -> bool:
        """Whether no partition has this sum; equality at the ends counts as a solution."""
        return not (self.minimum - self.slack <= self.target <= self.end - 1 + self.slack)

    @property
    def dimension(self) -> int:
        """Dimension of the set when the target is inside the range: 0 for isolated solutions."""
        return max(self.depth - 2, 0)

    def along(self, direction: Sequence[float] | Array) -> tuple[float, ...] | None:
        """The solution on the ray from the lowest partition in the given direction of (Y_1 ... Y_{L-1}), or None.

        None means that the ray leaves the set of partitions before S reaches the target.
        """
        step = np.asarray(direction, dtype=float)
        centre = np.log(self.lowest)
        if step.shape != (self.depth - 1,) or not np.any(step):
            raise ValueError(f"a direction for depth {self.depth} has {self.depth - 1} entries, not all zero")
        full = np.concatenate([[0.0], step / np.max(np.abs(step)), [0.0]])
        gaps, drift = np.diff(centre), np.diff(full)
        reach = float(np.min(np.where(drift < -1e-12, gaps / np.where(drift < -1e-12, -drift, 1.0), np.inf)))

        def partition(distance: float) -> Array:
            points = np.exp(np.maximum.accumulate(centre + distance * full))
            points[-1] = self.end
            return np.minimum(points, self.end)

        def excess(distance: float) -> float:
            return left_sum(partition(distance)) - self.target

        if abs(excess(reach)) <= self.slack:
            return tuple(partition(reach).tolist())
        if excess(reach) < 0:
            return None
        if excess(0.0) >= 0:
            return self.lowest
        return tuple(partition(float(optimize.brentq(excess, 0.0, reach, xtol=1e-16, rtol=1e-15))).tolist())

    def representatives(self) -> list[tuple[str, tuple[float, ...]]]:
        """Labelled solutions: all of them for depth 1 and 2; towards every corner and towards equal layers beyond."""
        if self.empty:
            return []
        if self.depth == 1 or self.minimum > self.target - self.slack:
            return [("the only one", self.lowest if self.depth > 1 else (1.0, self.end))]
        top, centre = math.log(self.end), np.log(self.lowest[1:-1])
        found = []
        for bent in range(1, self.depth + 1):
            corner = np.where(np.arange(1, self.depth) < bent, 0.0, top)
            solution = self.along(corner - centre)
            if solution is not None:
                found.append((f"layer {bent} most bent", solution))
        if self.depth > 2:
            equal = top * np.arange(1, self.depth) / self.depth - centre
            solution = self.along(equal) if np.any(np.abs(equal) > 1e-9) else None
            if solution is not None:
                found.append(("towards equal layers", solution))
        return found


def depth_threshold(depth: int, *, digits: int = 30, slope2: float | str = "0.25",
                    bend: str | None = None) -> mpmath.mpf:
    """The sigma_a^2 up to which `depth` leaky-ReLU layers can match the CK of a leaky-ReLU DEQ (ReLU by default).

    Args:
        depth: number of layers, at least 2; one layer matches only sigma_a^2 = 0.
        digits: decimal digits of the answer.
        slope2: s^2 of the DEQ's phi = s x + d |x|.
        bend: d^2/s^2 (1 for ReLU).

    Raises:
        ValueError: depth < 2.

    Example:
        >>> import analysis
        >>> analysis.depth_threshold(2) < analysis.depth_threshold(3)
        True
    """
    if depth < 2:
        raise ValueError(f"depth {depth}: one layer matches sigma_a2 = 0 alone, so thresholds start at depth 2")
    with mpmath.workdps(digits + 10):
        s2 = mpmath.mpf(slope2)
        k = (1 - 2 / mpmath.pi) * mpmath.mpf(bend or 1)

        def gap(strength: mpmath.mpf) -> mpmath.mpf:
            end, target = deq_ratios(strength, k)
            return target - least_sum(end, depth)

        strength = mpmath.findroot(gap, (mpmath.mpf("0.001"), 1 / (2 + k)), solver="anderson", tol=mpmath.eps**1.5)
        return strength / s2


def depth_limit(*, digits: int = 30, slope2: float | str = "0.25", bend: str | None = None) -> mpmath.mpf:
    """The sigma_a^2 from which on no depth matches: s^2 sigma_a^2 = 1/(2 + k).

    Example:
        >>> import analysis
        >>> analysis.depth_threshold(3) < analysis.depth_limit()
        True
    """
    with mpmath.workdps(digits + 10):
        return 1 / (2 + (1 - 2 / mpmath.pi) * mpmath.mpf(bend or 1)) / mpmath.mpf(slope2)
