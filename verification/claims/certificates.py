"""Statements about concrete float models, proved in ball arithmetic and confirmed by a second routine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

import deq
from analysis.rigorous import (
    CertificateRejected,
    Layer,
    LayerWeights,
    NotCertified,
    certify_layer,
    convolution_matrix,
    enclose_equilibrium,
    recheck,
)
from analysis.rigorous.certainty import Certainty, less
from analysis.rigorous.certificate import digest
from analysis.rigorous.equilibrium import state_slopes
from verification.context import Context
from verification.evidence import Evidence, Method, Outcome, holds_if, within
from verification.methods.certified_search import law_ratios, search
from verification.registry import Topic
from verification.verdict import Verdict

TOPIC = Topic("certificates", "Certificates: what is proved about concrete models")

Mutation = Callable[[dict[str, Any]], None]


def _search(context: Context, shrink: float) -> list[Evidence]:
    count = context.choose(30, 300, 10_000)
    found = search(context.rng("certified search"), count, shrink=shrink)
    enough = found.inside + found.missed >= 0.9 * count
    outcome = holds_if(found.missed == 0) if enough else Outcome.VACUOUS
    return [Evidence(Method.PROPERTY, outcome,
                     f"{found.drawn} random layers, n <= 4, d <= 2, six activations, |W|_2 <= 1.2; enclosures of z, "
                     "Dz, the Laplacian and their phantom counterparts at 128 bits, against mpmath's "
                     "Newton iteration (started at the enclosed equilibrium) and derivatives at 70 digits",
                     {"enclosures": found.enclosures, "widest radius": found.widest},
                     counts={"inside": found.inside, "missed": found.missed, "refused": found.refused})]


@TOPIC.claim(
    id="own-c3f1", title="No proved enclosure misses the 50-digit value", source="deqproof",
    statement=r"Every enclosure of $z^*$, $Dz$, $\Delta z$ and of their $K$-step phantom counterparts that the engine "
              r"proves holds the value computed to 50 digits by other code.",
    expected=Verdict.SUPPORTED, control=lambda context: _search(context, 1e-6),
    control_note="every radius shrunk by a factor of a million")
def no_enclosure_misses(context: Context) -> Sequence[Evidence]:
    """Search small systems for a miss."""
    return _search(context, 1.0)


def _dense_weights(context: Context) -> tuple[LayerWeights, np.ndarray]:
    """A layer as [SM] builds it: dense, softplus, |W|_2 = 0.8; sizes of its UCI models at the default scale."""
    size, inputs = context.choose((12, 4), (64, 15), (128, 15))
    rng = np.random.default_rng(20240501)
    weight = rng.normal(size=(size, size))
    weight *= 0.8 / np.linalg.norm(weight, 2)
    drive, bias = rng.normal(size=(size, inputs)) / np.sqrt(inputs), 0.1 * rng.normal(size=size)
    readout = rng.normal(size=size) / np.sqrt(size)
    return LayerWeights(weight, drive, bias, "softplus", readout, 0.1, 2.0), rng.normal(size=inputs)


def _dense_certificate(context: Context) -> dict[str, Any]:
    return context.shared("dense certificate", lambda: certify_layer(*_dense_weights(context), (1, 2, 3, 4, 6, 8)))


def _confirmed(certificate: dict[str, Any], weights: LayerWeights | None = None) -> tuple[bool, str]:
    try:
        lines = recheck(certificate, weights)
    except CertificateRejected as error:
        return False, str(error)
    return True, f"{len(lines)} statements confirmed"


def _rewritten(certificate: dict[str, Any], mutate: Mutation) -> dict[str, Any]:
    """A forged certificate with a fitting digest: only the mathematics can tell."""
    forged = {**certificate, "claims": {**certificate["claims"]}}
    mutate(forged["claims"])
    forged["digest"] = digest(forged)
    return forged


def _dense(context: Context, mutate: Mutation | None) -> list[Evidence]:
    weights, _ = _dense_weights(context)
    certificate = _dense_certificate(context)
    if mutate is not None:
        certificate = _rewritten(certificate, mutate)
    confirmed, detail = _confirmed(certificate, weights)
    claims = certificate["claims"]
    second = next(item for item in claims["phantom"] if item["steps"] == 2)
    large = less("0.01", second["score_relative"]["low"]).certain
    contraction = claims["contraction"]
    n, d = weights.inputs.shape
    return [Evidence(Method.INTERVAL, holds_if(confirmed and large and contraction is not None),
                     f"softplus layer with |W|_2 = 0.8, n = {n}, d = {d}, float64 weights and one input; 192-bit "
                     "balls, confirmed in integer arithmetic by other algorithms",
                     {"relative score error K=2, low": float(second["score_relative"]["low"]),
                      "relative score error K=2, high": float(second["score_relative"]["high"]),
                      "contraction factor": float(contraction["factor"]), "second routine": detail}, complete=True)]


def _halve_errors(claims: dict[str, Any]) -> None:
    claims["phantom"] = [
        {**item, "score_error": {end: f"{int(text.split('e')[0]) // 2}e{text.split('e')[1]}"
                                 for end, text in item["score_error"].items()}} for item in claims["phantom"]]


@TOPIC.claim(
    id="own-7d20", title="A dense DEQ of the papers' size, certified", source="deqproof",
    statement=r"For one concrete softplus layer ($n = 64$, $d = 15$, $\|W\|_2 = 0.8$) and input: there is exactly one "
              r"equilibrium, the map contracts, and the score of the phantom gradient with $K = 2$ is wrong by more "
              r"than one per cent.",
    expected=Verdict.PROVED, control=lambda context: _dense(context, _halve_errors),
    control_note="the certificate claims half the phantom error, with a digest that fits",
    figures=("certified-phantom-error",))
def dense_layer_certified(context: Context) -> Sequence[Evidence]:
    """Certify and re-check."""
    return _dense(context, None)


def _convolution(side: int, gain: float) -> tuple[LayerWeights, np.ndarray]:
    rng = np.random.default_rng(31)
    inner, outer = rng.normal(size=(2, 2, 3, 3)), rng.normal(size=(2, 1, 3, 3)) / 3
    dense = convolution_matrix(inner, side, side)
    scaled = convolution_matrix(inner * (gain / np.linalg.norm(dense, 2)), side, side)
    inputs = convolution_matrix(outer, side, side)
    size = len(dense)
    return (LayerWeights(scaled, inputs, np.repeat(0.1 * rng.normal(size=2), side * side), "tanh",
                         rng.normal(size=size) / side, 0.0, 1.0), rng.normal(size=side * side))


def _convolution_certified(context: Context, gain: float) -> list[Evidence]:
    side = context.choose(3, 5, 8)
    weights, x = _convolution(side, gain)
    domain = f"3x3 convolution, 2 channels, {side}x{side} images (n = {weights.size}, d = {weights.input_size}), tanh"
    try:
        certificate = certify_layer(weights, x, (1, 2, 4))
    except NotCertified as error:
        return [Evidence(Method.INTERVAL, Outcome.FAILS, domain, {"refused": str(error)})]
    confirmed, detail = _confirmed(certificate, weights)
    contraction = certificate["claims"]["contraction"]
    everywhere = contraction is not None and contraction["radius"] is None
    factor = float(contraction["factor"]) if contraction else "none"
    return [Evidence(Method.INTERVAL, holds_if(confirmed and everywhere), domain,
                     {"contraction factor": factor, "second routine": detail}, complete=True)]


@TOPIC.claim(
    id="own-b95e", title="A convolutional DEQ, certified", source="deqproof",
    statement=r"For one concrete convolutional tanh layer whose operator norm is scaled to $0.9$: the map contracts "
              r"everywhere, its one equilibrium and derivatives are enclosed, and a second routine confirms it.",
    expected=Verdict.PROVED, control=lambda context: _convolution_certified(context, 1.1),
    control_note="the operator norm is scaled to 1.1, so that contraction everywhere is false")
def convolution_certified(context: Context) -> Sequence[Evidence]:
    """Certify a small convolution as its dense matrix."""
    return _convolution_certified(context, 0.9)


def _without_contraction(slope: float) -> list[Evidence]:
    weights = LayerWeights(np.diag([slope, 0.5]), np.array([[1.0], [0.5]]), np.array([0.5, -0.25]), "softplus",
                           np.array([1.0, 1.0]))
    certificate = certify_layer(weights, [1.0], (1, 4, 8))
    confirmed, detail = _confirmed(certificate, weights)
    claims = certificate["claims"]
    early, late = (claims["phantom"][index]["score_relative"] for index in (0, 2))
    diverges = less(early["high"], late["low"]).certain
    # W is diagonal, so sigma'(h_1) W_11 is an eigenvalue of J; below -1 it rules out contraction in every norm
    layer = Layer.from_arrays(weights.weight, weights.inputs, weights.bias, weights.activation)
    point = enclose_equilibrium(layer, [1.0], 2)
    eigenvalue = state_slopes(layer, point.z, point.x, 2)[0, 0]
    expands = less(eigenvalue, -1).certain
    return [Evidence(Method.INTERVAL, holds_if(confirmed and expands and diverges),
                     "one softplus layer, n = 2, d = 1, by Krawczyk's test",
                     {"eigenvalue of J": float(eigenvalue.mid()), "relative score error K=1": float(early["high"]),
                      "relative score error K=8": float(late["low"]), "second routine": detail}, complete=True)]


@TOPIC.claim(
    id="own-2ae8", title="An equilibrium without contraction, and a phantom gradient that diverges", source="deqproof",
    statement=r"There is a layer with a unique equilibrium in a box (Krawczyk) that contracts in no norm at it; its "
              r"implicit derivatives exist, and the error of the phantom score grows with $K$.",
    expected=Verdict.PROVED, control=lambda context: _without_contraction(-0.9),
    control_note="the steep unit's weight is -0.9, so that the map contracts")
def equilibrium_without_contraction(context: Context) -> Sequence[Evidence]:
    """Certify z_1 = softplus(-9 z_1 + ...)."""
    return _without_contraction(-9.0)


def _law(context: Context, shift: int) -> list[Evidence]:
    count, steps = context.choose((4, 4), (40, 8), (400, 16))
    counts, worst = law_ratios(context.rng("finite K law"), count, steps, exponent_shift=shift)
    if counts[Certainty.CERTAINLY_NOT]:
        outcome = Outcome.FAILS
    else:
        outcome = Outcome.UNKNOWN if counts[Certainty.UNKNOWN] else Outcome.HOLDS
    return [Evidence(Method.INTERVAL, outcome,
                     f"{count} random layers, 2 <= n <= 4, d <= 2, K = 1 to {steps}; both sides enclosed",
                     {"largest ratio of error to bound": worst},
                     counts={str(answer): number for answer, number in counts.items()})]


@TOPIC.claim(
    id="own-e417", title="The finite-K error bounds, with both sides enclosed", source="deqproof, on [SM] Prop. 2",
    statement=r"$\|Dz - Dz^{(K)}\| \le q^K \|Dz\|$ and $\|D^2z - D^2z^{(K)}\| \le q^K \|D^2z\| + K q^{K-1} L_1 "
              r"+ q^{K-1} \frac{1 - q^K}{1 - q} L_2$, with $\|J\|_2 \le q < 1$, "
              r"$L_1 = 2(\|f_{zx}\| \|Dz\| + \|f_{zz}\| \|Dz\|^2)$, $L_2 = \|f_{zz}\| \|Dz\|^2$.",
    expected=Verdict.SUPPORTED, control=lambda context: _law(context, 3),
    control_note="every exponent of q raised by three")
def finite_steps_law(context: Context) -> Sequence[Evidence]:
    """Test the bounds in ball arithmetic, where rounding cannot hide a violation."""
    return _law(context, 0)


def _float64(context: Context, steps_off: int) -> list[Evidence]:
    """The library's float64 scores against the certified intervals of the same model."""
    weights, x = _dense_weights(context)
    claims = _dense_certificate(context)["claims"]
    exact, exact_trace = _score(weights, x, deq.Exact(order=2))
    outside, rows = 0, []
    for item in claims["phantom"]:
        rough, rough_trace = _score(weights, x, deq.Phantom(steps=item["steps"] + steps_off))
        gaps = {"score_error": float(np.linalg.norm(rough - exact)), "trace_error": abs(rough_trace - exact_trace)}
        # float64: eps times sums of n + d terms, through a solve of condition below 1/(1 - 0.8) = 5, on values of size
        # |s| and tr; 10 covers the solver's tolerance of 1e-14 beside it
        unit = 10 * np.finfo(float).eps * sum(weights.inputs.shape) * 5
        slack = {"score_error": unit * float(np.linalg.norm(exact)), "trace_error": unit * (abs(exact_trace) + 1)}
        for name, gap in gaps.items():
            low, high = (float(item[name][end]) for end in ("low", "high"))
            outside += not low - slack[name] <= gap <= high + slack[name]
        rows.append({"steps": item["steps"], "score": gaps["score_error"], "trace": gaps["trace_error"],
                     "score_low": float(item["score_error"]["low"]), "score_high": float(item["score_error"]["high"]),
                     "trace_low": float(item["trace_error"]["low"]), "trace_high": float(item["trace_error"]["high"]),
                     "score_slack": slack["score_error"], "trace_slack": slack["trace_error"]})
    q = float(claims["contraction"]["factor_at_equilibrium"])
    if steps_off == 0:
        context.record("certified_phantom_error", {"rows": rows, "q": q, "score": float(np.linalg.norm(exact)),
                                                   "trace": exact_trace, "n": weights.size, "d": weights.input_size})
    return [Evidence(Method.NUMERICAL, within(float(outside), 0.0),
                     f"the library's exact and phantom rules in float64, n = {weights.size}, d = {weights.input_size}, "
                     f"K = {[row['steps'] for row in rows]}", {"intervals missed": outside})]


