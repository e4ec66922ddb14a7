"""Whether the normalised maps of [SM] contract: dense yes, convolutions no, residual blocks not by small weights."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise

import sympy
import torch
from torch import Tensor, nn
from torch.nn import functional

import deq
from analysis.convolution_norms import convolution_norms
from analysis.jacobian_norms import operator_norm
from analysis.phantom.bounds import rate_and_constant
from analysis.reference.cases import SMOOTH, draw
from verification.claim import Reading
from verification.context import Context
from verification.evidence import Evidence, Method, Subject, holds_if
from verification.methods.property_cases import Comparison, gather
from verification.methods.symbolic import identities
from verification.registry import Topic
from verification.verdict import Verdict

TOPIC = Topic("well-posedness", "When the equilibrium exists")


def _dense_lipschitz(context: Context, margin: float) -> list[Evidence]:
    """Largest |df/dz|_2 and difference quotient of dense cells whose W is divided by margin (|W|_F + eps)."""
    generator, out = context.generator(f"dense-{margin}"), []
    names = sorted(SMOOTH)
    for index in range(context.choose(10, 60, 1000)):
        n, act = 1 + index % 12, SMOOTH[names[index % len(names)]]
        raw = draw(generator, n, n) if index % 3 else draw(generator, n, 1) @ draw(generator, 1, n)
        weight = raw / (margin * (torch.linalg.vector_norm(raw) + 1e-6))
        bias, z, w = 0.1 * draw(generator, n), draw(generator, n), draw(generator, n)

        def f(z: Tensor, _: Tensor, weight: Tensor = weight, bias: Tensor = bias,
              act: Callable[[Tensor], Tensor] = act) -> Tensor:
            return act(weight @ z + bias)

        # Near the steepest point of the activation the bound is nearly met, so a wrong margin shows.
        steep = operator_norm(f, bias, z).value
        quotient = float((f(z, bias) - f(w, bias)).norm() / (z - w).norm())
        plain = float(torch.linalg.matrix_norm(weight, 2))
        out.append(Comparison(max(steep, quotient, plain), 1.0 - 1e-7, float("inf"), f"n = {n}"))
    return [gather(out, f"{len(out)} dense cells, every third W of rank one (where |W|_2 = |W|_F); |W|_2, |df/dz|_2 "
                   "and a difference quotient against 1")]


def _frobenius_proof() -> Evidence:
    """|W|_2^2 is the largest eigenvalue of W^T W, |W|_F^2 their sum: shown as a sum of squares for n = 2 and 3."""
    checks = {}
    for n in (2, 3):
        entries = sympy.symbols(f"w0:{n * n}", real=True)
        weight, v = sympy.Matrix(n, n, entries), sympy.Matrix(sympy.symbols(f"v0:{n}", real=True))
        # Lagrange: |W|_F^2 |v|^2 - |W v|^2 = sum over rows, i < j of (w_i v_j - w_j v_i)^2.
        squares = sum((weight[r, i] * v[j] - weight[r, j] * v[i]) ** 2
                      for r in range(n) for i in range(n) for j in range(i + 1, n))
        gap = sum(e**2 for e in entries) * v.dot(v) - (weight * v).dot(weight * v)
        checks[f"n = {n}: |W|_F^2 |v|^2 - |W v|^2 is a sum of squares"] = bool(sympy.expand(gap - squares) == 0)
    size, slack, margin = sympy.symbols("F epsilon lambda", positive=True)
    ratio = size / (margin * (size + slack))
    checks["|W|_F / (lambda (|W|_F + eps)) < 1/lambda"] = bool(sympy.simplify(1 / margin - ratio).is_positive)
    return identities(checks, "Lagrange's identity row by row (the same for every n), and a 1-Lipschitz activation "
                      "applied entry by entry", complete=True)


@TOPIC.claim(
    id="sm-46a0", title="Dense cells contract after normalisation", source="[SM] §3.2, normaliser after eq. (5)",
    statement=r"For a 1-Lipschitz activation, $W \to W / (\lambda (\|W\|_F + \epsilon))$ with $\lambda > 1$ makes "
              r"$f(z) = \sigma(W z + b)$ a contraction with factor below $1/\lambda$: a unique equilibrium exists for "
              r"every $x$.",
    quote=r"$\mathbf{W} \rightarrow \mathbf{W}/\lambda(\|\mathbf{W}\|_{\text{F}} + \epsilon)$, where $\lambda > 1$ "
          r"is hyperparameter [...] This constraint ensures the spectral norm of the weight matrix $\mathbf{W}$ to "
          "be less than one",
    reading=Reading.LITERAL,
    expected=Verdict.PROVED, control_note="lambda = 0.8 in place of a number above one",
    control=lambda context: _dense_lipschitz(context, 0.8))
def dense(context: Context) -> list[Evidence]:
    """Lagrange's identity; random dense and rank-one weights."""
    return [_frobenius_proof(), *_dense_lipschitz(context, 1.0 + 1e-6)]


