"""Explicit networks with the kernels of a DEQ: existence, all solutions, least depth, thresholds, proofs of absence."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import sympy
from flint import arb

import analysis
from analysis.rmt import identities, released
from analysis.rmt.explicit import explicit_coefficients
from analysis.rmt.hard_tanh import conjugate_ratio
from analysis.rmt.networks import identity_defect, leaky_layer, scale_free
from analysis.rmt.partitions import KAP, SolutionSet, deq_ratios, left_sum, minimal_partition, steepest_ratios
from verification.context import Context
from verification.evidence import Evidence, Method, Subject, holds_if, within
from verification.methods.interval import Certainty, interval_evidence, less, precision
from verification.methods.symbolic import identities as exact
from verification.registry import Topic
from verification.verdict import Verdict

TOPIC = Topic("rmt-equivalent-networks", "Explicit networks with the kernels of a deep equilibrium model")
#: Residuals chain about a dozen quadratures, each good to 1e-14.
CHAINED = 1e-12


def _zeros(*groups: dict[str, sympy.Expr]) -> dict[str, bool]:
    return {name: value == 0 for group in groups for name, value in group.items()}


@TOPIC.claim(
    id="rmt-9c3d", title="R = 1 + kap P on both sides of the matching", source="deqproof, on [RMT] four equations",
    statement=r"Let $\kappa = 1 - 2/\pi$, $R = \gamma^2/(\tau_0^2\alpha_1)$, $P = 2\pi\tau_0^2\alpha_2/\alpha_1$, $Q = "
              r"\pi\tau_0^2\alpha_3/\alpha_1$. For every DEQ with $\phi(x) = sx + d|x|$, and by induction on layers "
              r"for every "
              r"network of such layers, $R = 1 + \kappa P$; a layer with ratio $r \to r'$ adds $(r'-r)/r^2$ to "
              r"$\kappa Q$.",
    expected=Verdict.PROVED,
    control=lambda context: [exact(_zeros(identities.deq_identity(sympy.Integer(1)),
                                          identities.layer_identity(sympy.Integer(1))),
                                   "kap replaced by 1")],
    control_note="kap = 1")
def ratio_identity(context: Context) -> list[Evidence]:
    """Sympy on symbols; the empty network has R = 1, P = Q = 0."""
    return [exact(_zeros(identities.deq_identity(), identities.layer_identity()),
                  "all variances, slopes and bends symbolic; induction step and DEQ", complete=True)]


def _reach(context: Context, *, wrong: bool) -> list[Evidence]:
    differences = identities.reach_identity() | identities.stationary_identity()
    if wrong:
        differences = {"floor without the factor": identities.reach_identity()
                       ["kap Q - (1 - 1/R) = k^2 (1 - A(2+k)) / ((1+k)(1-A)^2)"] + sympy.Symbol("k")}
    return [exact(_zeros(differences), "k > 0, 0 < A < 1/(1+k), symbolic")]


@TOPIC.claim(
    id="own-f82a", title="Which depths can match a leaky-ReLU DEQ", source="deqproof",
    statement=r"A network of $L$ leaky-ReLU layers with the CK of a leaky-ReLU DEQ exists exactly if $m_L(R) \le "
              r"\kappa Q \le R - 1$, "
              r"with $m_L$ the left Riemann sum of $r^{-2}$ over the partition of $[1,R]$ whose ratios obey $t_{l+1} "
              r"= (1+t_l^2)/2$. "
              r"The upper bound always holds; some depth is enough exactly if $A < 1/(2+k)$, $A = \sigma_a^2 s^2$, $k "
              r"= \kappa d^2/s^2$ "
              r"(ReLU: $\sigma_a^2 < 4/(3 - 2/\pi) = 1.692\ldots$).",
    expected=Verdict.SUPPORTED, control=lambda context: _reach(context, wrong=True),
    control_note="a term added to the gap")
def reachable_depths(context: Context) -> list[Evidence]:
    """Factored gaps by algebra; the minimum against random partitions; the least depth against brute force."""
    rng = context.rng("partitions")
    beaten, drawn = 0, 0
    for _ in range(context.choose(10, 60, 400)):
        end, depth = float(rng.uniform(1.05, 4)), int(rng.integers(2, 6))
        lowest = minimal_partition(end, depth)
        for _ in range(60):
            inner = np.sort(np.clip(np.array(lowest[1:-1]) + rng.normal(size=depth - 1) * rng.choice([0.3, 0.02]), 1,
                                    end))
            beaten += left_sum([1.0, *inner, end]) < left_sum(lowest) - 1e-13
            drawn += 1
    limit = float(analysis.depth_limit())
    closed = abs(limit - 4 / (3 - 2 / math.pi))
    beyond = "no error"
    try:
        analysis.minimal_depth("relu", limit * 1.001, sigma_b2=1.0)
    except analysis.NoEquivalentNetwork as refusal:
        beyond = str(refusal)[:90]
    return [*_reach(context, wrong=False),
            Evidence(Method.PROPERTY, holds_if(beaten == 0), "random and near-minimal partitions, R in (1, 4), 2 to 5 "
                                                             "cells",
                     counts={"true": drawn - beaten, "false": beaten}),
            Evidence(Method.NUMERICAL, holds_if(closed < 1e-14 and beyond.startswith("no depth")),
                     "just beyond the limit the solver refuses", {"limit": limit, "message": beyond})]


def _certain_gap(strength: Fraction, depth: int) -> tuple[Certainty, arb, arb]:
    """Whether m_L(R) > kap Q for ReLU, rigorously: t_1 is enclosed by a bisection whose signs are certain."""
    kap = 1 - 2 / arb.pi()
    end, target = deq_ratios(arb(strength.numerator) / strength.denominator / 4, kap)
    low, high = Fraction(1), Fraction(3, 2)
    for _ in range(60):
        middle = (low + high) / 2
        product = arb(1)
        for ratio in steepest_ratios(arb(middle.numerator) / middle.denominator, depth):
            product *= ratio
        answer = less(product, end)
        if answer is Certainty.UNKNOWN:
            break
        low, high = (middle, high) if answer is Certainty.CERTAINLY else (low, middle)
    first = (arb(low.numerator) / low.denominator).union(arb(high.numerator) / high.denominator)
    total, start = arb(0), arb(1)
    for ratio in steepest_ratios(first, depth):
        total += (ratio - 1) / start
        start *= ratio
    return less(target, total), total, target


def _absence(strength: str, depth: int, subject: Subject = Subject.STATEMENT) -> Evidence:
    with precision(160):
        answer, total, target = _certain_gap(Fraction(strength), depth)
    note: dict[str, Any] = {"least sum": float(total.mid()), "kap Q": float(target.mid())}
    exists = {Certainty.CERTAINLY: Certainty.CERTAINLY_NOT, Certainty.CERTAINLY_NOT: Certainty.CERTAINLY}.get(answer,
                                                                                                              answer)
    item = interval_evidence(exists, f"ReLU, sigma_a^2 = {strength}, {depth} layers: kap Q >= m_L(R), in balls", **note)
    return Evidence(item.method, item.outcome, item.domain, item.numbers, subject=subject)


@TOPIC.claim(
    id="rmt-47be", title="Two leaky-ReLU layers match a ReLU DEQ", source="[RMT] matching of the ReLU DEQ; released "
                                                                          "code",
    statement=r"For every $\sigma_a^2 \in (0, 1)$, $\sigma_b^2 = 1 - \sigma_a^2$, the four equations of a two-layer "
              r"leaky-ReLU network "
              r"can be solved for the ReLU DEQ.",
    correction=r"They can for $\sigma_a^2 \le 0.852786533896\ldots$ and for no larger one; three layers do for every "
               r"$\sigma_a^2 < 1$ (up to $1.134901392913\ldots$ with a free $\sigma_b^2$).",
    expected=Verdict.CORRECTED, control=lambda context: [_absence("1/5", 1)], control_note="one layer at sigma_a^2 = "
                                                                                           "0.2",
    figures=("equivalent-depth",))
def two_layers(context: Context) -> list[Evidence]:
    """Rigorous absence above the threshold, rigorous presence below it and for three layers."""
    mended = [_absence(strength, 2, Subject.CORRECTION) for strength in ("1/100", "1/2", "0.852786533896")]
    mended += [_absence(strength, 3, Subject.CORRECTION) for strength in ("1/2", "9/10", "999999/1000000")]
    return [_absence("0.9", 2), _absence("0.852786533897", 2), *mended]


def _thresholds(context: Context, bend: str | None) -> list[Evidence]:
    depths = range(2, context.choose(3, 6, 12))
    evidence, listed = [], []
    for depth in depths:
        low, high = (analysis.depth_threshold(depth, digits=digits, bend=bend) for digits in (15, 30))
        gap = float(abs(low - high))
        # Independent of Newton on the two unknowns: the float solver's least depth on either side.
        sides = [analysis.minimal_depth("relu", float(high) + step, sigma_b2=1.0) for step in (-1e-9, 1e-9)]
        evidence.append(Evidence(Method.HIGH_PRECISION, holds_if(gap < 1e-14 and sides == [depth, depth + 1]),
                                 f"depth {depth}: 15 against 30 digits, least depth 1e-9 below and above",
                                 {"threshold": mpmath.nstr(high, 16), "difference": gap, "below": sides[0],
                                  "above": sides[1]}))
        listed.append(float(high))
    if bend is None:
        grid = np.linspace(0.01, 1.62, context.choose(30, 100, 600))
        context.record("rmt-depth", {
            "thresholds": listed, "limit": float(analysis.depth_limit()), "sigma_a2": grid.tolist(),
            "depth": [analysis.minimal_depth("relu", float(a2), sigma_b2=1.0) for a2 in grid]})
    return evidence


@TOPIC.claim(
    id="own-1f6c", title="Thresholds of the least depth to twelve digits", source="deqproof",
    statement=r"The ReLU DEQ needs $L$ leaky-ReLU layers up to $\sigma_a^2 = 0.852786533896$ ($L = 2$), "
              r"$1.134901392913$ (3), "
              r"$1.275302460740$ (4), $1.359277946288$ (5), whatever $\sigma_b^2$; the thresholds tend to $4/(3 - "
              r"2/\pi)$.",
    expected=Verdict.SUPPORTED, control=lambda context: _thresholds(context, "0.9"),
    control_note="thresholds of phi with d^2/s^2 = 0.9 claimed for ReLU", figures=("equivalent-depth",))
def thresholds(context: Context) -> list[Evidence]:
    """Two precisions, and the float solver on both sides."""
    printed = {2: "0.852786533896", 3: "1.134901392913", 4: "1.275302460740", 5: "1.359277946288"}
    worst = max(abs(float(analysis.depth_threshold(depth) - mpmath.mpf(text))) for depth, text in printed.items())
    return [*_thresholds(context, None),
            Evidence(Method.HIGH_PRECISION, within(worst, 6e-13, 0.1), "the printed digits",
                     {"largest difference": worst})]


def _all_solutions(context: Context, matched_at: float | None) -> list[Evidence]:
    worst, wrong, cases = 0.0, 0, 0
    for a2 in np.linspace(0.03, 0.84, context.choose(3, 10, 40)):
        eq = analysis.solve_equations("relu", float(a2))
        source = eq if matched_at is None else analysis.solve_equations("relu", matched_at)
        nets = analysis.equivalent_networks(source, depth=2)
        end, _, products = scale_free(eq, 1.0)
        grid = np.linspace(1, end, 4001)
        crossings = np.count_nonzero(np.diff(np.sign(grid - 1 + (end - grid) / grid**2 - KAP * products)))
        wrong += len(nets) != crossings
        for net in nets:
            got = explicit_coefficients(net.layers)
            worst = max(worst, *(abs(getattr(got, name) / getattr(eq, name) - 1)
                                 for name in ("alpha1", "alpha2", "alpha3", "gamma2")))
            cases += 1
    return [Evidence(Method.NUMERICAL, within(worst, CHAINED, 0.1), "forward recursion of each network by quadrature",
                     {"largest relative residual": worst, "tolerance": CHAINED}, counts={"networks": cases}),
            Evidence(Method.NUMERICAL, holds_if(wrong == 0), "number of solutions against sign changes on a fine grid",
                     {"disagreements": wrong})]


@TOPIC.claim(
    id="own-a07d", title="At depth two there are exactly two solutions", source="deqproof",
    statement=r"For $0 < \sigma_a^2 < 0.8527865$ exactly two networks of two leaky-ReLU layers (up to scale between "
              r"layers and signs) "
              r"have the CK of the ReLU DEQ; both solve the four equations to rounding by an independent recursion.",
    expected=Verdict.SUPPORTED, control=lambda context: _all_solutions(context, 0.3),
    control_note="networks matched at sigma_a^2 = 0.3 set beside DEQs at others", figures=("equivalent-branches",))
def all_solutions(context: Context) -> list[Evidence]:
    """Residuals and counts; both branches are recorded for the figure."""
    grid = np.concatenate([np.linspace(0.01, 0.84, context.choose(6, 30, 90)), [0.848, 0.8515, 0.85275]])
    branches = [[net.parameters for net in analysis.equivalent_networks(analysis.solve_equations("relu", float(a2)),
                                                                        depth=2)]
                for a2 in grid]
    fits = []
    for a2 in np.linspace(0.05, 0.95, context.choose(4, 19, 37)):
        fit = released.released_fit(analysis.solve_equations("relu", float(a2)))
        fits.append([float(a2), max(abs(value) for value in fit.residuals)])
    bends = [[[(d / s) ** 2 for s, d in net] for net in nets] for nets in branches]
    context.record("rmt-branches", {"sigma_a2": grid.tolist(), "bends": bends, "released": fits})
    return _all_solutions(context, None)


def _released(context: Context, *, ours: bool) -> list[Evidence]:
    evidence = []
    for a2 in context.choose((0.2, 0.8), (0.2, 0.5, 0.8, 0.85), (0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.85)):
        eq = analysis.solve_equations("relu", a2)
        if ours:
            residual, found = max(net.residual for net in analysis.equivalent_networks(eq, depth=2)), 2
        else:
            residual, found = max(abs(value) for value in released.released_fit(eq).residuals), 1
        # 1e-4 is generous: a local optimiser cannot reach rounding on a sum of squares.
        evidence.append(Evidence(Method.NUMERICAL, within(residual, 1e-4, 1.0), f"sigma_a^2 = {a2}",
                                 {"largest relative residual": residual, "solutions found": found}))
    return evidence


@TOPIC.claim(
    id="rmt-d14f", title="The released local optimiser finds the equivalent network", source="[RMT] released code",
    statement=r"SLSQP on the sum of squared residuals from $(1, 0.1, 1, 0.1)$ solves the four equations of two "
              r"leaky-ReLU layers "
              r"wherever they can be solved ($\sigma_a^2 \le 0.85$), to a relative residual of $10^{-4}$.",
    expected=Verdict.REFUTED, control=lambda context: _released(context, ours=True),
    control_note="the bracketed solver, which finds both solutions", figures=("equivalent-branches",))
def released_optimiser(context: Context) -> list[Evidence]:
    """At 0.8 and 0.85 it stops at residuals of some 1e-3, though two exact solutions exist."""
    return _released(context, ours=False)


def _sphere(context: Context, depth: int) -> list[Evidence]:
    rng = context.rng("rays")
    end, target = (float(value) for value in deq_ratios(0.9 / 4, KAP))
    solutions = SolutionSet.build(end, target, depth)
    if solutions.empty:
        return [Evidence(Method.NUMERICAL, holds_if(False), f"depth {depth} has no solution at all")]
    worst, reached, total = 0.0, 0, context.choose(20, 200, 2000)
    for _ in range(total):
        point = solutions.along(rng.normal(size=depth - 1))
        if point is not None:
            reached += 1
            worst = max(worst, abs(left_sum(point) - target))
    return [Evidence(Method.PROPERTY, holds_if(reached == total and worst <= solutions.slack),
                     "rays from the minimal partition in random directions, sigma_a^2 = 0.9, depth 3",
                     {"largest error of the sum": worst}, counts={"reached": reached, "drawn": total})]


@TOPIC.claim(
    id="own-2ce5", title="At depth three and beyond the solutions form a sphere", source="deqproof",
    statement=r"At the least depth $L \ge 3$ the networks with the DEQ's CK form a set of dimension $L - 2$ around "
              r"the minimal "
              r"partition: every ray from it, in the coordinates $\log r_l$, meets the set (at $\sigma_a^2 = 0.9$: a "
              r"closed curve).",
    expected=Verdict.SUPPORTED, control=lambda context: _sphere(context, 2), control_note="depth two at sigma_a^2 = "
                                                                                          "0.9")
def solution_sphere(context: Context) -> list[Evidence]:
    """Random rays."""
    return _sphere(context, 3)


def _hard_tanh(context: Context, uncentred_factor: float) -> list[Evidence]:
    worst = 0.0
    names = ("tanh", "erf", "sin", "hard_tanh")
    for name in names:
        for a2 in context.choose((0.2,), (0.05, 0.2, 0.5, 0.9), tuple(np.linspace(0.05, 0.95, 10))):
            net, = analysis.equivalent_networks(analysis.solve_equations(name, float(a2)), "hard_tanh")
            eq = analysis.solve_equations(name, float(a2) * uncentred_factor)
            got = explicit_coefficients(net.layers)
            worst = max(worst, abs(got.alpha1 / eq.alpha1 - 1), abs(got.gamma2 / eq.gamma2 - 1))
    return [Evidence(Method.NUMERICAL, within(worst, CHAINED, 0.1), "tanh, erf, sin, hard tanh; forward recursion",
                     {"largest relative residual": worst, "tolerance": CHAINED})]


def _increase(low: float, high: float, pieces: int) -> tuple[Certainty, int]:
    """Whether h'/h > 0, that is 2 pdf V - c q p > 0, on all of [low, high] in balls."""
    edges = np.linspace(low, high, pieces + 1)
    for a, b in itertools.pairwise(edges.tolist()):
        c = arb(float(a)).union(arb(float(b)))
        p, q = (c / arb(2).sqrt()).erf(), (c / arb(2).sqrt()).erfc()
        pdf = (-c * c / 2).exp() / (2 * arb.pi()).sqrt()
        spread = p - 2 * c * pdf + c * c * q
        answer = less(arb(0), 2 * pdf * spread - c * q * p)
        if answer is not Certainty.CERTAINLY:
            return answer, pieces
    return Certainty.CERTAINLY, pieces


