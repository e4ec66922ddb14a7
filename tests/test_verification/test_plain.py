"""Numbers to JSON and back."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from verification.plain import plain, restore

numbers = st.one_of(st.integers(-2**53, 2**53), st.floats(), st.booleans(), st.none())
trees = st.recursive(numbers, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner,
                                                                                        max_size=3), max_leaves=8)


def same(a, b):
    if isinstance(a, float) and math.isnan(a):
        return isinstance(b, float) and math.isnan(b)
    if isinstance(a, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return type(a) is type(b) and a == b


@given(trees)
def test_round_trip_through_strict_json(tree):
    text = json.dumps(plain(tree), allow_nan=False)
    assert same(tree, restore(json.loads(text)))


def test_arrays_and_scalars():
    assert plain({"a": np.arange(3), "b": np.float32(0.5), "c": torch.tensor([1.0, math.inf]), "d": (1, np.int64(2)),
                  "e": np.bool_(True), "f": torch.ones((), requires_grad=True)}) == {
        "a": [0, 1, 2], "b": 0.5, "c": [1.0, "Infinity"], "d": [1, 2], "e": True, "f": 1.0}


def test_what_is_no_data_is_refused_with_its_place():
    with pytest.raises(TypeError, match=r"record\['rows'\]\[1\] is a object"):
        plain({"rows": [1, object()]}, "record")
