"""The sections of a configuration: strict types, ranges and choices, checked by pydantic when a record is made."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass as checked

from deq.gradients import Exact, GradientRule, Neumann, Phantom
from deq.names import unknown

IMAGES = ("mnist", "fashion-mnist", "cifar10", "celeba")
TABLES = ("parkinson", "redwine", "whitewine")
_GAUSSIAN = re.compile(r"gaussian-[1-9]\d*")

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Size = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_record = checked(frozen=True, config=ConfigDict(strict=True, extra="forbid"))


def is_table(name: str) -> bool:
    """Whether a data name stands for rows of numbers (images otherwise; "synthetic" may be either)."""
    return name in TABLES or _GAUSSIAN.fullmatch(name) is not None


def _known_data(name: str) -> str:
    if name not in IMAGES and name != "synthetic" and not is_table(name):
        raise ValueError(unknown("data set", name, [*IMAGES, *TABLES, "gaussian-100", "gaussian-200", "synthetic"]))
    return name


@_record
class RunOptions:
    """How long and how often.

    Attributes:
        table: number of the paper's table, 0 for none.
        row: the paper's name of the row.
        seed: of parameters, batches and noise.
        steps: updates.
        log_every: steps between lines of stats.jsonl.
        checkpoint_every: steps between checkpoints: what a killed run loses at most.
        evaluate_every: steps between evaluations, 0 for the end alone.
        keep: checkpoints that are kept.
        precision: of Lightning Fabric; "32-true" or "64-true".
        events: write event files for TensorBoard.
        validate_every: steps between validations, whose best state is kept (DKEF; 1 in the released code); 0 for none:
            the last state is kept.
        final_steps: of the second stage (DKEF).
        temperatures: of the annealed log-normaliser in the evaluation (DKEF), doubled until both directions agree; 0
            for no log-likelihood.
        importance_draws: of the paper's importance sampling in the evaluation (DKEF; 10^6 there), 0 for none.
    """

    table: Annotated[int, Field(ge=0)] = 0
    row: str = ""
    seed: Count = 0
    steps: Positive = 1000
    log_every: Positive = 10
    checkpoint_every: Positive = 500
    evaluate_every: Count = 0
    keep: Positive = 2
    precision: Literal["32-true", "64-true"] = "32-true"
    events: bool = True
    validate_every: Count = 1
    final_steps: Count = 1000
    temperatures: Count = 200
    importance_draws: Count = 0


@_record
class DataOptions:
    """What is trained on.

    Attributes:
        name: mnist, fashion-mnist, cifar10, celeba, a table (parkinson, redwine, whitewine, gaussian-D), or synthetic.
        batch: rows a step, over all devices together.
        limit: images read at most, 0 for all.
        size: image size (celeba, synthetic).
        channels: image channels (synthetic).
        rows: rows of the synthetic set.
        split: of tables, "released" or "70/20/10".
        test_limit: test images on which costly numbers are evaluated, 0 for all (exact losses of images take d passes).
    """

    name: Annotated[str, AfterValidator(_known_data)]
    batch: Positive = 128
    limit: Count = 0
    size: Positive = 32
    channels: Positive = 3
    rows: Positive = 64
    split: Literal["released", "70/20/10"] = "released"
    test_limit: Count = 0


@dataclass(frozen=True)
class ModelOptions:
    """Which model, and the keyword arguments of its class."""

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)


@_record
class GradientOptions:
    """The gradient rule of equilibria.

    Attributes:
        rule: "phantom" ([SM] algorithm 1), "exact" or "neumann".
        steps: K of the phantom gradient.
        damping: of the phantom gradient.
        order: of exact derivatives.
        terms: of the Neumann series.
    """

    rule: Literal["phantom", "exact", "neumann"] = "phantom"
    steps: Positive = 2
    damping: Annotated[float, Field(gt=0, le=1)] = 1.0
    order: Positive = 3
    terms: Positive = 5

    def build(self) -> GradientRule:
        """The rule."""
        if self.rule == "phantom":
            return Phantom(steps=self.steps, damping=self.damping)
        if self.rule == "exact":
            return Exact(order=self.order)
        return Neumann(terms=self.terms, order=self.order)


@_record
class ObjectiveOptions:
    """What is minimised.

    Attributes:
        kind: ssm, ssm-vr, sm, dsm, cp, approxbp, mle.
        distribution: of projections, "rademacher" (NICE, DKEF) or "gaussian" (VAE, NCSN).
        sigma: noise of dsm.
        score_updates: of the VAE's score network a step: 1 in Song et al., 2 in the released code.
    """

    kind: Literal["ssm", "ssm-vr", "sm", "dsm", "cp", "approxbp", "mle"] = "ssm"
    distribution: Literal["rademacher", "gaussian"] = "rademacher"
    sigma: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.1
    score_updates: Positive = 1


@_record
class OptimizerOptions:
    """How it is minimised.

    Attributes:
        name: adam, rmsprop or sgd.
        lr: learning rate.
        weight_decay: 1e-12 in the paper.
        clip: largest gradient norm, 0 for none.
        ema: decay of the moving average of weights, 0 for none.
        patience: steps without improvement before a run stops early, 0 for never (DKEF).
    """

    name: Literal["adam", "rmsprop", "sgd"] = "adam"
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-3
    weight_decay: Size = 1e-12
    clip: Size = 0.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    patience: Count = 0
