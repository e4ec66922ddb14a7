"""The fixed linear map M of a rule, from one recorded evaluation of f: a matrix a sample, a series, a Krylov solve."""

from __future__ import annotations

import torch
from torch import Tensor

from deq.gradients.inverse import invert
from deq.gradients.rules import Exact, GradientRule, Neumann
from deq.interop.batching import opened, stacked_first
from deq.interop.precision import full_precision
from deq.interop.transforms import tracing, without_tangents
from deq.linear.jacobian import JacobianProducts
from deq.linear.resolvent import Failure, Resolvent
from deq.status import LinearSolveError, MapError

__all__ = ["Operator", "apply_operator", "dense_is_cheaper"]

# Above this state size the n^3 of a dense inverse loses to a few dozen Jacobian products.
_DENSE_STATE_LIMIT, _DENSE_ELEMENT_LIMIT = 512, 2**26
# Up to this size an inverse costs no more than one Krylov solve; beyond, so many right-hand sides repay it (times n).
_DENSE_FOR_ONE, _REPAYS = 16, 1 / 8
_COARSE_PRODUCTS = 100


def dense_is_cheaper(shape: torch.Size) -> bool:
    """Whether a state [batch, ...] is small enough for an inverse a sample, where many right-hand sides come."""
    batch, n = shape[0], shape[1:].numel()
    return n <= _DENSE_STATE_LIMIT and batch * n * n <= _DENSE_ELEMENT_LIMIT


class Operator:
    """M on plain tensors [*stack, batch, ...], with any number of stacked right-hand sides in front.

    Args:
        rule: Exact or Neumann.
        products: with J at the equilibrium.
        usable: samples that have a derivative at all, bool [batch] (M is zero for the others); None for all.
        excused: samples whose solve failed and was allowed to: where I - J is singular for them M is zero, no error.
        rounding: unit of rounding of f's own dtype where that is coarser than the state's, else None.
    """

    def __init__(self, rule: GradientRule, products: JacobianProducts, usable: Tensor | None,
                 excused: Tensor | None, rounding: float | None = None) -> None:
        self._rule, self._products, self._usable, self._excused = rule, products, usable, excused
        self._rounding = rounding
        self._inverse: Tensor | None = None
        self._coupled = False
        self._asked = 0

    @property
    def tolerance(self) -> float:
        """Relative residual, in units of rounding, that a solve may leave."""
        if isinstance(self._rule, Exact) and self._rule.linear_tol is not None:
            return self._rule.linear_tol
        return self._rounding or 0.0

    def __call__(self, v: Tensor, transposed: bool, many: bool) -> Tensor:
        """M v, or M^T v; `many` says that more right-hand sides are to come.

        Raises:
            LinearSolveError: I - J is singular, or a solve missed its tolerance, for a sample that is not excused.
            MapError: a dense Jacobian was asked for and f couples its samples.
        """
        if tracing():  # the product is what is recorded, so it must not depend on the numbers in v
            matrix = self._matrix()
            if self._usable is not None:
                v = torch.where(self._sample_mask(self._usable), v, 0.0)
            return _by_matrix(matrix, v, transposed)
        return self._product(v, transposed, many)

    @without_tangents
    def _matrix(self) -> Tensor:
        """M itself, one matrix a sample."""
        if isinstance(self._rule, Neumann):
            jacobian = self._products.blocks()
            total = power = torch.eye(jacobian.shape[1], dtype=jacobian.dtype, device=jacobian.device)
            for _ in range(self._rule.terms - 1):
                power = jacobian @ power
                total = total + power
            return total.expand(jacobian.shape)
        assert isinstance(self._rule, Exact)
        if self._inverse is None:
            self._form_inverse(self._rule)
        assert self._inverse is not None
        return self._inverse

    @without_tangents
    def _product(self, v: Tensor, transposed: bool, many: bool) -> Tensor:
        if self._usable is not None:
            v = torch.where(self._sample_mask(self._usable), v, 0.0)
        if not v.numel() or not bool(v.any()):
            return torch.zeros_like(v)
        if isinstance(self._rule, Neumann):
            return self._series(v, transposed, self._rule.terms)
        assert isinstance(self._rule, Exact)
        if self._inverse is None and self._wants_inverse(self._rule, v, many):
            self._form_inverse(self._rule)
        if self._inverse is not None:
            return _by_matrix(self._inverse, v, transposed)
        return self._by_products(self._rule, v, transposed)

    def _sample_mask(self, samples: Tensor) -> Tensor:
        return samples.reshape(-1, *(1,) * (len(self._products.shape_of_z) - 1))

    def _series(self, v: Tensor, transposed: bool, terms: int) -> Tensor:
        product = self._products.transposed if transposed else self._products.direct
        total = power = v
        for _ in range(terms - 1):
            power = product(power)
            total = total + power
        return total

    def _wants_inverse(self, rule: Exact, v: Tensor, many: bool) -> bool:
        shape = self._products.shape_of_z
        if rule.linear == "dense":
            return True
        if rule.linear == "krylov" or not dense_is_cheaper(shape) or self._coupled:
            return False
        self._asked += v.numel() // shape.numel()
        n = shape[1:].numel()
        return many or n <= _DENSE_FOR_ONE or self._asked >= _REPAYS * n

    def _form_inverse(self, rule: Exact) -> None:
        try:
            jacobian = self._products.blocks()
        except MapError:
            if rule.linear == "dense" or tracing():
                raise
            self._coupled = True  # a Krylov solve takes the whole batch as one system
            return
        self._inverse, failure = invert(jacobian)
        self._judge(failure)

    def _judge(self, failure: Failure | None) -> None:
        """Raise for a sample that is not excused; the others get the zero map."""
        if failure is None:
            return
        excused = torch.zeros_like(failure.systems) if self._excused is None else self._excused
        if bool((failure.systems & ~excused).any()):
            raise LinearSolveError(failure.reason)
        self._usable = ~failure.systems if self._usable is None else self._usable & ~failure.systems
        if self._inverse is not None:
            self._inverse = torch.where(failure.systems.reshape(-1, 1, 1), 0.0, self._inverse)

    def _resolvent(self, rule: Exact) -> Resolvent:
        if self._rounding is None:
            return Resolvent(rule.linear_tol, rule.linear_max_iter)
        # Products that are rounded so coarsely give no more after a few dozen steps.
        return Resolvent(rule.linear_tol or self._rounding / 2, min(rule.linear_max_iter, _COARSE_PRODUCTS),
                         self._rounding)

    def _by_products(self, rule: Exact, v: Tensor, transposed: bool) -> Tensor:
        shape = self._products.shape_of_z
        product = self._products.transposed if transposed else self._products.direct
        stack = v.reshape(-1, *shape)
        # One right-hand side as it is: stacking would take the slower road through the graph.
        together = stack[0] if len(stack) == 1 else stack.flatten(0, 1)

        def system(u: Tensor) -> Tensor:
            return product(u) if len(stack) == 1 else product(u.reshape(stack.shape)).reshape(u.shape)

        value, failure = self._resolvent(rule).attempt(system, together)
        value = value.reshape(v.shape)
        if failure is not None:
            samples = Failure(failure.systems.reshape(-1, shape[0]).any(0), failure.reason)
            self._judge(samples)
            value = torch.where(self._sample_mask(samples.systems), 0.0, value)
        return value


