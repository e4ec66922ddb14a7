"""The truth table of `combine`, written out by hand: nothing here is computed from the code under test."""

import ast
import itertools
import math
from pathlib import Path

import mpmath
import numpy as np
import pytest
import sympy
import torch

from verification.evidence import Evidence, Method, Outcome, Subject, holds_if, largest, smallest, within
from verification.verdict import Verdict, combine

HOLDS, FAILS, UNKNOWN, VACUOUS = Outcome.HOLDS, Outcome.FAILS, Outcome.UNKNOWN, Outcome.VACUOUS


def said(outcome, complete=False, subject=Subject.STATEMENT):
    return Evidence(
        Method.SYMBOLIC if complete else Method.NUMERICAL, outcome, "a test", complete=complete, subject=subject
    )


def mended(outcome):
    return said(outcome, subject=Subject.CORRECTION)


TABLE = [
    ([], Verdict.UNTESTED),
    ([mended(HOLDS)], Verdict.UNTESTED),
    ([said(HOLDS)], Verdict.SUPPORTED),
    ([said(HOLDS, complete=True)], Verdict.PROVED),
    ([said(HOLDS), said(HOLDS, complete=True)], Verdict.PROVED),
    ([said(FAILS)], Verdict.REFUTED),
    ([said(FAILS), mended(HOLDS)], Verdict.CORRECTED),
    ([said(FAILS), mended(FAILS)], Verdict.REFUTED),
    ([said(FAILS), mended(UNKNOWN)], Verdict.REFUTED),
    ([said(FAILS), mended(VACUOUS)], Verdict.REFUTED),
    ([said(FAILS), mended(HOLDS), mended(FAILS)], Verdict.REFUTED),
    ([said(UNKNOWN)], Verdict.UNDECIDED),
    ([said(HOLDS), said(UNKNOWN)], Verdict.UNDECIDED),
    ([said(HOLDS, complete=True), said(UNKNOWN)], Verdict.UNDECIDED),
    ([said(VACUOUS)], Verdict.VACUOUS),
    ([said(VACUOUS), said(HOLDS)], Verdict.SUPPORTED),
    ([said(VACUOUS, complete=True), said(HOLDS)], Verdict.SUPPORTED),
    ([said(HOLDS), said(FAILS)], Verdict.REFUTED),
    ([said(HOLDS, complete=True), said(FAILS)], Verdict.REFUTED),
    ([said(UNKNOWN), said(FAILS)], Verdict.REFUTED),
]


@pytest.mark.parametrize(("evidence", "verdict"), TABLE)
def test_truth_table(evidence, verdict):
    for order in itertools.permutations(evidence):
        assert combine(order) is verdict


def test_every_combination_has_a_verdict():
    choices = [said(o, c) for o in Outcome for c in (False, True)] + [mended(o) for o in Outcome]
    for items in itertools.product(choices, repeat=3):
        verdict = combine(items)
        assert isinstance(verdict, Verdict)
        assert verdict is not Verdict.ERROR
        statement = [item.outcome for item in items if item.subject is Subject.STATEMENT]
        assert (FAILS in statement) == (verdict in (Verdict.REFUTED, Verdict.CORRECTED))


def test_a_verdict_is_no_truth_value():
    with pytest.raises(TypeError, match="not a truth value"):
        bool(Verdict.SUPPORTED)


def test_only_machine_checked_symbolic_and_interval_evidence_can_be_complete():
    for method in Method:
        if method in (Method.MACHINE, Method.SYMBOLIC, Method.INTERVAL):
            assert Evidence(method, HOLDS, "all", complete=True).complete
        else:
            with pytest.raises(ValueError, match="cannot be a complete proof"):
                Evidence(method, HOLDS, "all", complete=True)


NAN = float("nan")


