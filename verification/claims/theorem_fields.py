"""Theorems of our own on phantom scores: trace gap, curl and bias as series in J; the affine case."""

from __future__ import annotations

from collections.abc import Callable

import sympy
import torch
from torch import Tensor

from analysis.phantom.equilibrium_point import EquilibriumPoint, equilibrium_point
from analysis.phantom.field_gap import field_gap
from analysis.symbolic import phantom_fields
from verification.context import Context
from verification.evidence import Evidence, Method, holds_if
from verification.methods.property_cases import Comparison, gather
from verification.methods.symbolic import identities
from verification.registry import Topic
from verification.verdict import Verdict

TOPIC = Topic("phantom-theorems", "Theorems on phantom scores")
Pair = tuple[Tensor, Tensor]


def _step(curvature: bool) -> Evidence:
    """One step of the induction: the difference of the two brackets, multilinear in its legs."""
    a_k, b, b_k, x, y = sympy.symbols("a_k b b_k x y")  # a_i^(k), a_j, a_j^(k), e_i, e_j
    # d/dx_j of (J a_i^(k) + B e_i) with z* moving, without J d_k; legs of i first
    moving = a_k * y + a_k * b + x * y + b * x
    frozen = x * y + a_k * y + b_k * x + a_k * b_k
    claimed = (b - b_k) * x + (a_k * (b - b_k) if curvature else 0)
    j, value, bracket = sympy.symbols("J D G", commutative=False)
    unrolled = sympy.Integer(0)
    brackets = sympy.symbols("G0:6", commutative=False)
    for item in brackets:
        unrolled = sympy.expand(j * unrolled + item)
    closed = sum((j ** (5 - k) * item for k, item in enumerate(brackets)), sympy.Integer(0))
    outer = a_k * b - a_k * b_k - a_k * (b - b_k)
    return identities({
        "difference of brackets is f_zx[b - b_k, e_i] + f_zz[a_k, b - b_k]": bool(
            sympy.expand(moving - frozen - claimed) == 0),
        "delta_{k+1} = J delta_k + G_k sums to J^(K-1-k) G_k": bool(sympy.expand(unrolled - closed) == 0),
        "step: J (sum) + G_K raises every exponent by one": bool(sympy.expand(j * (j * value) + bracket
                                                                             - (j**2 * value + bracket)) == 0),
        "H[a_K, b] - H[a_K, b_K] = H[a_K, b - b_K]": bool(sympy.expand(outer) == 0)},
        "f_xx, f_zx, f_zz and H as multilinear forms, each leg a letter; every n, d and K. b - b_k = J^k Dz e_j by "
        "claim own-91d5", complete=True)


def _model(context: Context, key: str, n: int = 7, d: int = 3) -> tuple[Callable[[Tensor, Tensor], Tensor], Pair]:
    """A dense tanh cell with |W|_2 = 0.8 and a quadratic log density, for the score field."""
    generator = context.generator(key)
    weight = torch.randn(n, n, dtype=torch.float64, generator=generator)
    weight = 0.8 * weight / torch.linalg.matrix_norm(weight, 2)
    inject = torch.randn(n, d, dtype=torch.float64, generator=generator)
    linear = torch.randn(n, dtype=torch.float64, generator=generator)
    square = torch.randn(n, n, dtype=torch.float64, generator=generator)
    return lambda z, x: torch.tanh(weight @ z + inject @ x), (linear, (square + square.T) / 4)


def _solve(f: Callable[[Tensor, Tensor], Tensor], x: Tensor, n: int) -> Tensor:
    z = torch.zeros(n, dtype=torch.float64)
    for _ in range(200):  # 0.8^200 is below rounding
        z = f(z, x)
    return z


def _both_jacobians(f: Callable[[Tensor, Tensor], Tensor], density: Pair, x: Tensor, steps: int) -> Pair:
    """Jacobian of the score field, z* moving, and Hessian of log p(z^(K)), z^(0) fixed, by autodiff alone."""
    linear, square = density

    def score(place: Tensor) -> Tensor:
        start = _solve(f, place, len(linear))

        def composed(y: Tensor) -> Tensor:
            z = start
            for _ in range(steps):
                z = f(z, y)
            return z

        # start depends on `place` with its graph, but not on y: the inner Jacobian sees it as fixed.
        first = torch.func.jacrev(composed)(place)
        return (linear + 2 * square @ start) @ first

    fixed = _solve(f, x, len(linear))

    def frozen(y: Tensor) -> Tensor:
        z = fixed
        for _ in range(steps):
            z = f(z, y)
        return linear @ z + z @ square @ z

    return torch.func.jacrev(score)(x), torch.func.hessian(frozen)(x)


