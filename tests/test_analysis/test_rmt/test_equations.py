"""The four equations: roots, uniqueness, edges, refusals, scaling, high precision."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import analysis
from analysis.errors import NoSolution, NotWellPosed, SeveralSolutions
from analysis.gaussian import moments
from analysis.rmt.tau import solve_tau

FIELDS = ("tau", "alpha1", "alpha2", "alpha3", "alpha4", "gamma2", "beta1", "beta2", "beta3", "kappa2", "shift")
variances = st.floats(0.02, 0.95)


@given(variances, st.floats(0.2, 3.0))
def test_relu_in_closed_form(a2, tau0):
    """tau^2 = a2 tau^2 (1 - 1/pi)/2 + b2 tau0^2, g1 = 1/4, g2 = 1/(2 pi tau^2), g4 = 1 - 1/pi."""
    eq = analysis.solve_equations("relu", a2, tau0)
    b2, half = 1 - a2, (1 - 1 / math.pi) / 2
    tau2 = b2 * tau0**2 / (1 - a2 * half)
    alpha1 = b2 / 4 / (1 - a2 / 4)
    alpha4 = b2 / (1 - a2 * half)
    g2 = 1 / (2 * math.pi * tau2)
    expected = {"tau": math.sqrt(tau2), "alpha1": alpha1, "alpha4": alpha4, "gamma2": half * tau2,
                "alpha2": g2 / 4 * alpha4**2 / (1 - a2 / 4), "alpha3": g2 / 2 * (a2 * alpha1 + b2) ** 2 / (1 - a2 / 4),
                "kappa2": half * tau2 / (1 - a2 / 2)}
    for name, value in expected.items():
        assert getattr(eq, name) == pytest.approx(value, rel=1e-13), name


@pytest.mark.parametrize("name", ["relu", "tanh", "softplus", "elu", "erf", "swish", "sin", "hard_tanh", "leaky_relu"])
@pytest.mark.parametrize("a2", [0.1, 0.7])
def test_the_root_solves_its_equation_and_is_known_to_be_the_only_one(name, a2):
    eq = analysis.solve_equations(name, a2, 1.3)
    at = moments(name, eq.tau)
    assert eq.tau**2 == pytest.approx(a2 * at.variance + (1 - a2) * 1.3**2, rel=1e-14)
    roots = analysis.solve_tau(name, a2, 1.3)
    assert roots.proved
    assert "< 1" in roots.reason


@pytest.mark.parametrize("name", ["relu", "tanh", "softplus"])
def test_the_scan_of_an_unknown_phi_finds_the_same_root(name):
    known = analysis.as_activation(name)
    scanned = analysis.solve_tau(lambda x: known(x), 0.7, 1.3)
    assert not scanned.proved
    assert scanned.tau == pytest.approx(analysis.solve_tau(name, 0.7, 1.3).tau, rel=1e-12)


@pytest.mark.parametrize("name", ["relu", "elu"])
def test_floats_agree_with_thirty_digits(name):
    fast, slow = analysis.solve_equations(name, 0.3), analysis.solve_equations(name, 0.3, digits=30)
    for field in FIELDS:
        assert abs(getattr(fast, field) - getattr(slow, field)) <= 1e-12 * (1 + abs(getattr(fast, field))), field


def test_two_precisions_agree_to_the_lower():
    low, high = (analysis.solve_equations("tanh", 0.2, digits=digits) for digits in (15, 30))
    for field in FIELDS:
        assert abs(getattr(low, field) - getattr(high, field)) <= 1e-15 * (1 + abs(getattr(high, field))), field


@given(variances, st.floats(0.3, 3.0))
def test_scaling_with_tau0(a2, tau0):
    """phi_c(x) = c phi(x / c) at c tau0 is the network of phi at tau0, all covariances scaled by c^2."""
    c = 1.7
    base = analysis.solve_equations("softplus", a2, tau0)
    scaled = analysis.solve_equations(lambda x: c * np.logaddexp(0.0, x / c), a2, c * tau0)
    for field, power in (("tau", 1), ("alpha1", 0), ("alpha4", 0), ("gamma2", 2), ("alpha2", -2), ("alpha3", -2)):
        assert getattr(scaled, field) == pytest.approx(c**power * getattr(base, field), rel=1e-10), field


def test_a_users_own_phi_in_one_line():
    """E max(xi, 0)^1.6 = 2^(-0.2) Gamma(1.3) / sqrt(pi) gives the variance of max(tau xi, 0)^0.8."""
    eq = analysis.solve_equations(lambda x: np.maximum(x, 0) ** 0.8, 0.1)
    absolute = [2 ** (power / 2 - 1) * math.gamma((power + 1) / 2) / math.sqrt(math.pi) for power in (0.8, 1.6)]
    # The slope of the integrand is infinite at 0: panels there shrink, and a hundred times the usual rounding is left.
    assert eq.gamma2 == pytest.approx(eq.tau**1.6 * (absolute[1] - absolute[0] ** 2), rel=1e-12)
    assert "sign changes" in eq.uniqueness


@given(st.floats(-3, 3))
def test_a_constant_added_to_phi_changes_nothing(constant):
    plain = analysis.solve_equations("relu", 0.4)
    moved = analysis.solve_equations(lambda x: np.maximum(x, 0) + constant, 0.4)
    for field in ("tau", "alpha1", "alpha2", "alpha3", "gamma2", "beta3"):
        assert getattr(moved, field) == pytest.approx(getattr(plain, field), rel=1e-12)
    assert moved.shift == pytest.approx(plain.shift + constant, abs=1e-12)


def test_several_roots_are_reported_and_chosen_among():
    """For phi = x^3, V = 15 q^3: the cubic 15 a2 q^3 - q + b2 = 0 has two positive roots below its fold."""
    a2 = 0.005
    truth = sorted(root.real for root in np.roots([15 * a2, 0, -1, 1 - a2]) if root.real > 0)
    roots = analysis.solve_tau(lambda x: x**3, a2)
    assert np.square(roots.tau) == pytest.approx(truth, rel=1e-12)
    assert roots.slopes[0] < 1 < roots.slopes[1]
    with pytest.raises(analysis.SeveralSolutions, match=r"roots .*stable.*unstable.*root=0"):
        analysis.solve_equations(lambda x: x**3, a2)
    assert analysis.solve_equations(lambda x: x**3, a2, root=0).tau == roots.tau[0]
    with pytest.raises(analysis.NotWellPosed, match="1 - sigma_a2 g4 / 2"):
        analysis.solve_equations(lambda x: x**3, a2, root=1)
    with pytest.raises(ValueError, match="root = 2"):
        analysis.solve_equations(lambda x: x**3, a2, root=2)


def test_the_edge_of_a_cubic_is_its_fold():
    """Fold of 15 a2 q^3 - q + b2: q = (45 a2)^(-1/2) and 2 q / 3 = 1 - a2."""
    edge = analysis.well_posedness_edge(lambda x: x**3)
    assert edge.kind == "fold"
    a2 = edge.sigma_a2
    assert 2 / 3 * (45 * a2) ** -0.5 == pytest.approx(1 - a2, rel=1e-10)
    assert analysis.solve_tau(lambda x: x**3, a2 * (1 - 1e-6)).tau
    with pytest.raises(analysis.NoSolution, match="well_posedness_edge"):
        analysis.solve_tau(lambda x: x**3, a2 * (1 + 1e-6))


@pytest.mark.parametrize("name", ["relu", "tanh", "softplus", "elu", "erf"])
def test_the_edge_of_a_coupled_family_is_one(name):
    edge = analysis.well_posedness_edge(name)
    assert (edge.sigma_a2, edge.kind) == (1.0, "no injection")
    analysis.solve_equations(name, 1 - 1e-9)
    with pytest.raises(analysis.NotWellPosed, match="edge is sigma_a2 = 1"):
        analysis.solve_equations(name, 1.0)


def test_the_edge_of_relu_with_its_own_injection():
    """sigma_a2 (1 - 1/pi)/2 = 1; the diagonal of the NTK breaks down earlier, at sigma_a2/2 = 1."""
    edge = analysis.well_posedness_edge("relu", sigma_b2=0.5)
    assert edge.kind == "runaway"
    assert edge.sigma_a2 == pytest.approx(2 / (1 - 1 / math.pi), rel=1e-7)  # the scan ends at tau^2 = 1e8 tau0^2
    assert edge.chaos_sigma_a2 == pytest.approx(2.0, rel=1e-12)
    eq = analysis.solve_equations("relu", 2.2, sigma_b2=0.5)
    with pytest.raises(analysis.NotWellPosed, match="kappa2 does not exist"):
        _ = eq.kappa2
    with pytest.raises(analysis.NoSolution):
        analysis.solve_equations("relu", 3.0, sigma_b2=0.5)


def test_edge_of_chaos_of_erf():
    """Within the coupled family erf, whose slope exceeds one, turns chaotic before sigma_a2 = 1."""
    edge = analysis.well_posedness_edge("erf")
    eq = analysis.solve_equations("erf", edge.chaos_sigma_a2 - 1e-4)
    assert eq.kappa2 > 0
    late = analysis.solve_equations("erf", edge.chaos_sigma_a2 + 1e-4)
    with pytest.raises(analysis.NotWellPosed):
        _ = late.kappa2


@pytest.mark.parametrize("kwargs", [{"sigma_a2": -0.1}, {"sigma_a2": math.nan}, {"sigma_a2": 0.1, "tau0": 0.0},
                                    {"sigma_a2": 0.1, "sigma_b2": 0.0}])
def test_parameters_out_of_range_are_refused(kwargs):
    with pytest.raises(ValueError, match="must be"):
        analysis.solve_equations("relu", **kwargs)


def test_growth_is_refused():
    with pytest.raises(analysis.GrowsTooFast):
        analysis.solve_equations(lambda x: np.exp(x * x), 0.1)
    with pytest.raises(analysis.NoSolution):
        analysis.solve_equations(np.exp, 0.2)


@pytest.mark.parametrize("gap", [1e-1, 1e-2, 1e-3, 1e-4, 1e-5])
def test_a_close_pair_of_roots_is_two_roots_and_named(gap):
    """phi = x^2 has Var = 2 q^2: q = 2 a q^2 + c, roots (1 -+ sqrt(1 - 8 a c)) / (4 a)."""
    a = (1 - gap**2) / 8
    found = solve_tau(lambda x: x * x, a, 1.0, sigma_b2=1.0)
    squares = np.square(found.tau)
    assert squares == pytest.approx([(1 - gap) / (4 * a), (1 + gap) / (4 * a)], rel=1e-14 / gap)
    if gap < 2e-3:
        assert "close pair beside a fold" in found.reason
    with pytest.raises(SeveralSolutions, match="root=0") as refusal:
        analysis.solve_equations(lambda x: x * x, a, 1.0, sigma_b2=1.0)
    first, second = str(refusal.value).split("has roots ")[1].split(" (stable), ")
    assert float(first) < float(second.split(" ")[0])  # told apart in print
    eq = analysis.solve_equations(lambda x: x * x, a, 1.0, sigma_b2=1.0, root=0)
    assert eq.alpha4 == pytest.approx(1 / gap, rel=1e-13 / gap**2)  # 1 - a g_4 / 2 = gap


def test_a_pair_that_doubles_cannot_tell_is_refused():
    a = (1 - 1e-14) / 8
    with pytest.raises((NotWellPosed, NoSolution, SeveralSolutions)):
        analysis.solve_equations(lambda x: x * x, a, 1.0, sigma_b2=1.0)


def test_no_pair_beyond_the_fold():
    with pytest.raises(NoSolution):
        solve_tau(lambda x: x * x, (1 + 1e-6) / 8, 1.0, sigma_b2=1.0)
