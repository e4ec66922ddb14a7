"""Random settings against QUADPACK: right, refused with a reason, or wrong (which must not happen).

The truth shares no line with the library: the activations are written out here with their derivatives and kinks, the
outer integral is scipy's adaptive `quad` with break points, the inner one a fixed rule split at the kinks.
"""

from collections import Counter

import numpy as np
import pytest
import torch
from scipy import integrate, optimize, special

import analysis
from analysis.errors import EquationsError
from analysis.kernels.filling import FixedPointNotReached

_NODES, _WEIGHTS = special.roots_legendre(40)
_BASE = np.linspace(-10, 10, 11)


def _sech2(x):
    return 1 / np.cosh(np.clip(x, -300, 300)) ** 2


def _step(x):
    return (x > 0) * 1.0


def _softplus(x):
    return np.logaddexp(0, x)


def _mish_slope(x):
    return np.tanh(_softplus(x)) + x * _sech2(_softplus(x)) * special.expit(x)


def _elu(alpha):
    return (lambda x: np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0))),
            lambda x: np.where(x > 0, 1.0, alpha * np.exp(np.minimum(x, 0))))


_GELU = (lambda x: x * special.ndtr(x), lambda x: special.ndtr(x) + x * np.exp(-x * x / 2) / np.sqrt(2 * np.pi))
_LAMBDA, _ALPHA = 1.0507009873554805, 1.6732632423543772


def activation(rng):
    """(what the library gets, phi, phi', kinks)."""
    t, s = float(rng.normal()), float(rng.uniform(-1, 1))
    elu, own_elu = _elu(1.0), _elu(0.3 + abs(s))
    swish = (lambda x: x * special.expit(x), lambda x: special.expit(x) * (1 + x * special.expit(-x)))
    mish = (lambda x: x * np.tanh(_softplus(x)), _mish_slope)
    kinked = (lambda x: 0.4 * x + 0.3 * np.abs(x - t) + s * np.maximum(x, 0),
              lambda x: 0.4 + 0.3 * np.sign(x - t) + s * _step(x))
    bent = (lambda x: np.tanh(x) + s * np.maximum(x - t, 0), lambda x: _sech2(x) + s * _step(x - t))
    waves = (lambda x: np.sin(2 * x + t) + 0.1 * x, lambda x: 2 * np.cos(2 * x + t) + 0.1)
    close = (lambda x: x + 0.2 * np.abs(x - t) + 0.3 * np.abs(x - t - 1e-4),
             lambda x: 1 + 0.2 * np.sign(x - t) + 0.3 * np.sign(x - t - 1e-4))
    relu = (lambda x: np.maximum(x, 0), _step)
    choices = [
        ("ReLU", *relu, (0,)), (torch.relu, *relu, (0,)), (lambda x: np.maximum(x, 0, out=x), *relu, (0,)),
        ("tanh", np.tanh, _sech2, ()), (torch.nn.Tanh(), np.tanh, _sech2, ()), ("erf", special.erf,
         lambda x: 2 / np.sqrt(np.pi) * np.exp(-x * x), ()),
        ("sin", np.sin, np.cos, ()), ("Cos", np.cos, lambda x: -np.sin(x), ()),
        ("softplus", _softplus, special.expit, ()),
        ("sigmoid", special.expit, lambda x: special.expit(x) * special.expit(-x), ()),
        ("swish", *swish, ()), ("SiLU", *swish, ()), ("gelu", *_GELU, ()), ("mish", *mish, ()), ("elu", *elu, (0,)),
        ("selu", lambda x: _LAMBDA * _elu(_ALPHA)[0](x), lambda x: _LAMBDA * _elu(_ALPHA)[1](x), (0,)),
        (lambda x: 0.5 * x * (1 + special.erf(x / np.sqrt(2))), *_GELU, ()),
        (lambda x: x * np.tanh(np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0)), *mish, ()),
        (own_elu[0], *own_elu, (0,)), (kinked[0], *kinked, (0, t)), (bent[0], *bent, (t,)), (waves[0], *waves, ()),
        (close[0], *close, (t, t + 1e-4)),
        (analysis.activations.leaky_relu(s), lambda x: np.where(x > 0, x, s * x), lambda x: np.where(x > 0, 1, s),
         (0,)),
        (analysis.activations.hard_tanh(1.2, 0.5 + abs(t)), lambda x: 1.2 * np.clip(x, -0.5 - abs(t), 0.5 + abs(t)),
         lambda x: 1.2 * (np.abs(x) < 0.5 + abs(t)), (-0.5 - abs(t), 0.5 + abs(t))),
        (analysis.activations.polynomial(0.3, 1.0, 0.1), lambda x: 0.3 + x + 0.1 * x * x, lambda x: 1 + 0.2 * x, ()),
    ]
    return choices[int(rng.integers(len(choices)))]


