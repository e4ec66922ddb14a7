"""(I - J)^{-1} as a matrix a sample, with the samples that have none."""

from __future__ import annotations

import torch
from torch import Tensor

from deq.linear.factorise import try_inverse
from deq.linear.resolvent import Failure

__all__ = ["invert"]


def invert(jacobian: Tensor) -> tuple[Tensor, Failure | None]:
    """(I - J)^{-1} a sample, [batch, n, n], from J, and which samples have none.

    An explicit inverse, not factors: its error (about cond * eps) is that of R = I - M (I - J), which enters the K-th
    power, and a plain matrix product is right under every nesting of transforms, which linear solves are not.
    """
    batch, n = jacobian.shape[:2]
    if not jacobian.numel():
        return jacobian, None
    found, defect = try_inverse(torch.eye(n, dtype=jacobian.dtype, device=jacobian.device) - jacobian)
    bad = ~(defect < torch.finfo(jacobian.dtype).eps ** 0.5)
    if not bool(bad.any()):
        return found, None
    index = int(bad.nonzero()[0])
    return found, Failure(
        bad, f"I - df/dz is singular or nearly so at the equilibrium of {int(bad.sum())} of {batch} samples (first: "
        f"sample {index}, relative defect {float(defect[index]):.2g}); the equilibrium has no derivative there. "
        f"Make f a contraction (deq.operator_normalize) or check the map for NaN")
