"""Computer algebra behind the four equations and the equivalent networks; every function returns exact expressions.

An identity is returned as the difference of its two sides, simplified, so that zero means true.
"""

from __future__ import annotations

import sympy as sp

KAP = 1 - 2 / sp.pi


def _double_factorial_moment(power: int) -> sp.Integer:
    """E xi^power."""
    return sp.Integer(0) if power % 2 else sp.factorial2(power - 1)


def _joint_moment(i: int, j: int, uu: sp.Expr, vv: sp.Expr, uv: sp.Expr) -> sp.Expr:
    """E u^i v^j of a centred Gaussian pair by Isserlis: k pairs across, the rest within."""
    total = sp.Integer(0)
    for k in range(min(i, j) + 1):
        if (i - k) % 2 or (j - k) % 2:
            continue
        ways = (sp.binomial(i, k) * sp.binomial(j, k) * sp.factorial(k)
                * _double_factorial_moment(i - k) * _double_factorial_moment(j - k))
        total += ways * uv**k * uu ** ((i - k) // 2) * vv ** ((j - k) // 2)
    return total


def conjugate_expansion(degree: int = 5) -> dict[str, sp.Expr]:
    r"""Second-order expansion of E phi(u) phi(v) for a generic polynomial phi, against the coefficients of the theory.

    Var u = q + eps d1, Var v = q + eps d2, Cov = eps c, phi centred at q. The claim is

        E phi(u) phi(v) = g_1 c eps
            + ( (g_2/2) c^2 + (g_2/4) d1 d2 + (E phi' E phi'''/2) c (d1 + d2) ) eps^2 + O(eps^3),

    and on the diagonal E phi(u)^2 = gamma^2 + (g_4/2) d1 eps. The last bracket is D X^T X + X^T X D with D small in
    norm; the others are the four equations. For the NTK,
    E phi'(u) phi'(v) = g_1 + g_2 c eps + (E phi' E phi'''/2)(d1 + d2) eps.

    Returns:
        named differences, all zero if the expansion is right.
    """
    x, q, eps, c, d1, d2 = sp.symbols("x q epsilon c delta_1 delta_2")
    coefficients = sp.symbols(f"c1:{degree + 1}")
    raw = sum(a * x**k for k, a in enumerate(coefficients, 1))

    def mean(expression: sp.Expr) -> sp.Expr:
        """E f(sqrt(q) xi) of a polynomial."""
        poly = sp.Poly(sp.expand(expression), x)
        return sum(a * _joint_moment(k, 0, q, q, 0) for (k,), a in poly.terms())

    phi = raw - mean(raw)
    slope, curvature, third = (mean(sp.diff(phi, x, k)) for k in (1, 2, 3))

    def pair(f: sp.Expr, g: sp.Expr) -> sp.Expr:
        left, right = sp.Poly(f, x), sp.Poly(g, x)
        return sum(a * b * _joint_moment(i, j, q + eps * d1, q + eps * d2, eps * c)
                   for (i,), a in left.terms() for (j,), b in right.terms())

    value = sp.Poly(sp.expand(pair(phi, phi)), eps)
    derivative = sp.Poly(sp.expand(pair(sp.diff(phi, x), sp.diff(phi, x))), eps)
    square = sp.expand(phi**2)
    diagonal = sp.Poly(sp.expand(sum(a * _joint_moment(k, 0, q + eps * d1, 0, 0)
                                     for (k,), a in sp.Poly(square, x).terms())), eps)
    g4 = mean(sp.diff(square, x, 2))
    return {
        "order 0 vanishes": sp.expand(value.coeff_monomial(1)),
        "order 1 is g1 c": sp.expand(value.coeff_monomial(eps) - slope**2 * c),
        "order 2": sp.expand(value.coeff_monomial(eps**2) - curvature**2 / 2 * c**2 - curvature**2 / 4 * d1 * d2
                             - slope * third / 2 * c * (d1 + d2)),
        "diagonal is g4/2": sp.expand(diagonal.coeff_monomial(eps) - g4 / 2 * d1),
        "derivative, order 0 is g1": sp.expand(derivative.coeff_monomial(1) - slope**2),
        "derivative, order 1 is g2 c": sp.expand(derivative.coeff_monomial(eps) - curvature**2 * c
                                                 - slope * third / 2 * (d1 + d2)),
    }


def equations_from_expansion(*, dropped_factor: bool = False) -> dict[str, sp.Expr]:
    """Solve the fixed point of the expansion term by term and subtract the four equations as printed.

    Off the diagonal S = sigma_a^2 G + sigma_b^2 X^T X with G = alpha_1 X^T X + ..., on it
    d = sigma_a^2 (g_4/2) d + sigma_b^2 chi.

    Args:
        dropped_factor: forget the 1/4 of alpha_2, as a control.
    """
    a, b, g1, g2, g4, a0 = sp.symbols("a b g_1 g_2 g_4 a_0", positive=True)
    one, two, three, four, k1, k2, k3 = sp.symbols("A_1 A_2 A_3 A_4 B_1 B_2 B_3")
    through = a * one + b
    quarter = g2 if dropped_factor else g2 / 4
    solved = sp.solve([one - g1 * through, four - a * g4 / 2 * four - b], [one, four], dict=True)[0]
    rest = sp.solve([two - a * g1 * two - quarter * four**2, three - a * g1 * three - g2 / 2 * through**2],
                    [two, three], dict=True)[0]
    alpha1, alpha4 = b * g1 / (1 - a * g1), b / (1 - a * g4 / 2)
    alpha2 = g2 / 4 * alpha4**2 / (1 - a * g1)
    alpha3 = g2 / 2 * (a * alpha1 + b) ** 2 / (1 - a * g1)
    # K = G + sigma_a^2 G' K: first order in each of the three structures.
    tangent = sp.solve([k1 - one - a * g1 * k1, k2 - two - a * g1 * k2,
                        k3 - three - a * g1 * k3 - a * g2 * through * k1], [k1, k2, k3], dict=True)[0]
    a1 = a * g2 * through
    beta1 = one / (1 - a0)
    printed = {k1: beta1, k2: two / (1 - a0), k3: (three + beta1 * a1) / (1 - a0)}
    differences = {"alpha_1": solved[one] - alpha1, "alpha_4": solved[four] - alpha4,
                   "alpha_2": rest[two].subs(solved) - alpha2, "alpha_3": rest[three].subs(solved) - alpha3}
    differences |= {f"beta_{i}": tangent[k] - printed[k].subs(a0, a * g1) for i, k in enumerate((k1, k2, k3), 1)}
    return {name: sp.simplify(value) for name, value in differences.items()}


def deq_identity(kap: sp.Expr = KAP) -> dict[str, sp.Expr]:
    """R - 1 - kap P, and kap Q minus its closed form, of a leaky-ReLU DEQ phi = s x + d |x| from the four equations."""
    a, b, s, d, tau0 = sp.symbols("a b s d tau_0", positive=True)
    spread = s**2 + KAP * d**2  # Var phi(tau xi) / tau^2 and g_4 / 2
    tau2 = b * tau0**2 / (1 - a * spread)
    g1, g2 = s**2, 2 * d**2 / (sp.pi * tau2)
    alpha1, alpha4 = b * g1 / (1 - a * g1), b / (1 - a * spread)
    alpha2 = g2 / 4 * alpha4**2 / (1 - a * g1)
    alpha3 = g2 / 2 * (a * alpha1 + b) ** 2 / (1 - a * g1)
    end = spread * tau2 / (tau0**2 * alpha1)
    energy, products = 2 * sp.pi * tau0**2 * alpha2 / alpha1, sp.pi * tau0**2 * alpha3 / alpha1
    big, k = a * s**2, KAP * d**2 / s**2
    return {
        "R = 1 + kap P": sp.simplify(end - 1 - kap * energy),
        "R = (1+k)(1-A)/(1-A(1+k))": sp.simplify(end - (1 + k) * (1 - big) / (1 - big * (1 + k))),
        "kap Q = k(1-A(1+k))/(1-A)^2": sp.simplify(KAP * products - k * (1 - big * (1 + k)) / (1 - big) ** 2),
    }


def layer_identity(kap: sp.Expr = KAP) -> dict[str, sp.Expr]:
    """What one leaky layer adds to R - 1 - kap P and to kap Q, given R = 1 + kap P before: the induction step."""
    s, d, a1, r, p, q, tau0 = sp.symbols("s d a_1 R P Q tau_0", positive=True)
    tau2 = r * tau0**2 * a1  # by the definition of R
    a4 = tau2 / tau0**2  # every layer multiplies both by s^2 + kap d^2, so they stay equal
    a2, a3 = p * a1 / (2 * sp.pi * tau0**2), q * a1 / (sp.pi * tau0**2)
    g1, g2 = s**2, 2 * d**2 / (sp.pi * tau2)
    new1 = g1 * a1
    new2, new3 = g1 * a2 + g2 / 4 * a4**2, g1 * a3 + g2 / 2 * a1**2
    new_tau2 = tau2 * (s**2 + KAP * d**2)
    end = new_tau2 / (tau0**2 * new1)
    energy, products = 2 * sp.pi * tau0**2 * new2 / new1, sp.pi * tau0**2 * new3 / new1
    return {
        "defect is unchanged": sp.simplify((end - 1 - kap * energy) - (r - 1 - kap * p)),
        "kap Q grows by (r' - r)/r^2": sp.simplify(KAP * (products - q) - (end - r) / r**2),
    }


def reach_identity() -> dict[str, sp.Expr]:
    """Factored gaps that decide existence: each expression minus its factored form."""
    k, big = sp.symbols("k A", positive=True)
    end = (1 + k) * (1 - big) / (1 - big * (1 + k))
    target = k * (1 - big * (1 + k)) / (1 - big) ** 2
    above = target - (1 - 1 / end)
    below = end - 1 - target
    return {
        "kap Q - (1 - 1/R) = k^2 (1 - A(2+k)) / ((1+k)(1-A)^2)":
            sp.simplify(above - k**2 * (1 - big * (2 + k)) / ((1 + k) * (1 - big) ** 2)),
        "R - 1 - kap Q = A k^2 (2 - A(2+k)) / ((1-A)^2 (1-A(1+k)))":
            sp.simplify(below - big * k**2 * (2 - big * (2 + k)) / ((1 - big) ** 2 * (1 - big * (1 + k)))),
    }


def stationary_identity() -> dict[str, sp.Expr]:
    """The left sum is stationary in r_l exactly at t_{l+1} = (1 + t_l^2)/2."""
    before, here, after = sp.symbols("r_0 r_1 r_2", positive=True)
    part = (here - before) / before**2 + (after - here) / here**2
    slope = sp.diff(part, here)
    stationary = here * (1 + (here / before) ** 2) / 2
    return {"dS/dr = 0 at t' = (1 + t^2)/2": sp.simplify(slope.subs(after, stationary)),
            "dS/dr is linear in r_{l+1}": sp.simplify(sp.diff(slope, after, 2))}
