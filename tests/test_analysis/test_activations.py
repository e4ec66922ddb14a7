"""Activations by name, from torch and numpy, and as callables that misbehave."""

import math

import numpy as np
import pytest
import torch
from scipy import special
from torch import nn
from torch.nn import functional

from analysis.activations import ACTIVATIONS, Activation, as_activation, elu, hard_tanh, polynomial

X = np.array([-3.0, -0.4, 0.0, 0.7, 25.0])


@pytest.mark.parametrize(("name", "known"), [
    ("ReLU", "relu"), ("Leaky ReLU", "leaky_relu(0.01)"), ("leaky-relu", "leaky_relu(0.01)"), ("SiLU", "swish"),
    ("GELU", "gelu"), ("Mish", "mish"), ("SELU", "selu"), ("hardtanh", "hard_tanh(1, 1)"), ("linear", "identity")])
def test_names_in_any_case_and_spelling(name, known):
    assert as_activation(name).name == known


def test_an_unknown_name_is_answered_with_the_closest():
    with pytest.raises(ValueError, match="did you mean"):
        as_activation("softpluss")
    with pytest.raises(ValueError, match="nown are cos"):
        as_activation("no such thing")


@pytest.mark.parametrize(("given", "name"), [
    (torch.relu, "relu"), (functional.relu, "relu"), (nn.ReLU(), "relu"), (functional.gelu, "gelu"),
    (nn.GELU(), "gelu"),
    (nn.SiLU(), "swish"), (nn.Mish(), "mish"), (nn.SELU(), "selu"), (nn.Softplus(), "softplus"), (np.tanh, "tanh"),
    (np.sin, "sin"), (special.erf, "erf"), (math.tanh, "tanh"), (nn.LeakyReLU(0.2), "leaky_relu(0.2)"),
    (nn.Hardtanh(), "hard_tanh(1, 1)"), (nn.ELU(0.5), "elu(0.5)")])
def test_known_functions_and_modules_are_the_built_ins(given, name):
    assert as_activation(given).name == name


@pytest.mark.parametrize("module", [nn.GELU("tanh"), nn.PReLU(), nn.Hardswish(), nn.Softsign(), nn.LogSigmoid(),
                                    nn.Softplus(beta=3.0), lambda x: torch.relu(x) + 0.1 * x])
def test_other_torch_code_runs_in_double_precision(module):
    wanted = module(torch.tensor(X, dtype=torch.float64)) if not isinstance(module, nn.Module) else module.double()(
        torch.tensor(X, dtype=torch.float64))
    np.testing.assert_allclose(as_activation(module)(X), wanted.detach().numpy(), rtol=1e-15)


def test_built_ins_agree_with_torch():
    x = torch.tensor(X, dtype=torch.float64)
    for name, function in (("gelu", functional.gelu), ("silu", functional.silu), ("mish", functional.mish),
                           ("selu", functional.selu), ("elu", functional.elu), ("sigmoid", torch.sigmoid)):
        np.testing.assert_allclose(ACTIVATIONS[name](X), function(x).numpy(), rtol=1e-14, atol=1e-16)


@pytest.mark.parametrize("name", ["gelu", "mish", "selu", "silu", "elu"])
def test_derivatives_are_those_of_the_functions(name):
    phi, h = ACTIVATIONS[name], 1e-5
    x = np.array([-2.3, -0.4, 0.6, 1.9])
    np.testing.assert_allclose((phi(x + h) - phi(x - h)) / (2 * h), phi.derivative(x), atol=1e-9)  # h^2 and eps / h


def test_the_callers_array_and_module_are_left_alone():
    phi = as_activation(lambda x: np.maximum(x, 0, out=x))
    x = X.copy()
    np.testing.assert_array_equal(phi(x), np.maximum(X, 0))
    np.testing.assert_array_equal(x, X)
    module = nn.PReLU()
    phi = as_activation(module)
    before = phi(X)
    with torch.no_grad():
        module.weight.fill_(0.9)
    np.testing.assert_array_equal(phi(X), before)
    assert module.weight.dtype == torch.float32


@pytest.mark.parametrize(("given", "error", "message"), [
    (lambda x: np.tanh(x.astype(np.float32)), TypeError, "float32"),
    (lambda x: np.tanh(x) + 0j, TypeError, "complex"),
    (lambda x: np.ma.masked_less(x, 0), TypeError, "masked"),
    (lambda x: x if x > 0 else 0.0, TypeError, "np.maximum instead of max"),
    (lambda x: x - x.mean(), ValueError, "elementwise"),
    (nn.Softmax(dim=-1), ValueError, "elementwise"),
    (lambda x: x[:1], ValueError, "elementwise"),
    (3, TypeError, "not int")])
def test_what_is_no_activation_is_refused_with_the_reason(given, error, message):
    with pytest.raises(error, match=message):
        as_activation(given)


def test_claims_about_an_activation_are_checked():
    with pytest.raises(ValueError, match="declared odd"):
        Activation("soft", lambda x: np.logaddexp(0, x), odd=True)
    with pytest.raises(ValueError, match="clip must be positive"):
        hard_tanh(1.0, 0.0)
    assert Activation("two", np.abs, kinks=(1, -1)).kinks == (-1.0, 1.0)
    assert polynomial(0, 1).odd
    assert elu().name == "elu"


def test_a_constant_is_an_activation():
    np.testing.assert_array_equal(as_activation(lambda x: 0.7)(X), np.full(5, 0.7))
