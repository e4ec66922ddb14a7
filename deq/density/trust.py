"""When a shortcut may stand for what a module computes: its class says so, nothing is in the way, and a probe agrees.

A declared structure is a promise of one class about its own `forward`. A subclass, a hook, a replaced part or an
activation that mixes units breaks it without a word, so it is tried on a few samples, in value and slope, at each use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_modules

from deq.density.affine import AffineStructure
from deq.density.heads import SeparableHead
from deq.density.jets import elementwise_derivatives

__all__ = ["has_hooks", "hooked", "speaks_for", "trusted_head", "trusted_structure"]

# How many samples a probe looks at.
_SAMPLES = 3


def has_hooks(part: nn.Module) -> bool:
    """Whether the module itself has hooks that run with it, or all modules have."""
    names = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(part, name, None) or getattr(torch_modules, "_global" + name, None) for name in names)


def hooked(part: Any) -> bool:
    """The same of the module or of any part of it; a function has none."""
    return any(has_hooks(module) for module in part.modules()) if isinstance(part, nn.Module) else False


def speaks_for(part: Any, shortcut: str) -> bool:
    """Whether the method `shortcut` was written for the `forward` (or `__call__`) that is in use.

    False where a subclass, or the object itself, has another forward than the class that brought the shortcut.
    """
    main = "forward" if isinstance(part, nn.Module) else "__call__"
    if main in vars(part) or shortcut in vars(part):
        return main not in vars(part)
    classes = type(part).__mro__

    def owner(name: str) -> int | None:
        return next((place for place, kind in enumerate(classes) if name in vars(kind)), None)

    brought, used = owner(shortcut), owner(main)
    called = owner("__call__") if isinstance(part, nn.Module) else used
    return (brought is not None and used is not None and brought <= used
            and (called == used or classes[called or 0] is nn.Module))


def trusted_structure(cell: Any, x: Tensor, start: Tensor) -> AffineStructure | None:
    """What `cell.affine_structure(x)` says if it may be taken for cell(z, x) at x [batch, d], else None.

    Args:
        cell: module or function cell(z, x).
        x: input.
        start: a state to try it at, [batch, n].
    """
    if not hasattr(cell, "affine_structure") or x.dim() != 2 or start.dim() != 2 or hooked(cell):
        return None
    if not speaks_for(cell, "affine_structure"):
        return None
    structure = cell.affine_structure(x)
    return structure if not len(x) or _agrees(cell, structure, x.detach(), start.detach()) else None


def _agrees(cell: Callable[[Tensor, Tensor], Tensor], structure: AffineStructure, x: Tensor, start: Tensor) -> bool:
    """Value and slopes in z and x of the structure and of the cell, at a few samples away from the start."""
    rows, n = min(_SAMPLES, len(x)), start.shape[1]
    waves = torch.sin(torch.arange(1, rows * n + 1, dtype=x.dtype, device=x.device)).reshape(rows, n)
    weights = torch.cos(torch.arange(rows * n, dtype=x.dtype, device=x.device)).reshape(rows, n)
    with torch.enable_grad():
        z = (start[:rows] + waves).requires_grad_()
        point = x[:rows].clone().requires_grad_()
        value = cell(z, point)
        if value.shape != z.shape or not value.requires_grad:
            return False
        along_z, along_x = torch.autograd.grad(value, (z, point), weights, allow_unused=True)
    with torch.no_grad():
        weight, injection = structure.weight.detach(), structure.injection.detach()
        h = z.detach() @ weight.T + structure.injected.detach()[:rows]
    declared, slope, _ = (item.detach() for item in elementwise_derivatives(structure.activation, h))
    pulled = weights * slope
    return (_close(value.detach(), declared, declared.abs() + h.abs())
            and _close(along_z, pulled @ weight, pulled.abs() @ weight.abs())
            and _close(along_x, pulled @ injection, pulled.abs() @ injection.abs()))


def trusted_head(head: Any, z: Tensor, x: Tensor) -> SeparableHead | None:
    """The head if `head.derivatives` may be taken for head(z, x), tried at z [batch, n], x [batch, d]; else None."""
    if not isinstance(head, SeparableHead) or hooked(head) or not speaks_for(head, "derivatives"):
        return None
    rows = min(_SAMPLES, len(z))
    if not rows:
        return head
    with torch.enable_grad():
        at = [t.detach()[:rows].clone().requires_grad_() for t in (z, x)]
        value = head(*at)
        if not value.requires_grad:
            return None
        slopes = torch.autograd.grad(value.sum(), at, create_graph=True, allow_unused=True)
        weights = [torch.cos(torch.arange(t.numel(), dtype=t.dtype, device=t.device)).reshape(t.shape) for t in at]
        pairs = [(s * w).sum() for s, w in zip(slopes, weights, strict=True) if s is not None and s.requires_grad]
        bends: tuple[Tensor | None, ...] = (None, None)
        if pairs:
            bends = torch.autograd.grad(sum(pairs[1:], start=pairs[0]), at, allow_unused=True)
    along_z, curvature, along_x, laplacian_x = (None if t is None else t.detach() for t in head.derivatives(*at))
    assert along_z is not None
    assert curvature is not None
    if not (_close(slopes[0], along_z) and _close(slopes[1], along_x) and _close(bends[0], curvature * weights[0])):
        return None
    if laplacian_x is not None:
        # Each unit of x by its own function: the weighted bends divided by the weights add up to the Laplacian.
        own = torch.zeros_like(laplacian_x) if bends[1] is None else (bends[1] / weights[1]).flatten(1).sum(1)
        if not _close(own, laplacian_x, own.abs() + laplacian_x.abs() + 1):
            return None
    return head


def _close(found: Tensor | None, declared: Tensor | None, size: Tensor | None = None) -> bool:
    """Equal up to rounding; None stands for zero."""
    if found is None or declared is None:
        other = declared if found is None else found
        return other is None or not bool(other.any())
    size = found.abs() + declared.abs() if size is None else size
    bound = 1e3 * torch.finfo(found.dtype).eps * (size + size.amax()) + torch.finfo(found.dtype).tiny
    return bool(((found - declared).abs() <= bound).all())
