"""Operations whose higher derivatives torch gets wrong without a word, replaced where f is differentiated.

In torch 2.13 the derivative formulas below keep what the forward pass saved (mean, factors) as constants, so that a
forward-mode derivative inside another derivative is wrong, and for the normalisations the third reverse one too:
layer_norm, batch_norm and instance_norm with batch statistics, linalg.solve, det, logdet, slogdet,
householder_product; cholesky_inverse is wrong at the first forward one. Fused attention has no second derivative at
all. `right_derivatives()` writes each of them out in operations that are right at every order
(tests/zoo.py tries some three hundred). It works on Python calls; a call from scripted code is not seen, which
`refuse_wrong_nodes` finds in the recorded graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from deq.linear.factorise import one_thread
from deq.status import DerivativeOrderError

__all__ = ["REPLACED", "WRONG_NODES", "refuse_wrong_nodes", "right_derivatives"]


def _normalised(x: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    centred = x - x.mean(dims, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(dims, keepdim=True) + eps)


def _layer_norm(x: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None,
                eps: float = 1e-5, cudnn_enable: bool = True) -> Tensor:
    y = _normalised(x, tuple(range(-len(tuple(normalized_shape)), 0)), eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def _by_channel(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    shape = (1, -1, *(1,) * (x.dim() - 2))
    x = x if weight is None else x * weight.view(shape)
    return x if bias is None else x + bias.view(shape)


def _track(running_mean: Tensor | None, running_var: Tensor | None, x: Tensor, dims: tuple[int, ...],
           momentum: float) -> None:
    """The update of running statistics that the replaced call would have made."""
    if running_mean is None or running_var is None:
        return
    with torch.no_grad():
        variance, mean = torch.var_mean(x.detach(), dims)
        if mean.dim() > 1:
            variance, mean = variance.mean(0), mean.mean(0)
        running_mean.lerp_(mean.to(running_mean), momentum)
        running_var.lerp_(variance.to(running_var), momentum)


def _batch_norm(original: Callable[..., Tensor], x: Tensor, running_mean: Tensor | None, running_var: Tensor | None,
                weight: Tensor | None, bias: Tensor | None, training: bool, momentum: float, eps: float) -> Tensor:
    if not training and running_mean is not None:
        return original()
    dims = (0, *range(2, x.dim()))
    if training:
        _track(running_mean, running_var, x, dims, momentum)
    return _by_channel(_normalised(x, dims, eps), weight, bias)


def _functional_batch_norm(x: Tensor, running_mean: Tensor | None, running_var: Tensor | None,
                           weight: Tensor | None = None, bias: Tensor | None = None, training: bool = False,
                           momentum: float = 0.1, eps: float = 1e-5) -> Tensor:
    return _batch_norm(lambda: functional.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps),
                       x, running_mean, running_var, weight, bias, training, momentum, eps)


def _torch_batch_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor | None,
                      running_var: Tensor | None, training: bool, momentum: float, eps: float,
                      cudnn_enabled: bool) -> Tensor:
    return _functional_batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)


def _instance_norm(x: Tensor, running_mean: Tensor | None = None, running_var: Tensor | None = None,
                   weight: Tensor | None = None, bias: Tensor | None = None, use_input_stats: bool = True,
                   momentum: float = 0.1, eps: float = 1e-5) -> Tensor:
    if not use_input_stats:
        return functional.instance_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    dims = tuple(range(2, x.dim()))
    _track(running_mean, running_var, x, dims, momentum)
    return _by_channel(_normalised(x, dims, eps), weight, bias)


def _torch_instance_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor | None,
                         running_var: Tensor | None, use_input_stats: bool, momentum: float, eps: float,
                         cudnn_enabled: bool) -> Tensor:
    return _instance_norm(x, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)


def _inverse(a: Tensor) -> Tensor:
    """A^{-1} with torch's own derivatives, which are right; batches are factorised by one thread."""
    with one_thread(a):
        return torch.linalg.inv(a)


def _factors(a: Tensor) -> tuple[Tensor, Tensor]:
    """Sign of the row permutation and the upper factor of A, likewise."""
    with one_thread(a):
        permutation, _, upper = torch.linalg.lu(a)
        return torch.linalg.det(permutation.detach()).round(), upper