def test_comparison_helpers():
    assert within(1e-12, 1e-9) is HOLDS
    assert within(1e-6, 1e-9) is FAILS
    assert within(1e-9, 1e-9) is HOLDS
    assert within(1.0, 2.0, reference_norm=1.5) is VACUOUS
    assert within(1.0, 2.0, reference_norm=2.0) is VACUOUS
    assert within(1.0, 1.5, reference_norm=2.0) is HOLDS
    assert within(1.9, 1.5, reference_norm=2.0) is FAILS
    assert holds_if(True) is HOLDS
    assert holds_if(False) is FAILS


@pytest.mark.parametrize("values", [(NAN, 1e-9), (1e-9, NAN), (NAN, NAN), (NAN, 1e-9, 1.0), (1e-9, NAN, 1.0),
                                    (1e-9, 1e-8, NAN), (1e-9, NAN, NAN)])
def test_a_nan_fails_wherever_it_stands(values):
    assert within(*values) is FAILS


@pytest.mark.parametrize("answer", [True, False])
def test_truth_values_of_the_libraries_count(answer):
    for kind in (np.bool_, np.array, torch.tensor, sympy.sympify, lambda value: np.array([value])):
        assert holds_if(kind(answer)) is (HOLDS if answer else FAILS)


@pytest.mark.parametrize("answer", [NAN, 1.0, 0, 1, None, "no", [], np.float64("nan"), torch.tensor(NAN), np.array(1.0),
                                    np.array([True, False]), torch.tensor([True, True]), sympy.Symbol("x") > 1])
def test_what_is_no_truth_value_is_refused(answer):
    with pytest.raises(TypeError, match="truth value"):
        holds_if(answer)


def test_evidence_cannot_hold_beside_a_nan():
    for value in (NAN, np.float64("nan"), mpmath.nan):
        with pytest.raises(ValueError, match="cannot hold where error is not a number"):
            Evidence(Method.NUMERICAL, HOLDS, "a test", {"error": value, "tolerance": 1.0})
        for outcome in (FAILS, UNKNOWN, VACUOUS):
            Evidence(Method.NUMERICAL, outcome, "a test", {"error": value})
    Evidence(Method.NUMERICAL, HOLDS, "a test", {"error": 0.0, "case": "nan", "bound": float("inf")})


def test_largest_and_smallest_keep_a_nan_at_any_place():
    for order in itertools.permutations((1.0, NAN, 3.0)):
        assert math.isnan(largest(order))
        assert math.isnan(smallest(order))
    assert largest(iter((1.0, 3.0, 2.0))) == 3.0
    assert smallest((1.0, -3.0, 2.0)) == -3.0
    for reduce in (largest, smallest):
        with pytest.raises(ValueError, match="empty"):
            reduce(())


def forgetful(tree: ast.AST) -> list[str]:
    """Where `max` or `min`, which forget a NaN, decide on evidence: inside `holds_if`, or as x = max(x, ...)."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "holds_if":
            found += [ast.unparse(part) for part in ast.walk(node) if isinstance(part, ast.Call)
                      and ast.unparse(part.func) in ("max", "min") and not part.keywords]
            found += [ast.unparse(part) for part in ast.walk(node) if isinstance(part, ast.UnaryOp)
                      and isinstance(part.op, ast.Not) and isinstance(part.operand, ast.Compare)
                      and any(isinstance(op, ast.Lt | ast.LtE | ast.Gt | ast.GtE) for op in part.operand.ops)]
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and node.value.args:
            same = ast.unparse(node.targets[0]) == ast.unparse(node.value.args[0])
            if same and ast.unparse(node.value.func) in ("max", "min"):
                found.append(ast.unparse(node))
    return found


def test_no_claim_forgets_a_nan():
    root = Path(__file__).parents[2] / "verification"
    found = {path.name: sites for folder in ("claims", "methods") for path in sorted((root / folder).rglob("*.py"))
             if (sites := forgetful(ast.parse(path.read_text(encoding="utf-8"))))}
    assert not found


def test_the_rule_sees_what_it_should():
    text = "holds_if(max(e) < 1)\nworst = max(worst, e)\nholds_if(not e > 1)\nholds_if(not same)\nn = max(1, k)"
    assert sorted(forgetful(ast.parse(text))) == ["max(e)", "not e > 1", "worst = max(worst, e)"]
