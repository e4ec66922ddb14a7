"""Certificates: confirmed by the second routine, rejected after any tampering, refused with a reason."""

import contextlib
import copy
import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from analysis.rigorous import (
    CertificateRejected,
    CheckpointError,
    LayerWeights,
    NotCertified,
    certify_layer,
    load_input,
    load_weights,
    recheck,
    summary,
)
from analysis.rigorous.certificate import digest, encode, model_hash
from analysis.rigorous.fields import decode
from analysis.rigorous.fixedpoint import ONE, Fixed, norm_inf_units, unit_matrix
from analysis.rigorous.recheck import _Recheck
from analysis.rigorous.reference import layer_reference
from analysis.rigorous.schema import NO_NORM


def make_weights(seed=0, size=4, inputs=2, gain=0.8, activation="softplus"):
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(size, size))
    weight *= gain / np.linalg.norm(weight, 2)
    return LayerWeights(weight, rng.normal(size=(size, inputs)), rng.normal(size=size), activation,
                        rng.normal(size=size), 0.125, 2.0), rng.normal(size=inputs)


HONEST = {gain: certify_layer(*make_weights(0, 2, 1, gain), (1, 2)) for gain in (0.8, 2.6)}


@pytest.fixture(scope="module", params=[0.8, 2.6], ids=["contracts everywhere", "contracts in a ball"])
def certificate(request):
    weights, x = make_weights(0, gain=request.param)
    return certify_layer(weights, x, (1, 3))


def altered(certificate, change):
    copied = copy.deepcopy(certificate)
    change(copied)
    with contextlib.suppress(KeyError, TypeError, AttributeError):
        copied["model"]["sha256"] = model_hash(copied["model"])
    copied["digest"] = digest(copied)
    return copied


def leaves(node, path=()):
    """Paths of all claimed intervals."""
    if isinstance(node, dict) and set(node) == {"low", "high"}:
        yield path
    elif isinstance(node, dict | list):
        for key, item in node.items() if isinstance(node, dict) else enumerate(node):
            yield from leaves(item, (*path, key))


def reach(node, path):
    for key in path:
        node = node[key]
    return node


def test_it_is_confirmed_after_a_round_trip_through_json(certificate):
    confirmed = recheck(json.loads(json.dumps(certificate)))
    assert len(confirmed) == 5
    assert "contraction" in confirmed[-1]
    assert "phantom gradient with K steps" in summary(certificate)
    radius = certificate["claims"]["contraction"]["radius"]
    assert confirmed[-1].startswith("contraction everywhere") is (radius is None)


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 5), inputs=st.integers(1, 3), gain=st.floats(0.0, 0.95),
       activation=st.sampled_from(["softplus", "tanh", "sigmoid", "erf", "swish", "sin"]))
def test_certificates_are_confirmed_and_hold_the_fifty_digit_value(seed, size, inputs, gain, activation):
    weights, x = make_weights(seed, size, inputs, gain, activation)
    certificate = certify_layer(weights, x, (2,))
    recheck(certificate, weights)
    truth = layer_reference(weights.weight, weights.inputs, weights.bias, activation, x)
    for claim, value in zip(certificate["claims"]["equilibrium"], truth.z, strict=True):
        assert float(claim["low"]) - 1e-15 <= float(value) <= float(claim["high"]) + 1e-15


def test_each_claimed_interval_matters(certificate):
    paths = list(leaves(certificate["claims"]))
    assert len(paths) >= 4 + 8 + 4 + 2 + 2 + 2 * 5

    def shift(copied, path):
        ends = reach(copied["claims"], path)
        width = 1e-18 * (1 + abs(float(ends["low"])))
        for end in ("low", "high"):
            mantissa, exponent = ends[end].split("e")
            ends[end] = f"{int(mantissa) + int(width / 10.0 ** int(exponent)) + 1000}e{exponent}"

    def flatten(copied, path):
        ends = reach(copied["claims"], path)
        ends["low"] = ends["high"]

    def swap(copied, path):
        ends = reach(copied["claims"], path)
        ends["low"], ends["high"] = ends["high"], ends["low"]

    for path in paths:
        for change in (shift, flatten, swap):
            with pytest.raises(CertificateRejected):
                recheck(altered(certificate, lambda copied, change=change, path=path: change(copied, path)))


def set_at(*path_and_value):
    *path, last, value = path_and_value
    return lambda copied: reach(copied, path).__setitem__(last, value)