def _convolution_norm(frobenius: Fraction, size: int, image: int) -> list[Evidence]:
    """Whether |k|_F < 1 bounds the operator norm of the constant one-channel kernel, exactly from below."""
    entry = frobenius / size
    # On the image of ones the inner (image - size + 1)^2 pixels map to size^2 * entry; Rayleigh's quotient in
    # rationals.
    half = size // 2
    total = Fraction(0)
    for r in range(image):
        rows = min(r + half, image - 1) - max(r - half, 0) + 1
        for c in range(image):
            columns = min(c + half, image - 1) - max(c - half, 0) + 1
            total += (rows * columns * entry) ** 2
    squared = total / image**2
    kernel = torch.full((1, 1, size, size), float(entry), dtype=torch.float64)
    norms = convolution_norms(kernel, image, image)
    return [Evidence(Method.COUNTEREXAMPLE, holds_if(squared <= 1), f"constant {size}x{size} one-channel kernel, "
                     f"|k|_F = {frobenius}, zero padding, image of ones {image}x{image}; exact rationals",
                     {"squared gain on the image of ones": str(squared.limit_denominator(10**6)),
                      "gain": float(squared) ** 0.5}),
            Evidence(Method.NUMERICAL, holds_if(norms.operator <= 1), "the same kernel, operator norm by Lanczos",
                     {"operator norm": norms.operator, "|k|_F": norms.frobenius})]


def _bounds_chain(context: Context, factor: float = 1.0) -> Evidence:
    """Operator <= Fourier <= shifts <= sqrt(kh kw) |k|_F on random multi-channel kernels."""
    generator, out = context.generator("chain"), []
    for index in range(context.choose(5, 25, 300)):
        kernel = draw(generator, 1 + index % 3, 1 + index % 2, 3 + 2 * (index % 2), 3)
        norms = convolution_norms(kernel, 3 + index % 6, 4 + index % 5)
        chain = (norms.operator, norms.fourier, norms.shifts, norms.frobenius_bound)
        for lower, upper in pairwise(chain):
            out.append(Comparison(lower, factor * upper * (1 + 1e-12), float("inf"), str(tuple(kernel.shape))))
    return gather(out, f"{len(out) // 3} random kernels, several channels, 3x3 and 5x3, images up to 8x8: each bound "
                  "against the next")


