"""The machine-checked core: its bookkeeping always, one file through Coq where it is installed, all of it when slow."""

import shutil

import pytest

from verification.claims.machine_checked import TOPIC
from verification.context import Context, Scale
from verification.proofs import coq
from verification.proofs.catalogue import FILES, THEOREMS
from verification.runner import run_claim
from verification.verdict import Verdict

needs_coq = pytest.mark.skipif(shutil.which("coqc") is None, reason="coqc is not installed")


def text_of(file: str) -> str:
    return (coq.FOLDER / f"{file}.v").read_text(encoding="utf-8")


@pytest.mark.parametrize("theorem", THEOREMS, ids=lambda theorem: theorem.name)
def test_each_theorem_has_one_mutation_of_its_statement(theorem):
    changed = coq.with_mutated_proof(text_of(theorem.file), theorem)
    assert theorem.new in changed
    assert changed.count("Section ") <= changed.count("End ")
    stated = coq.with_mutants_stated(text_of(theorem.file), (theorem,))
    assert f"{theorem.name}_mutated" in stated
    assert stated.count("Admitted.") == 1


def test_no_file_admits_or_assumes():
    assert sorted(path.stem for path in coq.FOLDER.glob("*.v")) == sorted(FILES)
    for file in FILES:
        for word in ("Admitted", "Axiom", "Parameter", "Conjecture", "admit"):
            assert word not in text_of(file), f"{file}.v says {word}"


def test_where_coq_is_missing_claims_are_untested_and_say_what_to_install(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    coq.compiled.cache_clear()
    result, _ = run_claim(TOPIC.claims[0], TOPIC.name, Context(scale=Scale.SMOKE))
    assert result.verdict is Verdict.UNTESTED
    assert "apt-get install coq" in result.missing[0]["remedy"]
    coq.compiled.cache_clear()


@needs_coq
def test_exactness_to_order_k_goes_through_and_its_mutation_does_not():
    claim = next(claim for claim in TOPIC.claims if "exact_to_order_K" in claim.source)
    result, _ = run_claim(claim, TOPIC.name, Context(scale=Scale.SMOKE))
    assert result.verdict is Verdict.PROVED, result.error


@needs_coq
@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("claim", TOPIC.claims, ids=lambda claim: claim.source.split()[1])
def test_all_theorems(claim):
    result, _ = run_claim(claim, TOPIC.name, Context(scale=Scale.SMOKE))
    assert result.verdict is Verdict.PROVED, result.error
