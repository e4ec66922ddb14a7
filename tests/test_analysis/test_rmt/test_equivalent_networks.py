"""Equivalent networks: residuals by an independent recursion, completeness by brute force, refusals."""

import itertools
import math

import mpmath
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import analysis
from analysis.rmt.explicit import explicit_coefficients
from analysis.rmt.hard_tanh import clipped_mass, clipped_variance, conjugate_ratio, tangent_ratio
from analysis.rmt.networks import identity_defect, leaky_layer, scale_free
from analysis.rmt.partitions import KAP, SolutionSet, deq_ratios, left_sum, minimal_partition, steepest_ratios
from analysis.rmt.tangent import tangent_residuals

# The recursion chains a dozen quadratures, each good to 1e-14.
CHAINED = 1e-12


def forward_by_hand(parameters, tau0):
    """The recursion of a leaky network in closed form, without quadrature."""
    a1, a2, a3, a4, tau2 = 1.0, 0.0, 0.0, 1.0, tau0**2
    for s, d in parameters:
        g1, g2, half_g4 = s * s, 2 * d * d / (math.pi * tau2), s * s + KAP * d * d
        a1, a2, a3, a4, tau2 = g1 * a1, g1 * a2 + g2 / 4 * a4**2, g1 * a3 + g2 / 2 * a1**2, half_g4 * a4, half_g4 * tau2
    return a1, a2, a3, tau2


@given(st.floats(0.01, 0.99), st.floats(0.3, 3.0), st.integers(3, 5))
def test_every_leaky_network_returned_solves_the_four_equations(a2, tau0, depth):
    eq = analysis.solve_equations("relu", a2, tau0)
    for net in analysis.equivalent_networks(eq, "leaky_relu", depth):
        assert net.residual <= CHAINED
        got = forward_by_hand(net.parameters, tau0)
        assert got == pytest.approx((eq.alpha1, eq.alpha2, eq.alpha3, eq.gamma2), rel=CHAINED)
        assert net.depth == depth
        assert net.dimension == depth - 2


@given(st.floats(0.02, 0.85))
def test_depth_two_has_exactly_two_solutions(a2):
    """Brute force: r -> S(1, r, R) crosses its target twice on a fine grid, where the solver says."""
    eq = analysis.solve_equations("relu", a2)
    nets = analysis.equivalent_networks(eq, depth=2)
    assert len(nets) == 2
    end, _, products = scale_free(eq, 1.0)
    grid = np.linspace(1, end, 20001)
    signs = np.sign((grid - 1) + (end - grid) / grid**2 - KAP * products)
    crossings = np.flatnonzero(signs[1:] != signs[:-1])
    roots = sorted(1 + KAP * (net.parameters[0][1] / net.parameters[0][0]) ** 2 for net in nets)
    assert len(crossings) == 2
    for index, root in zip(crossings, roots, strict=True):
        assert grid[index] - 1e-12 <= root <= grid[index + 1] + 1e-12


