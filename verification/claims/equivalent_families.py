"""Which family of explicit networks matches which DEQ: hard tanh, leaky ReLU, conjugate kernel and NTK."""

from __future__ import annotations

import itertools

import numpy as np
from flint import arb

import analysis
from analysis.rmt import released
from analysis.rmt.explicit import explicit_coefficients
from analysis.rmt.hard_tanh import conjugate_ratio
from analysis.rmt.networks import identity_defect, leaky_layer
from verification.claim import Reading
from verification.context import Context
from verification.evidence import Evidence, Method, holds_if, largest, within
from verification.methods.interval import Certainty, interval_evidence, less
from verification.registry import Topic
from verification.verdict import Verdict

TOPIC = Topic("rmt-equivalent-families", "Which networks match which deep equilibrium model")
#: Residuals chain about a dozen quadratures, each good to 1e-14.
CHAINED = 1e-12


def _hard_tanh(context: Context, uncentred_factor: float) -> list[Evidence]:
    worst = 0.0
    names = ("tanh", "erf", "sin", "hard_tanh")
    for name in names:
        for a2 in context.choose((0.2,), (0.05, 0.2, 0.5, 0.9), tuple(np.linspace(0.05, 0.95, 10))):
            net, = analysis.equivalent_networks(analysis.solve_equations(name, float(a2)), "hard_tanh")
            eq = analysis.solve_equations(name, float(a2) * uncentred_factor)
            got = explicit_coefficients(net.layers)
            worst = largest((worst, abs(got.alpha1 / eq.alpha1 - 1), abs(got.gamma2 / eq.gamma2 - 1)))
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
    quote='Presenting a methodology to construct "equivalent" shallow explicit neural networks that exhibit '
          "identical CK or NTK eigenspectral behavior as a given implicit DEQ.",
    reading=Reading.OURS,
    reading_note="existence and uniqueness are ours; the family is the released code's",
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
            worst = largest((worst, *(abs(getattr(got, name) / getattr(eq, name) - 1)
                                      for name in ("beta1", "beta2", "beta3", "kappa2"))))
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
        worst = largest((worst, float(np.max(np.abs(hand / np.maximum([got.alpha1, got.alpha2, got.alpha3, got.gamma2],
                                                                          1e-9) - 1)))))
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