def _points(kinks, sd):
    inside = [float(t) / sd for t in kinks if abs(t) < 10 * sd]
    features = [sign * c / sd for sign in (-1, 1) for c in (1, 4) if c < 10 * sd]  # phi lives at arguments near one
    return sorted({0.0, -3.0, 3.0, *inside, *features})


def one_variable(f, sd, kinks):
    """E f(sd xi) by QUADPACK."""
    def integrand(x):
        return float(f(np.array(sd * x))) * np.exp(-x * x / 2) / np.sqrt(2 * np.pi)

    return integrate.quad(integrand, -10, 10, points=_points(kinks, sd), limit=400, epsabs=1e-14, epsrel=1e-11)[0]


def two_variables(f, suu, svv, suv, kinks):
    """E f(u) f(v)."""
    sd_u, sd_v = np.sqrt(suu), np.sqrt(svv)
    rho = suv / (sd_u * sd_v)
    sine = np.sqrt(max((1 - rho) * (1 + rho), 0.0))
    breaks = np.array([*kinks, -4.0, -1.0, 0.0, 1.0, 4.0])

    def inner(x):
        mean, width = sd_v * rho * x, max(sd_v * sine, 1e-300)
        with np.errstate(over="ignore"):
            ends = np.sort(np.concatenate([_BASE, np.clip((breaks - mean) / width, -10, 10)]))
        half, middle = np.diff(ends) / 2, (ends[1:] + ends[:-1]) / 2
        y = middle[:, None] + half[:, None] * _NODES
        mass = half[:, None] * _WEIGHTS * np.exp(-y * y / 2) / np.sqrt(2 * np.pi)
        return float(np.sum(mass * f(mean + width * y)))

    def integrand(x):
        return float(f(np.array(sd_u * x))) * inner(x) * np.exp(-x * x / 2) / np.sqrt(2 * np.pi)

    layers = [] if abs(rho) < 0.1 else [float(t) / (sd_v * rho) for t in kinks if abs(t) < 10 * sd_v * abs(rho)]
    # a jump of f is seen through a layer of width sine; without points in it QUADPACK itself is 1e-7 off near a line
    points = sorted({*_points(kinks, sd_u), *layers, *(c + s * sine for c in layers for s in
                                                        (-9, -4, -2, -1, 1, 2, 4, 9) if abs(c + s * sine) < 10)})
    return integrate.quad(integrand, -10, 10, points=points, limit=400, epsabs=1e-14, epsrel=1e-10)[0]


def data(rng):
    """Few samples of any scale, some of them nearly equal or opposite."""
    p, n = int(rng.integers(1, 40)), int(rng.integers(2, 6))
    x = rng.standard_normal((p, n)) / np.sqrt(p) * 10 ** rng.uniform(-3, 1.2)
    kind = rng.integers(5)
    if kind == 0:
        x[:, 1] = x[:, 0] + 10 ** rng.uniform(-6, -1) * x[:, 1]
    elif kind == 1:
        x[:, 1] = -x[:, 0] * (1 + 1e-3 * rng.normal())
    elif kind == 2:
        x *= 10 ** rng.uniform(-1.5, 0.5, n)
    return x


