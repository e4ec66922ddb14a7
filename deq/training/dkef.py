"""Training of deep kernel exponential families: the two-stage protocol of Wenliang et al. 2019 that [SM] uses.

Stage 1, a step: half of the batch fixes alpha in closed form, the objective with that alpha on the other half is
descended in all parameters, the graph through alpha included. The best state on validation data is kept.
Stage 2: G and b over all training rows, then only the ridge is descended, on validation data.

Stated choices: a batch of 128 is 64 + 64 (as the released code splits it); partial batches at the end of an epoch are
dropped. The paper names no patience and the released configurations with its numbers switch early stopping off; what a
patience of 200 steps (it stands in others) would have kept is remembered beside the run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from tqdm import tqdm

from deq.data.tabular import Tabular
from deq.models.dkef import DKEF
from deq.models.dkef_features import EquilibriumFeatures
from deq.training.dkef_objective import (
    OBJECTIVES,
    evaluate,
    fit_alpha,
    halves_loss,
    solve_alpha,
    validation_mean,
)
from deq.training.folder import TrainingStopped

#: Steps without improvement after which "early stopping" is said to have stopped a run that goes on.
REPORTED_PATIENCE = 200

Hook = Callable[[int, DKEF, Tensor, Tensor], None]


@dataclass(frozen=True)
class DKEFTraining:
    """How to train; defaults are the paper's where it speaks, the released code's where it does not.

    Attributes:
        objective: "sm", "ssm", "ssm-vr" or "dsm".
        epochs: 300 for the UCI tables, 200 for the Gaussians.
        max_steps: stop stage 1 after so many steps whatever the epochs say; None for no such limit.
        batch_size: both halves together.
        learning_rate, weight_decay: of Adam.
        clip: bound of the total gradient norm.
        patience: stop after so many steps without a better validation value; None never stops early.
        validate_every: steps between validations (1 in the released code).
        alpha_rows: random training rows that fix alpha for a validation.
        sigma: noise scale of "dsm".
        final_steps, final_learning_rate: of stage 2.
        seed: of batches, projections and noise.
    """

    objective: str = "sm"
    epochs: int = 300
    max_steps: int | None = None
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 1e-12
    clip: float = 100.0
    patience: int | None = 200
    validate_every: int = 1
    alpha_rows: int = 1000
    sigma: float = 0.16
    final_steps: int = 1000
    final_learning_rate: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}, got {self.objective!r}")
        for name in ("epochs", "validate_every", "alpha_rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.batch_size < 2:
            raise ValueError(f"batch_size must be at least 2, to be halved, got {self.batch_size}")


@dataclass
class DKEFResult:
    """What training did.

    Attributes:
        steps: of stage 1.
        best_step: the step whose state was kept.
        best_validation: its validation value.
        stopped_early: whether patience ran out.
        history: one dictionary a validation: step, loss, validation, iterations.
        seconds: of both stages.
        early_stop: the step at which a patience of `REPORTED_PATIENCE` would have stopped it; 0 where it would not.
        early_step: the step whose state would have been kept then.
    """

    steps: int = 0
    best_step: int = 0
    best_validation: float = math.inf
    stopped_early: bool = False
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    early_stop: int = 0
    early_step: int = 0


class DKEFProtocol:
    """The two stages on one model and one table, in memory; the engine's `DKEFTask` trains, saves and resumes by it.

    Args:
        model: trained in place; its inducing points are placed on training rows here.
        data: the table; cast to the model's dtype.
        config: how.
        hook: called before every step of stage 1 with (step, model, fitting half, held half); must leave all in place.

    Raises:
        ValueError: the table does not fit the model, or has fewer rows than a batch.
    """

    def __init__(self, model: DKEF, data: Tabular, config: DKEFTraining, *, hook: Hook | None = None) -> None:
        if data.dimension != model.dim:
            raise ValueError(f"the table {data.name} has {data.dimension} columns, the model expects {model.dim}")
        if len(data.train) < config.batch_size:
            raise ValueError(f"{len(data.train)} training rows are fewer than a batch of {config.batch_size}")
        like = model.inducing
        self.model, self.config, self.hook = model, config, hook
        self.train, self.validation = data.train.to(like), data.validation.to(like)
        self.generator = torch.Generator().manual_seed(config.seed)
        model.place_inducing(self.train, self.generator)
        self.optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate,
                                          weight_decay=config.weight_decay)
        self.order = torch.randperm(len(self.train), generator=self.generator)
        self.position = 0
        self.result = DKEFResult()
        self.best: dict[str, Tensor] = self._state()
        self.early: dict[str, Tensor] = {}

    def _state(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    @property
    def total_steps(self) -> int:
        """Steps of stage 1 when nothing stops it early."""
        steps = self.config.epochs * (len(self.train) // self.config.batch_size)
        return steps if self.config.max_steps is None else min(steps, self.config.max_steps)

    def run(self, *, stop_at: int | None = None, progress: bool = False) -> DKEFResult:
        """Both stages; afterwards the model holds the best state with its final ridge and alpha.

        Args:
            stop_at: return before stage 2 when this step is reached; a later call goes on from there.
            progress: show a progress bar.

        Raises:
            TrainingStopped: a loss or gradient is not finite.
            NotConverged: an equilibrium was not found.
        """
        began = time.perf_counter()
        result = self.result
        with tqdm(total=self.total_steps, initial=result.steps, disable=not progress, unit="step",
                  desc="stage 1") as bar:
            while result.steps < self.total_steps and not result.stopped_early:
                if stop_at is not None and result.steps >= stop_at:
                    return result
                loss = self._step()
                if result.steps % self.config.validate_every == 0 or result.steps == self.total_steps:
                    self.validate(loss)
                    bar.set_postfix(loss=f"{loss:.3g}", validation=f"{result.history[-1]['validation']:.3g}",
                                    iterations=f"{result.history[-1]['iterations']:.1f}", refresh=False)
                bar.update()
        self.model.load_state_dict(self.best)
        self.finalise(progress)
        result.seconds += time.perf_counter() - began
        return result

    def _batch(self) -> tuple[Tensor, Tensor]:
        size = self.config.batch_size
        if self.position + size > len(self.order):
            self.order = torch.randperm(len(self.train), generator=self.generator)
            self.position = 0
        rows = self.train[self.order[self.position:self.position + size]]
        self.position += size
        return rows[:size // 2], rows[size // 2:]

    def batch_loss(self, fitting: Tensor, held: Tensor) -> Tensor:
        """The objective on `held` with alpha solved on `fitting`, graph kept."""
        config = self.config
        return halves_loss(self.model, torch.cat([fitting, held]), config.objective, generator=self.generator,
                           sigma=config.sigma)

    def _step(self) -> float:
        fitting, held = self._batch()
        if self.hook is not None:
            self.hook(self.result.steps, self.model, fitting, held)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.batch_loss(fitting, held)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        if not bool(torch.isfinite(loss)) or not bool(torch.isfinite(norm)):
            raise TrainingStopped(f"step {self.result.steps}: loss {loss.item():.6g}, gradient norm {norm.item():.6g}:"
                                   f" lower the learning rate ({self.config.learning_rate}) or raise the ridge")
        self.optimizer.step()
        self.result.steps += 1
        return loss.item()

    def validate(self, loss: float) -> None:
        """Look at the validation rows, keep the best state, see whether patience ran out; `loss` is for the history."""
        config, result = self.config, self.result
        rows = self.train[torch.randperm(len(self.train), generator=self.generator)[:config.alpha_rows]]
        with torch.no_grad():
            gram, linear = fit_alpha(self.model, rows, config.objective, generator=self.generator, sigma=config.sigma)
            alpha = solve_alpha(gram, linear, len(rows), self.model.log_ridge)
            value = evaluate(self.model, self.validation, config.objective, alpha=alpha, generator=self.generator,
                             sigma=config.sigma).mean().item()
        features = self.model.features
        solution = features.last if isinstance(features, EquilibriumFeatures) else None
        iterations = 0.0 if solution is None else solution.iterations.double().mean().item()
        result.history.append({"step": result.steps, "loss": loss, "validation": value, "iterations": iterations})
        if value < result.best_validation:
            result.best_validation, result.best_step = value, result.steps
            self.best = self._state()
            return
        waited = result.steps - result.best_step
        if not result.early_stop and waited >= REPORTED_PATIENCE:
            result.early_stop, result.early_step, self.early = result.steps, result.best_step, self.best
        result.stopped_early = config.patience is not None and waited >= config.patience

    def finalise(self, progress: bool = False) -> None:
        """Stage 2 on the model as it is."""
        config, model = self.config, self.model
        gram, linear = fit_alpha(model, self.train, config.objective, generator=self.generator, sigma=config.sigma)
        ridge = model.log_ridge.detach().clone().requires_grad_()
        optimizer = torch.optim.Adam([ridge], lr=config.final_learning_rate)
        mean = validation_mean(model, self.validation, config.objective, generator=self.generator, sigma=config.sigma)
        for _ in tqdm(range(config.final_steps), disable=not progress, unit="step", desc="stage 2"):
            loss = mean(solve_alpha(gram, linear, len(self.train), ridge))
            if not bool(torch.isfinite(loss)):
                raise TrainingStopped(f"stage 2: validation value {loss.item()} at log10 ridge {ridge.item():.4g}")
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        with torch.no_grad():
            model.log_ridge.copy_(ridge)
            model.alpha.copy_(solve_alpha(gram, linear, len(self.train), ridge))