def _solve(a: Tensor, b: Tensor, *, left: bool = True, **_: Any) -> Tensor:
    vector = b.dim() == 1 or (b.dim() == a.dim() - 1 and b.shape == a.shape[:-1])
    right = b.unsqueeze(-1) if vector else b
    inverse = _inverse(a)
    # One step of refinement restores what an explicit inverse loses against a solve.
    if left:
        x = inverse @ right
        x = x + inverse @ (right - a @ x)
    elif vector:
        raise NotImplementedError("linalg.solve of a vector from the right")
    else:
        x = right @ inverse
        x = x + (right - x @ a) @ inverse
    return x.squeeze(-1) if vector else x


def _solve_ex(a: Tensor, b: Tensor, *, left: bool = True, check_errors: bool = False, **_: Any) -> Any:
    with one_thread(a):
        info = torch.linalg.inv_ex(a.detach(), check_errors=check_errors).info
    return torch.return_types.linalg_solve_ex((_solve(a, b, left=left), info))  # type: ignore[attr-defined]


def _tensorsolve(a: Tensor, b: Tensor, dims: Sequence[int] | None = None, **_: Any) -> Tensor:
    if dims is not None:
        a = a.movedim(tuple(dims), tuple(range(a.dim() - len(dims), a.dim())))
    shape = a.shape[b.dim():]
    return _solve(a.reshape(b.numel(), b.numel()), b.reshape(-1)).reshape(shape)


def _signed_log_determinant(a: Tensor) -> tuple[Tensor, Tensor]:
    permutation, upper = _factors(a)
    diagonal = upper.diagonal(dim1=-2, dim2=-1)
    sign = permutation * diagonal.detach().sgn().prod(-1)
    return sign, diagonal.abs().log().sum(-1)


def _determinant(a: Tensor, **_: Any) -> Tensor:
    permutation, upper = _factors(a)
    return permutation * upper.diagonal(dim1=-2, dim2=-1).prod(-1)


def _log_determinant(a: Tensor) -> Tensor:
    sign, size = _signed_log_determinant(a)
    return torch.where(sign > 0, size, torch.where(sign == 0, -torch.inf, torch.nan))


def _slogdet(a: Tensor, **_: Any) -> Any:
    return torch.return_types.linalg_slogdet(_signed_log_determinant(a))  # type: ignore[attr-defined]


def _cholesky_inverse(factor: Tensor, upper: bool = False, **_: Any) -> Tensor:
    factor = factor.triu() if upper else factor.tril()
    return _inverse(factor.mH @ factor if upper else factor @ factor.mH)


def _householder_product(vectors: Tensor, tau: Tensor, **_: Any) -> Tensor:
    m, k = vectors.shape[-2:]
    eye = torch.eye(m, dtype=vectors.dtype, device=vectors.device)
    product = eye.expand(*vectors.shape[:-2], m, m)
    vectors = vectors.tril(-1) + eye[:, :k]
    for i in range(tau.shape[-1]):
        v = vectors[..., i:i + 1]
        product = product - tau[..., i, None, None] * (product @ v) @ v.mH
    return product[..., :k]


def _attention(*args: Any, **kwargs: Any) -> Tensor:
    with sdpa_kernel(SDPBackend.MATH):
        return functional.scaled_dot_product_attention(*args, **kwargs)


def _multihead(*args: Any, **kwargs: Any) -> Any:
    with sdpa_kernel(SDPBackend.MATH):
        return functional.multi_head_attention_forward(*args, **kwargs)


def _glu(x: Tensor, dim: int = -1) -> Tensor:
    value, gate = x.chunk(2, dim)
    return value * torch.sigmoid(gate)


def _hardsigmoid(x: Tensor, inplace: bool = False) -> Tensor:
    y = functional.relu6(x + 3) / 6
    return x.copy_(y) if inplace else y


