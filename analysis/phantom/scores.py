"""How far an approximate vector (a phantom score, a parameter gradient) is from the exact one, sample by sample."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ScoreError:
    """Error of each sample; all of shape [...], the batch shape.

    Attributes:
        relative: |phantom - exact| / |exact|. Zero where both vectors vanish, infinite where only the exact one does.
        cosine: cosine similarity in [-1, 1]. One where both vectors vanish; NaN where exactly one does (no angle).
        defined: where the cosine is a number.

    Example:
        >>> import torch, analysis
        >>> analysis.score_error(torch.zeros(1, 2), torch.ones(1, 2)).defined.tolist()  # relative to nothing
        [False]
    """

    relative: Tensor
    cosine: Tensor
    defined: Tensor


def score_error(exact: Tensor, phantom: Tensor) -> ScoreError:
    """Relative error and cosine similarity of a phantom score (or gradient), per sample.

    The measures of appendix C of [SM]. Safe against overflow and underflow: each pair is scaled first.

    Args:
        exact: [..., d], floating point.
        phantom: same shape and dtype.

    Raises:
        TypeError: not tensors.
        ValueError: shapes or dtypes differ, not floating point, no last leg, NaN or infinite entries.

    Example:
        >>> import torch, analysis
        >>> error = analysis.score_error(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]]))
        >>> round(float(error.relative), 4), round(float(error.cosine), 4)
        (1.0, 0.7071)
    """
    if not isinstance(exact, Tensor) or not isinstance(phantom, Tensor):
        raise TypeError("exact and phantom must be torch tensors")
    if exact.shape != phantom.shape or exact.dtype != phantom.dtype:
        raise ValueError(f"exact is {exact.dtype} {tuple(exact.shape)}, phantom is {phantom.dtype} "
                         f"{tuple(phantom.shape)}; they must agree")
    if not exact.is_floating_point() or exact.dim() == 0 or exact.shape[-1] == 0:
        raise ValueError(f"scores must be floating point [..., d] with d >= 1, not {exact.dtype} {tuple(exact.shape)}")
    for name, value in (("exact", exact), ("phantom", phantom)):
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name} has NaN or infinite entries")
    exact, phantom = exact.detach(), phantom.detach()
    one, zero = torch.ones_like(exact[..., 0]), torch.zeros_like(exact[..., 0])
    size_exact, size_phantom = exact.abs().amax(-1), phantom.abs().amax(-1)
    none_exact, none_phantom = size_exact == 0, size_phantom == 0

    # Relative error on a common scale, cosine on each vector's own.
    common = torch.maximum(size_exact, size_phantom)
    common = torch.where(common == 0, one, common)
    gap = torch.linalg.vector_norm(phantom / common[..., None] - exact / common[..., None], dim=-1)
    length = torch.linalg.vector_norm(exact / common[..., None], dim=-1)
    relative = torch.where(none_exact, torch.where(none_phantom, zero, one / 0.0),
                           gap / torch.where(none_exact, one, length))

    def unit(vector: Tensor, size: Tensor) -> Tensor:
        scaled = vector / torch.where(size == 0, one, size)[..., None]
        # A scaled vector has length at least 1, or is zero; the clamp only keeps 0/0 away.
        return scaled / torch.linalg.vector_norm(scaled, dim=-1, keepdim=True).clamp_min(0.5)

    cosine = (unit(exact, size_exact) * unit(phantom, size_phantom)).sum(-1).clamp(-1.0, 1.0)
    cosine = torch.where(none_exact & none_phantom, one, cosine)
    defined = none_exact == none_phantom
    return ScoreError(relative, torch.where(defined, cosine, one * float("nan")), defined)