def _drawn(context: Context, curvature: bool) -> list[Evidence]:
    """Formula against autodiff, and the bound K q^(K-1), for K = 1 to 6."""
    formula, bound = [], []
    f, density = _model(context, "gap")
    generator = context.generator("gap-x")
    for _ in range(context.choose(1, 4, 20)):
        x = torch.randn(3, dtype=torch.float64, generator=generator)
        point = equilibrium_point(f, x, _solve(f, x, 7))
        slope, bend = density[0] + 2 * density[1] @ point.z, 2 * density[1]
        first = point.solve(point.input_jacobian)
        # tanh: |f_zz|, |f_zx| <= 0.77 |W|^2, 0.77 |W| |U| (largest |tanh''| is 0.7699)
        q = float(torch.linalg.matrix_norm(point.jacobian, 2))
        for steps in range(1, 7):
            moving, frozen = _both_jacobians(f, density, x, steps)
            found = field_gap(point, slope, bend, steps, curvature=curvature)
            scale = max(float((moving - frozen).norm()), 1e-6)
            # Two routes of nested products through 200 steps: condition^2 times rounding of order n eps 200.
            tolerance = 50 * 200 * 7 * 2.3e-16 * point.condition**2 * float(moving.norm() + frozen.norm())
            formula.append(Comparison(float((moving - frozen - found).norm()), tolerance, scale, f"K={steps}"))
            size = float(torch.linalg.matrix_norm(first, 2))
            limit = (float(slope.norm()) * steps * q ** (steps - 1) * _second_size(point, first)
                     + q**steps * (1 + q**steps) * float(torch.linalg.matrix_norm(bend, 2)) * size**2)
            bound.append(Comparison(float(torch.linalg.matrix_norm(found, 2)), limit * (1 + 1e-12), float("inf"),
                                    f"K={steps}"))
    what = "dense tanh equilibria, n = 7, d = 3, |W|_2 = 0.8, quadratic log density, K = 1 to 6"
    return [gather(formula, f"{len(formula)} cases: {what}; Jacobian of the field, z* moving, minus frozen Hessian, by "
                   "autodiff through an unroll, against the series", method=Method.NUMERICAL),
            gather(bound, "the same: 2-norm of the gap against its bound in K q^(K-1), q = |J|_2")]


def _second_size(point: EquilibriumPoint, first: Tensor) -> float:
    """|f_zx| |Dz| + 2 |f_zz| |Dz|^2 in 2-norms, an upper bound by the Frobenius norms of the tensors."""
    f, x, z = point.f, point.x, point.z
    both = torch.func.hessian(lambda u: f(u, x))(z)
    mixed = torch.func.jacrev(lambda y: torch.func.jacrev(lambda u: f(u, y))(z))(x)
    size = float(torch.linalg.matrix_norm(first, 2))
    return float(mixed.norm()) * size + 2 * float(both.norm()) * size**2


@TOPIC.claim(
    id="own-7ac1", title="Trace gap and curl of a phantom score", source="deqproof",
    statement=r"Let $f$ be $C^2$ near $(z^*, x)$ with $I - J$ invertible, $g$ and $H$ the first two derivatives of "
              r"$\log p$ at $z^*$, $a_i = D z^* e_i$ and $a_i^{(k)} = D z^{(k)} e_i = a_i - J^k a_i$. The Jacobian of "
              r"the phantom score $s_K = (D z^{(K)})^T g$, with $z^*$ moving, is the Hessian $T_K$ that autograd "
              r"returns "
              r"plus $$\Delta_{ij} = g \cdot \sum_{k<K} J^{K-1-k} \left( f_{zx}[J^k a_j, e_i] + f_{zz}[a_i^{(k)}, J^k "
              r"a_j] \right) + H[a_i^{(K)}, J^K a_j].$$ So the trace gap is $\mathrm{tr} \Delta$, the curl $\Delta - "
              r"\Delta^T$, and with $|J| \le q < 1$, $|\Delta| \le K q^{K-1} |g| (|f_{zx}| |Dz| + 2 |f_{zz}| |Dz|^2) + "
              r"q^K (1 + q^K) |H| |Dz|^2$."
              "\n\n"
              r"Proof. Along $e_j$, $a_i^{(k+1)} = J a_i^{(k)} + B e_i$ changes by $J \partial_j a_i^{(k)} + f_{zx}"
              r"[a_i^{(k)}, e_j] + f_{zz}[a_i^{(k)}, a_j] + f_{xx}[e_i, e_j] + f_{zx}[a_j, e_i]$, as $z^*$ moves by "
              r"$a_j$; with $z^{(0)}$ fixed the recursion of Proposition 2 has $a_j^{(k)}$ in place of $a_j$. The "
              r"difference obeys $\delta_{k+1} = J \delta_k + f_{zx}[J^k a_j, e_i] + f_{zz}[a_i^{(k)}, J^k a_j]$, "
              r"$\delta_0 = 0$; sum it, and add $H[a_i^{(K)}, a_j - a_j^{(K)}]$ for the change of $g$. $T_K$ is "
              r"symmetric, hence the curl.",
    expected=Verdict.PROVED, control_note="the term in f_zz left out",
    control=lambda context: [_step(False), *_drawn(context, False)], figures=("phantom-curl",))