def nudge(name, amount):
    def change(copied):
        holder = copied if name == "input" else copied["model"]
        values = decode(holder[name], name, 2 if name in "WU" else 1)
        values.flat[0] += amount
        holder[name] = encode(values)
    return change


TAMPERING = {
    "format": set_at("format", "other"),
    "version": set_at("version", 3),
    "activation": set_at("model", "activation", "tanh"),
    "unknown activation": set_at("model", "activation", "mish"),
    "injection": set_at("model", "injection", "softplus"),
    "unknown injection": set_at("model", "injection", "mish"),
    "c": set_at("model", "c", (0.126).hex()),
    "s": set_at("model", "s", (2.0001).hex()),
    "s negative": set_at("model", "s", (-2.0).hex()),
    "c not finite": set_at("model", "c", "inf"),
    "factor": set_at("claims", "contraction", "factor", "0.01"),
    "factor above one": set_at("claims", "contraction", "factor", "1.5"),
    "factor as a bomb": set_at("claims", "contraction", "factor", "1e-999999999"),
    "local factor": set_at("claims", "contraction", "factor_at_equilibrium", "1e-9"),
    "norm": set_at("claims", "contraction", "norm", "three"),
    "base": set_at("claims", "contraction", "base", "one-ish"),
    "centre": set_at("claims", "contraction", "centre", encode(np.ones(3))),
    "box": set_at("claims", "box_radius", "nonsense"),
    "box negative": set_at("claims", "box_radius", (-1.0).hex()),
    "extra claim": set_at("claims", "lipschitz_everywhere", "1e-9"),
    "extra key": set_at("note", "checked"),
    "extra key of the model": set_at("model", "trained", True),
    "extra key of an interval": set_at("claims", "trace", "middle", "0"),
    "bits": set_at("bits", "many"),
    "version true": set_at("version", True),
    "equation": set_at("model", "equation", "z = relu(W z)"),
    "no phantom errors": set_at("claims", "phantom", []),
    "no contraction": set_at("claims", "contraction", None),
    "a reason for no contraction": set_at("claims", "contraction_refused", NO_NORM),
    "no relative error": set_at("claims", "phantom", 0, "score_relative", None),
    "steps true": set_at("claims", "phantom", 0, "steps", True),
    "wide": set_at("claims", "trace", {"low": "-1e9", "high": "1e9"}),
    "wide vector": set_at("claims", "score", 0, {"low": "-1e9", "high": "1e9"}),
    "steps": set_at("claims", "phantom", 0, "steps", 2),
    "steps doubled": set_at("claims", "phantom", 0, "steps", 3),
    "steps as a bomb": set_at("claims", "phantom", 0, "steps", 10**9),
    "missing": lambda copied: copied["claims"].pop("trace"),
    "too few": lambda copied: copied["claims"]["first"].pop(),
    "not a list": set_at("claims", "equilibrium", 7),
    "weights": nudge("W", 1e-12), "inputs": nudge("U", 1e-12), "bias": nudge("b", 1e-12),
    "readout": nudge("a", 1e-12), "input": nudge("input", 1e-12),
    "NaN weights": nudge("W", np.nan),
    "shape": lambda copied: copied["model"]["W"].__setitem__("shape", [2, 8]),
    "damaged bytes": lambda copied: copied["model"]["W"].__setitem__("float64", "AAAA"),
}


@pytest.mark.parametrize("name", sorted(TAMPERING))
def test_tampering_is_rejected(certificate, name):
    with pytest.raises(CertificateRejected):
        recheck(altered(certificate, TAMPERING[name]))


def test_another_file_hash_is_rejected(certificate):
    copied = copy.deepcopy(certificate)
    copied["model"]["sha256"] = "f" * 64
    copied["digest"] = digest(copied)
    with pytest.raises(CertificateRejected, match=r"model\.sha256"):
        recheck(copied)


@pytest.mark.parametrize(("change", "named"), [
    (set_at("claims", "lipschitz", "1"), "claims has the unknown key 'lipschitz'"),
    (set_at("claims", "phantom", 1, "steps", "3"), r"phantom\[1\]\.steps is '3', not a whole number"),
    (set_at("claims", "first", 2, "low", 0.5), r"first\[2\]\.low is 0\.5, not text"),
    (set_at("claims", "first", 2, "low", "nan"), r"first\[2\]\.low is not a decimal: 'nan'"),
    (set_at("claims", "equilibrium", [[]]), r"equilibrium\[0\] is a list, not an object"),
    (set_at("model", "c", "0.125"), "c is '0.125', not written as"),
    (set_at("model", "W", "shape", [4, 4.0]), r"shape\[1\] is 4\.0, not a whole number"),
    (set_at("model", "W", "shape", [4, 10**30]), "W is damaged"),
    (set_at("model", 3), "model is 3, not an object"),
    (lambda copied: copied["claims"].pop("trace"), "claims lacks 'trace'"),
    (set_at("claims", "contraction", "radius", []), "radius is a list, not text"),
])
def test_the_message_names_what_is_wrong(certificate, change, named):
    with pytest.raises(CertificateRejected, match=named):
        recheck(altered(certificate, change))