REPLACED: dict[Callable[..., Any], Callable[..., Any]] = {
    functional.layer_norm: _layer_norm, torch.layer_norm: _layer_norm,
    functional.batch_norm: _functional_batch_norm, torch.batch_norm: _torch_batch_norm,
    functional.instance_norm: _instance_norm, torch.instance_norm: _torch_instance_norm,
    torch.linalg.solve: _solve, torch.linalg.solve_ex: _solve_ex, torch.linalg.tensorsolve: _tensorsolve,
    torch.linalg.det: _determinant, torch.det: _determinant, Tensor.det: _determinant,
    torch.logdet: _log_determinant, Tensor.logdet: _log_determinant,
    torch.linalg.slogdet: _slogdet, torch.slogdet: _slogdet, Tensor.slogdet: _slogdet,
    torch.cholesky_inverse: _cholesky_inverse, Tensor.cholesky_inverse: _cholesky_inverse,
    torch.linalg.householder_product: _householder_product, torch.orgqr: _householder_product,
    Tensor.orgqr: _householder_product,
    functional.scaled_dot_product_attention: _attention, functional.multi_head_attention_forward: _multihead,
    functional.glu: _glu, functional.hardsigmoid: _hardsigmoid}

# Nodes of a recorded graph whose next derivatives are wrong: what stays when the replacement was not seen.
WRONG_NODES = frozenset({"NativeLayerNormBackward0", "NativeBatchNormBackward0", "CudnnBatchNormBackward0",
                         "MiopenBatchNormBackward0"})


class _RightDerivatives(TorchFunctionMode):
    """Calls the replacement of each replaced operation."""

    def __init__(self, table: dict[Callable[..., Any], Callable[..., Any]]) -> None:
        super().__init__()
        self._table = table

    def __torch_function__(self, func: Callable, types: Sequence, args: tuple = (), kwargs: dict | None = None) -> Any:
        return self._table.get(func, func)(*args, **(kwargs or {}))


def right_derivatives(keep: Sequence[Callable[..., Any]] = ()) -> TorchFunctionMode:
    """A context in which f may be evaluated for derivatives of any order and mode.

    Values agree with torch's to rounding. Example: `with right_derivatives(): y = torch.nn.LayerNorm(3)(x)`.

    Args:
        keep: operations that are left as they are, since the caller differentiates them in another way.
    """
    return _RightDerivatives({func: made for func, made in REPLACED.items() if func not in keep} if keep else REPLACED)


def refuse_wrong_nodes(value: Tensor, x: Tensor, order: int) -> None:
    """Raise where `value` depends on x through an operation whose derivatives of this order are wrong.

    Args:
        value: a result of f with its graph.
        x: what it is differentiated in.
        order: the highest reverse-mode derivative that is to be taken of it.

    Raises:
        DerivativeOrderError: order is 3 or more, and a normalisation was called where `right_derivatives` cannot see it
            (scripted code), or outside it.
    """
    if order < 3 or value.grad_fn is None:
        return
    users: dict[Any, list[Any]] = {value.grad_fn: []}   # of each node, those that are computed from it
    stack, wrong = [value.grad_fn], False
    while stack:
        node = stack.pop()
        wrong = wrong or _is_wrong(node)
        for parent, _ in node.next_functions:
            if parent is not None and parent not in users:
                users[parent] = []
                stack.append(parent)
            if parent is not None:
                users[parent].append(node)
    if not wrong:
        return
    reached = [node for node in users if node is x.grad_fn or getattr(node, "variable", None) is x]
    after = set(reached)
    while reached:
        node = reached.pop()
        if _is_wrong(node):
            if "DifferentiableGraph" in node.name():
                raise DerivativeOrderError("scripted code hides its operations, of some of which torch's third "
                                           "derivative is wrong; take the module that was scripted")
            raise DerivativeOrderError(
                f"torch's third derivative of {node.name().removesuffix('Backward0')} is wrong, and this call of it "
                f"(in scripted code, or outside f) cannot be replaced; write the normalisation out")
        new = [user for user in users[node] if user not in after]
        after.update(new)
        reached += new


def _is_wrong(node: Any) -> bool:
    if "DifferentiableGraph" in node.name():
        return True  # scripted code after its first calls: it may hold any of them
    return node.name() in WRONG_NODES and getattr(node, "_saved_training", True)