@TOPIC.claim(
    id="rmt-83e6", title="An odd DEQ has exactly one hard-tanh equivalent of one layer, or none",
    source="[RMT] matching of the tanh DEQ",
    statement=r"For odd $\phi$ the ratio $\tau_0^2\alpha_1/\gamma^2$ of one layer $a\,\mathrm{clip}(x,-c,c)$ depends "
              r"on $c$ alone and increases "
              r"from $2/\pi$ to $1$: one solution for a DEQ inside, none outside, where deeper hard-tanh networks "
              r"reach $(2/\pi)^L$.",
    expected=Verdict.SUPPORTED, control=lambda context: _hard_tanh(context, 1.001),
    control_note="the DEQ's sigma_a^2 a tenth of a per cent off")
def hard_tanh(context: Context) -> list[Evidence]:
    """Monotonicity in balls on [0.4, 4], numerically beyond; residuals; a steep activation that needs more layers."""
    answer, pieces = _increase(0.4, 4.0, context.choose(800, 4000, 40000))
    clips = np.geomspace(0.01, 0.41, 300)
    rising = bool((np.diff([conjugate_ratio(float(c)) for c in clips]) > 0).all())
    steep = analysis.Activation("tanh(5x)", lambda x: np.tanh(5 * x), odd=True)
    eq = analysis.solve_equations(steep, 0.9)
    net, = analysis.equivalent_networks(eq, "hard_tanh")
    refused = False
    try:
        analysis.equivalent_networks(eq, "hard_tanh", depth=1)
    except analysis.NoEquivalentNetwork:
        refused = True
    return [*_hard_tanh(context, 1.0),
            interval_evidence(answer, "h'(c) > 0 for 0.4 <= c <= 4, in balls", pieces=pieces),
            Evidence(Method.NUMERICAL, holds_if(rising), "h increases on a grid of (0.01, 0.41)"),
            Evidence(Method.NUMERICAL, holds_if(refused and net.residual <= CHAINED),
                     "tanh(5x) at 0.9: one layer refused, the least depth matched",
                     {"ratio": eq.alpha1 / eq.gamma2, "depth": net.depth, "residual": net.residual})]