def gap_series(context: Context) -> list[Evidence]:
    """The induction with letters for legs; autodiff through unrolls; the bound."""
    return [_step(True), *_drawn(context, True)]


def _bias(factor: int) -> list[Evidence]:
    """Loss plus constant minus Fisher divergence against -E gap, gap = K c^(K-1) c' Dz, on N(0, 1)."""
    out, x, share = [], phantom_fields.x, sympy.Rational(9, 10)
    c = phantom_fields.coupling(share)
    for steps in (1, 2, 3):
        score, seen, _ = phantom_fields.biased_model(steps, share)
        loss = phantom_fields.gaussian_mean(score**2 / 2 + seen) + phantom_fields.gaussian_mean(x**2 / 2)
        fisher = phantom_fields.gaussian_mean((score + x) ** 2 / 2)
        gap = factor * steps * c ** (steps - 1) * sympy.diff(c, x) * (-x)
        bias = -phantom_fields.gaussian_mean(gap)
        error = float(abs(loss - fisher - bias))
        out.append(Evidence(Method.HIGH_PRECISION, holds_if(error <= 1e-12), f"z = c z - (1 - c) x^2/2, c = 0.9 "
                            f"x^2/(1+x^2), data N(0, 1), K = {steps}, tanh-sinh quadrature",
                            {"bias of the loss": float(loss - fisher), "minus the mean trace gap": float(bias),
                             "difference": error}))
    return out


@TOPIC.claim(
    id="own-d3e6", title="The bias of phantom score matching in closed form", source="deqproof",
    statement=r"If $p_{data}\, s_K$ vanishes at infinity, $E[\frac12 |s_K|^2 + \mathrm{tr}\, T_K] = \frac12 E|s_K - "
              r"\nabla \log p_{data}|^2 - \frac12 E|\nabla \log p_{data}|^2 - E\, \mathrm{tr}\, \Delta$ with $\Delta$ "
              r"of "
              r"the claim before: Hyvärinen's integration by parts holds for the divergence of $s_K$, which is "
              r"$\mathrm{tr}(T_K + \Delta)$. For $f = c(x) z + b(x)$ and $\log p = z$ in one dimension, $\mathrm{tr} "
              r"\Delta = K c^{K-1} c' z^{*\prime}$.",
    expected=Verdict.SUPPORTED, control_note="the gap taken twice", control=lambda context: _bias(2))
def bias_law(context: Context) -> list[Evidence]:
    """A Gaussian model read off an equilibrium, K = 1, 2, 3."""
    return _bias(1)


def _affine_symbolic(steps: int) -> dict[str, bool]:
    """Cells z = W z + g(x): derivatives in x of any order, and in W along V, as words in non-commuting letters."""
    w, v, s, c = sympy.symbols("W V S C", commutative=False)  # C stands for D^m g, any m

    def reduce(expression: sympy.Expr) -> sympy.Expr:
        """W S = S - I, to the end."""
        expression = sympy.expand(expression)
        for _ in range(2 * steps + 2):
            expression = sympy.expand(expression.subs(w * s, s - 1))
        return expression

    state, along = sympy.Integer(0), sympy.Integer(0)
    for _ in range(steps):
        along = sympy.expand(w * along + v * state)   # D_W of D^m z^(k+1): W moves by V
        state = sympy.expand(w * state + c)
    tail = sum((w**j * v * w ** (steps - 1 - j) for j in range(steps)), sympy.Integer(0)) * s * c
    exact = s * v * s * c
    error = w**steps * s * v * s * c + tail
    return {f"K = {steps}: D^m z - D^m z^(K) = W^K D^m z": bool(reduce(s * c - state - w**steps * s * c) == 0),
            f"K = {steps}: D_W D^m z - D_W D^m z^(K) = W^K S V D^m z + sum W^j V W^(K-1-j) D^m z": bool(
                reduce(exact - along - error) == 0)}


