"""Any way to write f, any rule, order and nesting: right or refused, never wrong; and eager autograd never refuses."""

import os
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.test_deq.test_gradients.systems import trial


@given(st.integers(0, 2**31))
@settings(max_examples=15)
def test_right_or_refused(seed: int):
    verdict, what = trial(seed)
    assert verdict != "wrong", what


@pytest.mark.slow
def test_many_systems():
    """As many as the environment's DEQPROOF_FUZZ says, from the seed DEQPROOF_FUZZ_FROM on."""
    first, count = (int(os.environ.get(name, default)) for name, default in (("DEQPROOF_FUZZ_FROM", 0),
                                                                            ("DEQPROOF_FUZZ", 1000)))
    counts, wrong = Counter(), []
    for seed in range(first, first + count):
        verdict, what = trial(seed)
        counts[verdict] += 1
        if verdict == "wrong":
            wrong.append(what)
    print(dict(counts))
    assert not wrong, "\n".join(wrong[:20])
