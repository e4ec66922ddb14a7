"""DKEF under the engine: the two-stage protocol of `deq.training.dkef`, checkpointed and logged like other runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from deq.data import Tabular, load_tabular
from deq.data.tabular import Preprocessing
from deq.evaluation.likelihood import fisher_divergence, log_likelihood_bounds
from deq.evaluation.normalizer import GaussianBase, log_normalizer
from deq.gradients.rules import Exact
from deq.losses import curvature_propagation
from deq.models import DKEF
from deq.models.dkef_features import EquilibriumFeatures
from deq.models.jets import input_jet
from deq.training.config import Config, ConfigError
from deq.training.dkef import DKEFResult, DKEFTrainer, DKEFTraining
from deq.training.dkef_objective import OBJECTIVES, evaluate, fit_alpha, quadratic, solve_alpha
from deq.training.task import Apply, Task, build_model, build_optimizer

NEVER = 10**9


def load_table(config: Config, folder: Any = None) -> Tabular:
    """The table of a configuration; "synthetic" is a small correlated Gaussian of the model's dimension."""
    if config.data.name != "synthetic":
        return load_tabular(config.data.name, folder, Preprocessing(split=config.data.split))
    dim, rows = int(config.model.options["dim"]), config.data.rows
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, dim, generator=generator, dtype=torch.float64)
    x = x + 0.3 * x.roll(1, dims=1)
    first, second = int(0.6 * rows), int(0.8 * rows)
    return Tabular("synthetic", x[:first], x[first:second], x[second:], ("a trial of the machinery",))


def loss_under_exact_derivatives(model: DKEF, train: Tensor, test: Tensor) -> float | None:
    """Mean score-matching loss on test rows under exact derivatives, alpha solved anew under them on the training rows.

    What a model with an equilibrium reports under a phantom rule is not its loss. None where the model's own
    derivatives are exact already (no equilibrium, an exact rule) or cannot be had (the released map).
    """
    features = model.features
    if not isinstance(features, EquilibriumFeatures) or features.gradient.exact or features.released:
        return None
    kept = features.gradient, features.tol
    features.gradient, features.tol = Exact(3), min(features.tol, 1e4 * torch.finfo(test.dtype).eps)
    try:
        alpha = solve_alpha(*fit_alpha(model, train), len(train), model.log_ridge.detach())
        return float(evaluate(model, test, alpha=alpha).mean())
    finally:
        features.gradient, features.tol = kept


def layers_of(model: DKEF, alpha: Tensor) -> list[Callable[[Tensor], Tensor]]:
    """The log-density as a chain of two layers, features then kernels, for layer-wise estimators of a trace."""
    copies = model.features.kernels

    def features(x: Tensor) -> Tensor:
        return torch.cat([model.features(x).transpose(0, 1).flatten(1), x], dim=1)

    def density(y: Tensor) -> Tensor:
        x, packed = y[:, -model.dim:], y[:, :-model.dim]
        gap = packed.unflatten(1, (copies, -1)).transpose(0, 1)[:, :, None] - model.features(model.inducing)[:, None]
        scale = 10**model.log_length[:, None, None]
        part = torch.softmax(model.mixture, 0)[:, None, None] * torch.exp(-gap.square().sum(3) / (2 * scale))
        return model.base(x) + part.sum(0) @ alpha

    return [features, density]


