"""The computer algebra: identities hold, and stop holding when a factor is changed."""

import pytest
import sympy as sp

from analysis.rmt import identities


@pytest.mark.parametrize("name", ["deq_identity", "layer_identity", "reach_identity", "stationary_identity",
                                  "equations_from_expansion"])
def test_identities_hold_exactly(name):
    differences = getattr(identities, name)()
    assert differences
    assert all(value == 0 for value in differences.values()), differences


def test_the_expansion_of_a_generic_polynomial():
    differences = identities.conjugate_expansion(4)
    assert all(value == 0 for value in differences.values()), differences


def test_changed_factors_are_noticed():
    assert identities.deq_identity(sp.Integer(1))["R = 1 + kap P"] != 0
    assert identities.layer_identity(sp.Integer(1))["defect is unchanged"] != 0
    assert identities.equations_from_expansion(dropped_factor=True)["alpha_2"] != 0
