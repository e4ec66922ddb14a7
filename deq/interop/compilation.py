"""What derivatives are taken of: the original of what torch.compile made, in operations torch differentiates right."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from deq.interop.right_derivatives import right_derivatives

__all__ = ["original"]


def original(f: Callable[..., Tensor], keep: Sequence[Callable[..., Any]] = ()) -> Callable[..., Tensor]:
    """f, with the original code of whatever torch.compile made, in it or of it, under `right_derivatives`.

    Compiled code has no second derivative, and hides from `deq.interop.closure` which tensors f closes over. Loading
    the compiler takes a second, so it is left alone where nobody has: then nothing is compiled. `keep` as in
    `right_derivatives`.
    """
    @wraps(f, updated=())
    def run(*arguments: Tensor) -> Tensor:
        if "torch._dynamo" not in sys.modules:
            with right_derivatives(keep):
                return f(*arguments)
        with torch.compiler.set_stance("force_eager"), right_derivatives(keep):
            return f(*arguments)
    return run
