"""The random search: nothing proved misses, a shrunk enclosure does, and what the law asks for is decided."""

import numpy as np
import pytest

from analysis.rigorous.certainty import Certainty
from verification.methods.certified_search import draw_system, law_ratios, search


def test_nothing_misses_and_the_mutant_does():
    honest = search(np.random.default_rng(7), 15)
    assert (honest.missed, honest.drawn) == (0, 15)
    assert honest.inside >= 13
    assert 0 < honest.widest < 1e-25
    shrunk = search(np.random.default_rng(7), 15, shrink=1e-6)
    assert shrunk.missed == honest.inside


def test_the_law_holds_and_its_mutant_fails():
    counts, worst = law_ratios(np.random.default_rng(3), 5, 4)
    assert counts[Certainty.CERTAINLY] == 5 * 4 * 2
    assert 0 < worst <= 1
    assert law_ratios(np.random.default_rng(3), 5, 4, exponent_shift=3)[0][Certainty.CERTAINLY_NOT] > 0


def test_draws_depend_on_the_generator_alone():
    one, two = (draw_system(np.random.default_rng(5), smallest_size=2) for _ in range(2))
    assert one.weight.shape[0] >= 2
    assert np.array_equal(one.weight, two.weight)
    assert np.array_equal(one.x, two.x)


@pytest.mark.slow
def test_ten_thousand_systems():
    found = search(np.random.default_rng(0), 10_000)
    assert found.missed == 0
    assert found.inside >= 9_000