def _affine_drawn(context: Context, bent: float) -> list[Evidence]:
    """First and second derivatives through K steps of W z + softplus(U x) + bent tanh(z), by autodiff."""
    generator, out = context.generator("affine"), []
    n, d = 6, 3
    weight = torch.randn(n, n, dtype=torch.float64, generator=generator)
    weight = 0.7 * weight / torch.linalg.matrix_norm(weight, 2)
    inject = torch.randn(n, d, dtype=torch.float64, generator=generator)
    x = torch.randn(d, dtype=torch.float64, generator=generator)

    def f(z: Tensor, y: Tensor) -> Tensor:
        return weight @ z + torch.nn.functional.softplus(inject @ y) + bent * torch.tanh(z)

    z = torch.zeros(n, dtype=torch.float64)
    for _ in range(400):
        z = f(z, x)
    jacobian = torch.func.jacrev(lambda u: f(u, x))(z)

    def run(y: Tensor, steps: int, start: Tensor) -> Tensor:
        for _ in range(steps):
            start = f(start, y)
        return start

    zero = torch.zeros(n, dtype=torch.float64)
    truth = (torch.func.jacrev(lambda y: run(y, 400, zero))(x), torch.func.hessian(lambda y: run(y, 400, zero))(x))
    for steps in (1, 2, 3, 5):
        found = (torch.func.jacrev(lambda y, k=steps: run(y, k, z))(x),
                 torch.func.hessian(lambda y, k=steps: run(y, k, z))(x))
        power = torch.linalg.matrix_power(jacobian, steps)
        for order in (0, 1):
            wanted = truth[order] - torch.tensordot(power, truth[order], dims=1)
            scale = float(truth[order].norm())
            out.append(Comparison(float((found[order] - wanted).norm()), 400 * n * 50 * 2.3e-16 * scale, scale,
                                  f"order {order + 1}, K={steps}"))
    return [gather(out, f"W z + softplus(U x){f' + {bent:g} tanh(z)' if bent else ''}, n = 6, d = 3, |W|_2 = 0.7, "
                        f"first "
                   "and second derivatives through K = 1, 2, 3, 5 steps by autodiff, against (I - J^K) times the limit",
                   method=Method.NUMERICAL)]


@TOPIC.claim(
    id="own-f5b8", title="Cells affine in z: no factor K", source="deqproof, on [SM] released cells",
    statement=r"Let $f(z, x) = W z + g(x)$, $g$ of class $C^m$, $S = (I - W)^{-1}$. Then $D^m z^* - D^m z^{(K)} = W^K "
              r"D^m z^*$ for every order $m \ge 1$ in $x$: no factor $K$, $K^2$, ... as for curved cells. If $\log p$ "
              r"is "
              r"linear in $z$, $\Delta = 0$: the phantom score is the exact score of $\log p_K = g \cdot \sum_{k<K} "
              r"W^k "
              r"g(x)$, and score matching of it has no bias. In $W$ along $V$, $D_W D^m z^* - D_W D^m z^{(K)} = W^K S "
              r"V "
              r"D^m z^* + \sum_{j<K} W^j V W^{K-1-j} D^m z^*$: one factor $K$, and the same with $W$ detached in the "
              r"first step, which acts on $D^m z^{(0)} = 0$."
              "\n\n"
              r"Proof. $D^m z^{(k+1)} = W D^m z^{(k)} + D^m g$ from $0$, so $D^m z^{(K)} = \sum_{k<K} W^k D^m g = (I - "
              r"W^K) S D^m g$. With $f_{zx} = f_{zz} = 0$ and $H = 0$ every term of $\Delta$ vanishes. Differentiate "
              r"the recursion in $W$: $E_{k+1} = W E_k + V D^m z^{(k)}$, insert $D^m z^{(k)} = (I - W^k) D^m z^*$ and "
              r"sum: $(I - W^K) S V D^m z^* - \sum_j W^j V W^{K-1-j} D^m z^*$.",
    expected=Verdict.PROVED, control_note="a cell that is not affine: 0.2 tanh(z) added",
    control=lambda context: _affine_drawn(context, 0.2))
def affine_cells(context: Context) -> list[Evidence]:
    """Words in non-commuting letters for K = 1 to 5 beside the induction; autodiff."""
    checks: dict[str, bool] = {}
    for steps in range(1, 6):
        checks |= _affine_symbolic(steps)
    return [identities(checks, "non-commuting W, V, S, any order m and dimension; K = 1 to 5, and every K by the "
                       "induction in the statement", complete=True), *_affine_drawn(context, 0.0)]
