"""The formal proofs hold, and their engines notice falsified statements."""

from collections import Counter

import pytest

from analysis.symbolic import chain_rule, jets, noncommuting


@pytest.mark.parametrize("order", [1, 2, 3])
def test_proposition_1_index_free(order):
    assert chain_rule.lower_order_part("uvw"[:order]) == chain_rule.PROPOSITION_1[order]
    wrong = Counter(chain_rule.PROPOSITION_1[order])
    wrong[chain_rule.term((), "uvw"[:order])] += 1
    assert chain_rule.lower_order_part("uvw"[:order]) != wrong


def test_terms_are_counted_by_faa_di_bruno():
    # Partitions of m letters into blocks, where each singleton is either a z-leg or an x-direction.
    # Order 3: 8 from three singletons, 3 * 2 from a pair and a singleton, 1 triple.
    assert sum(chain_rule.total_derivative("uvw").values()) == 15
    assert [chain_rule.highest_order(chain_rule.lower_order_part("abcdef"[:m])) for m in range(1, 7)] == list(range(6))
    with pytest.raises(ValueError, match="distinct"):
        chain_rule.total_derivative("uu")


@pytest.mark.parametrize(("n", "d", "order"), [(1, 1, 3), (2, 1, 3), (1, 2, 2)])
def test_proposition_1_in_components(n, d, order):
    residuals = jets.proposition_1_residuals(n, d, order)
    assert residuals
    assert all(value == 0 for value in residuals)


def test_component_check_notices_a_missing_term(monkeypatch):
    monkeypatch.setattr(jets, "printed_bracket", lambda js, fed: fed([(j,) for j in js], []) if len(js) > 1 else 0)
    assert any(value != 0 for value in jets.proposition_1_residuals(1, 1, 2))


@pytest.mark.parametrize("proof", [noncommuting.first_order_induction, noncommuting.second_order_induction,
                                   noncommuting.preconditioned_induction, noncommuting.bilinear_gap,
                                   noncommuting.norm_sums], ids=lambda proof: proof.__name__)
def test_noncommuting_identities(proof):
    checks = proof()
    assert checks
    assert [name for name, true in checks.items() if not true] == []


def test_the_order_of_factors_matters():
    assert not noncommuting._zero(noncommuting.J * noncommuting.B - noncommuting.B * noncommuting.J)
    assert noncommuting.partial_sums(1, 1)[1] == noncommuting.J + 1