@given(st.floats(1.01, 4.0), st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_no_partition_beats_the_minimal_one(end, depth, number):
    lowest = minimal_partition(end, depth)
    least = left_sum(lowest)
    rng = np.random.default_rng(number)
    inner = np.sort(rng.uniform(1, end, (500, depth - 1)), axis=1)
    close = np.sort(np.clip(lowest[1:-1] + 0.03 * (end - 1) * rng.normal(size=(500, depth - 1)), 1, end), axis=1)
    for points in itertools.chain(inner, close):
        assert left_sum([1.0, *points, end]) >= least - 1e-14 * depth
    ratios = np.divide(lowest[1:], lowest[:-1])
    np.testing.assert_allclose(ratios, steepest_ratios(ratios[0], depth), rtol=1e-12)
    assert left_sum(minimal_partition(end, depth + 1)) < least
    assert least > 1 - 1 / end


@given(st.floats(0.05, 0.8), st.lists(st.floats(-1, 1), min_size=2, max_size=2))
def test_the_solution_set_of_depth_three_is_reached_along_rays(a2, direction):
    assume(max(map(abs, direction)) > 0.01)
    end, target = (float(value) for value in deq_ratios(a2 / 4, KAP))
    solutions = SolutionSet.build(end, target, 3)
    point = solutions.along(direction)
    if point is None:
        return_distance = 0.0
    else:
        return_distance = abs(left_sum(point) - target)
        assert list(point) == sorted(point)
        assert (point[0], point[-1]) == (1.0, end)
    assert return_distance <= solutions.slack
    assert len(solutions.representatives()) >= 3


@pytest.mark.parametrize("depth", [2, 3])
def test_thresholds_agree_with_bisection_on_the_least_depth(depth):
    threshold = analysis.depth_threshold(depth, digits=15)
    low, high = 0.5, 1.3
    for _ in range(38):
        middle = (low + high) / 2
        if analysis.minimal_depth("relu", middle, sigma_b2=1.0) > depth:
            high = middle
        else:
            low = middle
    # m_L and kap Q differ by rounding (1e-14 a few times), their difference has slope of order 0.05 in sigma_a2.
    assert abs(low - float(threshold)) <= 1e-11


def test_thresholds_of_two_precisions_agree_and_increase_to_the_limit():
    values = [analysis.depth_threshold(depth, digits=20) for depth in range(2, 7)]
    assert values == sorted(values)
    assert values[-1] < analysis.depth_limit(digits=20)
    assert abs(values[0] - analysis.depth_threshold(2, digits=40)) < mpmath.mpf(10) ** -19
    assert values[0] < 1 < values[1]  # with sigma_b2 = 1 - sigma_a2 three layers always do, two do not


def test_beyond_the_limit_no_depth_is_enough():
    limit = float(analysis.depth_limit())
    with pytest.raises(analysis.NoEquivalentNetwork, match="no depth is enough") as error:
        analysis.minimal_depth("relu", limit + 0.01, sigma_b2=1.0)
    assert error.value.certificate["target"] < error.value.certificate["floor"]
    assert analysis.minimal_depth("relu", limit - 0.05, sigma_b2=1.0) > 10


@pytest.mark.parametrize(("depth", "match"), [(1, r"reach exactly \["), (2, "needs more layers")])
def test_too_few_layers_are_refused_with_the_range(depth, match):
    eq = analysis.solve_equations("relu", 0.9)
    with pytest.raises(analysis.NoEquivalentNetwork, match=match) as error:
        analysis.equivalent_networks(eq, depth=depth)
    certificate = error.value.certificate
    assert not certificate["low"] <= certificate["target"] <= certificate["high"]


@given(st.floats(1e-6, 8.0))
def test_hard_tanh_integrals(clip):
    phi = analysis.as_activation("hard_tanh")
    x = analysis.expect(lambda x: np.minimum(x * x, clip * clip), 1.0, kinks=(-clip, clip))
    assert clipped_variance(clip) == pytest.approx(x.value, rel=1e-12)
    assert clipped_mass(clip) == pytest.approx(math.erf(clip / math.sqrt(2)))
    assert phi.odd


def test_hard_tanh_ratios_increase_over_their_range():
    clips = np.geomspace(1e-3, 5.5, 4000)
    for ratio, low in ((conjugate_ratio, 2 / math.pi), (tangent_ratio, 0.0)):
        values = np.array([ratio(clip) for clip in clips])
        assert (np.diff(values) > 0).all()
        assert low < values[0] < low + 2e-3
        assert 1 - 1e-6 < values[-1] < 1


@pytest.mark.parametrize(("name", "tau0"), [("tanh", 1.4), ("erf", 1.4), ("hard_tanh", 1.4), ("sin", 1.0)])
def test_hard_tanh_matches_odd_activations(name, tau0):
    for a2 in (0.05, 0.4, 0.9):
        eq = analysis.solve_equations(name, a2, tau0)
        conjugate, = analysis.equivalent_networks(eq, "hard_tanh")
        tangent, = analysis.equivalent_networks(eq, "hard_tanh", kind="ntk", first_layer_trained=True)
        assert conjugate.residual <= CHAINED
        assert tangent.residual <= CHAINED
        assert conjugate.depth == tangent.depth == 1
        assert conjugate.parameters != tangent.parameters


def test_one_hard_tanh_layer_with_frozen_input_has_its_ck_for_ntk_and_may_not_reach():
    eq = analysis.solve_equations("hard_tanh", 0.9, 1.4)
    assert eq.beta1 * 1.4**2 / eq.kappa2 < 2 / math.pi
    with pytest.raises(analysis.NoEquivalentNetwork, match="first_layer_trained=True"):
        analysis.equivalent_networks(eq, "hard_tanh", kind="ntk")


def test_a_steep_odd_activation_needs_several_hard_tanh_layers():
    eq = analysis.solve_equations(analysis.Activation("steep", lambda x: np.tanh(5 * x), odd=True), 0.9)
    ratio = eq.alpha1 / eq.gamma2
    net, = analysis.equivalent_networks(eq, "hard_tanh")
    assert (2 / math.pi) ** net.depth < ratio < (2 / math.pi) ** (net.depth - 1)
    assert net.residual <= CHAINED
    with pytest.raises(analysis.NoEquivalentNetwork, match="more nonlinear than that"):
        analysis.equivalent_networks(eq, "hard_tanh", depth=1)


@pytest.mark.parametrize("name", ["softplus", "elu", "swish", "tanh"])
def test_a_defect_of_the_identity_rules_leaky_networks_out(name):
    eq = analysis.solve_equations(name, 0.2)
    with pytest.raises(analysis.NoEquivalentNetwork, match="R = 1 \\+ kap P") as error:
        analysis.equivalent_networks(eq, "leaky_relu")
    precise = analysis.solve_equations(name, 0.2, digits=15)
    assert error.value.certificate["defect"] == pytest.approx(float(identity_defect(precise)), abs=1e-12)
    assert abs(error.value.certificate["defect"]) > 1e-3


@given(st.lists(st.tuples(st.floats(0.3, 2), st.floats(0, 2)), min_size=1, max_size=5), st.floats(0.3, 3))
def test_every_leaky_network_obeys_the_identity(parameters, tau0):
    got = explicit_coefficients([leaky_layer(s, d) for s, d in parameters], tau0)
    end, energy, products = scale_free(got, tau0)
    assert end == pytest.approx(1 + KAP * energy, rel=1e-11)
    bends = np.array([(d / s) ** 2 for s, d in parameters])
    partition = np.concatenate([[1], np.cumprod(1 + KAP * bends)])
    assert KAP * products == pytest.approx(left_sum(partition), rel=1e-11, abs=1e-13)
    for trained in (True, False):
        got = explicit_coefficients([leaky_layer(s, d) for s, d in parameters], tau0, first_layer_trained=trained)
        if got.beta1:
            numbers = (KAP * 2 * math.pi * tau0**2 * got.beta2 / got.beta1, math.pi * tau0**2 * got.beta3 / got.beta1,
                       got.kappa2 / (tau0**2 * got.beta1))
            assert np.max(np.abs(tangent_residuals(bends, numbers, trained))) <= 1e-10 * end * (1 + bends.max()) ** 5


@pytest.mark.parametrize(("a2", "depth"), [(0.2, 3), (0.9, 4)])
def test_ntk_matching_by_leaky_networks(a2, depth):
    eq = analysis.solve_equations("relu", a2, 0.8)
    nets = analysis.equivalent_networks(eq, "leaky_relu", depth, kind="ntk")
    for net in nets:
        assert net.residual <= CHAINED
    with pytest.raises(analysis.NoEquivalentNetwork, match="a search, not a proof"):
        analysis.equivalent_networks(eq, "leaky_relu", 2, kind="ntk")


def test_ntk_of_an_odd_deq_is_refused_to_leaky_networks():
    with pytest.raises(analysis.NoEquivalentNetwork, match="beta_2 = 0"):
        analysis.equivalent_networks(analysis.solve_equations("tanh", 0.2), "leaky_relu", kind="ntk")


def test_a_linear_deq():
    eq = analysis.solve_equations("identity", 0.3)
    net, = analysis.equivalent_networks(eq, "leaky_relu")
    assert net.depth == 1
    assert net.parameters[0][1] == 0.0
    with pytest.raises(analysis.NoEquivalentNetwork, match="linear"):
        analysis.equivalent_networks(eq, "hard_tanh")


def test_other_refusals():
    relu, cosine = analysis.solve_equations("relu", 0.2), analysis.solve_equations("cos", 0.2)
    with pytest.raises(analysis.NoEquivalentNetwork, match="hard tanh is odd"):
        analysis.equivalent_networks(relu, "hard_tanh")
    with pytest.raises(analysis.NoEquivalentNetwork, match="alpha_1 = 0"):
        analysis.equivalent_networks(cosine, "leaky_relu")
    with pytest.raises(ValueError, match="unknown family"):
        analysis.equivalent_networks(relu, "relu6")
    with pytest.raises(ValueError, match="unknown kind"):
        analysis.equivalent_networks(relu, kind="nngp")
    with pytest.raises(ValueError, match="depth must be"):
        analysis.equivalent_networks(relu, depth=0)


def test_layers_are_centred_activations():
    for net in analysis.equivalent_networks(analysis.solve_equations("relu", 0.3, 1.2), depth=2):
        tau = 1.2
        for layer, shift in zip(net.layers, net.shifts, strict=True):
            assert abs(analysis.expect(layer, tau).value) <= 1e-14
            assert shift > 0
            tau = math.sqrt(analysis.expect(lambda x, layer=layer: layer(x) ** 2, tau).value)
        assert tau**2 == pytest.approx(analysis.solve_equations("relu", 0.3, 1.2).gamma2, rel=1e-12)


def test_matching_families_lists_a_depth_or_a_reason():
    relu, tanh = analysis.matching_families("relu", 0.2), analysis.matching_families("tanh", 0.2)
    assert (relu["leaky_relu", "ck"], relu["leaky_relu", "ntk"]) == (2, 3)
    assert "hard tanh is odd" in relu["hard_tanh", "ck"]
    assert (tanh["hard_tanh", "ck"], tanh["hard_tanh", "ntk"]) == (1, 1)
    assert "R = 1 + kap P" in tanh["leaky_relu", "ck"]
    steep = analysis.matching_families(lambda x: np.tanh(5 * x), 0.9)
    assert "kappa2 does not exist" in steep["hard_tanh", "ntk"]


def test_no_recurrence_needs_one_layer_and_gives_the_activation_itself():
    eq = analysis.solve_equations("relu", 0.0)
    net, = analysis.equivalent_networks(eq)
    assert net.depth == 1
    assert net.parameters[0] == pytest.approx((0.5, 0.5), rel=1e-7)  # the square root of a sum known to 1e-14
    assert net.residual <= 1e-7


def test_high_precision_records_are_accepted():
    nets = [analysis.equivalent_networks(analysis.solve_equations("relu", 0.2, digits=digits)) for digits in (None, 15)]
    np.testing.assert_allclose(nets[0][0].parameters, nets[1][0].parameters, rtol=1e-10)


def test_depths_beyond_any_cap_are_found_by_theory():
    """One per cent below the limit 98 layers are needed, by the thresholds in thirty digits too."""
    sigma_a2 = 0.99 * float(analysis.depth_limit())
    depth = analysis.minimal_depth("relu", sigma_a2, sigma_b2=0.5)
    assert depth == 98
    assert float(analysis.depth_threshold(depth - 1)) < sigma_a2 <= float(analysis.depth_threshold(depth))
    with pytest.raises(analysis.DepthNotDecided, match="more than 4096 layers"):
        analysis.minimal_depth("relu", (1 - 1e-5) * float(analysis.depth_limit()), sigma_b2=0.5)


def test_a_search_says_that_it_is_one():
    """The NTK of this DEQ has a network of nine layers, and none of fewer was ever found."""
    assert analysis.minimal_depth("relu", 1.3, sigma_b2=0.5, kind="ntk") == 9
    with pytest.raises(analysis.DepthNotDecided, match="a search, not a proof"):
        analysis.equivalent_networks(analysis.solve_equations("relu", 1.3, sigma_b2=0.5), depth=8, kind="ntk")
