"""Quotations of the papers are verbatim, and readings say what is not literal."""

import os
import re
from pathlib import Path

import pytest

from verification.claim import GAP, Reading
from verification.registry import load_topics
from verification.report import typeset

CLAIMS = [claim for topic in load_topics() for claim in topic.claims]
PAPERS = Path(os.environ.get("DEQPROOF_PAPERS", Path(__file__).parents[3] / "shared" / "papers"))
#: A line that only this paper's text has.
OPENINGS = {"sm": "EFFICIENT SCORE MATCHING WITH DEEP EQUILIBRIUM LAYERS", "rmt": "Not-so-deep Explicit"}


def bare(text):
    """Without white space and the marks of the text file: dollar signs, emphasis, table rules, alignment."""
    return re.sub(r"\s|[$*|&]|</?b>", "", text)


@pytest.fixture(scope="module")
def papers():
    texts = [path.read_text(encoding="utf-8") for path in PAPERS.glob("*.txt")] if PAPERS.is_dir() else []
    found = {key: bare(text) for key, line in OPENINGS.items() for text in texts if line in text}
    if found.keys() != OPENINGS.keys():
        pytest.skip("the papers' texts are not at hand; DEQPROOF_PAPERS names their folder")
    return found


def test_quotations_are_verbatim(papers):
    wrong = [(claim.id, piece) for claim in CLAIMS if claim.quote for piece in claim.quote.split(GAP)
             if bare(piece) not in papers[claim.id.partition("-")[0]]]
    assert wrong == []


def test_a_changed_word_is_noticed(papers):
    literal = next(claim for claim in CLAIMS if claim.id == "sm-46a0").quote.split(GAP)[1]
    assert bare(literal) in papers["sm"]
    assert bare(literal.replace("less than one", "at most one")) not in papers["sm"]


@pytest.mark.parametrize("claim", CLAIMS, ids=[claim.id for claim in CLAIMS])
def test_readings_say_what_is_not_literal(claim):
    typeset.prose(claim.quote, strict=True)
    typeset.phrase(claim.reading_note, strict=True)
    if claim.id.startswith("own-"):
        assert not claim.quote
        assert claim.reading is Reading.OURS
        return
    assert bool(claim.reading_note.strip()) or claim.literal, "what is mended or assumed is not said"
    assert claim.quote or re.search(r"released code|\bours\b", claim.reading_note), "no quotation, and no reason"
    assert all(len(piece.split()) <= 60 for piece in claim.quote.split(GAP)), "quotations are short"
