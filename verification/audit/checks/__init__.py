"""The checks, as data: names, what each holds for, and the function that looks; one file each, in the order of need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from verification.audit.checks import (
    adjoint,
    contraction,
    converged,
    deterministic,
    gradient,
    higher_order,
    independent,
    map,
    phantom,
    precision,
    unique,
)
from verification.audit.result import AuditVerdict
from verification.audit.shared import Shared


@dataclass(frozen=True)
class Check:
    """One question.

    Attributes:
        name: fixed; scripts read it.
        holds_when: the statement that is checked.
        look: answers it.
    """

    name: str
    holds_when: str
    look: Callable[[Shared], tuple[AuditVerdict, str, str, dict[str, Any]]]


CHECKS = (
    Check("map", "f keeps shape, dtype and device, is finite, and changes neither z nor its inputs", map.check),
    Check("deterministic", "equal calls of f give equal values", deterministic.check),
    Check("independent", "changing one sample changes no other", independent.check),
    Check("converged", "the owner's z is at an equilibrium, to the precision of its dtype", converged.check),
    Check("unique", "several solvers and starts find the same equilibrium", unique.check),
    Check("contraction", "the spectral radius of J = df/dz is below 1", contraction.check),
    Check("precision", "the dtype leaves room between its residual floor and the tolerance used", precision.check),
    Check("gradient", "the owner's gradient equals the exact one, parameter by parameter", gradient.check),
    Check("phantom", "the bias of K differentiated steps is known, and bearable where they are used", phantom.check),
    Check("adjoint", "the exact adjoint solve reaches its tolerance", adjoint.check),
    Check("higher-order", "derivatives of order 2 (3) of the owner's forward are right", higher_order.check),
)