@TOPIC.claim(
    id="sm-5865", title="Convolutions do not contract by the Frobenius norm", source="[SM] §3.2, convolutional cells",
    statement=r"Dividing a convolution kernel $k$ by $\lambda (\|k\|_F + \epsilon)$, $\lambda > 1$, makes the "
              r"convolution a contraction.",
    correction=r"Its operator norm can reach $\sqrt{h w}\,\|k\|_F$ for an $h \times w$ kernel. Divide by $\max_\omega "
               r"|\hat k(\omega)|_2 \le \sum_s |k_s|_2 \le \sqrt{h w}\,\|k\|_F$ instead: each is a proved bound.",
    quote=r"or a convolutional layer when $\mathbf{W}$ is a convolutional kernel [...] This constraint ensures the "
          r"spectral norm of the weight matrix $\mathbf{W}$ to be less than one",
    reading=Reading.OURS,
    reading_note=r"$\|W\|_F$ is read as the norm of the kernel, as released; with the convolution's matrix the "
                 "sentence is true",
    expected=Verdict.CORRECTED, control_note="the correction's bounds halved",
    control=lambda context: [_bounds_chain(context, 0.5)], figures=("convolution-picard",))
def convolution(context: Context) -> list[Evidence]:
    """The constant 5x5 kernel with |k|_F = 9/10; the chain of bounds that holds."""
    chain = _bounds_chain(context)
    corrected = Evidence(chain.method, chain.outcome, chain.domain, chain.numbers, subject=Subject.CORRECTION,
                         counts=chain.counts)
    normalised = _normalised(context)
    return [*_convolution_norm(Fraction(9, 10), 5, 32), corrected, normalised]


def _normalised(context: Context) -> Evidence:
    """`deq.operator_normalize` brings any kernel's measured norm below one."""
    generator, out = context.generator("normalise"), []
    for index in range(context.choose(3, 10, 100)):
        module = nn.Conv2d(1 + index % 3, 1 + index % 3, 3 + 2 * (index % 2), padding="same", bias=False,
                           dtype=torch.float64)
        with torch.no_grad():
            module.weight.copy_(10 * draw(generator, *module.weight.shape))
        deq.operator_normalize(module, "weight", 1.05)
        norms = convolution_norms(module.weight.detach(), 12, 12)
        out.append(Comparison(norms.operator, 1.0, float("inf"), str(tuple(module.weight.shape))))
    return gather(out, f"{len(out)} kernels after deq.operator_normalize, norm by Lanczos on 12x12 images against 1",
                  subject=Subject.CORRECTION)


def _picard(context: Context, scale: float, subject: Subject = Subject.STATEMENT) -> list[Evidence]:
    """Picard on z = softplus(conv(z) / scale + x) with the constant kernel of |k|_F = 0.9."""
    kernel = torch.full((1, 1, 5, 5), 0.18 / scale, dtype=torch.float64)
    x = torch.ones(1, 1, 32, 32, dtype=torch.float64)
    steps, z, sizes = 25, torch.zeros_like(x), []
    for _ in range(steps):
        after = functional.softplus(functional.conv2d(z, kernel, padding=2) + x)
        sizes.append(float((after - z).norm()))
        z = after
    if scale == 1.0:
        context.record("convolution-picard", {"step": list(range(1, steps + 1)), "difference": sizes,
                                              "frobenius": 0.9, "operator": convolution_norms(kernel, 32, 32).operator})
    rates = [b / a for a, b in pairwise(sizes) if a > 0]
    return [Evidence(Method.COUNTEREXAMPLE, holds_if(sizes[-1] < sizes[0]), "equation (5), z = softplus(k * z + x), "
                     f"with the constant 5x5 kernel, |k|_F = {0.9 / scale:.3g}, 32x32 image of ones, {steps} Picard "
                     "steps",
                     {"first difference": sizes[0], "last difference": sizes[-1], "last rate": rates[-1]},
                     subject=subject)]


#: The norm of the matrix of the convolution over that of its kernel on a 32x32 image, zero padding: each of the 25
#: entries stands in the matrix as often as it meets a pixel.
def _matrix_frobenius(image: int = 32, size: int = 5) -> float:
    half = size // 2
    met = [image - abs(shift) for shift in range(-half, half + 1)]
    return float(sum(rows * columns for rows in met for columns in met)) ** 0.5 / size


