"""Explicit networks with the kernels of a DEQ: existence, all solutions, least depth, thresholds, proofs of absence."""

from __future__ import annotations

import math
from fractions import Fraction

import mpmath
import numpy as np
import sympy
from flint import arb

import analysis
from analysis.rmt import identities, released
from analysis.rmt.explicit import explicit_coefficients
from analysis.rmt.networks import scale_free
from analysis.rmt.partitions import KAP, SolutionSet, deq_ratios, left_sum, minimal_partition, steepest_ratios
from verification.claim import Reading
from verification.context import Context
from verification.evidence import Evidence, Method, Subject, holds_if, largest, within
from verification.methods.interval import Certainty, less, outcome, precision
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
    reading=Reading.OURS,
    reading_note="ours: beyond the paper",
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
    note = {"least sum": float(total.mid()), "kap Q": float(target.mid())}
    opposite = {Certainty.CERTAINLY: Certainty.CERTAINLY_NOT, Certainty.CERTAINLY_NOT: Certainty.CERTAINLY}
    return Evidence(Method.INTERVAL, outcome(opposite.get(answer, answer)),
                    f"ReLU, sigma_a^2 = {strength}, {depth} layers: kap Q >= m_L(R), in balls", note, subject=subject)


@TOPIC.claim(
    id="rmt-47be", title="Two leaky-ReLU layers match a ReLU DEQ", source="[RMT] matching of the ReLU DEQ; released "
                                                                          "code",
    statement=r"For every $\sigma_a^2 \in (0, 1)$, $\sigma_b^2 = 1 - \sigma_a^2$, the four equations of a two-layer "
              r"leaky-ReLU network "
              r"can be solved for the ReLU DEQ.",
    correction=r"They can for $\sigma_a^2 \le 0.852786533896\ldots$ and for no larger one; three layers do for every "
               r"$\sigma_a^2 < 1$ (up to $1.134901392913\ldots$ with a free $\sigma_b^2$).",
    quote="They prove a shallow explicit network can be carefully constructed to produce the same CK or NTK as the "
          "DEQ. [...] Demonstrated for commonly used ReLU and Tanh DEQs.",
    reading=Reading.OURS,
    reading_note="two layers of leaky ReLU, as in the released code; the summary says shallow",
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
    worst = largest(abs(float(analysis.depth_threshold(depth) - mpmath.mpf(text))) for depth, text in printed.items())
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
            worst = largest((worst, *(abs(getattr(got, name) / getattr(eq, name) - 1)
                                      for name in ("alpha1", "alpha2", "alpha3", "gamma2"))))
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


#: Variances at which the released code runs its networks or matches them.
AUTHORS = (0.1, 0.2, 0.3)


def _released(variances: tuple[float, ...]) -> list[Evidence]:
    evidence = []
    for a2 in variances:
        eq = analysis.solve_equations("relu", a2)
        residual, found = max(abs(value) for value in released.released_fit(eq).residuals), 1
        # 1e-4 is generous: a local optimiser cannot reach rounding on a sum of squares.
        evidence.append(Evidence(Method.NUMERICAL, within(residual, 1e-4, 1.0), f"sigma_a^2 = {a2}",
                                 {"largest relative residual": residual, "solutions found": found}))
    return evidence


@TOPIC.claim(
    id="rmt-d14f", title="The released local optimiser finds the equivalent network", source="[RMT] released code",
    statement=r"At the variances that the authors use, $\sigma_a^2 = 0.1, 0.2, 0.3$, SLSQP on the sum of squared "
              r"residuals from $(1, 0.1, 1, 0.1)$ solves the four equations of two leaky-ReLU layers to a relative "
              r"residual of $10^{-4}$. It finds one of two solutions, and at $0.8$, which they never use, none.",
    reading=Reading.OURS,
    reading_note="released code, optimiser; the tolerance is ours",
    expected=Verdict.SUPPORTED, control=lambda context: _released((0.8,)),
    control_note="sigma_a^2 = 0.8, where two exact solutions exist and it stops short of both",
    figures=("equivalent-branches",))
def released_optimiser(context: Context) -> list[Evidence]:
    """Residuals at the authors' variances."""
    return _released(AUTHORS)


def _sphere(context: Context, depth: int) -> list[Evidence]:
    rng = context.rng("rays")
    end, target = (float(value) for value in deq_ratios(0.9 / 4, KAP))
    solutions = SolutionSet.build(end, target, depth)
    if solutions.empty:
        return [Evidence(Method.PROPERTY, holds_if(False), f"depth {depth} has no solution at all",
                         counts={"reached": 0})]
    worst, reached, total = 0.0, 0, context.choose(20, 200, 2000)
    for _ in range(total):
        point = solutions.along(rng.normal(size=depth - 1))
        if point is not None:
            reached += 1
            worst = largest((worst, abs(left_sum(point) - target)))
    return [Evidence(Method.PROPERTY, holds_if(reached == total and worst <= solutions.slack),
                     f"rays from the minimal partition in random directions, sigma_a^2 = 0.9, depth {depth}",
                     {"largest error of the sum": worst}, counts={"reached": reached, "drawn": total})]


@TOPIC.claim(
    id="own-2ce5", title="At depth three the solutions form a closed curve", source="deqproof",
    statement=r"At $\sigma_a^2 = 0.9$, where the least depth is three, the networks with the DEQ's CK form a closed "
              r"curve around the minimal partition: every ray from it, in the coordinates $\log r_l$, meets the set. "
              r"(Beyond depth three, not tested, the dimension is $L - 2$ by the same count of unknowns.)",
    expected=Verdict.SUPPORTED, control=lambda context: _sphere(context, 2), control_note="depth two at sigma_a^2 = "
                                                                                          "0.9")
def solution_sphere(context: Context) -> list[Evidence]:
    """Random rays."""
    return _sphere(context, 3)
