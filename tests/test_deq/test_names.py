"""Names that are not known: the message names what is near."""

import pytest

from deq.names import nearest, unknown


@pytest.mark.parametrize(("given", "known", "near"), [
    ("pikard", ["picard", "anderson"], ["picard"]),
    ("PICARD", ["picard"], ["picard"]),
    ("wine", ["redwine", "whitewine", "mnist"], ["redwine", "whitewine"]),
    ("xq", ["picard"], []),
    ("a", [], []),
])
def test_nearest(given, known, near):
    assert nearest(given, known) == near


def test_messages():
    assert unknown("solver", "zzz", ["picard"]) == "unknown solver 'zzz'; known are picard"
    assert unknown("solver", "pickard", ["picard"]) == \
        "unknown solver 'pickard'; did you mean 'picard'? Known are picard"
    assert unknown("figure", "x", []) == "unknown figure 'x'; none is registered"
