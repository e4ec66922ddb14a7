"""f keeps shape, dtype and device; is finite; changes neither z nor its inputs in place."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from deq.interop.pytree import flatten, leaves, map_tensors
from verification.audit.load import one_line
from verification.audit.result import AuditVerdict, fails, holds
from verification.audit.shared import Shared

Outcome = tuple[AuditVerdict, str, str, dict[str, Any]]


def check(shared: Shared) -> Outcome:
    """Look at three calls at the start, without and with grad."""
    case = shared.case
    structure = case.layout.structure
    for grad in (False, True, False):
        if grad is False and case.frugal:
            break
        z = map_tensors(lambda leaf: leaf.detach().clone(), case.subject.z0)
        inputs = map_tensors(_copy, case.subject.inputs)
        held = [(name, leaf, leaf.detach().clone()) for name, tree in (("z", z), ("its inputs", inputs))
                for leaf in leaves(tree) if isinstance(leaf, Tensor)]
        try:
            began = case.clock.now()
            with torch.set_grad_enabled(grad):
                value = case.subject.f(z, *inputs)
            case.seconds_per_call = case.clock.now() - began
        except Exception as error:
            return _raised(error)
        touched = [name for name, leaf, before in held if not _same(leaf, before)]
        if touched:
            case.protected = True
            return fails(f"f changes {touched[0]} in place", "use operations that return a new tensor (relu for relu_, "
                         "z = z + y for z += y): a solver keeps the z that it passes in", in_place=touched)
        try:
            problem = _other(case, value, structure)
        except Exception as error:
            return _raised(error)
        if problem:
            return fails(*problem)
    with torch.no_grad():
        try:
            flat = case.layout.pack(value).detach()
            case.first_value = flat
        except ValueError as error:
            return fails(f"f returned another state than it got: {one_line(error)}", "make f return what z0 is")
    return holds(f"state {case.layout.describe()}, {case.layout.size} real entries a sample", entries=case.layout.size,
                 batch=case.layout.batch, dtype=str(case.layout.dtype).removeprefix("torch."),
                 largest=float(flat.abs().max()))


def _copy(leaf: Tensor) -> Tensor:
    """An input of its own for this call, its graph kept."""
    return leaf.clone()


def _same(leaf: Tensor, before: Tensor) -> bool:
    return leaf.shape == before.shape and bool(torch.equal(leaf, before)
                                               or ((leaf == before) | (leaf.isnan() & before.isnan())).all())


def _raised(error: Exception) -> Outcome:
    words = f"f raised {type(error).__name__}: {one_line(error)}"
    if "in-place operation" in words:
        return fails(words, "use operations that return a new tensor: a solver keeps the z that it passes in")
    if "cuda" in words.lower() or "nvidia" in words.lower():
        return fails(words, "build the subject on a device that is at hand here: f should follow the device of z")
    return fails(words, "z0, the inputs and the parameters of f must fit in shape, dtype and device")


def _other(case: Any, value: Any, structure: Any) -> tuple[str, str] | None:
    """What is wrong with a value, and what to do."""
    found, form = flatten(value)
    if form != structure:
        got = f"a {type(value).__name__}" if not isinstance(value, Tensor) else f"one tensor {tuple(value.shape)}"
        return f"f returned {got} where z is {case.layout.describe()}", "make f return the same nesting of tensors"
    for leaf, before in zip(found, leaves(case.subject.z0), strict=True):
        if not isinstance(leaf, Tensor):
            return f"f returned a {type(leaf).__name__} where z has a tensor", "make f return what z is"
        if leaf.shape != before.shape:
            return (f"f returned shape {tuple(leaf.shape)} for z of {tuple(before.shape)}",
                    "check the widths of its layers and that the batch dimension stays first")
        if leaf.dtype != before.dtype:
            return (f"f returned {leaf.dtype} for z of {before.dtype}".replace("torch.", ""),
                    "cast z0, or the value of f, so that both agree (an autocast inside f changes the dtype)")
        if leaf.device != before.device:
            return f"f returned a tensor on {leaf.device} for z on {before.device}", "move z0 or the parameters of f"
        bad = int((~leaf.isfinite()).sum())
        if bad:
            start = int(sum(int((~item.isfinite()).sum()) for item in leaves(case.subject.z0)))
            if start:
                return f"z0 itself has {start} NaN or infinite entries", "start from finite numbers"
            return (f"f(z0) has {bad} NaN or infinite entries of {leaf.numel()}",
                    "look for log, sqrt or division outside their domain, and for NaN among inputs and parameters")
    return None
