"""The register, and house rules for every claim in it."""

import importlib
import re

import pytest

from figures.registry import load_figures
from verification.context import Context
from verification.needs import missing_needs
from verification.registry import Topic, check_unique, load_topics
from verification.report import typeset
from verification.verdict import Verdict

TOPICS = load_topics()
CLAIMS = [claim for topic in TOPICS for claim in topic.claims]
DATA = {
    "title": "t",
    "source": "s",
    "statement": "s",
    "expected": Verdict.SUPPORTED,
    "control": len,
    "control_note": "n",
}


def test_a_duplicate_id_is_refused(claims_package):
    first, second = Topic("a", "A"), Topic("b", "B")
    first.claim(id="sm-0001", **DATA)(len)
    second.claim(id="sm-0001", **{**DATA, "title": "another"})(len)
    with pytest.raises(ValueError, match="sm-0001 is used twice: t and another"):
        check_unique([first, second])
    source = 'TOPIC = Topic("a", "A")\nclaim(TOPIC, "sm-0001", len)\n'
    with pytest.raises(ValueError, match="used twice"):
        load_topics(claims_package(one=source, two=source))


@pytest.mark.parametrize("id", ["sm-1", "xx-0000", "sm-000G", "SM-0000", "sm-00000", ""])
def test_a_malformed_id_is_refused(id):
    with pytest.raises(ValueError, match="is not of the form"):
        Topic("a", "A").claim(id=id, **DATA)(len)


@pytest.mark.parametrize("claim", CLAIMS, ids=[claim.id for claim in CLAIMS])
def test_every_claim_can_be_typeset_and_looked_up(claim):
    for text in (claim.statement, claim.correction):
        typeset.prose(text, strict=True)
    for text in (claim.title, claim.control_note):
        typeset.phrase(text, strict=True)
    assert claim.statement.strip()
    assert claim.control_note.strip()
    assert claim.source.strip()
    assert claim.check is not claim.control
    assert bool(claim.correction) or claim.expected is not Verdict.CORRECTED, "a corrected claim shows its correction"
    missing_needs(claim.needs, Context())
    unknown = set(claim.figures) - set(load_figures())
    assert not unknown, f"{claim.id} names figures that nobody draws: {sorted(unknown)}"


def test_topics_come_in_reading_order(claims_package):
    empty = 'TOPIC = Topic("{0}", "T")\n'
    package = claims_package(**{name: empty.format(name) for name in ("audit", "middle", "second", "first")})
    module = importlib.import_module(package)
    assert [topic.name for topic in load_topics(package)] == ["audit", "first", "middle", "second"]
    module.READING_ORDER = ("first", "sec*", "*", "audit*")
    assert [topic.name for topic in load_topics(package)] == ["first", "second", "middle", "audit"]


def test_every_topic_has_a_name_that_can_be_typed():
    names = [topic.name for topic in TOPICS]
    assert len(set(names)) == len(names)
    assert [name for name in names if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name)] == []


def test_claims_cite_papers_or_the_project_and_no_working_notes():
    notes = re.compile(r"\bTHEORY\b|\b(?:MODELS|PEERS|STYLE|API)\.md\b|\bTODO\b")
    texts = [(claim.id, text) for topic in TOPICS for claim in topic.claims
             for text in (claim.title, claim.source, claim.statement, claim.correction, claim.control_note)]
    assert [(name, text) for name, text in texts if notes.search(text)] == []
    assert [claim.id for topic in TOPICS for claim in topic.claims
            if not re.search(r"\[SM\]|\[RMT\]|deqproof", claim.source)] == []
