"""A Gaussian of independent pixels: what a density model has to beat, and itself a NICE with constant shifts."""

from __future__ import annotations

import math

from torch import Tensor

from deq.evaluation.likelihood import Mean


def diagonal_gaussian(train: Tensor, test: Tensor) -> dict[str, float]:
    """Means and variances from `train` `[n, d]`; exact score-matching loss and log-likelihood on `test` `[m, d]`.

    `log p = -0.5 sum ((x - mu)^2 / v + log 2 pi v)`, so the loss of a row is `0.5 sum ((x - mu) / v)^2 - sum 1 / v`. It
    is the maximum of the likelihood, and the minimum of the score-matching loss, among all of its kind.

    Raises:
        ValueError: a column of `train` is constant.

    Example:
        >>> x = torch.randn(1000, 2, dtype=torch.float64)
        >>> abs(diagonal_gaussian(x, x)["test_sm_loss"] + 1) < 0.2          # -d / 2 for unit variances
        True
    """
    mean, variance = train.double().mean(0), train.double().var(0, correction=0)
    if bool((variance == 0).any()):
        raise ValueError(f"{int((variance == 0).sum())} columns are constant: their Gaussian has no density")
    gap = test.double() - mean
    loss = Mean.of(0.5 * (gap / variance).square().sum(1) - (1 / variance).sum())
    likelihood = Mean.of(-0.5 * (gap.square() / variance).sum(1) - 0.5 * (2 * math.pi * variance).log().sum())
    return {"test_sm_loss": loss.value, "test_sm_loss_error": loss.error, "test_sm_images": float(len(test)),
            "test_log_likelihood": likelihood.value, "test_log_likelihood_error": likelihood.error}