def _defects(context: Context, names: tuple[str, ...], wanted: bool) -> list[Evidence]:
    evidence, rows = [], []
    for name in names:
        values = []
        for a2 in (0.1, 0.2, 0.5, 0.9):
            defect = identity_defect(analysis.solve_equations(name, a2))
            values.append(defect)
        precise = float(identity_defect(analysis.solve_equations(name, 0.2, digits=15)))
        rows.append({"name": name, "defects": values})
        nonzero = min(abs(value) for value in values) > 1e-6 and abs(precise - values[1]) < 1e-11
        evidence.append(Evidence(Method.HIGH_PRECISION, holds_if(nonzero is wanted), f"{name}, sigma_a^2 = 0.1 ... 0.9",
                                 {"defect at 0.2": precise, "smallest": min(values, key=abs)}))
    context.record("rmt-defects", {"sigma_a2": [0.1, 0.2, 0.5, 0.9], "rows": rows})
    return evidence


@TOPIC.claim(
    id="own-7b90", title="No leaky-ReLU network of any depth has the CK of other DEQs", source="deqproof",
    statement=r"For softplus, ELU, swish, tanh, erf and sin the defect $R - 1 - \kappa P$ of the DEQ is not zero, "
              r"while it is zero for "
              r"every leaky-ReLU network: none of any depth has the same CK.",
    expected=Verdict.SUPPORTED, control=lambda context: _defects(context, ("leaky_relu",), True),
    control_note="the leaky ReLU, whose defect is zero")
