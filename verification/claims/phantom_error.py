"""How wrong K phantom steps are: bounds at finite K, and the laws q^K, K q^K and K^2 q^K."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import islice, pairwise
from typing import Any

import mpmath
import torch

from analysis.phantom.bounds import bounds_at
from analysis.phantom.derivatives import derivatives_at, iterate_derivatives
from analysis.phantom.equilibrium_point import equilibrium_point
from analysis.reference import high_precision
from analysis.reference.cases import Case, dense_case, draw, draw_cases
from analysis.symbolic import noncommuting, scalar_law
from verification.context import Context
from verification.evidence import Evidence, Method, holds_if, largest, smallest
from verification.methods.property_cases import Comparison, gather
from verification.methods.symbolic import identities
from verification.registry import Topic
from verification.verdict import Verdict

TOPIC = Topic("phantom-error", "Phantom error at finite K")


def skewed_case(generator: torch.Generator, n: int, d: int) -> Case:
    """A tanh equilibrium whose Jacobian is far from normal: |J|_2 well above 1, spectral radius below it."""
    weight = torch.triu(2.0 * draw(generator, n, n), 1) + 0.6 * torch.eye(n, dtype=torch.float64)
    inject = 0.3 * draw(generator, n, d)

    def f(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(weight @ z + inject @ x)

    zero = torch.zeros(n, dtype=torch.float64)
    return Case("dense", f, equilibrium_point(f, torch.zeros(d, dtype=torch.float64), zero), 0.99, "tanh")


def _drawn(context: Context, key: str, count: int) -> list[Case]:
    generator = context.generator(key)
    drawn = list(draw_cases(generator, count))
    return drawn + [skewed_case(generator, 2 + i % 6, 1 + i % 3) for i in range(count // 3)]


def bounds_hold(context: Context, order: int, falsify: str = "") -> Evidence:
    """Measured errors of both orders against the sharp, the powers and the law bound, K = 1 ... 8."""
    out, violations = [], 0
    count = context.choose(4, 9, 300) if not falsify else 4
    for case in _drawn(context, f"bounds-{order}", count):
        table = bounds_at(case.point, 8)
        exact = derivatives_at(case.point, 2).tensors[order - 1]
        for row, iterate in zip(table, islice(iterate_derivatives(case.point), 1, None), strict=False):
            error = float((exact - iterate.tensors[order - 1]).norm())
            levels = (row.first, row.first_powers, row.first_law) if order == 1 else (
                row.second, row.second_powers, row.second_law)
            if falsify == "radius":
                levels = (row.spectral_radius ** row.steps * float(exact.norm()) + row.rounding,) * 3
            if falsify == "no K":
                levels = (row.q ** row.steps * float(exact.norm()) + row.rounding,) * 3
            violations += not error <= min(levels)
            # The whole error is the scale: a bound is vacuous where it exceeds the derivative itself.
            out.append(Comparison(error, min(levels), float("inf"), f"{case.label} K={row.steps}"))
    evidence = gather(out, f"{count} drawn maps and {count // 3} far from normal (|J|_2 up to about 10), K = 1 to 8: "
                      "the error in Frobenius norm against the least of the three bounds")
    return replace(evidence, numbers={**{k: v for k, v in evidence.numbers.items() if k != "largest relative error"
                                         and k != "its scale"}, "violations": violations})


def tightness(context: Context) -> Evidence:
    """How far the sharp second-order bound lies above the error, over a sweep that figures read."""
    case = dense_case(context.generator("sweep"), 16, 3, 0.95, "tanh")
    steps = context.choose(20, 40, 60)
    exact = derivatives_at(case.point, 2)
    table = bounds_at(case.point, steps)
    rows: dict[str, list[float]] = {name: [] for name in (
        "K", "first_error", "second_error", "first", "second", "first_powers", "second_powers", "first_law",
        "second_law")}
    ratios = []
    for row, iterate in zip(table, islice(iterate_derivatives(case.point), 1, None), strict=False):
        errors = [float((a - b).norm()) for a, b in zip(exact.tensors, iterate.tensors, strict=True)]
        rows["K"].append(row.steps)
        rows["first_error"].append(errors[0] / float(exact.first.norm()))
        rows["second_error"].append(errors[1] / float(exact.second.norm()))
        for name in ("first", "first_powers", "first_law"):
            rows[name].append(getattr(row, name) / float(exact.first.norm()))
        for name in ("second", "second_powers", "second_law"):
            rows[name].append(getattr(row, name) / float(exact.second.norm()))
        if errors[1] > 100 * row.rounding:
            ratios.append(row.second / errors[1])
    context.record("truncation-sweep", {**rows, "q": table[0].q, "spectral_radius": table[0].spectral_radius,
                                        "n": 16, "d": 3})
    # The triangle inequality over K terms can lose a factor K, no more where the terms align.
    between = bool(ratios) and smallest(ratios) >= 1.0 - 1e-9 and largest(ratios) <= steps
    return Evidence(Method.MEASUREMENT, holds_if(between),
                    f"dense tanh equilibrium, n = 16, d = 3, |W|_2 = 0.95, K = 1 to {steps}: sharp second-order bound "
                    "over the error", {"smallest ratio": min(ratios), "largest ratio": max(ratios)})


@TOPIC.claim(
    id="own-91d5", title="First-order error of K steps", source="deqproof, for [SM] Prop. 2 at finite K",
    statement=r"$D z^* - D z^{(K)} = J^K D z^*$, hence $|D z^* - D z^{(K)}| \le |J^K|_2 \, |D z^*| \le \kappa q^K |D "
              r"z^*|$ for any $q, \kappa$ with $|J^j|_2 \le \kappa q^j$; $\kappa = 1$ where $q = |J|_2 < 1$.",
    expected=Verdict.PROVED, control_note="q is the spectral radius with kappa = 1, which non-normal J violate",
    control=lambda context: [bounds_hold(context, 1, "radius")], figures=("truncation-error",))
def first_order(context: Context) -> list[Evidence]:
    """Induction, and the bounds on drawn equilibria."""
    return [identities(noncommuting.first_order_induction(), "non-commuting J, all K; norms are submultiplicative",
                       complete=True), bounds_hold(context, 1)]


@TOPIC.claim(
    id="own-8be2", title="Second-order error of K steps", source="deqproof, for [SM] Prop. 2 at finite K",
    statement=r"With $T = f_{zx} + f_{zz}[\cdot, D z^* \cdot]$ and $|J|_2 \le q < 1$, $|D^2 z^* - D^2 z^{(K)}| \le "
              r"q^K |D^2 z^*| + 2 K q^{K-1} |T| |D z^*| + q^{K-1} \frac{1-q^K}{1-q} |f_{zz}| |D z^*|^2$. It follows "
              r"from $D^2 z^* - D^2 z^{(K)} = J^K D^2 z^* + \sum_{k<K} J^{K-1-k} (H(D z^*) - H(D_k))$.",
    expected=Verdict.PROVED, control_note="the bound q^K |D^2 z|, without the two other terms",
    control=lambda context: [bounds_hold(context, 2, "no K")], figures=("truncation-error",))
def second_order(context: Context) -> list[Evidence]:
    """Telescoped identity with non-commuting symbols; the bounds on drawn equilibria; how tight they are."""
    checks = {**noncommuting.second_order_induction(), **noncommuting.bilinear_gap(), **noncommuting.norm_sums()}
    return [identities(checks, "non-commuting symbols, all K; triangle inequality and submultiplicative norms",
                       complete=True), bounds_hold(context, 2), tightness(context)]


def precise_errors(orders: tuple[int, ...], steps: list[int], digits: int = 160) -> dict[int, list[Any]]:
    """Errors of K phantom steps of z = softplus(0.8 z + theta x + 0.3) in mpmath, by differences alone.

    Order m differentiates m - 1 times in x, then once in theta for m = 3 (the mixed derivative of a score-matching
    gradient), else in x.
    """
    with mpmath.workdps(digits + 10):
        weight, bias = mpmath.mpf("1.2"), mpmath.mpf("0.3")

        def f(z: Any, x: Any) -> high_precision.Vector:
            return [high_precision.softplus(weight * z[0] + x[1] * x[0] + bias - 2)]

        at = [mpmath.mpf("0.7"), mpmath.mpf("0.9")]
        start = high_precision.equilibrium(f, at, [mpmath.mpf(0)], digits)
        legs = {1: [[1, 0]], 2: [[1, 0]] * 2, 3: [[1, 0], [1, 0], [0, 1]]}
        slope = weight / (1 + mpmath.exp(-(weight * start[0] + at[1] * at[0] + bias - 2)))
        out: dict[int, list[Any]] = {0: [slope]}
        for order in orders:
            exact = high_precision.derivative(lambda x: high_precision.equilibrium(f, x, start, digits), at,
                                              legs[order], digits)[0]
            out[order] = []
            for count in steps:
                def iterate(x: Any, count: int = count) -> high_precision.Vector:
                    z = start
                    for _ in range(count):
                        z = f(z, x)
                    return z

                out[order].append(exact - high_precision.derivative(iterate, at, legs[order], digits)[0])
        return out


def _law(context: Context, order: int, power: int) -> Evidence:
    """Whether error / (K^power q^K) settles: the local exponent in K from K to 2 K must tend to `power`."""
    steps = context.choose([10, 20, 40], [8, 16, 32, 64], [8, 16, 32, 64, 128])
    errors = context.shared("phantom-laws", lambda: precise_errors((1, 2, 3), steps))
    with mpmath.workdps(60):
        q = errors[0][0]
        scaled = {m: [float(abs(e) / q**k) for e, k in zip(errors[m], steps, strict=True)] for m in (1, 2, 3)}
    context.record("truncation-laws", {"K": steps, "q": float(q), **{f"order {m}": scaled[m] for m in (1, 2, 3)}})
    values = [mpmath.mpf(v) for v in scaled[order]]
    exponents = [float(mpmath.log(b / a, 2)) for a, b in pairwise(values)]
    # error / q^K is a polynomial of degree `power` in K up to q^K: the exponent's distance to it halves as K doubles.
    gaps = [abs(e - power) for e in exponents]
    settles = all(b <= 0.75 * a + 1e-12 for a, b in pairwise(gaps)) and gaps[-1] < 0.35
    return Evidence(Method.HIGH_PRECISION, holds_if(settles), "one softplus equilibrium, n = 1, in 160 digits, "
                    f"derivatives by differences through K = {steps[0]} to {steps[-1]} steps",
                    {"q": float(q), **{f"exponent of K between {a} and {2 * a}": e
                                       for a, e in zip(steps, exponents, strict=False)}})


@TOPIC.claim(
    id="own-314f", title="The second order decays like K q^K", source="deqproof, for [SM] Prop. 2 at finite K",
    statement=r"In one dimension $(D^2 z^* - D^2 z^{(K)}) / (K q^K) \to 2 (f_{zx} + f_{zz} D z^*) D z^* / q$ with $q "
              r"= J$: a factor $K$ slower than the first order, whenever this constant is not zero.",
    expected=Verdict.PROVED, control_note="a plain q^K law for the second order",
    control=lambda context: [_law(context, 2, 0)], figures=("truncation-laws",))
def second_order_law(context: Context) -> list[Evidence]:
    """Closed form with every derivative of f a free symbol; 160-digit differences."""
    rate = scalar_law.second_rate() - 2 * scalar_law.T * scalar_law.d1 / scalar_law.q
    return [identities({**scalar_law.second_error_checks(), "leading coefficient": bool(rate.simplify() == 0)},
                       "n = d = 1, all derivatives of f free symbols, 0 < |q| < 1, induction over K", complete=True),
            _law(context, 2, 1)]


@TOPIC.claim(
    id="own-1b49", title="In one dimension score-matching gradients decay like K^2 q^K",
    source="deqproof, for [SM] §3.4",
    statement=r"The parameter gradient of the score-matching loss takes a third derivative of $z^{(K)}$, twice in $x$ "
              r"and once in $\theta$. In one dimension the error of a third derivative tends to $3 (f_{zx} + f_{zz} D "
              r"z^*)^2 D z^* / q^2$ times $K^2 q^K$: two factors $K$ slower than the score.",
    expected=Verdict.PROVED, control_note="a K q^K law for the third order",
    control=lambda context: [_law(context, 3, 1)], figures=("truncation-laws",))
def third_order_law(context: Context) -> list[Evidence]:
    """Closed form with every derivative of f a free symbol; 160-digit mixed differences."""
    rate = scalar_law.third_rate() - 3 * scalar_law.T**2 * scalar_law.d1 / scalar_law.q**2
    return [identities({**scalar_law.second_error_checks(), "leading coefficient": bool(rate.simplify() == 0)},
                       "n = d = 1, all derivatives of f free symbols; a mixed derivative is the polarisation of this "
                       "one",
                       complete=True), _law(context, 3, 2)]


def _radius_sweep(context: Context) -> dict[str, list[float]]:
    """Dz, D^2 z and the K for a relative error of 1e-3, for z = J z + B x + 0.2 (A z)^2 at the origin, J symmetric."""
    generator = context.generator("near-one")
    basis = torch.linalg.qr(draw(generator, 6, 6)).Q
    inject, bend = draw(generator, 6, 1), draw(generator, 6, 6)
    rows: dict[str, list[float]] = {name: [] for name in ("radius", "first", "second", "K first", "K second")}
    for gap in (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005):
        values = torch.tensor([1.0 - gap, 0.5, 0.3, -0.4, 0.1, 0.0], dtype=torch.float64)
        jacobian = basis @ torch.diag(values) @ basis.T

        def f(z: torch.Tensor, x: torch.Tensor, jacobian: torch.Tensor = jacobian) -> torch.Tensor:
            return jacobian @ z + inject @ x + 0.2 * (bend @ z) ** 2

        zero = torch.zeros(6, dtype=torch.float64)
        exact = derivatives_at(equilibrium_point(f, torch.zeros(1, dtype=torch.float64), zero), 2)
        wanted = [t.reshape(6) for t in exact.tensors]
        # Proposition 2 by hand: here H(D) = 0.4 (A D)^2.
        iterates, needed, k = [zero, zero], [0, 0], 0
        while 0 in needed and k < 100_000:
            iterates = [jacobian @ iterates[0] + inject[:, 0], jacobian @ iterates[1] + 0.4 * (bend @ iterates[0]) ** 2]
            k += 1
            for order in (0, 1):
                if needed[order] == 0 and (wanted[order] - iterates[order]).norm() <= 1e-3 * wanted[order].norm():
                    needed[order] = k
        for name, value in zip(rows, (1.0 - gap, wanted[0].norm(), wanted[1].norm(), *needed), strict=True):
            rows[name].append(float(value))
    context.record("truncation-radius", rows)
    return rows


def _near_one(context: Context, exponent: float) -> list[Evidence]:
    """Growth of Dz, D^2 z and of the needed K as the spectral radius tends to 1, on one family of equilibria."""
    rows = context.shared("radius-sweep", lambda: _radius_sweep(context))
    names = ("first", "second", "K first", "K second")
    exponents = {name: math.log2(rows[name][-1] / rows[name][-2]) for name in names}
    # Powers of 1/(1 - radius), up to the share of the other eigenvalues, of order 1 - radius = 0.01, and log K / K.
    wanted = {"first": 1.0, "second": exponent, "K first": 1.0, "K second": 1.0}
    close = all(abs(exponents[name] - wanted[name]) <= 0.1 for name in wanted)
    return [Evidence(Method.NUMERICAL, holds_if(close), "quadratic equilibria, n = 6, symmetric J with largest "
                     "eigenvalue 0.5 to 0.995; exponents of 1/(1 - radius) between 0.99 and 0.995, K for an error of "
                     "1e-3", {f"exponent, {name}": value for name, value in exponents.items()})]


@TOPIC.claim(
    id="own-2077", title="As the spectral radius tends to one", source="deqproof",
    statement=r"As an eigenvalue $\rho$ of a normal $J$ tends to 1, $|D z^*|$ grows like $(1-\rho)^{-1}$ and $|D^2 "
              r"z^*|$ like $(1-\rho)^{-3}$ (where $f_{zz}$ does not vanish along its eigenvector), and the steps $K$ "
              r"that a fixed relative error needs grow like $(1-\rho)^{-1}$ in both orders.",
    expected=Verdict.SUPPORTED, control_note="the second derivative grows like the square",
    control=lambda context: _near_one(context, 2.0), figures=("truncation-radius",))
def near_one(context: Context) -> list[Evidence]:
    """A family of exact quadratic equilibria at the origin."""
    return _near_one(context, 3.0)


