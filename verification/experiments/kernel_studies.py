"""Sweeps over dimension or width that kernel claims look at: errors of equivalents, of finite networks, of sampling."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import analysis
from analysis.activations import Activation, as_activation
from analysis.kernels.empirical import conjugate_kernel, draw, empirical_ntk, equilibrium
from analysis.kernels.sampling import sampled_kernel
from analysis.rates import Rate, fit_rate
from analysis.rmt.equivalents import CovarianceTerm, equivalent_kernel, low_rank_part, spectral_norm
from analysis.rmt.mixtures import GaussianMixture, paper_mixture
from analysis.rmt.refined_equivalents import refined_equivalent

Array = NDArray[np.float64]
ActivationLike = str | Activation | Callable[[Array], Array]
Errors = dict[str, list[list[float]]]

TORCH_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": torch.relu, "tanh": torch.tanh, "softplus": torch.nn.functional.softplus, "erf": torch.erf,
}


def _variant(exact: analysis.DeqKernels, eq: analysis.FourEquations, sample: analysis.MixtureSample,
             name: str) -> float:
    """Spectral norm of exact minus one equivalent; names are "ck", "ntk released", "ck order 2", ..."""
    kind, _, how = name.partition(" ")
    truth = getattr(exact, kind)
    if how.startswith("order"):
        return spectral_norm(truth - refined_equivalent(eq, sample, kind, order=int(how.split()[1])))
    term = {"": CovarianceTerm.PRODUCT, "released": CovarianceTerm.RELEASED, "centred": CovarianceTerm.CENTRED}[how]
    return spectral_norm(truth - equivalent_kernel(eq, sample, kind, covariance_term=term))


def equivalent_errors(activation: ActivationLike, sigma_a2: float, sizes: Sequence[int], repetitions: int,
                      rng: np.random.Generator, variants: Sequence[str], *, centred: bool = True,
                      equivalent_sigma_a2: float | None = None,
                      mixture: Callable[[int], GaussianMixture] = paper_mixture) -> Errors:
    """Spectral-norm errors of equivalents of exact kernels on mixtures of growing dimension.

    Args:
        activation: phi.
        sigma_a2: of the DEQ.
        sizes: dimensions p.
        repetitions: draws of the data at each.
        rng: for the data.
        variants: what to compare, see `_variant`.
        centred: whether the exact kernel's phi is centred, as the theory asks (False for a control).
        equivalent_sigma_a2: at which the equations are solved; `sigma_a2` unless given (for a control).
        mixture: the family of mixtures.
    """
    errors: Errors = {name: [] for name in variants}
    solved_at = sigma_a2 if equivalent_sigma_a2 is None else equivalent_sigma_a2
    for p in sizes:
        mix = mixture(p)
        eq = analysis.solve_equations(activation, solved_at, tau0=mix.tau0)
        rows: dict[str, list[float]] = {name: [] for name in variants}
        for _ in range(repetitions):
            sample = mix.sample(rng)
            exact = analysis.deq_kernels(sample.x, activation, sigma_a2, centre=float(eq.shift) if centred else False)
            for name in variants:
                rows[name].append(_variant(exact, eq, sample, name))
        for name in variants:
            errors[name].append(rows[name])
    return errors


def rates(sizes: Sequence[int], errors: Errors) -> dict[str, Rate]:
    """The fitted power law of each row of errors."""
    return {name: fit_rate(sizes, values) for name, values in errors.items()}


def covariance_term_gap(activation: ActivationLike, sigma_a2: float, sizes: Sequence[int], rng: np.random.Generator,
                        term: CovarianceTerm, *,
                        mixture: Callable[[int], GaussianMixture] = paper_mixture) -> list[float]:
    """Spectral norm of V (C - C') V^T between the right T and another: needs no kernel, so p may be large."""
    gaps = []
    for p in sizes:
        mix = mixture(p)
        eq = analysis.solve_equations(activation, sigma_a2, tau0=mix.tau0)
        sample = mix.sample(rng)
        v, right = low_rank_part(eq, sample)
        _, other = low_rank_part(eq, sample, covariance_term=term)
        root = np.linalg.qr(v)[1]
        gaps.append(float(np.abs(np.linalg.eigvalsh(root @ (right - other) @ root.T)).max()))
    return gaps


def width_errors(name: str, sigma_a2: float, widths: Sequence[int], repetitions: int, generator: torch.Generator, *,
                 tangent_widths: Sequence[int] = (), limit_sigma_a2: float | None = None, p: int = 8,
                 samples: int = 5) -> dict[str, list[list[float]]]:
    """Frobenius errors of finite tied-weight networks against the infinite-width kernels.

    Args:
        name: of an activation that torch has too.
        sigma_a2: of the finite networks.
        widths: for the conjugate kernel.
        repetitions: networks a width.
        generator: for data and weights.
        tangent_widths: those of `widths` at which empirical tangent kernels are formed too.
        limit_sigma_a2: of the limit, where a control wants another.
        p: dimension of the data.
        samples: number of data points.

    Returns:
        "ck" [widths, repetitions]; "readout+A" and "readout+A+B" against their own limits and "crossed" (the
        kernel with B trained against the limit without) and "crossed back" (the reverse), [tangent widths,
        repetitions].
    """
    x = torch.randn(p, samples, dtype=torch.float64, generator=generator) / p**0.5
    limit_a2 = sigma_a2 if limit_sigma_a2 is None else limit_sigma_a2
    limits = {c: analysis.deq_kernels(x.numpy(), name, limit_a2, convention=c) for c in ("readout+A", "readout+A+B")}
    result: dict[str, list[list[float]]] = {key: [] for key in (
        "ck", "readout+A", "readout+A+B", "crossed", "crossed back")}
    for width in widths:
        rows: dict[str, list[float]] = {key: [] for key in result}
        for _ in range(repetitions):
            network = draw(width, p, sigma_a2, 1 - sigma_a2, TORCH_ACTIVATIONS[name], generator)
            h = equilibrium(network, x)
            rows["ck"].append(float(np.linalg.norm(conjugate_kernel(h) - limits["readout+A"].ck)))
            if width in tangent_widths:
                part, full = (empirical_ntk(network, x, h, with_inputs=flag) for flag in (False, True))
                rows["readout+A"].append(float(np.linalg.norm(part - limits["readout+A"].ntk)))
                rows["readout+A+B"].append(float(np.linalg.norm(full - limits["readout+A+B"].ntk)))
                rows["crossed"].append(float(np.linalg.norm(full - limits["readout+A"].ntk)))
                rows["crossed back"].append(float(np.linalg.norm(part - limits["readout+A+B"].ntk)))
        for key, values in rows.items():
            if values:
                result[key].append(values)
    return result


def sampling_comparison(p: int, rng: np.random.Generator, *, activation: str = "relu", sigma_a2: float = 0.2,
                        width: int = 1000, draws: int | None = None) -> dict[str, Any]:
    """The exact conjugate kernel beside the authors' sampling scheme on the same data: time and error against truth.

    The truth is the exact kernel; its own error bound is reported beside the sampled one's spectral-norm error.

    Args:
        p: dimension; n = 0.8 p samples of the paper's mixture.
        rng: for data and networks.
        activation: phi, centred at the theory's tau.
        sigma_a2: variance of the recurrent weights.
        width: of the sampled networks.
        draws: networks to draw; floor(p^2 / width), the whole scheme, unless given.
    """
    mix = paper_mixture(p)
    sample = mix.sample(rng)
    phi = as_activation(activation)
    shift = float(analysis.solve_equations(phi, sigma_a2, tau0=mix.tau0).shift)
    start = time.perf_counter()
    exact = analysis.deq_kernels(sample.x, phi, sigma_a2, centre=shift)
    exact_seconds = time.perf_counter() - start
    sampled = sampled_kernel(sample.x, lambda u: phi(u) - shift, sigma_a2, rng, width=width, draws=draws)
    norm = spectral_norm(exact.ck)
    return {
        "p": p, "n": sample.x.shape[1], "activation": phi.name, "sigma_a2": sigma_a2, "width": width,
        "exact_seconds": exact_seconds, "exact_entry_error_bound": exact.ck_error,
        "exact_relative_error_bound": len(exact.ck) * exact.ck_error / norm,
        "sampled_seconds": sampled.seconds, "sampled_full_seconds": sampled.full_seconds,
        "draws": sampled.draws, "full_draws": sampled.full_draws, "picard_steps": sampled.steps / sampled.draws,
        "unfinished": sampled.unfinished,
        "sampled_error": spectral_norm(sampled.ck - exact.ck),
        "sampled_relative_error": spectral_norm(sampled.ck - exact.ck) / norm,
        "sampled_largest_entry_error": float(np.abs(sampled.ck - exact.ck).max()),
    }
