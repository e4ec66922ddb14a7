"""Run a procedure on plain tensors, without derivatives, under any stack of torch.func transforms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing, get_proxy_mode

from deq.interop.closure import Map

Procedure = Callable[..., tuple[Tensor, ...]]
P = ParamSpec("P")
R = TypeVar("R")


def batched_map(function: Map, size: int, dims: Sequence[int | None]) -> Map:
    """The map on [size * batch, ...] that a vmap of `function` over its captured tensors amounts to.

    Args:
        function: F(z, *captured), z [batch, ...].
        size: length of the vmapped dimension.
        dims: for each captured tensor, the vmapped dimension or None.
    """

    def flattened(z: Tensor, *captured: Tensor) -> Tensor:
        result = torch.vmap(function, in_dims=(0, *dims))(z.unflatten(0, (size, -1)), *captured)
        return result.flatten(0, 1)

    return flattened


def merge_batch(tensor: Tensor, dim: int | None, size: int) -> Tensor:
    """[..., size at dim, ...] or unbatched [batch, ...] -> [size * batch, ...]."""
    front = tensor.movedim(dim, 0) if dim is not None else tensor.expand(size, *tensor.shape)
    return front.flatten(0, 1)


class _Detached(torch.autograd.Function):
    """`procedure(F, z, *captured)` as a constant: no derivative in either mode, vmap by a larger batch."""

    @staticmethod
    def forward(procedure: Procedure, function: Map, z: Tensor, *captured: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        return procedure(function, z, *captured)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output)
        ctx.count = len(inputs)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[None, ...]:
        return (None,) * ctx.count

    @staticmethod
    def jvp(ctx: Any, *_: Tensor) -> None:
        return None

    @staticmethod
    def vmap(info: Any, in_dims: tuple, procedure: Procedure, function: Map, z: Tensor, *captured: Tensor) -> tuple:  # type: ignore[override]
        size = info.batch_size
        inner = batched_map(function, size, in_dims[3:])
        result = _Detached.apply(procedure, inner, merge_batch(z, in_dims[2], size), *captured)
        return tuple(item.unflatten(0, (size, -1)) for item in result), (0,) * len(result)


def transforms_active() -> bool:
    """Whether a torch.func transform (grad, jvp, vmap, ...) is running."""
    return torch._C._are_functorch_transforms_active()


def derivatives_possible() -> bool:
    """Whether anything could ever differentiate what is computed now, in either mode."""
    return torch.is_grad_enabled() or transforms_active() or forward_ad._current_level >= 0


def last_derivative() -> bool:
    """Whether nothing can differentiate what a running backward pass computes, in either mode."""
    if torch.is_grad_enabled() or forward_ad._current_level >= 0:
        return False
    if not transforms_active():
        return True
    interpreters = torch._C._functorch.get_interpreter_stack() or []
    return all(level.key() == torch._C._functorch.TransformType.Vmap for level in interpreters)


def without_tangents(function: Callable[P, R]) -> Callable[P, R]:
    """Run a function on values alone: forward-mode differentiation sees none of it."""
    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with torch.no_grad(), forward_ad._set_fwd_grad_enabled(False), disable_proxy_modes_tracing():
            return function(*args, **kwargs)
    return run


def tracing() -> bool:
    """Whether operations are being recorded into a graph (`torch.func.linearize`, `make_fx`)."""
    return get_proxy_mode() is not None


def has_tangent(tensor: Tensor) -> bool:
    """Whether the tensor carries a tangent of forward-mode differentiation (`torch.autograd.forward_ad`)."""
    return forward_ad._current_level >= 0 and forward_ad.unpack_dual(tensor).tangent is not None


def detached(procedure: Procedure, function: Map, z: Tensor, captured: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Run `procedure(F, z, *captured)`, which returns tensors whose first dimension is the batch, as a constant.

    Inside, all tensors are plain: loops with data-dependent stops work although torch.func transforms are running.
    """
    if transforms_active():
        return _Detached.apply(procedure, function, z, *captured)
    # `no_grad` does not stop forward-mode tangents; the second context does.
    with torch.no_grad(), forward_ad._set_fwd_grad_enabled(False):
        return tuple(item.detach() for item in procedure(function, z.detach(), *captured))
