"""A certificate: claims about one float model at one input, proved in ball arithmetic and written as outward decimals.

The certificate carries the weights, so that `analysis.rigorous.recheck` needs nothing else to test every claim again in
another arithmetic and by another route.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from flint import arb, arb_mat
from numpy.typing import ArrayLike, NDArray

from analysis.rigorous.balls import (
    NotCertified,
    column,
    decimal,
    decimal_upper,
    finite_array,
    from_decimal,
    to_float,
    working_precision,
)
from analysis.rigorous.certainty import less
from analysis.rigorous.checkpoint import LayerWeights
from analysis.rigorous.contraction import Contraction, NoBall, certify_contraction
from analysis.rigorous.equilibrium import Equilibrium, enclose_derivatives, enclose_equilibrium, isolation_radius
from analysis.rigorous.jets import laplacian_pairs
from analysis.rigorous.maps import Layer, QuadraticReadout
from analysis.rigorous.phantom import PhantomError, phantom_errors
from analysis.rigorous.schema import ABSOLUTE_WIDTH, EQUATION, FORMAT, NO_BALL, NO_NORM, RELATIVE_WIDTH, VERSION

CERTIFICATE_BITS = 192
DIGITS = 25          # of the decimals; each interval is rounded outwards to them
SLACK = "1e-45"      # every claim is widened by this much, so that a second arithmetic can confirm exact zeros
Certificate = dict[str, Any]


def certify_layer(weights: LayerWeights, x: ArrayLike, steps: Sequence[int] = (1, 2, 3, 4, 8), *,
                  bits: int = CERTIFICATE_BITS) -> Certificate:
    """Prove the claims about one layer and one input, and write them down.

    Claims: the equilibrium exists, alone in a box; the map contracts (where it does), with norm, factor and ball; the
    first derivative and the Laplacian of the equilibrium; score and trace of its Jacobian; and the error of the
    phantom score and trace for each K, from both sides.

    Args:
        weights: of the layer and its readout.
        x: the input [d].
        steps: the K wanted.
        bits: working precision.

    Returns:
        A dictionary ready for JSON; see `claims` in it.

    Raises:
        NotCertified: something cannot be proved; the message says what and why.
        ValueError: an input of another width, not finite, or steps that are not positive whole numbers.
    """
    point = finite_array(x, "input x", 1)
    if len(point) != weights.input_size:
        raise ValueError(f"the input has {len(point)} entries, the model takes {weights.input_size}")
    counts = [int(k) for k in steps]
    if not counts or min(counts) < 1:
        raise ValueError(f"phantom steps must be positive whole numbers, not {list(steps)}")
    with working_precision(bits):
        layer = Layer.from_arrays(weights.weight, weights.inputs, weights.bias, weights.activation,
                                  weights.injection)
        readout = QuadraticReadout.from_arrays(weights.linear, weights.quadratic, weights.base_width)
        equilibrium = enclose_equilibrium(layer, point, weights.size)
        claims = _claims(equilibrium, layer, readout, counts)
    certificate: Certificate = {
        "format": FORMAT, "version": VERSION,
        "model": {
            "equation": EQUATION, "activation": weights.activation, "injection": weights.injection,
            "W": encode(weights.weight), "U": encode(weights.inputs), "b": encode(weights.bias),
            "a": encode(weights.linear),
            "c": weights.quadratic.hex(), "s": None if weights.base_width is None else float(weights.base_width).hex()},
        "input": encode(point), "claims": claims}
    certificate["model"]["sha256"] = model_hash(certificate["model"])
    certificate["digest"] = digest(certificate)
    return certificate


def encode(values: NDArray[np.float64]) -> dict[str, Any]:
    """A float64 array as its shape and its little-endian bytes in base64: exact and compact."""
    data = np.ascontiguousarray(values, dtype="<f8").tobytes()
    return {"shape": list(values.shape), "float64": base64.b64encode(data).decode()}


def digest(certificate: Certificate) -> str:
    """SHA-256 of everything but the digest itself; tells accidental damage, not malice (the claims do that)."""
    return _sha256({key: value for key, value in certificate.items() if key != "digest"})


def model_hash(model: dict[str, Any]) -> str:
    """SHA-256 of the model's equation, activations and numbers: a name for it that anyone can test."""
    return _sha256({key: value for key, value in model.items() if key != "sha256"})


