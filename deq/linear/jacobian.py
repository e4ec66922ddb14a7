"""The Jacobian J = df/dz at a fixed point: products without forming it, or dense blocks, one a sample."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad

from deq.interop.closure import Map

# From this many elements on, tracing the linearisation of f once is cheaper than what it saves in many products; it is
# not known how many are to come, so it waits for as many as would have paid for it.
_TRACE_ELEMENTS = 2**14
_TRACE_AFTER = {torch.float64: 20, torch.float32: 60}
# From this many elements on, products in float32 repay a second linearisation.
_SINGLE_ELEMENTS = 2**14

# Dense blocks are formed with at most this many cotangent elements at a time (64 MiB in float64).
_CHUNK_ELEMENTS = 2**23


def as_rows(tensor: Tensor) -> Tensor:
    """[batch, ...] -> [batch, n], also for no trailing dimensions (n = 1) and for an empty batch."""
    return tensor.reshape(tensor.shape[0], tensor.shape[1:].numel())


def _require_torch_dependence(function: Map, z: Tensor, captured: Sequence[Tensor]) -> None:
    """Raise if f depends on z in a way that automatic differentiation does not see; call where no dependence shows."""
    with torch.no_grad():
        moved = z + 1e-3 * (1 + z.abs())
        if not torch.equal(function(z, *captured), function(moved, *captured)):
            raise ValueError(
                "f depends on z, but its result carries no derivative with respect to z: it leaves torch on the way "
                "(numpy, .detach(), .item(), torch.no_grad()). Write f in torch operations on z")


class JacobianProducts:
    """Products with J and its transpose at one point, from one evaluation of f (plain tensors only).

    Args:
        function: F(z, *captured), [batch, ...] -> [batch, ...]; samples are independent.
        z: where to linearise.
        captured: the other arguments, detached.
    """

    def __init__(self, function: Map, z: Tensor, captured: Sequence[Tensor]) -> None:
        with torch.enable_grad():
            self._leaf = z.detach().requires_grad_()
            self._value = function(self._leaf, *captured)
        if self.constant:
            _require_torch_dependence(function, z.detach(), captured)
        self._pullback: tuple[Tensor, Tensor] | None = None
        self._function, self._captured = function, captured
        self._traced: Callable[[Tensor], Tensor] | None = None
        self._spent = 0
        self._traceable = z.numel() >= _TRACE_ELEMENTS and not torch._C._are_functorch_transforms_active()

    @property
    def constant(self) -> bool:
        """Whether f does not depend on z at all (J = 0)."""
        return not self._value.requires_grad

    def transposed(self, cotangent: Tensor) -> Tensor:
        """J^T cotangent, [batch, ...]."""
        if self.constant:
            return torch.zeros_like(cotangent)
        (result,) = torch.autograd.grad(self._value, self._leaf, cotangent, retain_graph=True, allow_unused=True)
        return torch.zeros_like(cotangent) if result is None else result.detach()

    def direct(self, tangent: Tensor) -> Tensor:
        """J tangent, [batch, ...]: the transpose of the (linear) pullback, so f need not support forward mode."""
        if self.constant:
            return torch.zeros_like(tangent)
        if self._traced is not None:
            return self._traced(tangent)
        result = self._by_pullback(tangent)
        self._spent += 1
        if self._traceable and self._spent > _TRACE_AFTER[tangent.dtype]:
            self._trace(tangent, result)
        return result

    def _by_pullback(self, tangent: Tensor) -> Tensor:
        if self._pullback is None:
            with torch.enable_grad():
                dummy = torch.zeros_like(self._value).requires_grad_()
                (pulled,) = torch.autograd.grad(self._value, self._leaf, dummy, create_graph=True, allow_unused=True)
            self._pullback = (dummy, pulled if pulled is not None else dummy.new_zeros(()))
        dummy, pulled = self._pullback
        if not pulled.requires_grad:
            return torch.zeros_like(tangent)
        (result,) = torch.autograd.grad(pulled, dummy, tangent, retain_graph=True, allow_unused=True)
        return torch.zeros_like(tangent) if result is None else result.detach()

    def _trace(self, tangent: Tensor, expected: Tensor) -> None:
        """Record the tangent map; torch's double backward of a convolution costs three times as much.

        The record is used only if it repeats a product that is known: tracing can go wrong without a word.
        """
        self._traceable = False
        captured = [tensor.detach() for tensor in self._captured]
        try:
            # Inside a custom function's forward pass torch switches forward mode off, and the trace would be zero.
            with torch.no_grad(), forward_ad._set_fwd_grad_enabled(True), warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of torch's tracer about its own constants
                traced = torch.func.linearize(lambda z: self._function(z, *captured), self._leaf.detach())[1]
                found = traced(tangent)
        except (RuntimeError, NotImplementedError, TypeError):
            return  # f has no forward mode, or cannot be traced: the pullback serves every f
        bound = torch.finfo(expected.dtype).eps ** 0.75 * torch.linalg.vector_norm(expected)
        if bool(torch.linalg.vector_norm(found - expected) <= bound):
            self._traced = traced


class LinearisedMap:
    """J at one point as products, in the dtype of the point and, for large float64 states, in float32 too.

    Args:
        function: F(z, *captured), [batch, ...] -> [batch, ...]; samples are independent.
        z: where to linearise.
        captured: the other arguments.
    """

    def __init__(self, function: Map, z: Tensor, captured: Sequence[Tensor]) -> None:
        self._function, self._z = function, z.detach()
        self._captured = [tensor.detach() for tensor in captured]
        self._own = JacobianProducts(function, self._z, self._captured)
        self._single: JacobianProducts | None = None
        self._tried = z.dtype != torch.float64 or z.numel() < _SINGLE_ELEMENTS or self._own.constant

    def product(self, transposed: bool) -> Callable[[Tensor], Tensor]:
        """The map v -> J v, or v -> J^T v."""
        return self._own.transposed if transposed else self._own.direct

    def single(self, transposed: bool) -> Callable[[Tensor], Tensor] | None:
        """The same in float32; None where that does not pay or f does not run in float32."""
        if not self._tried:
            self._tried = True
            z, *captured = (tensor.float() if tensor.dtype == torch.float64 else tensor
                            for tensor in (self._z, *self._captured))
            try:
                products = JacobianProducts(self._function, z, captured)
                if products.transposed(torch.zeros_like(z)).dtype == torch.float32:
                    self._single = products
            except (RuntimeError, TypeError, ValueError, NotImplementedError):
                pass  # f insists on float64, which serves as well
        if self._single is None:
            return None
        return self._single.transposed if transposed else self._single.direct


def dense_jacobian(function: Map, z: Tensor, captured: Sequence[Tensor]) -> Tensor:
    """J for each sample, [batch, n, n], n = number of state elements of a sample; by vectorised backward passes."""
    batch, n = as_rows(z).shape
    jacobian = z.new_empty((batch, n, n))
    if not jacobian.numel():
        return jacobian
    with torch.enable_grad():
        leaf = z.detach().requires_grad_()
        value = function(leaf, *captured)
    if not value.requires_grad:
        _require_torch_dependence(function, z.detach(), captured)
        return jacobian.zero_()
    rows = max(1, min(n, _CHUNK_ELEMENTS // (batch * n)))
    for start in range(0, n, rows):
        count = min(rows, n - start)
        seeds = torch.zeros((count, n), dtype=z.dtype, device=z.device)
        seeds[torch.arange(count), torch.arange(start, start + count)] = 1
        cotangents = seeds.reshape(count, 1, *z.shape[1:]).expand(count, *z.shape)
        (block,) = torch.autograd.grad(value, leaf, cotangents, retain_graph=True, is_grads_batched=True,
                                       allow_unused=True)
        if block is None:
            return jacobian.zero_()
        jacobian[:, start:start + count] = block.reshape(count, batch, n).transpose(0, 1)
    return jacobian