def identity_defects(context: Context) -> list[Evidence]:
    """Defects in float64 and at 15 digits."""
    return _defects(context, ("softplus", "elu", "swish", "tanh", "erf", "sin")[:context.choose(2, 6, 6)], True)


def _tangent(context: Context, kind: str) -> list[Evidence]:
    evidence = []
    for a2, depth in ((0.2, 3), (0.9, 4)):
        eq = analysis.solve_equations("relu", a2)
        nets = analysis.equivalent_networks(eq, depth=depth, kind=kind)
        worst = 0.0
        for net in nets:
            got = explicit_coefficients(net.layers, first_layer_trained=False)
            worst = max(worst, *(abs(getattr(got, name) / getattr(eq, name) - 1)
                                 for name in ("beta1", "beta2", "beta3", "kappa2")))
        evidence.append(Evidence(Method.NUMERICAL, within(worst, CHAINED, 0.5), f"sigma_a^2 = {a2}, {depth} layers",
                                 {"largest relative residual": worst, "solutions": len(nets)}))
    return evidence


@TOPIC.claim(
    id="own-4d88", title="Leaky-ReLU networks with the NTK of a ReLU DEQ", source="deqproof",
    statement=r"Three leaky-ReLU layers at $\sigma_a^2 = 0.2$ and four at $0.9$ have the NTK of the ReLU DEQ (readout "
              r"and recurrent "
              r"weights trained; input weights frozen on both sides): all of $\beta_1, \beta_2, \beta_3, \kappa^2$ "
              r"agree to rounding.",
    expected=Verdict.SUPPORTED, control=lambda context: _tangent(context, "ck"),
    control_note="networks matched to the CK, whose NTK differs")