def every_leaf(node, path=()):
    if isinstance(node, dict | list):
        for key, item in node.items() if isinstance(node, dict) else enumerate(node):
            yield from every_leaf(item, (*path, key))
    else:
        yield path


def follows(honest, other):
    """Whether `other` speaks of the same model, its intervals hold what the honest ones do, and its factor can be true.

    Factors, balls, centres and norms are witnesses: whatever they say, the second routine proves it or refuses.
    """
    unit = Fraction(1, 10**24)  # the value itself is known to 50 digits, the ends are rounded outwards to 25
    for path in leaves(honest["claims"]):
        claim, claim_too = (reach(node["claims"], path) for node in (honest, other))
        low, high, low_too, high_too = (Fraction(item[end]) for item in (claim, claim_too) for end in ("low", "high"))
        if not (low_too <= low + abs(low) * unit and high - abs(high) * unit <= high_too):
            return False
    weights = decode(honest["model"]["W"], "W", 2)
    state = np.array([float(claim["low"]) for claim in honest["claims"]["equilibrium"]])
    slopes = 1 - np.exp(-state)  # of softplus, from its value
    radius = np.abs(np.linalg.eigvals(slopes[:, None] * weights)).max()
    ball = other["claims"]["contraction"]
    return (all(other[name] == honest[name] for name in ("format", "version", "model", "input"))
            and min(float(ball["factor"]), float(ball["factor_at_equilibrium"])) >= radius - 1e-12)


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_a_random_mutation_is_never_confirmed_unless_it_follows_from_the_honest_certificate(data):
    honest = HONEST[data.draw(st.sampled_from(sorted(HONEST)))]
    mutant = copy.deepcopy(honest)
    *path, last = data.draw(st.sampled_from([leaf for leaf in every_leaf(honest) if leaf != ("digest",)]))
    holder = reach(mutant, path)
    old = holder[last]
    match data.draw(st.sampled_from(["character", "character", "type", "drop", "add"])):
        case "character" if isinstance(old, str):
            index = data.draw(st.integers(0, len(old) - 1))
            holder[last] = old[:index] + data.draw(st.sampled_from("0123456789.+-eExpAZ/=")) + old[index + 1:]
        case "drop":
            del holder[last]
        case "add" if isinstance(holder, dict):
            holder[data.draw(st.text(max_size=5))] = old
        case _:
            holder[last] = data.draw(st.sampled_from(
                [None, True, 0, -1, 10**400, 1.5, float("nan"), "", "1", [], {}, [old]]))
    mutant = altered(mutant, lambda _: None)
    if mutant == honest:
        return
    try:
        recheck(mutant)
    except CertificateRejected:
        return
    assert follows(honest, mutant), (path, last, old)


def test_larger_balls_are_rejected():
    weights, x = make_weights(0, gain=2.6)
    local = certify_layer(weights, x, (1,))
    assert local["claims"]["contraction"]["radius"] is not None
    recheck(local)
    for change in (set_at("claims", "contraction", "radius", (2.0 ** 12).hex()),
                   set_at("claims", "contraction", "radius", None),
                   set_at("claims", "contraction", "radius", (0.0).hex()),
                   set_at("claims", "contraction", "radius", (2.0 ** -60).hex()),
                   set_at("claims", "box_radius", (2.0 ** 12).hex()),
                   set_at("claims", "contraction", "centre", encode(np.full(4, 9.0))),
                   set_at("claims", "contraction", "transform", encode(np.zeros((4, 4))))):
        with pytest.raises(CertificateRejected):
            recheck(altered(local, change))


def test_damage_without_a_new_digest_is_seen(certificate):
    copied = copy.deepcopy(certificate)
    copied["model"]["sha256"] = "0"
    with pytest.raises(CertificateRejected, match="digest"):
        recheck(copied)


