"""The core of both papers' theory, checked by Coq: one claim a theorem, its control a mutated statement."""

from __future__ import annotations

from verification.evidence import Evidence, Method, Outcome, holds_if
from verification.needs import NotAtHand
from verification.proofs.catalogue import THEOREMS, Theorem
from verification.proofs.coq import PACKAGES, CoqMissing, check, try_mutant
from verification.registry import Topic
from verification.verdict import Verdict

TOPIC = Topic("machine-checked", "The core, checked by machine", weight=60.0)


def _not_at_hand(missing: CoqMissing) -> NotAtHand:
    return NotAtHand("coqc", str(missing).partition(";")[0],
                     f"on Debian: apt-get install {PACKAGES}; then `make proofs`")


def _proved(theorem: Theorem) -> list[Evidence]:
    try:
        checked = check(theorem)
    except CoqMissing as missing:
        raise _not_at_hand(missing) from missing
    assumptions = ", ".join(checked.assumptions) or "none: closed under the global context"
    return [Evidence(Method.MACHINE, holds_if(checked.accepted),
                     f"theorem {theorem.name} in verification/proofs/{theorem.file}.v, compiled by coqc",
                     {"coqc says": "accepted" if checked.accepted else "refused", "rests on": assumptions},
                     complete=checked.accepted)]


def _mutated(theorem: Theorem) -> list[Evidence]:
    try:
        tried = try_mutant(theorem)
    except CoqMissing as missing:
        raise _not_at_hand(missing) from missing
    # An ill-typed statement would fail for no good reason: then the control says nothing.
    outcome = Outcome.UNKNOWN if not tried.well_typed else holds_if(tried.proved)
    return [Evidence(Method.MACHINE, outcome, f"{theorem.old} replaced by {theorem.new}", {"coqc says": tried.message})]


def _register(theorem: Theorem) -> None:
    TOPIC.claim(id=theorem.identity, title=theorem.title, source=f"deqproof, {theorem.name} in Coq",
                statement=theorem.statement, expected=Verdict.PROVED,
                control=lambda context: _mutated(theorem),
                control_note=f"the statement mutated: {theorem.mutation}")(lambda context: _proved(theorem))


for _theorem in THEOREMS:
    _register(_theorem)