def _sha256(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def summary(certificate: Certificate) -> str:
    """The certificate in words, for a terminal."""
    model, claims = certificate["model"], certificate["claims"]
    n, d = model["U"]["shape"]
    drive = "U x + b" if model["injection"] == "identity" else f"{model['injection']}(U x + b)"
    lines = [f"Certificate for z = {model['activation']}(W z + {drive}), n = {n}, d = {d}",
             "  proved: an equilibrium, enclosed; no other in the box of half-width "
             f"{float.fromhex(claims['box_radius']):.3g} about it"]
    contraction = claims["contraction"]
    if contraction is None:
        lines.append(f"  not proved: contraction ({claims['contraction_refused']})")
    else:
        where = ("everywhere" if contraction["radius"] is None else
                 f"in the ball of radius {float.fromhex(contraction['radius']):.3g} about it")
        lines.append(f"  proved: the map contracts in the norm '{contraction['norm']}' with factor "
                     f"{float(contraction['factor']):.6g} {where}; at the equilibrium "
                     f"{float(contraction['factor_at_equilibrium']):.6g}")
    lines.append(f"  score length {interval_text(claims['score_length'])}, trace {interval_text(claims['trace'])}")
    lines.append("  phantom gradient with K steps: error of the score (relative), error of the trace")
    lines += [f"    K = {item['steps']:3d}: {interval_text(item['score_error'])} "
              f"({interval_text(item['score_relative'])}), {interval_text(item['trace_error'])}"
              for item in claims["phantom"]]
    return "\n".join(lines)


def interval_text(ends: dict[str, str] | None, digits: int = 8) -> str:
    """A decimal interval for a reader: the digits that both ends share, or both ends."""
    if ends is None:
        return "not claimed: the score may be zero"
    low, high = (f"{float(ends[end]):.{digits}g}" for end in ("low", "high"))
    return low if low == high else f"[{low}, {high}]"


def _claims(equilibrium: Equilibrium, layer: Layer, readout: QuadraticReadout, steps: list[int]) -> dict[str, Any]:
    pairs = laplacian_pairs(equilibrium.input_size)
    exact = enclose_derivatives(equilibrium, pairs)
    score, errors = phantom_errors(equilibrium, readout, steps, pairs=pairs)
    length = _claim(_length(score.value))
    claims: dict[str, Any] = {
        "equilibrium": _many(equilibrium.z), "box_radius": isolation_radius(equilibrium).hex(),
        "first": _many(exact.first), "laplacian": _many(exact.second), "score": _many(score.value),
        "score_length": length, "trace": _claim(score.second[0, 0]),
        "phantom": [_phantom(error, length) for error in errors], "contraction": None}
    centre = to_float(equilibrium.z).ravel()
    try:
        claims["contraction"] = _contraction(certify_contraction(layer, equilibrium.x, column(centre)), centre)
    except NotCertified as error:
        claims["contraction_refused"] = NO_BALL if isinstance(error, NoBall) else NO_NORM
    return claims


def _phantom(error: PhantomError, length: dict[str, str]) -> dict[str, Any]:
    """The claims for one K. The relative error follows from what is claimed of the score, whose slack counts too.

    Saturated units have scores of 1e-50 and less; the quotient of the true balls would be far narrower than a second
    arithmetic, which knows the length no better than claimed, can confirm.
    """
    gap, divisor = _claim(error.score), from_decimal(length)
    relative = from_decimal(gap) / divisor if less(0, divisor).certain else None
    return {"steps": error.steps, "score_error": gap, "score_relative": relative and _claim(relative, wide=True),
            "first_error": _claim(error.first), "laplacian_error": _claim(error.second),
            "trace_error": _claim(error.trace)}


def _contraction(proved: Contraction, centre: NDArray[np.float64]) -> dict[str, Any]:
    transform = proved.norm.transform
    return {"norm": proved.norm.name, "base": proved.norm.base,
            "transform": None if transform is None else encode(to_float(transform)),
            "factor": decimal_upper(proved.factor),
            "factor_at_equilibrium": decimal_upper(proved.factor_at_equilibrium),
            "centre": encode(centre), "radius": None if proved.radius is None else proved.radius.hex()}


def _claim(ball: arb, *, wide: bool = False) -> dict[str, str]:
    """The interval as claimed.

    Raises:
        NotCertified: it is too wide to say anything, unless it may be `wide`.
    """
    if not wide and less(ball.abs_upper() * arb(RELATIVE_WIDTH) + arb(ABSOLUTE_WIDTH), 4 * ball.rad()).certain:
        raise NotCertified(f"an enclosure is no narrower than {float(2 * ball.rad()):.2g} at a value of "
                           f"{float(ball.mid()):.2g}; raise the working precision")
    return decimal(ball + arb(0, arb(SLACK)), DIGITS)


def _many(values: arb_mat) -> list[dict[str, str]]:
    return [_claim(ball) for ball in values.entries()]


def _length(values: arb_mat) -> arb:
    return sum((ball * ball for ball in values.entries()), arb(0)).nonnegative_part().sqrt()