def test_another_models_weights_are_rejected():
    weights, x = make_weights()
    certificate = certify_layer(weights, x, (1,))
    with pytest.raises(CertificateRejected, match="another model: W"):
        recheck(certificate, make_weights(1)[0])
    other = LayerWeights(weights.weight, weights.inputs, weights.bias, "tanh", weights.linear, 0.125, 2.0)
    with pytest.raises(CertificateRejected, match="activation"):
        recheck(certificate, other)


@pytest.mark.parametrize("injection", ["softplus", "tanh", "erf"])
def test_a_nonlinear_injection_is_confirmed_and_agrees_with_autograd(injection):
    weights, x = make_weights(2, activation="softplus")
    weights = replace(weights, injection=injection)
    certificate = certify_layer(weights, x, (1, 2))
    recheck(certificate, weights)
    w, u, b = (torch.tensor(v) for v in (weights.weight, weights.inputs, weights.bias))
    tau = {"softplus": torch.nn.functional.softplus, "tanh": torch.tanh, "erf": torch.erf}[injection]

    def log_density(v):
        z = torch.zeros(4, dtype=torch.float64)
        for _ in range(200):
            z = torch.nn.functional.softplus(w @ z + tau(u @ v + b))
        return torch.tensor(weights.linear) @ z + 0.125 * z @ z - v @ v / 8

    point = torch.tensor(x)
    trace = float(torch.autograd.functional.hessian(log_density, point).trace())
    assert float(certificate["claims"]["trace"]["low"]) == pytest.approx(trace, rel=1e-12)
    gradient = torch.func.grad(log_density)(point).numpy()
    np.testing.assert_allclose([float(item["low"]) for item in certificate["claims"]["score"]], gradient, rtol=1e-12)


@pytest.mark.parametrize("activation", ["relu", "elu", "leaky_relu"])
def test_kinked_activations_away_from_the_kink(activation):
    weights, x = make_weights(5, activation=activation)
    recheck(certify_layer(weights, x, (1, 2)))


