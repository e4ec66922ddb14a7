"""Gradient rules: how an equilibrium is differentiated. All are one iteration with different preconditioners M.

From z^(0) = z* (detached), with autograd on and M held fixed,

    z^(k+1) = z^(k) + M ( f(z^(k), x) - z^(k) ),     R := I - M (I - J),   J = df/dz at z*.

The first derivative is wrong by R^K Dz after K steps; with M = (I - J)^{-1}, R = 0 and every derivative of total order
up to K (in inputs and parameters together) is exact: a chord-Newton step gains one order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LinearMethod = Literal["auto", "dense", "krylov"]


@dataclass(frozen=True)
class GradientRule:
    """What every rule says of itself.

    Attributes:
        steps: K, the number of differentiated iterations.
        max_order: highest order of derivative that the rule vouches for; None for an approximation at every order.
        exact: whether derivatives up to `max_order` are exact (to solver and rounding accuracy).

    Example:
        >>> import deq
        >>> [(rule.steps, rule.max_order, rule.exact) for rule in (deq.Exact(), deq.Phantom(2), deq.Neumann(8))]
        [(3, 3, True), (2, None, False), (1, 1, False)]
    """

    @property
    def steps(self) -> int:
        """K, the number of differentiated iterations."""
        raise NotImplementedError

    @property
    def max_order(self) -> int | None:
        """Highest order that the rule vouches for, or None for an approximation at every order."""
        raise NotImplementedError

    exact = False


def _positive(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")


@dataclass(frozen=True)
class Phantom(GradientRule):
    """Phantom gradient: M = damping * I, `steps` applications of f with autograd on ([SM] 3.4; Geng et al. 2021).

    An approximation at every order: its first derivative is off by R^K Dz, R = (1 - damping) I + damping J. Cheap.

    Args:
        steps: K >= 1. With K = 0 nothing would depend on inputs or parameters any more, so it is refused.
        damping: in (0, 1].

    Example:
        >>> import torch, deq
        >>> x = torch.ones(1, 1, requires_grad=True)
        >>> z = deq.equilibrium(lambda z: 0.5 * z + x, torch.zeros(1, 1), gradient=deq.Phantom(steps=2))
        >>> float(torch.autograd.grad(z.sum(), x)[0])  # 1 + 0.5; the truth is 1 / (1 - 0.5) = 2
        1.5
    """

    num_steps: int
    damping: float

    def __init__(self, steps: int = 2, damping: float = 1.0) -> None:
        _positive("Phantom(steps=...)", steps)
        if not 0 < damping <= 1:
            raise ValueError(f"Phantom(damping=...) must lie in (0, 1], got {damping!r}")
        object.__setattr__(self, "num_steps", steps)
        object.__setattr__(self, "damping", float(damping))

    @property
    def steps(self) -> int:
        """K."""
        return self.num_steps

    @property
    def max_order(self) -> None:
        """None: an approximation at every order."""
        return None


@dataclass(frozen=True)
class Neumann(GradientRule):
    """M = I + J + ... + J^(terms - 1), J fixed at z*: R = J^terms. Between phantom and exact, without any solve.

    Args:
        terms: number of terms of the Neumann series.
        order: number of steps K, and the highest order that may be taken; the first derivative is off by
            J^(terms K) Dz.

    Example:
        >>> import torch, deq
        >>> x = torch.ones(1, 1, requires_grad=True)
        >>> z = deq.equilibrium(lambda z: 0.5 * z + x, torch.zeros(1, 1), gradient=deq.Neumann(terms=3))
        >>> float(torch.autograd.grad(z.sum(), x)[0])  # 1 + 0.5 + 0.25; the truth is 2
        1.75
    """

    terms: int
    order: int = 1

    def __post_init__(self) -> None:
        _positive("Neumann(terms=...)", self.terms)
        _positive("Neumann(order=...)", self.order)

    @property
    def steps(self) -> int:
        """K = order."""
        return self.order

    @property
    def max_order(self) -> int:
        """`order`: a higher derivative would miss whole terms, not only powers of J."""
        return self.order


@dataclass(frozen=True)
class Exact(GradientRule):
    """M = (I - J)^{-1} at z*: derivatives of total order up to `order` are exact; a higher one raises.

    Score: order 1. Hessian or its trace: 2. Parameter gradient of a score-matching loss: 3.

    Args:
        order: number of steps K, and the highest total order of derivative.
        linear: "dense" forms and inverts I - J for each sample, "krylov" never forms it, "auto" takes the cheaper. A
            Krylov solve goes on from plain iteration to BiCGStab to GMRES as far as it must; it takes coupled samples.
            A backward pass that nothing differentiates takes one solve and, under "auto", no inverse.
        linear_tol: relative tolerance of the Krylov solves; None for 500 times the dtype's rounding unit.
        linear_max_iter: bound on Krylov iterations; a solve that needs more raises.

    Example:
        >>> import torch, deq
        >>> x = torch.ones(1, 1, requires_grad=True)
        >>> z = deq.equilibrium(lambda z: 0.5 * z + x, torch.zeros(1, 1), gradient=deq.Exact(order=1))
        >>> float(torch.autograd.grad(z.sum(), x)[0])  # 1 / (1 - 0.5)
        2.0
    """

    order: int = 3
    linear: LinearMethod = "auto"
    linear_tol: float | None = None
    linear_max_iter: int = 500

    exact = True

    def __post_init__(self) -> None:
        _positive("Exact(order=...)", self.order)
        _positive("Exact(linear_max_iter=...)", self.linear_max_iter)
        if self.linear not in ("auto", "dense", "krylov"):
            raise ValueError(f"Exact(linear=...) must be 'auto', 'dense' or 'krylov', got {self.linear!r}")
        if self.linear_tol is not None and not self.linear_tol > 0:
            raise ValueError(f"Exact(linear_tol=...) must be positive, got {self.linear_tol!r}")

    @property
    def steps(self) -> int:
        """K = order."""
        return self.order

    @property
    def max_order(self) -> int:
        """`order`."""
        return self.order
