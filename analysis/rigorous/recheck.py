"""The second routine: tests every claim of a certificate again, from its weights and its numbers alone.

Other arithmetic (integers, mpmath's exp and log) and other algorithms than the engine that made it: no jets but the
formulas of one layer; no Krawczyk image but the residual of a refined float solve with |I - M (I - J)| < 1; no
subtraction of phantom derivatives but the error's own recursion E_k = J E_{k-1}; no matrix powers for the spectral norm
but elimination with interval pivots.
"""

from __future__ import annotations

from fractions import Fraction
from math import isqrt
from typing import Any

import numpy as np

from analysis.rigorous.certificate import Certificate, digest, model_hash
from analysis.rigorous.checkpoint import LayerWeights
from analysis.rigorous.fields import CertificateRejected, decode, ends_of, hex_of
from analysis.rigorous.fixedpoint import BITS, ONE, Fixed, norm_inf_units, unit_matrix
from analysis.rigorous.recheck_contraction import recheck_contraction
from analysis.rigorous.scalar_intervals import INTERVAL_ACTIVATIONS, IntervalActivation, Undefined
from analysis.rigorous.schema import ABSOLUTE_WIDTH, RELATIVE_WIDTH, check_structure

_REFINEMENTS = 12


def recheck(certificate: Certificate, weights: LayerWeights | None = None) -> list[str]:
    """Verify every claim.

    Args:
        certificate: as read from its file.
        weights: of the checkpoint it is said to be about; None trusts the copy inside.

    Returns:
        One line for each statement that was verified.

    Raises:
        CertificateRejected: damage, other weights, or a claim that could not be confirmed; the message names it.
    """
    try:
        return _Recheck(certificate, weights).run()
    except CertificateRejected:
        raise
    except (Undefined, ZeroDivisionError) as error:
        raise CertificateRejected(f"a claim cannot be confirmed: {error}") from None
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, OverflowError) as error:
        raise CertificateRejected(f"the certificate is malformed: {type(error).__name__} {error}") from None


