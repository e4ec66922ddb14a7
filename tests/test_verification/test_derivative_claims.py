"""The cheap claims on derivatives come out as registered, and each checker refutes its falsified statement."""

import pytest

from verification.claims import (
    implicit_derivatives,
    objectives,
    phantom_derivatives,
    phantom_errata,
    phantom_error,
    phantom_scores,
    preconditioned_exactness,
    well_posedness,
)
from verification.context import Context, Scale
from verification.verdict import Verdict, combine

TOPICS = (implicit_derivatives.TOPIC, objectives.TOPIC, phantom_derivatives.TOPIC, phantom_errata.TOPIC,
          phantom_error.TOPIC,
          phantom_scores.TOPIC, preconditioned_exactness.TOPIC, well_posedness.TOPIC)
CLAIMS = {claim.id: claim for topic in TOPICS for claim in topic.claims}
CHEAP = ("sm-79ce", "sm-6e69", "own-7892", "sm-5358", "sm-6e8a", "sm-eb34", "sm-8bf7", "sm-3b71", "sm-5c94", "sm-e0d5",
         "sm-d3d9", "own-ab98",
         "own-314f", "own-1b49", "own-2077", "own-8912", "own-41c1", "own-c0ca", "own-1ec4", "sm-6398",
         "sm-8f51", "own-9f29", "sm-b928")


@pytest.mark.parametrize("name", CHEAP)
def test_claim_and_control(name):
    claim, context = CLAIMS[name], Context(scale=Scale.SMOKE)
    evidence = claim.check(context)
    assert combine(evidence) is claim.expected
    assert all(item.domain for item in evidence)
    control = combine(claim.control(context))
    if claim.expected is Verdict.REFUTED:
        assert control in (Verdict.SUPPORTED, Verdict.PROVED)
    else:
        assert control is Verdict.REFUTED


def test_registrations_are_complete():
    for claim in CLAIMS.values():
        assert claim.control_note, claim.id
        assert claim.source.startswith(("[SM]", "deqproof")), claim.id
        assert (claim.correction != "") == (claim.expected is Verdict.CORRECTED), claim.id

