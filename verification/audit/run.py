"""Runs all checks on a subject, within a budget, and leaves the subject as it was."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

import torch

from deq.interop.pytree import leaves
from deq.subject import Subject, SubjectError
from verification.audit.case import Case, Clock, NotAMap
from verification.audit.checks import CHECKS
from verification.audit.keep import kept
from verification.audit.load import one_line, quietly
from verification.audit.point import residual_curve
from verification.audit.result import AuditReport, AuditVerdict, CheckResult, not_applicable, undecided
from verification.audit.shared import Shared
from verification.context import Context
from verification.provenance import provenance

__all__ = ["audit"]

STEPS = (1, 2, 4, 8)


def audit(subject: Subject, *, steps: Sequence[int] = STEPS, order: int | None = None,
          budget: float = 60.0) -> AuditReport:
    """Look at a subject with all checks.

    Args:
        subject: an implicit model as its owner uses it.
        steps: K of the phantom gradients to measure.
        order: highest order of derivative that the owner uses, 1 to 3: a wrong one fails. By default second derivatives
            are looked at, and wrong ones leave `higher-order` undecided: most trainings never take them.
        budget: seconds; less is measured where it is short, and the report says what.

    Returns:
        The report; `report["gradient"].verdict`, `report.failed`, `report.to_json()`.

    Raises:
        ValueError: a number out of its range.
        SubjectError: the subject's loss or forward returns something that is no loss or no state.

    Example:
        >>> import torch, deq
        >>> subject = deq.Subject(lambda z: 0.5 * z + 1, torch.zeros(2, 3))
        >>> str(audit(subject)["converged"].verdict)
        'holds'
    """
    if order not in (None, 1, 2, 3):
        raise ValueError(f"order must be 1, 2 or 3, got {order!r}")
    if not steps or any(isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= 1000 for k in steps):
        raise ValueError(f"steps must be whole numbers from 1 to 1000, got {list(steps)!r}")
    if not budget > 0:
        raise ValueError(f"budget must be positive, got {budget!r}")
    roots = (subject.f, subject.forward, subject.loss, subject.parameters, subject.inputs, subject.z0)
    with quietly(), kept(*roots) as keeper, torch.enable_grad():
        case = Case(subject, keeper, Clock(budget), steps, order or 2)
        case.asked = order is not None
        shared = Shared(case)
        results = _results(shared)
        if "found" in shared.__dict__ and case.clock.left > 0.1 * budget:
            case.curves["our_residuals"] = residual_curve(case)
        about = _about(shared)
    return AuditReport(subject.name or "subject", results, about, case.curves, _provenance())


def _results(shared: Shared) -> list[CheckResult]:
    results: list[CheckResult] = []
    for check in CHECKS:
        began = time.perf_counter()
        skipped = _skip(check.name, shared)
        try:
            outcome = skipped or check.look(shared)
        except SubjectError:
            raise
        except NotAMap as error:
            outcome = undecided(one_line(error), "see `map`: f should return the same shape wherever z is")
        except Exception as error:  # of somebody else's code, in whatever class: the other checks go on
            outcome = undecided(f"it could not be measured: {type(error).__name__}: {one_line(error)}",
                                "f or its derivatives raise at points that the check needs")
        verdict, finding, advice, numbers = outcome
        shared.verdicts[check.name] = verdict
        results.append(CheckResult(check.name, verdict, finding, advice, numbers, time.perf_counter() - began))
        if check.name == "independent" and not _skip("converged", shared):
            try:
                _prepare(shared)
            except SubjectError:
                raise
            except Exception as error:  # the whole batch in the owner's dtype is what is left then
                shared.case.notes.append(f"samples and dtype could not be chosen: {one_line(error)}")
    return results


def _prepare(shared: Shared) -> None:
    """Choose samples and dtype once it is known whether samples are independent; the owner's solve ranks them."""
    shared.case.look_at_start()
    owner = shared.owner
    worst = None
    if owner.flat is not None and not owner.problem:
        worst = shared.owner_residual
        shared.case.curves["owner_residuals"] = owner.residuals
    shared.case.prepare(worst)


def _skip(name: str, shared: Shared) -> Any:
    """Why a check cannot be made after what was seen, or None."""
    verdicts = shared.verdicts
    if name == "map":
        return None
    if verdicts.get("map") is AuditVerdict.FAILS and not shared.case.protected:
        return not_applicable("f is no map of the state (see `map`)")
    if name == "deterministic":
        return None
    if verdicts.get("deterministic") is AuditVerdict.FAILS:
        return undecided("f changes from call to call (see `deterministic`)", "make f repeat itself, then audit again")
    if shared.case.clock.left <= 0 and name not in ("converged",):
        return undecided("the budget was spent before this check", "give more time (--budget)")
    return None


def _about(shared: Shared) -> dict[str, Any]:
    case = shared.case
    found = shared.__dict__.get("found")
    flat = leaves(case.subject.inputs)
    return {"state": case.layout.describe(), "entries": case.layout.size, "batch": case.layout.batch,
            "samples_measured": len(case.rows), "systems": 1 if case.coupled else len(case.rows),
            "measured_in": str(case.dtype).removeprefix("torch."), "inputs": len(flat),
            "declared": case.subject.declared, "has_forward": case.subject.forward is not None,
            "parameters": len(shared.__dict__.get("parameters", ())), "notes": list(dict.fromkeys(case.notes)),
            "budget": case.clock.budget, "seconds": round(case.clock.spent, 2), "steps": list(case.steps),
            "order": case.order, "our_iterations": found.iterations if found is not None else None}


def _provenance() -> dict[str, Any]:
    about = provenance(Context(data=None), "deqproof " + " ".join(sys.argv[1:]), 1)
    return {key: value for key, value in about.items() if key not in ("data", "scale", "seed", "jobs")}
