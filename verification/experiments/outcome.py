"""Where training ends under different gradient rules: same data, seeds, first weights and batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.stats import t as student

import deq
from deq import NotConverged
from deq.data import Tabular
from deq.gradients.rules import GradientRule
from deq.models import DKEF
from deq.training.dkef import DKEFProtocol, DKEFTraining
from deq.training.dkef_objective import quadratic, solve_alpha
from deq.training.folder import TrainingStopped
from verification.experiments.dkef_subject import equilibrium_features

RULES: dict[str, GradientRule] = {"exact": deq.Exact(3), "phantom-1": deq.Phantom(1), "phantom-2": deq.Phantom(2),
                                  "phantom-4": deq.Phantom(4)}
#: Equilibria of evaluations are solved to this, training's to the paper's 5e-6.
EVALUATION_TOLERANCE = 1e-10
#: Training rows that fix alpha for an evaluation, the same ones for all rules of a seed.
ALPHA_ROWS = 1000
#: Of the paper; rows in a batch, both halves.
PAPER_EPOCHS, BATCH = 300, 128


def paper_steps(table: Tabular) -> int:
    """Updates of the paper's protocol on a table: 11,100 for Parkinson, 3,000 and 9,300 for the wines."""
    return PAPER_EPOCHS * (len(table.train) // BATCH)


@dataclass
class Run:
    """One model under one rule.

    Attributes:
        seed, rule: which.
        trainer: its state.
        rows: training rows that fix alpha in evaluations.
        steps: evaluated steps.
        losses: by kind, a value each evaluated step (see `evaluate`).
        stopped: why it ended early, or an empty text.
    """

    seed: int
    rule: str
    trainer: DKEFProtocol
    rows: torch.Tensor
    test: torch.Tensor
    steps: list[int] = field(default_factory=list)
    losses: dict[str, list[float]] = field(default_factory=dict)
    stopped: str = ""

    def advance(self, step: int) -> None:
        """Train up to `step` and evaluate there; a failure of the run is kept, not raised."""
        if self.stopped:
            return
        try:
            self.trainer.run(stop_at=step)
            found = evaluate(self.trainer.model, self.rows, self.test)
        except (TrainingStopped, NotConverged) as error:
            self.stopped = str(error)
            return
        self.steps.append(step)
        for kind, value in found.items():
            self.losses.setdefault(kind, []).append(value)

    def cell(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"seed": self.seed, "rule": self.rule, "steps": self.steps, "losses": self.losses,
                "stopped": self.stopped}


def make_run(table: Tabular, seed: int, rule: str, steps: int, **options: Any) -> Run:
    """A fresh run; all rules of a seed start from the same weights and see the same batches in the same order.

    Args:
        table: the data.
        seed: of weights, inducing points, batches and the rows of evaluations.
        rule: a key of `RULES`.
        steps: its length at most.
        options: of `DKEF`, where other than table 2's.
    """
    model = DKEF(table.dimension, variant="deq", gradient=RULES[rule], generator=torch.Generator().manual_seed(seed),
                 **options)
    # no validation inside: nothing is selected, and it would draw from the generator of batches
    trainer = DKEFProtocol(model, table, DKEFTraining(
        epochs=PAPER_EPOCHS + 1, batch_size=BATCH, seed=seed, max_steps=steps + 1,
        validate_every=steps + 2, patience=None))
    if trainer.total_steps < steps + 1:  # one step more than asked for: the trainer's second stage stays out
        raise ValueError(f"{steps} steps are more than {PAPER_EPOCHS} epochs of {len(table.train)} rows hold; "
                         f"take at most {trainer.total_steps - 1}")
    order = torch.randperm(len(table.train), generator=torch.Generator().manual_seed(seed))
    like = model.inducing
    return Run(seed, rule, trainer, table.train[order[:ALPHA_ROWS]].to(like), table.test.to(like))


@contextmanager
def _under(model: DKEF, rule: GradientRule) -> Iterator[None]:
    features = equilibrium_features(model)
    kept = features.gradient, features.tol
    features.gradient, features.tol = rule, EVALUATION_TOLERANCE
    try:
        yield
    finally:
        features.gradient, features.tol = kept


@torch.no_grad()
def evaluate(model: DKEF, rows: torch.Tensor, test: torch.Tensor) -> dict[str, float]:
    """Mean score-matching loss over the test rows (trace over all dimensions, no projections).

    "own": alpha and loss under the model's own rule. "exact": both under exact derivatives. "deployed": alpha as the
    own rule finds it, loss under exact derivatives. All three agree for a model with an exact rule.
    """
    alphas, forms = {}, {}
    for name, rule in (("own", equilibrium_features(model).gradient), ("exact", RULES["exact"])):
        with _under(model, rule):
            form = quadratic(model, rows)
            alphas[name] = solve_alpha(*form.normal_equations(), len(rows), model.log_ridge)
            forms[name] = quadratic(model, test)
    pairs = {"own": ("own", "own"), "exact": ("exact", "exact"), "deployed": ("exact", "own")}
    return {kind: forms[form].values(alphas[alpha]).mean().item() for kind, (form, alpha) in pairs.items()}


def train_all(runs: list[Run], steps: int, every: int, save: Callable[[int], bool]) -> None:
    """Advance all runs side by side, so that they can be compared at equal steps whenever one stops.

    Args:
        runs: from `make_run`.
        steps: the length.
        every: steps between evaluations; the start and the end are evaluated too.
        save: called with the step that all have reached; False ends the training there.
    """
    for step in [*range(0, steps, every), steps]:
        for run in runs:
            run.advance(step)
        if not save(step):
            return


@dataclass(frozen=True)
class Paired:
    """Differences over seeds, first rule minus second.

    Attributes:
        seeds: those that both rules finished.
        step: the last step that all of them reached.
        differences: one a seed.
        mean, half_width: of the t interval.
    """

    seeds: tuple[int, ...]
    step: int
    differences: tuple[float, ...]
    mean: float
    half_width: float

    @property
    def interval(self) -> tuple[float, float]:
        """The t interval of the mean difference."""
        return self.mean - self.half_width, self.mean + self.half_width


def interval(values: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Mean and half width of its t interval, 95 % unless told otherwise, along the first axis.

    Raises:
        ValueError: fewer than two values.
    """
    array = np.asarray(values, dtype=float)
    if len(array) < 2:
        raise ValueError(f"an interval needs at least two values, got {len(array)}")
    spread = array.std(0, ddof=1) / np.sqrt(len(array))
    return float(array.mean(0)), float(student.ppf(0.5 + level / 2, len(array) - 1) * spread)


def common(cells: list[dict[str, Any]], rules: tuple[str, ...]) -> tuple[list[int], list[int]]:
    """Seeds that every one of the rules ran without stopping, and the evaluated steps that all of these share.

    Raises:
        ValueError: fewer than two such seeds.
    """
    found = {(cell["rule"], cell["seed"]): cell for cell in cells if not cell["stopped"]}
    seeds = sorted({seed for _, seed in found if all((rule, seed) in found for rule in rules)})
    if len(seeds) < 2:
        raise ValueError(f"rules {' and '.join(rules)} share {len(seeds)} seeds; a comparison needs two at least")
    steps = set.intersection(*(set(found[rule, seed]["steps"]) for rule in rules for seed in seeds))
    return seeds, sorted(steps)


def curves(cells: list[dict[str, Any]], rule: str, kind: str, seeds: list[int], steps: list[int]) -> np.ndarray:
    """Losses `[seeds, steps]` of a rule."""
    found = {cell["seed"]: cell for cell in cells if cell["rule"] == rule}
    return np.array([[found[seed]["losses"][kind][found[seed]["steps"].index(step)] for step in steps]
                     for seed in seeds])


def paired(cells: list[dict[str, Any]], first: str, second: str, kinds: tuple[str, str], *,
           share: float = 0.25, level: float = 0.95) -> Paired:
    """Compare where two rules end.

    Args:
        cells: of `Run.cell`.
        first: the rule whose loss is taken.
        second: the rule whose loss is taken away.
        kinds: the kind of loss of either.
        share: of the evaluated steps, from the end, over which a seed's loss is averaged; 0 for the last step alone.
        level: of the interval.
    """
    seeds, steps = common(cells, (first, second))
    late = steps[-max(1, int(len(steps) * share)):]
    gaps = (curves(cells, first, kinds[0], seeds, late) - curves(cells, second, kinds[1], seeds, late)).mean(1)
    mean, half = interval(gaps, level)
    return Paired(tuple(seeds), steps[-1], tuple(gaps.tolist()), mean, half)