class DKEFTask(Task):
    """A DKEF on a table: half of each batch fixes alpha, the other half is descended; the ridge follows at the end.

    For "cp" (curvature propagation) alpha is solved with the exact objective and only the descended half is estimated,
    a
    choice of this project: the released code leaves a term out of its stochastic alpha.
    """

    def __init__(self, config: Config, table: Tabular, device: torch.device) -> None:
        kind = config.objective.kind
        if kind not in (*OBJECTIVES, "cp"):
            raise ConfigError(f"objective.kind {kind!r} is not known for DKEF; take one of {', '.join(OBJECTIVES)}, cp")
        self.config, self.table = config, table
        self.model: DKEF = build_model(config).to(device)  # type: ignore[assignment]
        self.trainer = DKEFTrainer(self.model, table, DKEFTraining(
            objective="sm" if kind == "cp" else kind, epochs=NEVER, max_steps=config.run.steps,
            batch_size=config.data.batch, learning_rate=config.optimizer.lr, weight_decay=config.optimizer.weight_decay,
            clip=config.optimizer.clip or math.inf, patience=config.optimizer.patience or None,
            validate_every=config.run.validate_every, sigma=config.objective.sigma,
            final_steps=config.run.final_steps, seed=config.run.seed))
        self.optimizers = {"model": build_optimizer(self.model.parameters(), config.optimizer)}
        self.module = nn.ModuleDict({"model": self.model})
        self.rows = len(table.train)

    @property
    def done(self) -> bool:
        """Whether patience ran out."""
        return self.trainer.result.stopped_early

    def loss(self, fitting: Tensor, held: Tensor) -> Tensor:
        """The objective on `held` with alpha from `fitting`, graph kept."""
        if self.config.objective.kind != "cp":
            return self.trainer.batch_loss(fitting, held)
        form = quadratic(self.model, fitting, "sm")
        alpha = solve_alpha(*form.normal_equations(), len(fitting), self.model.log_ridge)
        return curvature_propagation(layers_of(self.model, alpha), held, generator=self.trainer.generator)

    def update(self, rows: Tensor, apply: Apply) -> dict[str, float]:
        """One update and, every `validate_every` steps, one validation."""
        x = self.trainer.train[rows.to(self.trainer.train.device)]
        fitting, held = x.chunk(2)
        loss = self.loss(fitting, held)
        norm = apply("model", loss)
        result = self.trainer.result
        result.steps += 1
        if result.steps % self.config.run.validate_every == 0 or result.steps == self.config.run.steps:
            self.trainer._validate(float(loss.detach()))
        numbers = {"loss": float(loss.detach()), "gradient_norm": norm}
        return numbers | ({"validation": result.history[-1]["validation"]} if result.history else {})

    def monitor(self) -> dict[str, float]:
        """The equilibria of the features on a few validation rows."""
        features = self.model.features
        if not isinstance(features, EquilibriumFeatures):
            return {}
        with torch.no_grad():
            u = features.inject(input_jet(self.trainer.validation[:16], features.kernels)).value
            z = features.fixed_point(u)
        solution = features.last
        if solution is None:
            raise RuntimeError("a solve left no solution")
        eigenvalues = torch.linalg.eigvals(features.jacobian(z, u))
        return {"iterations": float(solution.iterations.float().mean()),
                "iterations_most": float(solution.iterations.max()), "residual": float(solution.residual.max()),
                "not_converged": float((~solution.converged).sum()), "spectral_radius": float(eigenvalues.abs().max())}

    def finish(self) -> dict[str, float]:
        """Back to the best state; then stage 2."""
        result = self.trainer.result
        self.model.load_state_dict(self.trainer.best)
        self.trainer._finalise(False)
        return {"best_step": float(result.best_step), "best_validation": result.best_validation,
                "log10_ridge": float(self.model.log_ridge.detach())}

    def evaluate(self) -> dict[str, float]:
        """Score-matching loss on the test rows (a mean over samples, all directions) and both log-likelihood estimates.

        `test_sm_loss` uses the model's own derivatives, `test_sm_loss_exact` exact ones where these differ.

        `test_log_likelihood` uses the forward annealed estimate of log Z, `test_log_likelihood_low` the reverse one,
        whose chains start from the forward chains' ends and not from exact samples: a diagnostic, not a bound.
        """
        test = self.table.test.to(self.model.inducing)
        out = {"test_sm_loss": float(evaluate(self.model, test).mean())}
        exact = loss_under_exact_derivatives(self.model, self.trainer.train, test)
        if exact is not None:
            out["test_sm_loss_exact"] = exact
        if self.table.name.startswith("gaussian-"):
            with torch.no_grad():
                out["test_fisher_divergence"] = fisher_divergence(self.model.score(test), -test).value
        if self.config.run.temperatures:
            base = GaussianBase.isotropic(self.model.dim, self.model.base_scale, test.dtype, test.device)
            generator = torch.Generator().manual_seed(self.config.run.seed)
            normalizer = log_normalizer(self.model.log_density, base, chains=32, generator=generator,
                                        temperatures=self.config.run.temperatures)
            low, high = log_likelihood_bounds(self.model.log_density, test, normalizer)
            out |= {"test_log_likelihood": high.value, "test_log_likelihood_low": low.value,
                    "test_log_likelihood_error": high.error, "log_z": normalizer.lower}
        return out

    def extra_state(self) -> dict[str, Any]:
        """Best state, history and generator."""
        result = asdict(self.trainer.result)
        if math.isinf(result["best_validation"]):
            result["best_validation"] = None
        return {"best": dict(self.trainer.best), "result": result, "generator": self.trainer.generator.get_state()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Put them back."""
        result = dict(state["result"])
        if result["best_validation"] is None:
            result["best_validation"] = math.inf
        self.trainer.result = DKEFResult(**result)
        self.trainer.best = dict(state["best"])
        self.trainer.generator.set_state(state["generator"])
