"""What a trained DKEF is worth: losses under its own and under exact derivatives, log-likelihoods by two estimators."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from deq.evaluation.likelihood import Mean, log_likelihood_bounds
from deq.evaluation.normalizer import GaussianBase, NormalizerEstimate, importance_log_normalizer, log_normalizer
from deq.gradients.rules import Exact
from deq.models import DKEF
from deq.models.dkef_features import EquilibriumFeatures
from deq.training.dkef_objective import evaluate, fit_alpha, solve_alpha

#: Equilibria of comparisons are solved to this; training's to the tolerance of the configuration.
TIGHT = 1e-10
#: Forward and reverse annealing shall agree to this; temperatures are doubled up to `MOST_DOUBLINGS` times for it.
AGREEMENT, MOST_DOUBLINGS = 0.5, 4
CHAINS = 32


@contextmanager
def exact_derivatives(model: DKEF, tol: float = TIGHT) -> Iterator[None]:
    """Within the block equilibria are differentiated exactly and solved to `tol`; explicit ones are exact already."""
    features = model.features
    if not isinstance(features, EquilibriumFeatures):
        yield
        return
    kept = features.gradient, features.tol
    features.gradient, features.tol = Exact(3), min(features.tol, tol)
    try:
        yield
    finally:
        features.gradient, features.tol = kept


def loss_under_exact_derivatives(model: DKEF, train: Tensor, test: Tensor) -> float | None:
    """Mean score-matching loss on test rows under exact derivatives, alpha solved anew under them on the training rows.

    What a model with an equilibrium reports under a phantom rule is not its loss. None where the model's own
    derivatives are exact already (no equilibrium, an exact rule) or cannot be had (the released map).
    """
    features = model.features
    if not isinstance(features, EquilibriumFeatures) or features.gradient.exact or features.released:
        return None
    with exact_derivatives(model, 1e4 * torch.finfo(test.dtype).eps):
        alpha = solve_alpha(*fit_alpha(model, train), len(train), model.log_ridge.detach())
        return float(evaluate(model, test, alpha=alpha).mean())


@torch.no_grad()
def three_losses(model: DKEF, rows: Tensor, test: Tensor) -> dict[str, float]:
    """Mean exact score-matching loss over test rows `[m, d]` with alpha from `rows` `[n, d]`.

    "own": alpha and loss under the model's own rule. "exact": both under exact derivatives. "deployed": alpha as the
    own rule finds it, loss under exact derivatives. All three agree for a model with exact derivatives, and only "own"
    is given for the released map.
    """
    def alpha() -> Tensor:
        return solve_alpha(*fit_alpha(model, rows), len(rows), model.log_ridge)

    def loss(chosen: Tensor) -> float:
        return evaluate(model, test, alpha=chosen).mean().item()

    own = alpha()
    out = {"own": loss(own)}
    features = model.features
    if isinstance(features, EquilibriumFeatures) and features.released:
        return out
    with exact_derivatives(model):
        return out | {"exact": loss(alpha()), "deployed": loss(own)}


def _density(model: DKEF) -> Callable[[Tensor], Tensor]:
    """`model.log_density` with the inducing points' features computed once."""
    with torch.no_grad():
        anchors = model.features(model.inducing)
    return lambda x: model.log_density(x, anchors=anchors)


def annealed_likelihood(model: DKEF, test: Tensor, temperatures: int, seed: int) -> dict[str, float]:
    """Mean test log-likelihood by annealed importance sampling, both directions.

    `test_log_likelihood` uses the forward estimate of log Z, `test_log_likelihood_low` the reverse one, whose chains
    start from the forward chains' ends and not from exact samples: a diagnostic, not a bound. Temperatures are doubled
    until the two agree within `AGREEMENT` or the doublings are used up; `log_z_gap` says what is left.
    """
    base = GaussianBase.isotropic(model.dim, model.base_scale, test.dtype, test.device)
    density = _density(model)

    def estimate(count: int) -> NormalizerEstimate:
        return log_normalizer(density, base, chains=CHAINS, generator=torch.Generator().manual_seed(seed),
                              temperatures=count)

    normalizer = estimate(temperatures)
    for _ in range(MOST_DOUBLINGS):
        if abs(normalizer.gap) <= AGREEMENT:
            break
        temperatures *= 2
        normalizer = estimate(temperatures)
    low, high = log_likelihood_bounds(density, test, normalizer)
    return {"test_log_likelihood": high.value, "test_log_likelihood_low": low.value,
            "test_log_likelihood_error": high.error, "log_z": normalizer.lower, "log_z_gap": normalizer.gap,
            "annealing_temperatures": float(temperatures), "annealing_effective": normalizer.effective_lower}


def importance_likelihood(model: DKEF, test: Tensor, draws: int, seed: int) -> dict[str, float]:
    """Mean test log-likelihood by plain importance sampling from the base measure, as the paper has it.

    Its effective sample size says whether to believe it: log Z is biased low, the likelihood high.
    """
    density = _density(model)
    base = GaussianBase.isotropic(model.dim, model.base_scale, test.dtype, test.device)
    found = importance_log_normalizer(density, base, draws, generator=torch.Generator().manual_seed(seed), chunk=2000)
    with torch.no_grad():
        likelihood = Mean.of(density(test) - found.log_z).value
    return {"test_log_likelihood_importance": likelihood, "importance_effective": found.effective_samples,
            "importance_draws": float(draws)}