def kernel_setting(rng):
    """'right', 'refused' or a description of what is wrong."""
    given, phi, slope, kinks = activation(rng)
    x = data(rng)
    a2 = float(rng.choice([0.0, 0.1, 0.2, 0.4, 0.7, 0.95]))
    b2 = None if rng.random() < 0.6 else float(rng.uniform(0.05, 2))
    centre = rng.random() < 0.3
    kind = np.float32 if rng.random() < 0.2 else float
    a2 = float(kind(a2))
    try:
        k = analysis.deq_kernels(x, given, kind(a2), sigma_b2=b2, centre=bool(centre))
    except (EquationsError, FixedPointNotReached, ValueError) as refusal:
        return f"refused: {type(refusal).__name__}"
    b2 = 1 - a2 if b2 is None else b2
    where = (f"{getattr(given, 'name', given)} kinks {kinks}, a2 {a2}, b2 {b2}, centre {centre}, scale "
             f"{np.abs(x).max():.3g}")
    norms = np.sum(x * x, axis=0)
    if centre:
        drive = b2 * norms.mean()

        def gap(q):
            mean = one_variable(phi, np.sqrt(q), kinks)
            return q - drive - a2 * one_variable(lambda v: (phi(v) - mean) ** 2, np.sqrt(q), kinks)

        top = drive
        while gap(top) < 0:
            top *= 2
        root = drive if top == drive else optimize.brentq(gap, top / 2, top, xtol=1e-13 * drive)
        shift = one_variable(phi, np.sqrt(root), kinks)
        if abs(shift - k.shift) > 1e-8 * max(abs(shift), np.sqrt(drive)):
            return f"wrong shift {k.shift} for {shift}: {where}"
    i, j = rng.choice(x.shape[1], 2, replace=False)
    s = k.covariance

    def centred(v):
        return phi(v) - k.shift

    own = [one_variable(lambda v: centred(v) ** 2, np.sqrt(s[m, m]), kinks) for m in (i, j)]
    for m, truth in zip((i, j), own, strict=True):
        if abs(truth - k.ck[m, m]) > k.ck_errors[m, m] + 1e-9 * truth:
            return f"wrong diagonal {k.ck[m, m]} for {truth}: {where}"
    size = np.sqrt(own[0] * own[1])
    truth = two_variables(centred, s[i, i], s[j, j], s[i, j], kinks)
    plain = 1e-15 * phi(np.zeros(1))[0] ** 2  # what a double holds of a centred phi on small data
    if abs(truth - k.ck[i, j]) > k.ck_errors[i, j] + 1e-8 * size + plain:
        return f"wrong entry {k.ck[i, j]} for {truth} (size {size}, allowed {k.ck_errors[i, j]}): {where}"
    steep = two_variables(slope, s[i, i], s[j, j], s[i, j], kinks)
    if abs(steep - k.slope[i, j]) > k.slope_errors[i, j] + 1e-7 * max(1, np.abs(k.slope).max()):
        return f"wrong slope {k.slope[i, j]} for {steep}: {where}"
    tangent = k.ck[i, j] / (1 - a2 * steep)
    if abs(tangent - k.ntk[i, j]) > k.ntk_errors[i, j] + 1e-7 * max(size, abs(tangent)) / (1 - a2 * abs(steep)):
        return f"wrong tangent entry {k.ntk[i, j]} for {tangent}: {where}"
    if k.ck_errors[i, j] > 1e-8 * max(size, abs(k.shift) * np.sqrt(size)):
        return "right, but with a claimed error above 1e-8"
    return "right"


def equation_setting(rng):
    """The four equations: tau from its own equation and every coefficient from integrals done here."""
    given, phi, _, kinks = activation(rng)
    a2, tau0 = float(rng.uniform(0, 0.9)), float(10 ** rng.uniform(-1, 1))
    b2 = None if rng.random() < 0.6 else float(rng.uniform(0.1, 2))
    try:
        eq = analysis.solve_equations(given, a2, tau0, sigma_b2=b2)
    except EquationsError as refusal:
        return f"refused: {type(refusal).__name__}"
    b2 = 1 - a2 if b2 is None else b2
    tau = eq.tau
    mean = one_variable(phi, tau, kinks)

    def moment(f):
        return one_variable(lambda v: f(v / tau, phi(v) - mean), tau, kinks)

    variance, g1 = moment(lambda x, c: c * c), (moment(lambda x, c: x * c) / tau) ** 2
    g2, g4 = (moment(lambda x, c: (x * x - 1) * c) / tau**2) ** 2, moment(lambda x, c: (x * x - 1) * c * c) / tau**2
    linear, energy = 1 - a2 * g1, 1 - a2 * g4 / 2
    alpha1, alpha4 = b2 * g1 / linear, b2 / energy
    truth = {"tau": np.sqrt(a2 * variance + b2 * tau0**2), "alpha1": alpha1, "alpha4": alpha4, "gamma2": variance,
             "alpha2": g2 / 4 * alpha4**2 / linear, "alpha3": g2 / 2 * (a2 * alpha1 + b2) ** 2 / linear}
    for name, value in truth.items():
        scale = max(abs(value), 1e-3 * variance / tau**2)
        if abs(getattr(eq, name) - value) > 1e-7 * scale / min(energy, 1):
            return f"wrong {name} {getattr(eq, name)} for {value}: {getattr(given, 'name', given)} {a2} {tau0} {b2}"
    return "right"


def fuzz(count, seed):
    """How often each outcome, over settings of both kinds (four in five are kernels)."""
    outcomes = Counter()
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        outcomes[(equation_setting if number % 5 == 4 else kernel_setting)(rng)] += 1
    return outcomes


def wrong(outcomes):
    """What is neither right nor refused."""
    return [text for text in outcomes if text.startswith("wrong")]


@pytest.mark.filterwarnings("ignore")
def test_a_few_random_settings():
    outcomes = fuzz(20, seed=1)
    assert wrong(outcomes) == []
    assert outcomes["right"] >= 10


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_many_random_settings():
    outcomes = fuzz(1800, seed=2)
    assert wrong(outcomes) == []
    assert outcomes["right"] > 1200