def _score(weights: LayerWeights, x: np.ndarray, rule: deq.GradientRule) -> tuple[np.ndarray, float]:
    w, u, b, a = (torch.tensor(v) for v in (weights.weight, weights.inputs, weights.bias, weights.linear))
    point = torch.tensor(x, requires_grad=True)
    start = torch.zeros(1, len(b), dtype=torch.float64)
    z = deq.equilibrium(lambda z: torch.nn.functional.softplus(z @ w.T + u @ point + b), start, gradient=rule,
                        solver="newton", tol=1e-14)[0]
    log_density = a @ z + weights.quadratic * (z @ z) - (point @ point) / (2 * float(weights.base_width or 1.0) ** 2)
    score, = torch.autograd.grad(log_density, point, create_graph=True)
    rows = [torch.autograd.grad(score[i], point, retain_graph=True)[0][i] for i in range(len(x))]
    return score.detach().numpy(), float(torch.stack(rows).sum().detach())


@TOPIC.claim(
    id="own-91c6", title="The library's phantom errors lie in their certified intervals", source="deqproof",
    statement=r"The errors of score and trace that `deq.Phantom` makes against `deq.Exact` in float64 lie, for every "
              r"$K$, within rounding of the intervals that the certificate proves for the same weights.",
    expected=Verdict.SUPPORTED, control=lambda context: _float64(context, 1),
    control_note="the library takes one phantom step more than is certified",
    figures=("certified-phantom-error",))
def library_agrees_with_certificates(context: Context) -> Sequence[Evidence]:
    """Compare float64 autograd with the certificate."""
    return _float64(context, 0)
