"""Derivatives of order 2 (3) of the owner's forward are right; says which are wrong, and which are refused."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from verification.audit import limits
from verification.audit.chord import attached
from verification.audit.point import compare, finite, flat_norm, run_owner
from verification.audit.result import AuditVerdict, fails, holds, not_applicable, undecided
from verification.audit.shared import Shared

WORDS = {2: "second", 3: "third"}
Parts = dict[str, Tensor | None]


def check(shared: Shared) -> tuple[AuditVerdict, str, str, dict[str, Any]]:
    """Directional derivatives of their gradient along a fixed direction, against chord-Newton steps at z*."""
    case = shared.case
    if case.order < 2:
        return not_applicable("not asked for (--order 2)")
    if case.subject.declared_steps:
        return not_applicable("a declared phantom gradient is an approximation at every order", "take "
                              "deq.Exact(order=3) where second derivatives matter (scores, Hessians)")
    if shared.owner.tree is None or not shared.parameters:
        return not_applicable("there is no forward of the owner's to differentiate" if shared.owner.tree is None else
                              "no parameter to differentiate in")
    if not shared.solved or shared.verdicts.get("gradient") is not AuditVerdict.HOLDS:
        return undecided("the first derivative does not stand, so higher ones say nothing", "see `gradient`")
    truth, own, problem = _both(shared)
    if truth is None:
        return not_applicable(f"f itself has no second derivative here: {problem}", "fused attention and functions "
                              "that are differentiable once have none")
    by_order: dict[str, Any] = {}
    wrong, refused, open_, right = [], [], [], []
    for order in range(2, case.order + 1):
        word = WORDS[order]
        found, reference = own.get(order), truth.get(order)
        if reference is None or flat_norm(reference) == 0:
            by_order[word] = {"state": "the exact one is zero or could not be had"}
            continue
        if isinstance(found, str) or found is None:
            by_order[word] = {"state": "refused", "message": found or ""}
            refused.append(word)
            continue
        error, cosine = compare(found, reference)
        by_order[word] = {"relative_error": error, "cosine": cosine}
        noise = 300 * case.eps * shared.amplification**order
        if not finite(found) or error > max(limits.HIGHER_FAILS, 3 * noise):
            wrong.append(f"{word} derivatives are {error:.0%} off, without a word")
        elif error <= max(limits.HIGHER_HOLDS, noise):
            right.append(f"{word} derivatives right to {error:.1e}")
        else:
            open_.append(f"{word} derivatives are {error:.1%} off")
    numbers: dict[str, Any] = {"by_order": by_order, "tolerance": limits.HIGHER_HOLDS}
    if wrong and not case.asked:
        return undecided("; ".join(wrong), "no matter where only first derivatives are taken; where yours takes more "
                         "(scores, Hessians, penalties on gradients), ask with --order 2, and take deq.Exact(order=3)",
                         **numbers)
    if wrong:
        return fails("; ".join(wrong), "their backward loses terms when it is differentiated (a solve under no_grad, a "
                     "detached z): raise there (once_differentiable), or use deq.Exact(order=3)", **numbers)
    if open_:
        return undecided("; ".join(open_), "tighter tolerances, forward and backward, would tell", **numbers)
    if refused:
        return not_applicable("; ".join([*right, f"{' and '.join(refused)} derivatives are refused, with an error: "
                                         "nothing wrong is returned"]), "use deq.Exact(order=3) where they are needed",
                              **numbers)
    if not right:
        return not_applicable("the exact higher derivatives of this loss are zero", "", **numbers)
    return holds("; ".join(right), **numbers)


def _both(shared: Shared) -> tuple[dict[int, Parts] | None, dict[int, Any], str]:
    """Exact and own derivatives by order along one direction in all parameters."""
    case = shared.case
    tensors = list(shared.parameters.values())
    names = list(shared.parameters)
    rows = None if len(case.rows) == case.layout.batch else case.rows
    direction = [case.random(tensor) if not tensor.is_complex() else torch.ones_like(tensor) for tensor in tensors]
    direction = [v * (t.detach().abs().mean().clamp_min(1e-3)).to(v.dtype) for v, t in zip(direction, tensors,
                                                                                           strict=True)]
    try:
        with torch.enable_grad():
            z = attached(case, shared.line, case.order)
            total = case.loss(case.tree(z), rows, case.promoted).sum()
        truth = _ladder(total, tensors, names, direction, case.order)
    except (RuntimeError, NotImplementedError) as error:
        return None, {}, " ".join(str(error).split())[:120]
    if isinstance(truth.get(2), str):
        return None, {}, str(truth[2])[:120]
    with torch.enable_grad():
        # A graph that was walked through with grad off may hold what a first-order backward cached: take a fresh one.
        owner = shared.owner if case.frugal else run_owner(case)
        if owner.tree is None:
            return {k: v for k, v in truth.items() if not isinstance(v, str)}, {2: owner.problem}, ""
        mine = case.loss(owner.tree, None, False)
        mine = mine[case.rows].sum() if mine.dim() else mine
    return ({k: v for k, v in truth.items() if not isinstance(v, str)},
            _ladder(mine, tensors, names, direction, case.order), "")


def _ladder(total: Tensor, tensors: list[Tensor], names: list[str], direction: list[Tensor],
            order: int) -> dict[int, Any]:
    """Derivatives of order 2, ... of a number along the direction: by order, or the message of a refusal."""
    out: dict[int, Any] = {}
    value = total
    for level in range(1, order + 1):
        if level > 1 and _refuses(value):
            out[level] = "marked as differentiable once: backward() raises"
            return out
        try:
            with torch.enable_grad():
                parts = torch.autograd.grad(value, tensors, create_graph=level < order, allow_unused=True,
                                            retain_graph=True)
                out[level] = {name: None if part is None else part.detach() for name, part in zip(names, parts,
                                                                                                   strict=True)}
                value = sum(((part * v.conj().to(part.dtype)).sum().real if part.is_complex() else
                             (part * v.to(part.dtype)).sum() for part, v in zip(parts, direction, strict=True)
                             if part is not None), torch.zeros(()))
        except Exception as error:  # a refusal of their backward, in whatever class
            out[level] = " ".join(str(error).split())[:200] or type(error).__name__
            return out
        if not value.requires_grad and level < order:
            out[level + 1] = "the gradient carries no graph"
            return out
    return out


def _refuses(value: Tensor) -> bool:
    """Whether a graph holds a node that raises when it is reached.

    `torch.autograd.grad` goes only where its inputs are, so it passes by the node that `once_differentiable` puts in
    and returns a number; `backward()` raises there.
    """
    seen: set[Any] = set()
    stack: list[Any] = [value.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name() in ("torch::autograd::Error", "NotImplemented", "torch::autograd::NotImplemented"):
            return True
        stack.extend(parent for parent, _ in node.next_functions)
    return False
