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
from deq.evaluation.batch_stop import released_counts
from deq.evaluation.likelihood import Mean, fisher_divergence
from deq.losses import curvature_propagation
from deq.models import DKEF
from deq.models.dkef_features import EquilibriumFeatures
from deq.models.jets import input_jet
from deq.training.config import Config, ConfigError
from deq.training.dkef import DKEFProtocol, DKEFResult, DKEFTraining
from deq.training.dkef_evaluation import (
    annealed_likelihood,
    importance_likelihood,
    loss_under_exact_derivatives,
    three_losses,
)
from deq.training.dkef_objective import OBJECTIVES, evaluate, quadratic, solve_alpha
from deq.training.task import Apply, Task, build_model, build_optimizer

NEVER = 10**9
#: Training rows that fix alpha for a look at the losses along the way.
ALPHA_ROWS = 1000


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
    a choice of this project: the released code leaves a term out of its stochastic alpha.
    """

    def __init__(self, config: Config, table: Tabular, device: torch.device) -> None:
        kind = config.objective.kind
        if kind not in (*OBJECTIVES, "cp"):
            raise ConfigError(f"objective.kind {kind!r} is not known for DKEF; take one of {', '.join(OBJECTIVES)}, cp")
        self.config, self.table = config, table
        self.model: DKEF = build_model(config).to(device)  # type: ignore[assignment]
        self.trainer = DKEFProtocol(self.model, table, DKEFTraining(
            objective="sm" if kind == "cp" else kind, epochs=NEVER, max_steps=config.run.steps,
            batch_size=config.data.batch, learning_rate=config.optimizer.lr, weight_decay=config.optimizer.weight_decay,
            clip=config.optimizer.clip or math.inf, patience=config.optimizer.patience or None,
            validate_every=config.run.validate_every or NEVER, sigma=config.objective.sigma,
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
        every = self.config.run.validate_every
        if every and (result.steps % every == 0 or result.steps == self.config.run.steps):
            self.trainer.validate(float(loss.detach()))
        numbers = {"loss": float(loss.detach()), "gradient_norm": norm}
        return numbers | ({"validation": result.history[-1]["validation"]} if result.history else {})

    def monitor(self) -> dict[str, float]:
        """The equilibria of the features on a few validation rows, and the paper's count on half a batch of them.

        That count is of plain iteration, each kernel's map by itself (see `deq.evaluation.batch_stop`).
        """
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
        rows = self.trainer.validation[:self.config.data.batch // 2]
        with torch.no_grad():
            inside, weight = features.inject(input_jet(rows, features.kernels)).value, features.weight()
            state, fixed = inside.transpose(0, 1), features.fixed_point(inside).transpose(0, 1)
            counts = released_counts(lambda z: features.map(z, state, weight), fixed, features.tol, features.max_iter,
                                     group=1)
        return counts | {"iterations": float(solution.iterations.float().mean()),
                "iterations_most": float(solution.iterations.max()), "residual": float(solution.residual.max()),
                "not_converged": float((~solution.converged).sum()), "spectral_radius": float(eigenvalues.abs().max())}

    def finish(self) -> dict[str, float]:
        """Back to the best state; then stage 2."""
        trainer, result = self.trainer, self.trainer.result
        out: dict[str, float] = {}
        if trainer.early:
            self.model.load_state_dict(trainer.early)
            trainer.finalise()
            out = {f"early_{name}": value for name, value in self._losses().items()}
            out |= {"early_stop": float(result.early_stop), "early_step": float(result.early_step)}
        if result.history:
            self.model.load_state_dict(trainer.best)
            out |= {"best_step": float(result.best_step), "best_validation": result.best_validation}
        trainer.finalise()
        return out | {"log10_ridge": float(self.model.log_ridge.detach())}

    def _losses(self) -> dict[str, float]:
        """On the test rows, by the model's own derivatives with a standard error, and by exact ones."""
        test = self.table.test.to(self.model.inducing)
        mean = Mean.of(evaluate(self.model, test))
        exact = loss_under_exact_derivatives(self.model, self.trainer.train, test)
        return {"test_sm_loss": mean.value, "test_sm_loss_error": mean.error,
                **({} if exact is None else {"test_sm_loss_exact": exact})}

    def look(self) -> dict[str, float]:
        """Test losses of the present weights, alpha solved on the same training rows each time (see `three_losses`)."""
        order = torch.randperm(self.rows, generator=torch.Generator().manual_seed(self.config.run.seed))
        return three_losses(self.model, self.trainer.train[order[:ALPHA_ROWS]], self.table.test.to(self.model.inducing))

    def evaluate(self) -> dict[str, float]:
        """Score-matching losses on the test rows and log-likelihoods (see `deq.training.dkef_likelihood`)."""
        test = self.table.test.to(self.model.inducing)
        out = self._losses()
        if self.table.name.startswith("gaussian-"):
            with torch.no_grad():
                out["test_fisher_divergence"] = fisher_divergence(self.model.score(test), -test).value
        run = self.config.run
        if run.temperatures:
            out |= annealed_likelihood(self.model, test, run.temperatures, run.seed)
        if run.importance_draws:
            out |= importance_likelihood(self.model, test, run.importance_draws, run.seed)
        return out

    def extra_state(self) -> dict[str, Any]:
        """Best state, history and generator."""
        result = asdict(self.trainer.result)
        if math.isinf(result["best_validation"]):
            result["best_validation"] = None
        return {"best": dict(self.trainer.best), "early": dict(self.trainer.early), "result": result,
                "generator": self.trainer.generator.get_state()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Put them back."""
        result = dict(state["result"])
        if result["best_validation"] is None:
            result["best_validation"] = math.inf
        self.trainer.result = DKEFResult(**result)
        self.trainer.best, self.trainer.early = dict(state["best"]), dict(state.get("early", {}))
        self.trainer.generator.set_state(state["generator"])
