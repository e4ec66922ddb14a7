"""Log-likelihoods of unnormalised models, Fisher divergence, and the surrogate that the VAE papers print as "ELBO"."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from deq.evaluation.normalizer import NormalizerEstimate


@dataclass(frozen=True)
class Mean:
    """A sample mean and its standard error.

    Attributes:
        value: the mean.
        error: standard error, NaN for a single sample.
        count: number of samples.
    """

    value: float
    error: float
    count: int

    @classmethod
    def of(cls, samples: Tensor) -> Mean:
        """Of samples `[n]`.

        Raises:
            ValueError: there are none.
        """
        if samples.numel() == 0:
            raise ValueError("the mean of no samples is undefined; is the test set empty?")
        error = float(samples.std()) / math.sqrt(len(samples)) if len(samples) > 1 else math.nan
        return cls(float(samples.mean()), error, len(samples))


def log_likelihood_bounds(log_density: Callable[[Tensor], Tensor], x: Tensor,
                          normalizer: NormalizerEstimate) -> tuple[Mean, Mean]:
    """(lower, upper) mean log-likelihood of x `[n, d]`: a large log Z means a small likelihood.

    The standard errors are those of the test sample; the normaliser's uncertainty is the distance of the two.
    """
    with torch.no_grad():
        values = log_density(x)
    return Mean.of(values - normalizer.upper), Mean.of(values - normalizer.lower)


def fisher_divergence(model_score: Tensor, true_score: Tensor) -> Mean:
    """`0.5 E |s_model - s_true|^2` from scores `[n, d]` at samples of the truth.

    Raises:
        ValueError: shapes differ.
    """
    if model_score.shape != true_score.shape:
        raise ValueError(f"scores differ in shape: {list(model_score.shape)} and {list(true_score.shape)}")
    return Mean.of(0.5 * (model_score - true_score).flatten(1).square().sum(1))


def score_matching_values(log_density: Callable[[Tensor], Tensor], x: Tensor, chunk: int = 16) -> Tensor:
    """`0.5 |s|^2 + tr(Ds)` of each row of x `[n, d]`, without a graph: d backward passes, `chunk` at a time.

    The objective of the same name keeps its graph for training, which for 784 pixels does not fit in memory.
    """
    x = x.detach().requires_grad_(True)
    score = torch.autograd.grad(log_density(x).sum(), x, create_graph=True)[0]
    trace = torch.zeros(len(x), dtype=x.dtype, device=x.device)
    for columns in torch.arange(x.shape[1], device=x.device).split(chunk):
        basis = torch.zeros(len(columns), *x.shape, dtype=x.dtype, device=x.device)
        basis[torch.arange(len(columns)), :, columns] = 1
        rows = torch.autograd.grad(score, x, basis, retain_graph=True, is_grads_batched=True)[0]
        trace = trace + rows[torch.arange(len(columns)), :, columns].sum(0)
    return (0.5 * score.square().sum(1) + trace).detach()


def batch_moment_surrogate(reconstruction: Tensor, z: Tensor) -> float:
    """What the SSM-VAE code logs as "ELBO": reconstruction loss plus the KL of the batch's moments of z from N(0, I).

    An implicit posterior has no ELBO of its own; this replaces it by one Gaussian fitted to the whole minibatch, so it
    is neither a bound nor comparable with ELBOs. Lower is better.

    Args:
        reconstruction: `-log p(x | z)` `[batch]`.
        z: `[batch, latent]`, at least two rows.

    Raises:
        ValueError: a single row has no standard deviation.
    """
    if len(z) < 2:
        raise ValueError("the surrogate needs at least two latent samples, for their standard deviation")
    mean, std = z.mean(0), z.std(0)
    kl = 0.5 * (std.square() + mean.square()) - std.log() - 0.5
    return float(reconstruction.mean() + kl.sum())