def _by_matrix(matrix: Tensor, v: Tensor, transposed: bool) -> Tensor:
    batch, n = matrix.shape[:2]
    rows = v.reshape(-1, batch, n).transpose(0, 1)
    return (rows @ (matrix if transposed else matrix.mT)).transpose(0, 1).reshape(v.shape)


class _Apply(torch.autograd.Function):
    """V -> M v or M^T v. Linear in v, so its derivative and its transpose are again such maps: every order follows."""

    @staticmethod
    @full_precision
    def forward(operator: Operator, transposed: bool, many: bool, v: Tensor) -> Tensor:  # type: ignore[override]
        return operator(v, transposed, many)

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: Tensor) -> None:  # type: ignore[no-untyped-def]
        ctx.operator, ctx.transposed, ctx.many, _ = inputs
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx, cotangent: Tensor | None) -> tuple:  # type: ignore[no-untyped-def,override]
        if cotangent is None:
            return None, None, None, None
        return None, None, None, apply_operator(ctx.operator, not ctx.transposed, cotangent, ctx.many)

    @staticmethod
    def jvp(ctx, _operator: None, _transposed: None, _many: None, tangent: Tensor) -> Tensor:  # type: ignore[no-untyped-def,override]
        return _Apply.apply(ctx.operator, ctx.transposed, ctx.many, tangent)

    @staticmethod
    def vmap(info, in_dims: tuple, operator: Operator, transposed: bool, many: bool, v: Tensor) -> tuple:  # type: ignore[no-untyped-def,override]
        (stack,) = stacked_first([v], in_dims[3:], info.batch_size)
        return _Apply.apply(operator, transposed, many, stack), 0


def apply_operator(operator: Operator, transposed: bool, v: Tensor, many: bool) -> Tensor:
    """M v, or M^T v, with derivatives of every order in v, under every vmap."""
    return opened(lambda plain: _Apply.apply(operator, transposed, many, plain), v)