@TOPIC.claim(
    id="sm-6398", title="Picard on a normalised convolution", source="[SM] §3.2 with convolutional cells (table 7)",
    statement=r"With $\|k\|_F < 1$, Picard iteration on equation (5), $z = \mathrm{softplus}(k * z + x)$, converges.",
    correction=r"It converges when $W$ is the matrix of the convolution, the linearized version that table 7 names, "
               r"and $\|W\|_F < 1$; and for kernels of $h \times w$ when $\sqrt{h w}\,\|k\|_F < 1$, as with the "
               r"released "
               r"$\lambda = 10$ and $5 \times 5$ kernels.",
    quote=r"or a convolutional layer when $\mathbf{W}$ is a convolutional kernel [...] the direct Picard iteration "
          "will converge linearly to the fixed point",
    reading=Reading.OURS,
    reading_note=r"$\|W\|_F$ is read as the norm of the kernel, as released; table 7 calls $W$ the linearized "
                 "version of the layer, under which the sentence is true",
    expected=Verdict.CORRECTED, control_note="the correction with lambda = 2 in place of 10",
    control=lambda context: _picard(context, 2.0), figures=("convolution-picard",))
def picard_diverges(context: Context) -> list[Evidence]:
    """Differences grow by the operator norm."""
    return [*_picard(context, 1.0), *_picard(context, 10.0, Subject.CORRECTION),
            *_picard(context, _matrix_frobenius(), Subject.CORRECTION)]


def _residual(context: Context, shortcut: float) -> list[Evidence]:
    """Gain of z -> shortcut z + F(z) with the Frobenius norm of F's weight at 1/100."""
    generator, out = context.generator("residual"), []
    for index in range(context.choose(5, 25, 200)):
        n = 2 + index % 8
        weight = draw(generator, n, n)
        weight = 0.01 * weight / torch.linalg.vector_norm(weight)
        z = draw(generator, n)

        def f(z: Tensor, x: Tensor, weight: Tensor = weight) -> Tensor:
            return shortcut * z + torch.tanh(weight @ z)

        out.append(Comparison(operator_norm(f, torch.zeros(1, dtype=torch.float64), z).value, 0.999, float("inf"),
                              f"n = {n}"))
    # With F = 0 and g(x) = 1, exactly: z = z + 1 is inconsistent.
    z, share = sympy.Symbol("z"), sympy.nsimplify(shortcut)
    return [gather(out, f"{len(out)} residual blocks {shortcut:g} z + tanh(W z), |W|_F = 0.01, |df/dz|_2 against 0.999",
                   method=Method.COUNTEREXAMPLE),
            identities({"z = shortcut z + 0 + 1 has a solution": bool(sympy.solve(z - share * z - 1, z))},
                       "F = 0, g(x) = 1")]


@TOPIC.claim(
    id="sm-8f51", title="Residual blocks with small weights", source="[SM] appendix D.4",
    statement=r"Constraining the Frobenius norms of the weights of $F$ makes a residual block $f(z) = z + F(z) + g(x)$ "
              r"contract. (With its shortcut normalised too, as (normalized) may mean, it does: the control. No such "
              r"block stands in section 3.2.)",
    quote="$h$ is a (normalized) residue block with each convolution weight has its Frobenius norm constrained to "
          "ensure contractiveness",
    reading=Reading.OURS,
    reading_note="the block's shortcut is taken as it is; (normalized) is not explained in print, and may mean more "
                 "than the weights",
    expected=Verdict.REFUTED, control_note="the shortcut is halved: z/2 + F(z)",
    control=lambda context: _residual(context, 0.5))
def residual(context: Context) -> list[Evidence]:
    """The gain stays near one however small F is; z + g(x) with F = 0 has no equilibrium at all."""
    return _residual(context, 1.0)


