"""Runs a claim: its needs, its check, its control, and one verdict out of them, whatever happens on the way."""

from __future__ import annotations

import random
import time
import traceback
import zlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import mpmath
import numpy as np
import torch

from deq.data import MissingDataError
from verification.claim import Check, Claim
from verification.context import Context
from verification.controls import turned, wanted
from verification.evidence import Evidence, Subject
from verification.needs import NotAtHand, missing_needs
from verification.result import ClaimResult, result_of
from verification.verdict import Verdict, combine

Records = dict[str, dict[str, Any]]


def run_claim(claim: Claim, topic: str, context: Context) -> tuple[ClaimResult, Records]:
    """Run one claim and return its result with the records that its check left.

    Exceptions of the check or the control end in verdict `ERROR` with the traceback; only `KeyboardInterrupt` passes
    through. The control runs on a copy of the context, so that what it records is thrown away. Global random states
    depend on the run's seed and the claim's id alone, so neither order nor the number of processes changes a result.
    """
    start, cpu = time.perf_counter(), time.process_time()

    def finish(verdict: Verdict, evidence: Sequence[Evidence] = (), **more: Any) -> ClaimResult:
        return result_of(claim, topic, verdict, time.perf_counter() - start, evidence,
                         cpu_seconds=time.process_time() - cpu, **more)

    digits, dtype = mpmath.mp.dps, torch.get_default_dtype()
    working = replace(context, records={})
    try:
        missing = missing_needs(claim.needs, context)
        if missing:
            return finish(Verdict.UNTESTED, missing=tuple(asdict(item) for item in missing)), {}
        _seed(context.seed, claim.id)
        evidence = _collect(claim.check, working)
        verdict = combine(evidence)
        control, detail = _run_controls(claim, evidence, replace(context, records={}))
    except NotAtHand as absent:
        return finish(Verdict.UNTESTED, missing=(asdict(absent.missing),)), {}
    except MissingDataError as absent:
        item = {"need": "data", "what": str(absent), "remedy": "fetch it, or set --data or DEQPROOF_DATA"}
        return finish(Verdict.UNTESTED, missing=(item,)), {}
    except (Exception, SystemExit):
        return finish(Verdict.ERROR, error=traceback.format_exc()), {}
    finally:
        mpmath.mp.dps = digits
        torch.set_default_dtype(dtype)
    if control != "passed":
        verdict = Verdict.ERROR
    error = "" if control == "passed" else f"the control did not come out, so this checker proves nothing: {detail}"
    return finish(verdict, evidence, control=control, control_detail=detail, error=error), working.records


def _collect(check: Check, context: Context) -> tuple[Evidence, ...]:
    evidence = tuple(check(context))
    strangers = [item for item in evidence if not isinstance(item, Evidence)]
    if strangers:
        raise TypeError(f"the check returned {strangers[0]!r}, which is not Evidence")
    if not any(item.subject is Subject.STATEMENT for item in evidence):
        raise ValueError("the check returned no evidence on the statement; declare what it lacks in `needs`")
    return evidence


def _run_controls(claim: Claim, evidence: Sequence[Evidence], context: Context) -> tuple[str, str]:
    """Outcome and detail: a falsified statement must be refuted; for an expected refutation, a true one must hold.

    Besides, each control's measurements, put in the place of the claim's own, must turn its verdict.
    """
    out = Verdict.ERROR
    for note, check in claim.controls:
        _seed(context.seed, claim.id)
        try:
            found = _collect(check, context)
        except (Exception, SystemExit):
            return "error", "the control raised\n" + traceback.format_exc()
        out = combine(found)
        if out not in wanted(claim.expected):
            names = " or ".join(sorted(wanted(claim.expected)))
            return "failed", f"the control ({note}) came out {out} where it must be {names}"
        if fault := turned(evidence, found, claim.expected):
            return "failed", f"the control ({note}) shows nothing: {fault}"
    count = len(claim.controls)
    return "passed", f"came out {out}" if count == 1 else f"all {count} came out {out}"


def _seed(seed: int, key: str) -> None:
    number = zlib.crc32(f"{seed}/{key}".encode())
    torch.manual_seed(number)
    np.random.seed(number)  # noqa: NPY002  (for libraries that draw from the global state)
    random.seed(number)
