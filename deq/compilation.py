"""Functions made by torch.compile: solvers run their compiled code, derivatives are taken of the original."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext

import torch

__all__ = ["eagerly"]


def eagerly() -> AbstractContextManager:
    """A context in which what torch.compile made runs its original code.

    Compiled code has no second derivative, and hides from `deq.closure` which tensors f closes over. Loading the
    compiler takes a second, so it is left alone where nobody has: then nothing is compiled.
    """
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    return torch.compiler.set_stance("force_eager")
