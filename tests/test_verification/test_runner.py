"""One claim at a time: needs, errors, controls, isolation."""

import sys

import mpmath
import pytest
import torch

from deq.data import DamagedDataError, MissingDataError
from verification.claim import Claim
from verification.context import Context, Scale
from verification.evidence import Evidence, Method, Outcome, Subject
from verification.needs import NotAtHand
from verification.runner import run_claim
from verification.verdict import Verdict


def evidence(outcome, subject=Subject.STATEMENT):
    return Evidence(Method.NUMERICAL, outcome, "a test", {"error": 0.5}, subject=subject)


def holds(context):
    return [evidence(Outcome.HOLDS)]


def fails(context):
    return [evidence(Outcome.FAILS)]


def make(check=holds, control=fails, expected=Verdict.SUPPORTED, **more):
    return Claim(id="sm-0000", title="a title", source="[SM]", statement="$x$", expected=expected, check=check,
                 control=control, control_note="turned round", **more)


def run(claim, **settings):
    return run_claim(claim, "topic", Context(**settings))


def test_a_claim_that_holds():
    result, records = run(make())
    assert result.verdict is Verdict.SUPPORTED
    assert result.control == "passed"
    assert result.method == ("numerical",)
    assert result.evidence[0]["numbers"] == {"error": 0.5}
    assert not result.deviates
    assert result.seconds >= 0
    assert records == {}


def test_an_expected_refutation_needs_a_control_that_holds():
    assert run(make(fails, holds, Verdict.REFUTED))[0].verdict is Verdict.REFUTED
    result, _ = run(make(fails, fails, Verdict.REFUTED))
    assert result.verdict is Verdict.ERROR
    assert "must be proved or supported" in result.error


def test_a_correction():
    def mended(context):
        return [evidence(Outcome.FAILS), evidence(Outcome.HOLDS, Subject.CORRECTION)]

    assert run(make(mended, fails, Verdict.CORRECTED))[0].verdict is Verdict.CORRECTED
    # A control that still comes out corrected shows that the checker accepts a falsified correction.
    assert run(make(mended, mended, Verdict.CORRECTED))[0].verdict is Verdict.ERROR


@pytest.mark.parametrize("outcome", [Outcome.HOLDS, Outcome.UNKNOWN, Outcome.VACUOUS])
def test_a_control_that_is_not_refuted_is_an_error(outcome):
    result, _ = run(make(control=lambda context: [evidence(outcome)]))
    assert result.verdict is Verdict.ERROR
    assert result.control == "failed"
    assert "this checker proves nothing" in result.error
    assert "turned round" in result.control_detail
    assert result.evidence, "the evidence of the check itself is kept"
    assert result.deviates


def test_a_check_that_raises():
    def broken(context):
        raise ArithmeticError("tau has no root")

    result, _ = run(make(broken))
    assert result.verdict is Verdict.ERROR
    assert "ArithmeticError: tau has no root" in result.error
    assert "in broken" in result.error
    assert result.control == "not run"


def test_a_check_that_exits_is_an_error():
    def leave(context):
        raise SystemExit(3)

    assert run(make(leave))[0].verdict is Verdict.ERROR


def test_a_control_that_raises():
    def broken(context):
        raise ArithmeticError("no control")

    result, _ = run(make(control=broken))
    assert result.verdict is Verdict.ERROR
    assert result.control == "error"
    assert "ArithmeticError: no control" in result.control_detail


def test_ctrl_c_passes_through():
    def stop(context):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(make(stop))


@pytest.mark.parametrize("returned", [[], [evidence(Outcome.HOLDS, Subject.CORRECTION)]])
def test_no_evidence_on_the_statement_is_an_error_and_not_untested(returned):
    result, _ = run(make(lambda context: returned))
    assert result.verdict is Verdict.ERROR
    assert "no evidence on the statement" in result.error


def test_a_check_that_returns_something_else():
    result, _ = run(make(lambda context: [True]))
    assert result.verdict is Verdict.ERROR
    assert "not Evidence" in result.error


