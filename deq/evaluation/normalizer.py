"""The log-normaliser of an unnormalised density, bounded from both sides by annealed importance sampling.

Forward chains run from a normalised base to the model (Neal 2001): the mean weight is unbiased for Z, so its logarithm
is below log Z on average. Reverse chains run from samples of the model to the base (bidirectional Monte Carlo, Grosse
et al. 2015): their mean weight is unbiased for 1/Z, which gives an upper bound. By Markov's inequality each bound is
wrong by more than b nats with probability at most exp(-b), whatever the variance of the weights.

`importance_log_normalizer` is the estimator of [SM] and of the deep-kernel papers, kept to be audited.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

LogDensity = Callable[[Tensor], Tensor]


class Base(Protocol):
    """A normalised density that can be sampled."""

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """`[count, d]`."""

    def log_density(self, x: Tensor) -> Tensor:
        """`[count]`, normalised."""


@dataclass(frozen=True)
class GaussianBase:
    """N(mean, L L^T).

    Attributes:
        mean: `[d]`.
        factor: L, lower triangular `[d, d]`.
    """

    mean: Tensor
    factor: Tensor

    @classmethod
    def isotropic(cls, dim: int, std: float = 1.0, dtype: torch.dtype = torch.float64,
                  device: torch.device | str = "cpu") -> GaussianBase:
        """N(0, std^2 I)."""
        return cls(torch.zeros(dim, dtype=dtype, device=device), std * torch.eye(dim, dtype=dtype, device=device))

    @classmethod
    def fit(cls, data: Tensor, inflate: float = 1.1) -> GaussianBase:
        """Mean and covariance of data `[n, d]`, the standard deviations widened by `inflate`.

        Raises:
            ValueError: fewer than d + 1 rows, which cannot give a covariance of full rank.
        """
        if len(data) <= data.shape[1]:
            raise ValueError(f"{len(data)} rows cannot give a covariance in {data.shape[1]} dimensions")
        factor = torch.linalg.cholesky(torch.cov(data.T))
        return cls(data.mean(0), inflate * factor)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """`[count, d]`."""
        noise = torch.randn(count, len(self.mean), generator=generator, dtype=self.mean.dtype)
        return self.mean + noise.to(self.mean.device) @ self.factor.T

    def log_density(self, x: Tensor) -> Tensor:
        """`[count]`."""
        white = torch.linalg.solve_triangular(self.factor, (x - self.mean).T, upper=False)
        log_det = self.factor.diagonal().log().sum()
        return -0.5 * white.square().sum(0) - log_det - 0.5 * len(self.mean) * math.log(2 * math.pi)


def effective_sample_size(log_weights: Tensor) -> float:
    """`(sum w)^2 / sum w^2` of log-weights `[n]`; between 1 and n."""
    return float(torch.exp(2 * torch.logsumexp(log_weights, 0) - torch.logsumexp(2 * log_weights, 0)))


def _log_mean(log_weights: Tensor) -> float:
    return float(torch.logsumexp(log_weights, 0)) - math.log(len(log_weights))


@dataclass(frozen=True)
class ImportanceEstimate:
    """Plain importance sampling.

    Attributes:
        log_z: estimate of log Z; biased low.
        effective_samples: of the draws.
        draws: how many.
    """

    log_z: float
    effective_samples: float
    draws: int


def importance_log_normalizer(log_density: LogDensity, base: Base, draws: int = 1_000_000, *,
                              generator: torch.Generator | None = None, chunk: int = 10_000) -> ImportanceEstimate:
    """`log mean f(x)/q(x)` over draws from the base, as [SM] computes its log-likelihoods (base N(0, 4 I), 10^6 draws).

    Fine in 11 or 15 dimensions; in 100 the weights collapse. Look at `effective_samples`.
    """
    parts = []
    for start in range(0, draws, chunk):
        x = base.sample(min(chunk, draws - start), generator)
        with torch.no_grad():
            parts.append(log_density(x) - base.log_density(x))
    log_weights = torch.cat(parts)
    return ImportanceEstimate(_log_mean(log_weights), effective_sample_size(log_weights), draws)


@dataclass(frozen=True)
class NormalizerEstimate:
    """Two-sided estimate of log Z.

    Attributes:
        lower: forward estimate; `E exp(lower) = Z`.
        upper: reverse estimate; `E exp(-upper) = 1/Z` if the reverse chains started from exact samples.
        effective_lower, effective_upper: effective sample sizes of the chains' weights.
        exact_start: the caller gave samples of the model; else the reverse chains start from the forward chains' ends,
            and `upper` is a diagnostic, not a bound.
        acceptance: mean acceptance rate of the transitions.
        chains: of each direction.
        log_weights_forward, log_weights_reverse: `[chains]`.
    """

    lower: float
    upper: float
    effective_lower: float
    effective_upper: float
    exact_start: bool
    acceptance: float
    chains: int
    log_weights_forward: Tensor
    log_weights_reverse: Tensor

    @property
    def gap(self) -> float:
        """`upper - lower`, small when both directions mix."""
        return self.upper - self.lower

    def interval(self, level: float = 0.99) -> tuple[float, float]:
        """An interval that holds log Z with at least this probability (Markov's inequality on both sides).

        Raises:
            ValueError: the reverse chains did not start from exact samples, so no such statement can be made.
        """
        if not self.exact_start:
            raise ValueError("an interval needs exact samples of the model for the reverse chains: pass model_samples")
        slack = -math.log((1 - level) / 2)
        return self.lower - slack, self.upper + slack


class _Annealer:
    """Hamiltonian transitions that leave `base^(1-beta) f^beta` invariant; step sizes are fixed beforehand."""

    def __init__(self, log_density: LogDensity, base: Base, leapfrog: int, generator: torch.Generator | None) -> None:
        self.log_density, self.base, self.leapfrog, self.generator = log_density, base, leapfrog, generator
        self.accepted, self.proposed = 0.0, 0

    def gap(self, x: Tensor) -> Tensor:
        """Log f - log base."""
        with torch.no_grad():
            return self.log_density(x) - self.base.log_density(x)

    def _value_and_gradient(self, x: Tensor, beta: float) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            value = (1 - beta) * self.base.log_density(x) + beta * self.log_density(x)
            gradient = torch.autograd.grad(value.sum(), x)[0]
        return value.detach(), gradient

    def _randn(self, shape: torch.Size, like: Tensor) -> Tensor:
        return torch.randn(shape, generator=self.generator, dtype=like.dtype).to(like.device)

    def move(self, x: Tensor, beta: float, step: float) -> tuple[Tensor, float]:
        """One Hamiltonian move of each chain and its mean acceptance rate."""
        momentum = self._randn(x.shape, x)
        value, gradient = self._value_and_gradient(x, beta)
        energy = value - 0.5 * momentum.square().sum(1)
        y, p = x, momentum + 0.5 * step * gradient
        for index in range(self.leapfrog):
            y = y + step * p
            new_value, gradient = self._value_and_gradient(y, beta)
            p = p + (step if index < self.leapfrog - 1 else 0.5 * step) * gradient
        change = new_value - 0.5 * p.square().sum(1) - energy
        change = torch.nan_to_num(change, nan=-math.inf)
        uniform = torch.rand(len(x), generator=self.generator, dtype=x.dtype).to(x.device)
        accept = uniform.log() < change
        rate = float(change.clamp(max=0).exp().mean())
        self.accepted, self.proposed = self.accepted + rate, self.proposed + 1
        return torch.where(accept[:, None], y, x), rate

    def pilot(self, x: Tensor, betas: list[float], step: float) -> list[float]:
        """Step sizes that keep acceptance near 0.8, from a run whose weights are thrown away."""
        steps = []
        for beta in betas:
            x, rate = self.move(x, beta, step)
            step *= math.exp(0.3 * (rate - 0.8))
            steps.append(step)
        return steps

    def forward(self, x: Tensor, betas: list[float], steps: list[float]) -> tuple[Tensor, Tensor]:
        """Base samples to the model: (log-weights, final states)."""
        weights = torch.zeros(len(x), dtype=x.dtype, device=x.device)
        for before, beta, step in zip([0.0, *betas[:-1]], betas, steps, strict=True):
            weights = weights + (beta - before) * self.gap(x)
            x, _ = self.move(x, beta, step)
        return weights, x

    def reverse(self, x: Tensor, betas: list[float], steps: list[float]) -> Tensor:
        """Model samples to the base: log-weights whose negatives are unbiased for 1/Z after exponentiation."""
        weights = torch.zeros(len(x), dtype=x.dtype, device=x.device)
        for before, beta, step in reversed(list(zip([0.0, *betas[:-1]], betas, steps, strict=True))):
            x, _ = self.move(x, beta, step)
            weights = weights + (beta - before) * self.gap(x)
        return weights


def sigmoid_schedule(temperatures: int, sharpness: float = 4.0) -> list[float]:
    """Inverse temperatures in (0, 1], dense at both ends, the last one exactly 1."""
    t = torch.linspace(-sharpness, sharpness, temperatures + 1, dtype=torch.float64).sigmoid()
    betas = ((t - t[0]) / (t[-1] - t[0]))[1:].tolist()
    return [*betas[:-1], 1.0]


def log_normalizer(log_density: LogDensity, base: Base, *, chains: int = 64, temperatures: int = 200, leapfrog: int = 5,
                   step: float = 0.3, model_samples: Tensor | None = None,
                   generator: torch.Generator | None = None) -> NormalizerEstimate:
    """Bound log Z of `exp(log_density)` from both sides.

    Args:
        log_density: unnormalised, `[n, d]` to `[n]`, differentiable in its input.
        base: normalised; should cover the model ("wider" is safe).
        chains: of each direction.
        temperatures: more tighten both bounds.
        leapfrog: steps of a Hamiltonian move.
        step: the first step size, adapted in a pilot run and then fixed.
        model_samples: exact samples of the model `[>= chains, d]` for the reverse chains.
        generator: for all draws.

    Raises:
        ValueError: too few model samples, or a log-density that is not finite on the base's samples.
    """
    if model_samples is not None and len(model_samples) < chains:
        raise ValueError(f"{chains} reverse chains need as many model samples, not {len(model_samples)}")
    betas = sigmoid_schedule(temperatures)
    annealer = _Annealer(log_density, base, leapfrog, generator)
    start = base.sample(chains, generator)
    with torch.no_grad():
        values = log_density(start)
    if values.shape != (chains,) or not bool(torch.isfinite(values).all()):
        raise ValueError(f"log_density must give finite values [{chains}] on samples of the base; got shape "
                         f"{list(values.shape)}, {int((~torch.isfinite(values)).sum())} not finite")
    steps = annealer.pilot(base.sample(chains, generator), betas, step)
    annealer.accepted, annealer.proposed = 0.0, 0
    forward, ends = annealer.forward(start, betas, steps)
    if model_samples is None:
        picks = torch.multinomial((forward - forward.max()).exp().cpu(), chains, replacement=True, generator=generator)
        origin = ends[picks.to(ends.device)]
    else:
        origin = model_samples[:chains]
    reverse = annealer.reverse(origin, betas, steps)
    return NormalizerEstimate(
        lower=_log_mean(forward), upper=-_log_mean(-reverse), effective_lower=effective_sample_size(forward),
        effective_upper=effective_sample_size(-reverse), exact_start=model_samples is not None,
        acceptance=annealer.accepted / annealer.proposed, chains=chains, log_weights_forward=forward,
        log_weights_reverse=reverse)
