"""Evaluates somebody's map in a wider dtype than its weights have, without touching the weights.

A float32 or bfloat16 model can only be measured to its own rounding; in float64, with the same weights, it has exact
derivatives to compare with. Every torch call under the mode gets its narrow floating tensors widened, and requests for
a narrow dtype become requests for the wide one. Widening is differentiable, so gradients reach the narrow leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_NARROWING = {Tensor.float, Tensor.half, Tensor.bfloat16}
_RANK = {torch.float16: 0, torch.bfloat16: 0, torch.float32: 1, torch.float64: 2}


class Promote(TorchFunctionMode):
    """Computes in `dtype` what was written for narrower floating dtypes."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def _narrow(self, dtype: torch.dtype) -> bool:
        return _RANK.get(dtype.to_real() if dtype.is_complex else dtype, 9) < _RANK[self.dtype]

    def _kind(self, dtype: torch.dtype) -> torch.dtype:
        return self.dtype.to_complex() if dtype.is_complex else self.dtype

    def _widen(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to(self._kind(value.dtype)) if self._narrow(value.dtype) else value
        if isinstance(value, torch.dtype):
            return self._kind(value) if self._narrow(value) else value
        if isinstance(value, list | tuple) and type(value) in (list, tuple, torch.Size):
            return type(value)(self._widen(item) for item in value)
        return value

    def __torch_function__(self, func: Callable[..., Any], types: Sequence[Any], args: Sequence[Any] = (),
                           kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in ("__get__", "__set__", "__delete__"):
            out = func(*args, **kwargs)
            return self._widen(out) if isinstance(out, torch.dtype) else out
        if func in _NARROWING and args and args[0].dtype == self.dtype:
            return args[0]
        if name in ("requires_grad_", "register_hook", "data_ptr", "backward", "retain_grad", "detach_"):
            return func(*args, **kwargs)
        in_place = (name.endswith("_") and not name.endswith("__")) or name in ("__iadd__", "__isub__", "__imul__",
                                                                              "__itruediv__", "__setitem__")
        kept = args[:1] if in_place else ()
        widened = (*kept, *(self._widen(value) for value in args[len(kept):]))
        return func(*widened, **{key: value if key == "out" else self._widen(value) for key, value in kwargs.items()})
