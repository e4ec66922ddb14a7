"""The runs behind tables 1 to 5 of [SM] and behind the comparison of exact and phantom gradients, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deq.training import Config, load_config
from verification.paper.tables import TABLES

Overrides = Mapping[str, Mapping[str, Any]]
#: Rules of a comparison, as the configuration's gradient section says them.
COMPARED: dict[str, dict[str, Any]] = {"exact": {"rule": "exact"}, "phantom-2": {"rule": "phantom", "steps": 2}}
#: Looks at a comparison's test losses along its way.
LOOKS = 50


@dataclass(frozen=True)
class PaperRun:
    """One run.

    Attributes:
        config: name of its configuration.
        seed: of weights, batches and noise.
        variant: "" for the row as its configuration says it; else what is otherwise, shown beside the row.
        overrides: of the configuration.
        stage: its place in the queue's order, before cost.
    """

    config: str
    seed: int
    stage: int
    variant: str = ""
    overrides: Overrides = field(default_factory=dict, hash=False)

    @property
    def table(self) -> int:
        """Number of its table."""
        return int(self.config.partition("/")[0].removeprefix("table"))

    @property
    def row(self) -> str:
        """Its row in the table."""
        return self.config.partition("/")[2]

    @property
    def rule(self) -> str | None:
        """The gradient rule of a comparison, or None for a row of a table."""
        return self.variant.removeprefix("compare ") if self.variant.startswith("compare ") else None

    @property
    def name(self) -> str:
        """Unique, and fit for a folder."""
        return "-".join([self.config.replace("/", "-"), *self.variant.replace(",", "").split(), f"seed{self.seed}"])

    def resolve(self, smoke: bool = False) -> Config:
        """Its configuration."""
        run = {**self.overrides.get("run", {}), "seed": self.seed, "events": False}
        return load_config(self.config, smoke=smoke, overrides={**self.overrides, "run": run})

    def results(self, folder: Path) -> Path:
        """The file that holds its result."""
        return folder / ("exact-vs-phantom.json" if self.rule else f"table{self.table}.json")


#: Table 4's row without training: a Gaussian of independent pixels, the best NICE with constant shifts.
CLOSED_FORM = "diagonal Gaussian, no training"
_UCI = ("redwine", "whitewine", "parkinson")
_RELEASED_MAP: Overrides = {"model": {"variant": "deq-released"}, "gradient": {"steps": 3}}
#: The released code's protocol of table 4: 100 epochs of 422 steps at 1e-4.
_RELEASED_NICE: Overrides = {"run": {"steps": 42_200}, "optimizer": {"lr": 1e-4, "weight_decay": 0.0}}
_PAIRS = {"redwine": 8, "whitewine": 4, "parkinson": 4}


def paper_runs() -> list[PaperRun]:
    """All of them, by stage: table 2, its released map, table 3 at d = 100, comparisons, the rest by size."""
    def rows(table: int, having: str, seeds: int, stage: int, variant: str = "",
             overrides: Overrides | None = None) -> list[PaperRun]:
        return [PaperRun(f"table{table}/{row}", seed, stage, variant, overrides or {})
                for row in TABLES[table].rows if having in row for seed in range(seeds)]

    compared = [PaperRun(f"table2/{name}-deq-sm", seed, 3, f"compare {rule}", _comparison(name, options))
                for name in _UCI for seed in range(_PAIRS[name]) for rule, options in COMPARED.items()]
    released_map = [run for kind in ("deq-sm", "deq-ssm") for name in _UCI
                    for run in rows(2, f"{name}-{kind}", 3, 1, "released map", _RELEASED_MAP)
                    if run.row == f"{name}-{kind}"]
    return [*rows(2, "", 3, 0), *released_map, *rows(3, "100", 1, 2), *compared,
            PaperRun("table4/mle", 0, 4, CLOSED_FORM, {"run": {"steps": 1}}), *rows(4, "", 3, 4),
            *rows(3, "200", 1, 5), *rows(4, "ssm", 1, 6, "as released", _RELEASED_NICE), *rows(5, "", 1, 7),
            *rows(1, "", 1, 8)]


def _comparison(name: str, gradient: Mapping[str, Any]) -> Overrides:
    steps = load_config(f"table2/{name}-deq-sm").run.steps
    return {"gradient": gradient, "run": {"validate_every": 0, "evaluate_every": steps // LOOKS, "final_steps": 0,
                                          "temperatures": 0, "importance_draws": 0}}


def choose(only: list[str]) -> list[PaperRun]:
    """Those whose table ("table2"), row or name holds one of the texts; all for none."""
    def named(run: PaperRun) -> str:
        return f"{run.config} {run.variant} {run.name}"

    return [run for run in paper_runs() if not only or any(text in named(run) for text in only)]
