import json

import pytest

from verification.claims import appendix_c_long
from verification.context import Context
from verification.evidence import Outcome
from verification.needs import NotAtHand


def route(score, cosine):
    return {"steps": [0, 1, 2, 3], "score": [[0.01] * 4] * 3 + [[score] * 4], "gradient": [0.1] * 4, "inner": [0.2] * 4,
            "gradient_cosine": [1.0, 1.0, 1.0, cosine], "inner_cosine": [1.0] * 4}


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """A made-up stored run: the phantom goes astray in the last quarter, the exact route does not."""
    path = tmp_path / "course-sm.json"
    monkeypatch.setattr(appendix_c_long, "STORED", path)
    run = {"domain": "made up", "objective": "sm", "steps": [0, 1, 2, 3], "radius": [0.1, 0.2, 0.3, 0.4],
           "norm": [0.2] * 4, "routes": {"K=2": route(0.2, 0.98), "exact(3)": route(1e-15, 1.0)},
           "provenance": {"commit": "0" * 40, "date": "2026-01-01T00:00:00", "command": "deqproof course"}}
    path.write_text(json.dumps(run))
    return path


def test_late_errors_fail_the_statement_and_the_exact_route_holds_it(stored):
    context = Context()
    (evidence,) = appendix_c_long.late_errors(context)
    assert evidence.outcome is Outcome.FAILS
    assert evidence.numbers["median score error"] == 0.2
    assert "deqproof course" in evidence.domain
    assert context.records["appendix-c-long"]["routes"]["K=2"]["score"] == [0.01, 0.01, 0.01, 0.2]
    (claim,) = appendix_c_long.TOPIC.claims
    assert [item.outcome for item in claim.control(Context())] == [Outcome.HOLDS]


@pytest.mark.parametrize("change", [{"score": [[0.01] * 4] * 4}, {"gradient_cosine": [1.0] * 4}])
def test_either_reading_alone_decides(stored, change):
    run = json.loads(stored.read_text())
    run["routes"]["K=2"] |= change
    stored.write_text(json.dumps(run))
    assert appendix_c_long.late_errors(Context())[0].outcome is Outcome.FAILS


def test_without_the_stored_run_the_claim_says_how_to_make_it(stored):
    stored.unlink()
    with pytest.raises(NotAtHand, match="deqproof course"):
        appendix_c_long.late_errors(Context())