def test_missing_data_leave_a_claim_untested_and_say_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.delenv("DEQPROOF_DATA", raising=False)
    monkeypatch.setattr(sys.modules["deq.data.locate"], "cache_folder", lambda: tmp_path / "cache")
    result, _ = run(make(needs=("data:parkinson",)))
    assert result.verdict is Verdict.UNTESTED
    assert not result.deviates
    assert "DEQPROOF_DATA" in result.missing[0]["remedy"]
    result, _ = run(make(needs=("data:parkinson",)), data=tmp_path)
    assert "uci/parkinsons_updrs.data" in result.missing[0]["what"]
    (tmp_path / "uci").mkdir()
    (tmp_path / "uci" / "parkinsons_updrs.data").write_text("x")
    assert run(make(needs=("data:parkinson",)), data=tmp_path)[0].verdict is Verdict.SUPPORTED


def test_one_packing_of_the_data_is_enough(tmp_path, monkeypatch):
    monkeypatch.delenv("DEQPROOF_DATA", raising=False)
    monkeypatch.setattr(sys.modules["deq.data.locate"], "cache_folder", lambda: tmp_path / "cache")
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "cifar10" / "cifar10-jpeg.zip").write_text("x")
    assert run(make(needs=("data:cifar10",)), data=tmp_path)[0].verdict is Verdict.SUPPORTED


def test_a_loader_that_finds_no_file_leaves_a_claim_untested_and_a_damaged_file_is_an_error():
    def absent(context):
        raise MissingDataError("a.data is in none of: here")

    def damaged(context):
        raise DamagedDataError("a.data is damaged")

    assert run(make(absent))[0].verdict is Verdict.UNTESTED
    result, _ = run(make(damaged))
    assert result.verdict is Verdict.ERROR
    assert "a.data is damaged" in result.error


def test_scale_is_a_need():
    claim = make(needs=("scale:paper",))
    assert run(claim)[0].verdict is Verdict.UNTESTED
    assert run(claim, scale=Scale.PAPER)[0].verdict is Verdict.SUPPORTED
    assert run(make(needs=("scale:smoke",)))[0].verdict is Verdict.SUPPORTED


def test_a_device_is_a_need(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "CUDA" in run(make(needs=("cuda",)))[0].missing[0]["what"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert run(make(needs=("cuda",)))[0].verdict is Verdict.SUPPORTED


def test_an_unknown_need_is_an_error_that_lists_the_known():
    result, _ = run(make(needs=("data:parkinsons",)))
    assert result.verdict is Verdict.ERROR
    assert "data:parkinson," in result.error


def test_a_check_may_find_out_late_that_it_lacks_something():
    def late(context):
        raise NotAtHand("peer", "torchdeq is not installed", "pip install deqproof[peers]")

    result, _ = run(make(late))
    assert result.verdict is Verdict.UNTESTED
    assert result.missing[0]["remedy"] == "pip install deqproof[peers]"


def test_records_come_from_the_check_alone():
    def check(context):
        context.record("good", {"x": [1.0]})
        return [evidence(Outcome.HOLDS)]

    def control(context):
        context.record("good", {"x": [9.0]})
        context.record("bad", {"x": [9.0]})
        return [evidence(Outcome.FAILS)]

    context = Context()
    _, records = run_claim(make(check, control), "topic", context)
    assert records == {"good": {"x": [1.0]}}
    assert context.records == {}


def test_global_numerics_are_put_back():
    def careless(context):
        mpmath.mp.dps = 99
        torch.set_default_dtype(torch.float64)
        return [evidence(Outcome.HOLDS)]

    before = mpmath.mp.dps, torch.get_default_dtype()
    run(make(careless))
    assert (mpmath.mp.dps, torch.get_default_dtype()) == before


def test_shared_results_do_not_depend_on_who_asks_first():
    first, second = Context(seed=3), Context(seed=3)
    torch.manual_seed(1)
    a = first.shared("weights", lambda: torch.rand(4))
    torch.manual_seed(2)
    b = second.shared("weights", lambda: torch.rand(4))
    assert torch.equal(a, b)
    assert first.shared("weights", lambda: None) is a
    assert not torch.equal(a, Context(seed=4).shared("weights", lambda: torch.rand(4)))