def test_refusals_say_why():
    weights, x = make_weights()
    with pytest.raises(ValueError, match="takes 2"):
        certify_layer(weights, [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="positive whole"):
        certify_layer(weights, x, (0,))
    one = np.ones(1)
    with pytest.raises(NotCertified, match="singular"):
        certify_layer(LayerWeights(np.eye(1), np.eye(1), one, "identity", one), one)
    with pytest.raises(NotCertified, match="relu does not exist at 0"):
        certify_layer(LayerWeights(np.eye(1) / 2, np.eye(1), 0 * one, "relu", one), 0 * one)
    with pytest.raises(NotCertified, match="no equilibrium found"):  # z = z + softplus-like growth: no solution
        certify_layer(LayerWeights(4 * np.eye(1), np.eye(1), one, "softplus", one), one)
    stretched = certify_layer(LayerWeights(-9 * np.eye(1), np.eye(1), one, "softplus", one), one, (1,))
    assert stretched["claims"]["contraction"] is None
    assert "none of the norms" in stretched["claims"]["contraction_refused"]
    assert len(recheck(stretched)) == 4
    assert "not proved: contraction" in summary(stretched)


def test_checkpoints_and_inputs(tmp_path):
    weights, x = make_weights()
    path = tmp_path / "model.safetensors"
    tensors = {"cell.w": torch.tensor(weights.weight, dtype=torch.bfloat16), "U": torch.tensor(weights.inputs).float(),
               "b": torch.tensor(weights.bias), "s": torch.tensor(2.0)}
    save_file(tensors, path, {"activation": "softplus"})
    loaded = load_weights(path, names={"W": "cell.w"})
    assert np.array_equal(loaded.weight, tensors["cell.w"].double().numpy())
    assert (loaded.quadratic, loaded.base_width, len(loaded.sha256)) == (0.0, 2.0, 64)
    assert np.array_equal(loaded.linear, np.ones(4))
    for call, message in (
            (lambda: load_weights(path), r"no tensor named W; it holds U, b, cell.w, s"),
            (lambda: load_weights(path, names={"W": "v"}), "no tensor 'v'"),
            (lambda: load_weights(tmp_path / "none"), "there is no file"),
            (lambda: load_weights(path, names={"W": "U"}), "shapes do not fit")):
        with pytest.raises(CheckpointError, match=message):
            call()
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(path.read_bytes()[:50])
    with pytest.raises(CheckpointError, match="not a readable safetensors"):
        load_weights(damaged)
    save_file({"W": torch.eye(2), "U": torch.eye(2), "b": torch.tensor([0.0, torch.nan])}, damaged)
    with pytest.raises(CheckpointError, match="does not name its activation"):
        load_weights(damaged)
    with pytest.raises(CheckpointError, match=r"b is not finite: entry \(1,\) is nan"):
        load_weights(damaged, activation="tanh")

    np.save(tmp_path / "x.npy", np.stack([x, x + 1]))
    np.savetxt(tmp_path / "x.csv", x[None], delimiter=",")
    save_file({"x": torch.tensor(x)}, tmp_path / "x.safetensors")
    assert np.array_equal(load_input(tmp_path / "x.npy", 2, 1), x + 1)
    np.testing.assert_allclose(load_input(tmp_path / "x.csv", 2), x, rtol=1e-15)
    assert np.array_equal(load_input(tmp_path / "x.safetensors", 2), x)
    (tmp_path / "bad.csv").write_text("1,two\n")
    (tmp_path / "ragged.csv").write_text("1,2\n3\n")
    np.save(tmp_path / "pickled.npy", np.array([{}], dtype=object))
    np.save(tmp_path / "nan.npy", np.array([np.nan, 0]))
    (tmp_path / "x.bin").write_text("")
    for name, row, message in (
            ("x.npy", None, "2 rows; choose one"), ("x.npy", 2, "no row 2"), ("bad.csv", None, "two"),
            ("ragged.csv", None, "different lengths"), ("pickled.npy", None, "cannot be read"),
            ("nan.npy", None, "not finite"), ("x.bin", None, "not '.bin'"), ("none", None, "no input")):
        with pytest.raises(CheckpointError, match=message):
            load_input(tmp_path / name, 2, row)
    with pytest.raises(CheckpointError, match="3 numbers a row"):
        load_input(tmp_path / "x.csv", 3)


SATURATED = [  # activation, W, U, b, x: scores from 1e-50 down to nothing
    ("erf", [[-0.39]], [[27.16]], [0.446], -53.7),
    ("erf", [[0.3]], [[4.0]], [0.4], 3.0),
    ("tanh", [[0.2687649, -0.1035647], [-0.4445454, -0.0330032]], [[-0.4458281], [0.7753238]], [3.872657, -32.616985],
     -119.5163),
    ("tanh", [[0.27]], [[30.0]], [1.0], 100.0), ("sigmoid", [[0.3]], [[1.0]], [0.0], 110.0),
    ("sigmoid", [[-1.7]], [[30.0]], [5.0], -100.0), ("softplus", [[0.4]], [[-1.1]], [0.0], 104.0),
    ("elu", [[0.8]], [[1.0]], [0.2], -105.0), ("relu", [[0.5]], [[1e-8]], [-3.0], 1.0),
    ("relu", [[0.5]], [[1e-8]], [3.0], 1.0), ("softplus", [[0.9]], [[30.0]], [20.0], 100.0)]


@pytest.mark.parametrize(("activation", "weight", "inputs", "bias", "x"), SATURATED)
def test_honest_certificates_of_saturated_inputs_are_confirmed(activation, weight, inputs, bias, x):
    weights = LayerWeights(np.array(weight), np.array(inputs), np.array(bias), activation, np.ones(len(bias)))
    certificate = certify_layer(weights, [x], (1, 2))
    assert len(recheck(certificate, weights)) >= 4
    length = certificate["claims"]["score_length"]
    for item in certificate["claims"]["phantom"]:
        relative, gap = item["score_relative"], item["score_error"]
        assert (relative is None) == (Fraction(length["low"]) <= 0)  # nothing is claimed of a quotient by zero
        if relative is not None:  # it holds every quotient of what is claimed of error and length
            assert Fraction(relative["low"]) <= Fraction(gap["low"]) / Fraction(length["high"])
            assert Fraction(gap["high"]) / Fraction(length["low"]) <= Fraction(relative["high"])


def test_a_rough_inverse_widens_solutions_by_the_whole_series():
    """M = 0.3 I for I - J = I: after 12 refinements 0.7^12 of the solution is missing, |M residual| is 0.3 of that."""
    checker = object.__new__(_Recheck)
    checker.m, checker.regular = Fixed.exact([[0.3]]), Fixed.exact([[1.0]])
    checker.alpha = norm_inf_units(unit_matrix(1) - checker.m @ checker.regular)
    found = checker._solve(Fixed.exact([[1.0]]))
    assert int(found.low.item()) <= ONE <= int(found.high.item())
    assert int(found.rad.item()) / ONE == pytest.approx(0.7**12, rel=1e-6)