def tangent_matching(context: Context) -> list[Evidence]:
    """Residuals by the forward recursion."""
    return _tangent(context, "ntk")


def _recursion(wrong: bool, context: Context) -> list[Evidence]:
    rng = context.rng("recursion")
    worst = 0.0
    for _ in range(context.choose(3, 12, 60)):
        layers = [(float(rng.uniform(0.4, 1.4)), float(rng.uniform(0, 1.2))) for _ in range(int(rng.integers(1, 5)))]
        got = explicit_coefficients([leaky_layer(s, d) for s, d in layers], 1.3)
        parameters = tuple(value for s, d in layers for value in (s + d, s - d * (0.999 if wrong else 1)))
        hand = released.leaky_coefficients(parameters, 1.3)
        worst = max(worst, float(np.max(np.abs(hand / np.maximum([got.alpha1, got.alpha2, got.alpha3, got.gamma2],
                                                                 1e-9) - 1))))
    return [Evidence(Method.NUMERICAL, within(worst, 1e-11, 0.1), "random leaky networks of one to four layers, tau_0 "
                                                                  "= 1.3",
                     {"largest relative difference": worst})]


@TOPIC.claim(
    id="own-06c2", title="The forward recursion of explicit networks, two ways", source="deqproof",
    statement=r"The recursion of $(\alpha_1,\alpha_2,\alpha_3,\gamma^2)$ by quadrature agrees with its closed form "
              r"for leaky-ReLU layers.",
    expected=Verdict.SUPPORTED, control=lambda context: _recursion(True, context),
    control_note="one slope off by a thousandth of d")
def recursion(context: Context) -> list[Evidence]:
    """Random networks."""
    return _recursion(False, context)