class _Recheck:
    def __init__(self, certificate: Certificate, weights: LayerWeights | None) -> None:
        check_structure(certificate)
        if digest(certificate) != certificate["digest"]:
            raise CertificateRejected("the digest does not fit the content: the file was altered or damaged")
        model, self.claims = certificate["model"], certificate["claims"]
        if model_hash(model) != model["sha256"]:
            raise CertificateRejected("model.sha256 is not the hash of the model that the certificate carries")
        if model["activation"] not in INTERVAL_ACTIVATIONS:
            raise CertificateRejected(f"no second enclosure of activation {model['activation']!r}")
        if model["injection"] not in INTERVAL_ACTIVATIONS:
            raise CertificateRejected(f"no second enclosure of injection {model['injection']!r}")
        self.sigma: IntervalActivation = INTERVAL_ACTIVATIONS[model["activation"]]
        self.tau: IntervalActivation = INTERVAL_ACTIVATIONS[model["injection"]]
        floats = {key: decode(model[key], key, 2 if key in "WU" else 1) for key in "WUba"}
        self.c = hex_of(model["c"], "c")
        self.s = None if model["s"] is None else hex_of(model["s"], "s")
        if weights is not None:
            self._same(model, floats, weights)
        self.w_float = floats["W"]
        self.w, self.u = Fixed.exact(floats["W"]), Fixed.exact(floats["U"])
        self.b, self.a = (Fixed.exact(floats[key][:, None]) for key in "ba")
        point = decode(certificate["input"], "input", 1)
        self.n, self.d = floats["U"].shape
        if floats["W"].shape != (self.n, self.n) or {len(floats["b"]), len(floats["a"])} != {self.n} or \
                len(point) != self.d or (self.s is not None and self.s <= 0):
            raise CertificateRejected("the shapes of weights and input do not fit together")
        self.x = Fixed.exact(point[:, None])
        argument = self.u @ self.x + self.b
        self.drive = argument.apply(self.tau.value)
        self.drive_first = argument.apply(self.tau.slope) * self.u
        self.drive_laplacian = argument.apply(self.tau.bend) * _row_sums(self.u * self.u)
        self.done: list[str] = []

    def run(self) -> list[str]:
        self._equilibrium()
        self._derivatives()
        self._score()
        self._phantom()
        contraction = self.claims["contraction"]
        if contraction is not None:
            centre = decode(contraction["centre"], "the ball's centre", 1)
            self.done += recheck_contraction(contraction, centre, self.w, self.drive, self.sigma, self.z)
        return self.done

    def _same(self, model: dict[str, Any], floats: dict[str, np.ndarray], weights: LayerWeights) -> None:
        given = {"W": weights.weight, "U": weights.inputs, "b": weights.bias, "a": weights.linear}
        for key, values in given.items():
            if values.shape != floats[key].shape or not np.array_equal(values, floats[key]):
                raise CertificateRejected(f"the certificate is about another model: {key} differs from the file's")
        same = (model["activation"] == weights.activation and model["injection"] == weights.injection
                and self.c == weights.quadratic and self.s == weights.base_width)
        if not same:
            raise CertificateRejected("the certificate is about another model: activation or readout differ")

    def _equilibrium(self) -> None:
        """Refine the claimed midpoints by z - M (z - f(z)), then |M residual| + |I - M (I - J)| r < r."""
        claimed = self._claimed("equilibrium", (self.n, 1))
        half_width = hex_of(self.claims["box_radius"], "box_radius")
        if not half_width >= 0:
            raise CertificateRejected("box_radius is negative")
        z = Fixed(claimed.mid, claimed.rad * 0)
        slopes = (self.w @ z + self.drive).apply(self.sigma.quotients).floats()
        self.m = self._inverse(np.eye(self.n) - slopes * self.w_float)
        for _ in range(_REFINEMENTS):
            step = self.m @ (z - self._map(z))
            z = Fixed(z.mid - step.mid, z.rad * 0)
        residual = (self.m @ (z - self._map(z))).magnitude()
        radius = 2 * max(residual.ravel().tolist()) + (1 << 40)
        tight = z.widened(radius)
        if not self._regular(tight) * radius + max(residual.ravel().tolist()) * ONE < radius * ONE:
            raise CertificateRejected("the equilibrium cannot be confirmed: its residual test fails")
        if not tight.within(claimed):
            raise CertificateRejected("claim 'equilibrium' is not confirmed: the value lies outside of what is claimed")
        self._regular(tight.widened(int(Fraction(half_width) * ONE)))
        self.z = tight
        self.done.append(f"an equilibrium, alone in a box of half-width {half_width:.3g}, enclosed as claimed")

    def _derivatives(self) -> None:
        h = self.w @ self.z + self.drive
        self.slopes, self.bends = h.apply(self.sigma.slope), h.apply(self.sigma.bend)
        self.jacobian = self.slopes * self.w
        self.regular = unit_matrix(self.n) - self.jacobian
        self.alpha = norm_inf_units(unit_matrix(self.n) - self.m @ self.regular)
        self.first = self._solve(self.slopes * self.drive_first)
        self.moved = self.w @ self.first + self.drive_first
        squares = _row_sums(self.moved * self.moved)
        self.laplacian = self._solve(self.bends * squares + self.slopes * self.drive_laplacian)
        self._inside("first", self.first)
        self._inside("laplacian", self.laplacian)
        self.done.append("first derivative and Laplacian of the equilibrium, enclosed as claimed")

    def _score(self) -> None:
        two_c = Fixed.exact([[2 * self.c]]) if self.c else None
        self.gradient = self.a if two_c is None else self.a + self.z * two_c
        score, trace = self.first.T @ self.gradient, self.gradient.T @ self.laplacian
        if two_c is not None:
            trace = trace + two_c * (self.first * self.first).sum()
        if self.s is not None:
            inverse = Fraction(1) / Fraction(self.s) ** 2
            score = score - self.x * Fixed.enclosing([(inverse, inverse)], (1, 1))
            trace = trace - Fixed.enclosing([(self.d * inverse, self.d * inverse)], (1, 1))
        self._inside("score", score)
        self._inside("trace", trace)
        self.length = _length(score)
        self._inside("score_length", self.length)
        self.done.append("score, its length, and the trace of its Jacobian, enclosed as claimed")

    def _phantom(self) -> None:
        wanted: dict[int, dict[str, Any]] = {}
        for item in self.claims["phantom"]:
            steps = item["steps"]
            if steps in wanted:
                raise CertificateRejected(f"phantom steps {steps} stand twice")
            wanted[steps] = item
        first, second = self.first, self.laplacian
        for steps in range(1, max(wanted, default=0) + 1):
            gap = self.w @ first                              # W (D z - D z^(k-1))
            product = gap * (self.moved + self.moved - gap)   # |D h|^2 - |D h_(k-1)|^2, entry by entry
            second = self.jacobian @ second + self.bends * _row_sums(product)
            first = self.jacobian @ first
            if steps in wanted:
                self._phantom_item(wanted[steps], steps, first, second)
        self.done.append(f"errors of the phantom derivatives, score and trace for K = {sorted(wanted)}, as claimed")

    def _phantom_item(self, item: dict[str, Any], steps: int, first: Fixed, second: Fixed) -> None:
        score = _length(first.T @ self.gradient)
        trace = self.gradient.T @ second
        if self.c:
            trace = trace + Fixed.exact([[2 * self.c]]) * (first * (self.first + self.first - first)).sum()
        for name, value in (("score_error", score), ("first_error", _length(first)),
                            ("laplacian_error", _length(second)), ("trace_error", _absolute(trace))):
            self._held(item[name], value, f"{name} for K = {steps}")
        if item["score_relative"] is not None:
            if int(self.length.low.item()) <= 0:
                raise CertificateRejected(f"score_relative for K = {steps} is claimed, but the score may be zero")
            self._held(item["score_relative"], score.divided(self.length), f"score_relative for K = {steps}", wide=True)
        elif ends_of(self.claims["score_length"], "score_length")[0] > 0:
            raise CertificateRejected(f"score_relative for K = {steps} is missing, though the score is not zero")

    def _map(self, z: Fixed) -> Fixed:
        return (self.w @ z + self.drive).apply(self.sigma.value)

    def _regular(self, box: Fixed) -> int:
        """|I - M (I - J)|_inf over a box, in units; below one, so that there is one equilibrium at most."""
        slopes = (self.w @ box + self.drive).apply(self.sigma.quotients)
        defect = norm_inf_units(unit_matrix(self.n) - self.m @ (unit_matrix(self.n) - slopes * self.w))
        if defect >= ONE:
            raise CertificateRejected(f"|I - M (I - J)| is {defect / ONE:.3g}, not below one, over a claimed box")
        return defect

    def _solve(self, right: Fixed) -> Fixed:
        """An enclosure of (I - J)^-1 right: a refined float solution, widened by |M residual| / (1 - alpha)."""
        solution = Fixed(right.mid * 0, right.rad * 0)
        for _ in range(_REFINEMENTS):
            step = self.m @ (right - self.regular @ solution)
            solution = Fixed(solution.mid + step.mid, solution.rad)
        residual = (self.m @ (right - self.regular @ solution)).magnitude()
        worst = max(residual.ravel().tolist())
        return solution.widened(-((-worst * ONE) // (ONE - self.alpha)) + 1)

    def _inverse(self, values: np.ndarray) -> Fixed:
        try:
            return Fixed.exact(np.linalg.inv(values))
        except (np.linalg.LinAlgError, ValueError, OverflowError):
            raise CertificateRejected("I - J is singular in float64 at the claimed equilibrium") from None

    def _inside(self, name: str, value: Fixed) -> None:
        claims = self.claims[name]
        if isinstance(claims, list):
            if not value.within(self._claimed(name, value.shape)):
                raise CertificateRejected(f"claim '{name}' is not confirmed: the value lies outside of what is claimed")
        else:
            self._held(claims, value, name)

    def _held(self, claim: dict[str, str], value: Fixed, name: str, *, wide: bool = False) -> None:
        low, high = ends_of(claim, name)
        if not wide:
            _narrow(low, high, name)
        inner_low, inner_high = int(value.low.item()), int(value.high.item())
        if not (low * ONE <= inner_low and inner_high <= high * ONE):
            raise CertificateRejected(f"claim '{name}' is not confirmed: the value lies outside of what is claimed")

    def _claimed(self, name: str, shape: tuple[int, ...]) -> Fixed:
        claims = self.claims[name]
        if len(claims) != int(np.prod(shape)):
            raise CertificateRejected(f"claim '{name}' has {len(claims)} entries, not {int(np.prod(shape))}")
        ends = [ends_of(claim, f"{name}[{k}]") for k, claim in enumerate(claims)]
        for k, (low, high) in enumerate(ends):
            _narrow(low, high, f"{name}[{k}]")
        # rounded inwards, so that lying within means lying within the decimals
        lows = [-((-low * ONE) // 1) for low, _ in ends]
        highs = [(high * ONE) // 1 for _, high in ends]
        if any(low > high for low, high in zip(lows, highs, strict=True)):
            raise CertificateRejected(f"claim '{name}' is narrower than {BITS} bits can confirm")
        return Fixed.between([int(v) for v in lows], [int(v) for v in highs], shape)


def _narrow(low: Fraction, high: Fraction, name: str) -> None:
    """Refuse an interval that is too wide to be an honest claim."""
    if high - low > max(abs(low), abs(high)) * Fraction(RELATIVE_WIDTH) + Fraction(ABSOLUTE_WIDTH):
        raise CertificateRejected(f"claim '{name}' is wider than an honest one: from {float(low):.9g} to "
                                  f"{float(high):.9g}")


def _row_sums(values: Fixed) -> Fixed:
    return Fixed(values.mid.sum(axis=1, keepdims=True), values.rad.sum(axis=1, keepdims=True))


def _length(values: Fixed) -> Fixed:
    """The Euclidean length, from sums of squared integers, which lose nothing near zero."""
    largest = values.magnitude().ravel().tolist()
    least = np.maximum(abs(values.mid) - values.rad, 0).ravel().tolist()
    low, high = (sum(size * size for size in sizes) for sizes in (least, largest))
    return Fixed.between([isqrt(low)], [isqrt(high) + 1], (1,))


def _absolute(value: Fixed) -> Fixed:
    low, high = int(value.low.item()), int(value.high.item())
    least = 0 if low <= 0 <= high else min(abs(low), abs(high))
    return Fixed.between([least], [max(abs(low), abs(high))], (1,))
