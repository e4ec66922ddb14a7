"""Choosing claims by pattern."""

import pytest

from verification.errors import UserError
from verification.registry import Topic
from verification.select import select
from verification.verdict import Verdict


def topic(name, *ids):
    made = Topic(name, name.title())
    for id in ids:
        made.claim(
            id=id, title="t", source="s", statement="s", expected=Verdict.SUPPORTED, control=len, control_note="n"
        )(len)
    return made


TOPICS = [topic("smooth-kernels", "rmt-0001", "rmt-0002"), topic("phantom", "sm-000a", "own-000b"), topic("empty")]


def chosen(*patterns):
    return [claim.id for group in select(TOPICS, patterns) for claim in group.claims]


@pytest.mark.parametrize(("patterns", "ids"), [
    ((), ["rmt-0001", "rmt-0002", "sm-000a", "own-000b"]),
    (("rmt",), ["rmt-0001", "rmt-0002"]),
    (("sm",), ["sm-000a"]),                      # the paper, not the topic "smooth-kernels"
    (("smooth",), ["rmt-0001", "rmt-0002"]),
    (("phan*",), ["sm-000a", "own-000b"]),
    (("rmt-0002",), ["rmt-0002"]),
    (("*-000?",), ["rmt-0001", "rmt-0002", "sm-000a", "own-000b"]),
    (("own", "0001"), ["rmt-0001", "own-000b"]),
    (("own,0001",), ["rmt-0001", "own-000b"]),
    (("RMT-0001",), ["rmt-0001"]),
])
def test_patterns(patterns, ids):
    assert chosen(*patterns) == ids


def test_a_pattern_without_a_match_lists_the_topics():
    with pytest.raises(UserError, match=r"(?s)'nothing' matches no claim.*smooth-kernels.*phantom"):
        select(TOPICS, ["own", "nothing"])


def test_topics_without_claims_are_left_out():
    assert [group.name for group in select(TOPICS)] == ["smooth-kernels", "phantom"]
