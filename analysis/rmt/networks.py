"""Explicit networks with the same kernels as a DEQ: all of them, or the reason why there is none."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from analysis.activations import Activation, Array, hard_tanh
from analysis.errors import DepthNotDecided, NoEquivalentNetwork, NotResolved, NotWellPosed
from analysis.gaussian import expect, moments
from analysis.rmt.equations import FourEquations, solve_equations
from analysis.rmt.explicit import Coefficients, explicit_coefficients
from analysis.rmt.hard_tanh import LOWEST, clipped_mass, clipped_variance, conjugate_ratio, solve_clip, tangent_ratio
from analysis.rmt.partitions import DEEPEST, KAP, SolutionSet, least_depth
from analysis.rmt.tangent import tangent_solutions, tangent_targets

FAMILIES = ("hard_tanh", "leaky_relu")
KINDS = ("ck", "ntk")
MOST_SEARCHED = 24  # the deepest leaky-ReLU network that the search for an NTK tries of its own accord
# Each scale-free number is a ratio of quadratures good to 1e-14, amplified by at most ~100 before sigma_a^2 gets
# within 1e-2 of the edge.
_ROUNDING = 1e-11


@dataclass(frozen=True)
class EquivalentNetwork:
    """One explicit network h_l = phi_l(W_l h_{l-1}) / sqrt(m), W_l of independent standard normal entries.

    Attributes:
        family: "hard_tanh" or "leaky_relu".
        kind: the kernel that is matched, "ck" or "ntk".
        label: which of the solutions it is.
        parameters: (a, c) of each hard-tanh layer a clip(x, -c, c), or (s, d) of each leaky layer s x + d |x|, which
            is max((s+d) x, (s-d) x).
        layers: the activations, each centred at its own tau (ready to use).
        shifts: what centring subtracts in each layer.
        residuals: of the four equations, by an independent forward recursion with quadrature: alpha_1, alpha_2,
            alpha_3 (times tau_0^2) and gamma^2 / tau_0^2 (or beta and kappa^2), relative to the first or the last as
            fits their units.
        dimension: of the family of solutions that this one belongs to, scales and signs not counted; 0 if isolated.

    Example:
        >>> import analysis
        >>> network = analysis.equivalent_networks(analysis.solve_equations("tanh", 0.2), family="hard_tanh")[0]
        >>> network.family, network.kind
        ('hard_tanh', 'ck')
    """

    family: str
    kind: str
    label: str
    parameters: tuple[tuple[float, float], ...]
    layers: tuple[Activation, ...]
    shifts: tuple[float, ...]
    residuals: tuple[float, float, float, float]
    dimension: int

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self.layers)

    @property
    def residual(self) -> float:
        """The largest residual in absolute value."""
        return max(abs(value) for value in self.residuals)


def leaky_layer(slope: float, bend: float) -> Activation:
    """The activation s x + d |x| = max((s+d) x, (s-d) x) for d >= 0."""
    return Activation(f"leaky({slope:.6g}, {bend:.6g})", lambda x: slope * x + bend * np.abs(x),
                      lambda x: slope + bend * np.sign(x), kinks=(0.0,))


def equivalent_networks(eq: FourEquations, family: str = "leaky_relu", depth: int | None = None, *, kind: str = "ck",
                        first_layer_trained: bool = False) -> list[EquivalentNetwork]:
    """Networks of a family whose kernel has the same deterministic equivalent as the DEQ's.

    Leaky ReLU, CK: complete. Depth 2 has two solutions (one at the boundary of existence); from depth 3 on they form a
    set of dimension depth - 2, seen through `partitions.SolutionSet`, and those towards its corners are returned. A
    positive factor moves freely between layers, and signs of s and d are free; the gauge here is equal s > 0, d >= 0.
    Hard tanh: unique at depth 1; beyond, the representative whose layers clip the same share.

    Args:
        eq: solution of `solve_equations`.
        family: "hard_tanh" or "leaky_relu".
        depth: number of layers; the least possible one by default.
        kind: "ck" or "ntk".
        first_layer_trained: for the NTK, whether the explicit network's input weights are trained. False fits [RMT]'s
            NTK of the DEQ, in which B is not.

    Returns:
        the solutions, at least one; for leaky ReLU from the most bent first layer on.

    Raises:
        NoEquivalentNetwork: there is none; the message and `certificate` say why.
        DepthNotDecided: a search (leaky ReLU, NTK) found none up to its cap, which proves nothing.
        ValueError: unknown family or kind, or depth < 1.

    Example:
        >>> import analysis
        >>> network = analysis.equivalent_networks(analysis.solve_equations("relu", 0.2), family="leaky_relu")[0]
        >>> len(network.layers), max(map(abs, network.residuals)) < 1e-8
        (2, True)
    """
    _check(family, kind, depth)
    eq = eq.as_floats()
    if family == "hard_tanh":
        return _hard_tanh(eq, depth, kind, first_layer_trained)
    return _leaky(eq, depth, kind, first_layer_trained)


def minimal_depth(activation: str | Activation | Callable[[Array], Array], sigma_a2: float, tau0: float = 1.0, *,
                  family: str = "leaky_relu", kind: str = "ck", sigma_b2: float | None = None) -> int:
    """The least depth of an exact equivalent of the family.

    Raises:
        NoEquivalentNetwork: no depth is enough; the message says why.
        DepthNotDecided: none was found up to the depth that was tried; a deeper one may exist. Leaky-ReLU NTKs are
            searched for and not decided, up to `networks.MOST_SEARCHED` layers; `equivalent_networks(depth=...)` goes
            further.
        EquationsError: the DEQ itself is refused.

    Example:
        >>> import analysis
        >>> analysis.minimal_depth("relu", 0.2)
        2
    """
    eq = solve_equations(activation, sigma_a2, tau0, sigma_b2=sigma_b2)
    _check(family, kind, None)
    if (family, kind) == ("leaky_relu", "ck"):
        return _leaky_partitions(eq, None).depth
    return equivalent_networks(eq, family, kind=kind)[0].depth


def matching_families(activation: str | Activation | Callable[[Array], Array], sigma_a2: float, tau0: float = 1.0, *,
                      sigma_b2: float | None = None) -> dict[tuple[str, str], int | str]:
    """Which family matches this DEQ: for every (family, kind) the least depth, or the reason why none does.

    Raises:
        EquationsError: the DEQ itself is refused (its NTK's refusal becomes the reason of that kind).

    Example:
        >>> import analysis
        >>> found = analysis.matching_families("relu", 0.2)
        >>> found["leaky_relu", "ck"] == analysis.minimal_depth("relu", 0.2)
        True
    """
    eq = solve_equations(activation, sigma_a2, tau0, sigma_b2=sigma_b2)
    answers: dict[tuple[str, str], int | str] = {}
    for family in FAMILIES:
        for kind in KINDS:
            try:
                answers[family, kind] = equivalent_networks(eq, family, kind=kind)[0].depth
            except (NoEquivalentNetwork, NotWellPosed, NotResolved) as refusal:
                answers[family, kind] = str(refusal)
    return answers


def scale_free(eq: FourEquations | Coefficients, tau0: float) -> tuple[float, float, float]:
    """(R, P, Q) = (gamma^2/(tau_0^2 alpha_1), 2 pi tau_0^2 alpha_2/alpha_1, pi tau_0^2 alpha_3/alpha_1)."""
    return (eq.gamma2 / (tau0**2 * eq.alpha1), 2 * math.pi * tau0**2 * eq.alpha2 / eq.alpha1,
            math.pi * tau0**2 * eq.alpha3 / eq.alpha1)


def identity_defect(eq: FourEquations) -> float:
    """R - 1 - kap P, zero for every leaky-ReLU network and DEQ; what is not zero cannot be matched by one."""
    end, energy, _ = scale_free(eq, eq.tau0)
    return end - 1 - KAP * energy


def _check(family: str, kind: str, depth: int | None) -> None:
    if family not in FAMILIES:
        raise ValueError(f"unknown family {family!r}; known: {', '.join(FAMILIES)}")
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}; known: {', '.join(KINDS)}")
    if depth is not None and depth < 1:
        raise ValueError(f"depth must be at least 1, not {depth}")


def _lowered(layer: Activation, shift: float) -> Callable[[Array], Array]:
    return lambda x: layer(x) - shift


def _finish(eq: FourEquations, kind: str, family: str, label: str, parameters: list[tuple[float, float]],
            raw: list[Activation], dimension: int, first_layer_trained: bool) -> EquivalentNetwork:
    """Centre the layers and measure the residuals by the forward recursion, which knows nothing of the solver."""
    shifts, centred, tau = [], [], eq.tau0
    for layer in raw:
        shift = 0.0 if layer.odd else expect(layer, tau).value
        shifts.append(shift)
        centred.append(Activation(f"{layer.name} - {shift:.6g}", _lowered(layer, shift), layer.derivative, layer.kinks,
                                  layer.odd))
        tau = math.sqrt(moments(layer, tau).variance)
    got = explicit_coefficients(centred, eq.tau0, first_layer_trained=first_layer_trained)
    t2 = eq.tau0**2
    if kind == "ck":
        wanted = (eq.alpha1, eq.alpha2 * t2, eq.alpha3 * t2, eq.gamma2 / t2)
        found = (got.alpha1, got.alpha2 * t2, got.alpha3 * t2, got.gamma2 / t2)
    else:
        wanted = (eq.beta1, eq.beta2 * t2, eq.beta3 * t2, eq.kappa2 / t2)
        found = (got.beta1, got.beta2 * t2, got.beta3 * t2, got.kappa2 / t2)
    one, two, three, four = ((a - b) / max(abs(b), wanted[0]) for a, b in zip(found, wanted, strict=True))
    return EquivalentNetwork(family, kind, label, tuple(parameters), tuple(centred), tuple(shifts),
                             (one, two, three, four), dimension)


def _hard_tanh(eq: FourEquations, depth: int | None, kind: str, first_layer_trained: bool) -> list[EquivalentNetwork]:
    name = f"{eq.activation.name} at sigma_a2 = {eq.sigma_a2:.6g}"
    bent = math.sqrt(eq.g2) * eq.tau / math.sqrt(eq.g1 + eq.g2 * eq.tau**2)
    if bent > _ROUNDING:
        raise NoEquivalentNetwork(
            f"hard tanh is odd, so its alpha_2 and alpha_3 are zero; the DEQ with {name} has "
            f"alpha_2 = {eq.alpha2:.6g}, alpha_3 = {eq.alpha3:.6g} (E phi'' = {math.sqrt(eq.g2):.6g}). "
            "Use an odd activation or the family leaky_relu",
            alpha2=eq.alpha2, alpha3=eq.alpha3)
    _refuse_flat(eq)
    t2 = eq.tau0**2
    if kind == "ntk":
        if depth not in (None, 1):
            raise NoEquivalentNetwork(f"NTK matching by hard tanh is solved for depth 1 only, not {depth}",
                                      depth=depth or 1)
        ratio = t2 * eq.beta1 / eq.kappa2
        function, low = (tangent_ratio, 0.0) if first_layer_trained else (conjugate_ratio, LOWEST)
        least = depth = 1
    else:
        ratio, function = t2 * eq.alpha1 / eq.gamma2, conjugate_ratio
        least = max(1, math.floor(math.log(ratio) / math.log(LOWEST)) + 1)
        depth = depth or least
        low = LOWEST**depth
    if not low < ratio < 1 - _ROUNDING:
        if ratio >= 1 - _ROUNDING:
            why = "the DEQ is linear, which hard tanh reaches only as c -> infinity; use leaky_relu"
        else:
            remedy = f"{least} layers would do"
            if kind == "ntk":
                remedy = "with first_layer_trained=True one layer reaches (0, 1)"
            why = f"the DEQ is more nonlinear than that; {remedy}"
        raise NoEquivalentNetwork(
            f"{depth} hard-tanh layer(s) reach tau_0^2 {'alpha_1/gamma' if kind == 'ck' else 'beta_1/kappa'}^2 in "
            f"({low:.6g}, 1) only, monotonically in c, but {name} has {ratio:.12g}: {why}",
            ratio=ratio, low=low, high=1.0, depth=depth)
    clip = solve_clip(ratio ** (1 / depth), function)
    first = eq.alpha1 if kind == "ck" else eq.beta1 / (2 if first_layer_trained else 1)
    slope = first ** (1 / (2 * depth)) / clipped_mass(clip)
    parameters, tau = [], eq.tau0
    for _ in range(depth):
        parameters.append((slope, clip * tau))
        tau *= slope * math.sqrt(clipped_variance(clip))
    raw = [hard_tanh(a, c) for a, c in parameters]
    label = "the only one" if depth == 1 else "layers that clip the same share"
    return [_finish(eq, kind, "hard_tanh", label, parameters, raw, depth - 1, first_layer_trained)]


def _refuse_flat(eq: FourEquations) -> None:
    if math.sqrt(eq.g1) * eq.tau <= _ROUNDING * math.sqrt(eq.gamma2):
        raise NoEquivalentNetwork(
            f"alpha_1 = 0, for E phi' = 0 with {eq.activation.name}: the kernel is blind to X^T X, which no layer "
            "with s or a other than zero is", alpha1=eq.alpha1)


def _leaky(eq: FourEquations, depth: int | None, kind: str, first_layer_trained: bool) -> list[EquivalentNetwork]:
    if kind == "ntk":
        _refuse_flat(eq)
        return _leaky_tangent(eq, depth, first_layer_trained)
    solutions = _leaky_partitions(eq, depth)
    return [_leaky_network(eq, label, partition, solutions.dimension)
            for label, partition in solutions.representatives()]


def _leaky_partitions(eq: FourEquations, depth: int | None) -> SolutionSet:
    """The solution set at the given depth, or at the least one; refuses an empty one with the reason."""
    _refuse_flat(eq)
    name = f"{eq.activation.name} at sigma_a2 = {eq.sigma_a2:.6g}"
    end, energy, products = scale_free(eq, eq.tau0)
    defect = end - 1 - KAP * energy
    tolerance = _ROUNDING * end / min(1 - eq.sigma_a2 * eq.g1, 1 - eq.sigma_a2 * eq.g4 / 2)
    if abs(defect) > tolerance:
        raise NoEquivalentNetwork(
            f"every leaky-ReLU network of any depth has R = 1 + kap P (R = gamma^2/(tau_0^2 alpha_1), "
            f"P = 2 pi tau_0^2 alpha_2/alpha_1), but {name} has R = {end:.12g}, 1 + kap P = {1 + KAP * energy:.12g}: "
            f"defect {defect:.6g}, rounding below {tolerance:.1g}", defect=defect, tolerance=tolerance, R=end, P=energy)
    end, target = (end, KAP * products) if end > 1 + tolerance else (1.0, 0.0)
    floor = 1 - 1 / end
    # A target at or below the limit of the least sums is met by no depth; linear DEQs (both zero) by depth one.
    reachable = target > floor or end == 1
    if depth is None and reachable:
        depth = least_depth(end, target)
        if depth is None:
            raise DepthNotDecided(
                f"{name} needs more than {DEEPEST} layers, where the search for the least depth stops: kap Q = "
                f"{target:.15g} exceeds 1 - 1/R = {floor:.15g}, the limit of the least left Riemann sums, by "
                f"{target - floor:.2g} only. Pass depth= to look at a deeper one", target=target, floor=floor, R=end)
    if depth is not None:
        solutions = SolutionSet.build(end, target, depth)
        if not solutions.empty:
            return solutions
    if not reachable:
        raise NoEquivalentNetwork(
            f"no depth is enough for {name}: kap Q = {target:.12g} must exceed 1 - 1/R = {floor:.12g}, the limit of "
            "the least left Riemann sums as the depth grows", target=target, floor=floor, R=end)
    why = "needs more layers: kap Q is below" if target < solutions.minimum else "is impossible: kap Q is above"
    raise NoEquivalentNetwork(
        f"{name} {why} the range of depth {depth}: kap Q = {target:.12g}, and {depth} leaky-ReLU layer(s) with "
        f"R = {end:.12g} reach exactly [{solutions.minimum:.12g}, {end - 1:.12g}]",
        target=target, low=solutions.minimum, high=end - 1, depth=depth or 0, R=end)


def _leaky_network(eq: FourEquations, label: str, partition: tuple[float, ...], dimension: int) -> EquivalentNetwork:
    depth = len(partition) - 1
    slope = eq.alpha1 ** (1 / (2 * depth))
    ratios = np.divide(partition[1:], partition[:-1])
    parameters = [(slope, slope * math.sqrt(max(ratio - 1, 0.0) / KAP)) for ratio in ratios]
    raw = [leaky_layer(s, d) for s, d in parameters]
    return _finish(eq, "ck", "leaky_relu", label, parameters, raw, dimension, False)


def _leaky_tangent(eq: FourEquations, depth: int | None, first_layer_trained: bool) -> list[EquivalentNetwork]:
    targets = tangent_targets(eq)
    if eq.g2 == 0 and eq.gamma2 > eq.tau0**2 * eq.alpha1 * (1 + _ROUNDING):
        raise NoEquivalentNetwork(
            f"beta_2 = 0 for the odd {eq.activation.name} leaves only linear leaky-ReLU layers, and the DEQ is not "
            "linear: use the family hard_tanh", beta2=0.0)
    closest: dict[int, float] = {}
    for layers in range(1, MOST_SEARCHED + 1) if depth is None else (depth,):
        found, closest[layers] = tangent_solutions(targets, layers, first_layer_trained)
        if found:
            slope = (eq.beta1 / (layers + first_layer_trained)) ** (1 / (2 * layers))
            networks = []
            for index, bends in enumerate(found):
                parameters = [(slope, slope * math.sqrt(bend)) for bend in bends]
                raw = [leaky_layer(s, d) for s, d in parameters]
                networks.append(_finish(eq, "ntk", "leaky_relu", f"solution {index + 1}", parameters, raw,
                                        max(layers - 3, 0), first_layer_trained))
            return networks
    best = min(closest, key=lambda layers: closest[layers])
    tried = f"depth {depth} (a search, not a proof)" if depth else (
        f"the depths 1 to {MOST_SEARCHED} (a cap of the search, not a proof)")
    raise DepthNotDecided(
        f"no leaky-ReLU network was found with the NTK of {eq.activation.name} at sigma_a2 = {eq.sigma_a2:.6g}: a "
        f"search of {tried}; the least distance of the three scale-free equations was {closest[best]:.3g}, at depth "
        f"{best}. Pass depth= to look at a deeper one", **{f"depth_{layers}": gap for layers, gap in closest.items()})