def _norm_dependence(context: Context, matrix: list[list[Fraction]], what: str) -> list[Evidence]:
    """Whether a map that contracts in some norm has |J|_2 < 1."""
    exact = sympy.Matrix([[sympy.Rational(v.numerator, v.denominator) for v in row] for row in matrix])
    squared = max((exact.T * exact).eigenvals(), key=lambda v: float(v))
    radius = max(abs(v) for v in exact.eigenvals())
    q, kappa = rate_and_constant(torch.tensor([[float(v) for v in row] for row in matrix], dtype=torch.float64), 10)
    return [Evidence(Method.COUNTEREXAMPLE, holds_if(not (bool(radius < 1) and q < 1) or bool(squared < 1)),
                     f"J = {what}, exact eigenvalues", {"spectral radius": str(radius), "|J|_2 squared": str(squared),
                                                        "rate q of some power norm": q, "its constant kappa": kappa})]


@TOPIC.claim(
    id="own-9f29", title="Contraction depends on the norm", source="deqproof",
    statement=r"A map that contracts in one norm contracts in the 2-norm as well, so the operator 2-norm decides "
              r"well-posedness.",
    expected=Verdict.REFUTED, control_note="a symmetric J, where spectral radius and 2-norm agree",
    control=lambda context: _norm_dependence(context, [[Fraction(1, 2), Fraction(1, 4)],
                                                       [Fraction(1, 4), Fraction(1, 2)]], "((1/2, 1/4), (1/4, 1/2))"))
def norm_dependence(context: Context) -> list[Evidence]:
    """A 2x2 Jacobian with spectral radius 1/2 and 2-norm above 2."""
    return _norm_dependence(context, [[Fraction(1, 2), Fraction(2)], [Fraction(0), Fraction(1, 2)]],
                            "((1/2, 2), (0, 1/2))")


def _picard_rate(context: Context, contraction: float) -> list[Evidence]:
    """Picard's a-priori error bound q^k |z1 - z0| / (1 - q) with q = min(contraction, 0.9)."""
    generator, out = context.generator(f"rate-{contraction}"), []
    claimed = min(contraction, 0.9)
    for index in range(context.choose(5, 25, 200)):
        n = 1 + index % 10
        weight = draw(generator, n, n)
        weight = contraction * weight / torch.linalg.matrix_norm(weight, 2)
        bias = 0.1 * draw(generator, n)

        def f(z: Tensor, weight: Tensor = weight, bias: Tensor = bias) -> Tensor:
            return torch.sin(weight @ z + bias)

        z, iterates = torch.zeros(n, dtype=torch.float64), []
        for _ in range(400):
            iterates.append(z)
            z = f(z)
        start = float((iterates[1] - iterates[0]).norm())
        for k in (1, 3, 10, 30):
            bound = claimed**k * start / (1 - claimed)
            out.append(Comparison(float((iterates[k] - z).norm()), bound * (1 + 1e-12) + 1e-15 * n, float("inf"),
                                  f"n = {n}, k = {k}"))
    return [gather(out, f"{len(out) // 4} cells sin(W z + b), |W|_2 = {contraction}, k = 1, 3, 10, 30 against the "
                   "a-priori bound; the limit by 400 steps")]


@TOPIC.claim(
    id="sm-b928", title="Picard iteration converges geometrically", source="[SM] §3.2, eqs. (4)-(5)",
    statement=r"If $f(\cdot, x)$ has Lipschitz constant $q < 1$, then $z^{(k+1)} = f(z^{(k)}, x)$ converges from "
              r"every start to the only solution of $z = f(z, x)$, with $|z^{(k)} - z^*| \le \frac{q^k}{1-q} |z^{(1)} "
              r"- z^{(0)}|$.",
    quote=r"the direct Picard iteration will converge linearly to the fixed point $\mathbf{z}^*$",
    reading=Reading.MENDED,
    reading_note="linear convergence is made precise by Banach's a-priori bound",
    expected=Verdict.SUPPORTED, control_note="weights of norm 1.6 with the bound for q = 0.9",
    control=lambda context: _picard_rate(context, 1.6))
def picard_rate(context: Context) -> list[Evidence]:
    """The a-priori bound on random contractions."""
    return _picard_rate(context, 0.9)
