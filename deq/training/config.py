"""Configurations: TOML files, one a row of the paper's tables, resolved into frozen records before anything runs.

A file may say `extends = "../base.toml"` and override what differs. Its `[smoke.*]` tables shrink it to a trial of
seconds. An unknown key is an error that names the nearest known one.
"""

from __future__ import annotations

import difflib
import inspect
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from deq.gradients import Exact, GradientRule, Neumann, Phantom
from deq.models import DKEF, NCSN, NICE, SSMVAE

CONFIG_FOLDER = Path(__file__).parent / "configs"
MODELS: dict[str, type] = {"nice": NICE, "ssmvae": SSMVAE, "ncsn": NCSN, "dkef": DKEF}


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the file, the key and what is known."""


@dataclass(frozen=True)
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

    table: int = 0
    row: str = ""
    seed: int = 0
    steps: int = 1000
    log_every: int = 10
    checkpoint_every: int = 500
    evaluate_every: int = 0
    keep: int = 2
    precision: str = "32-true"
    events: bool = True
    validate_every: int = 1
    final_steps: int = 1000
    temperatures: int = 200
    importance_draws: int = 0


@dataclass(frozen=True)
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

    name: str
    batch: int = 128
    limit: int = 0
    size: int = 32
    channels: int = 3
    rows: int = 64
    split: str = "released"
    test_limit: int = 0


@dataclass(frozen=True)
class ModelOptions:
    """Which model, and the keyword arguments of its class."""

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class GradientOptions:
    """The gradient rule of equilibria.

    Attributes:
        rule: "phantom" ([SM] algorithm 1), "exact" or "neumann".
        steps: K of the phantom gradient.
        damping: of the phantom gradient.
        order: of exact derivatives.
        terms: of the Neumann series.
    """

    rule: str = "phantom"
    steps: int = 2
    damping: float = 1.0
    order: int = 3
    terms: int = 5

    def build(self) -> GradientRule:
        """The rule.

        Raises:
            ConfigError: unknown name.
        """
        if self.rule == "phantom":
            return Phantom(steps=self.steps, damping=self.damping)
        if self.rule == "exact":
            return Exact(order=self.order)
        if self.rule == "neumann":
            return Neumann(terms=self.terms, order=self.order)
        raise ConfigError(f"gradient.rule {self.rule!r} is not known; take phantom, exact or neumann")


@dataclass(frozen=True)
class ObjectiveOptions:
    """What is minimised.

    Attributes:
        kind: ssm, ssm-vr, sm, dsm, cp, approxbp, mle.
        distribution: of projections, "rademacher" (NICE, DKEF) or "gaussian" (VAE, NCSN).
        sigma: noise of dsm.
        score_updates: of the VAE's score network a step: 1 in Song et al., 2 in the released code.
    """

    kind: str = "ssm"
    distribution: str = "rademacher"
    sigma: float = 0.1
    score_updates: int = 1


@dataclass(frozen=True)
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

    name: str = "adam"
    lr: float = 1e-3
    weight_decay: float = 1e-12
    clip: float = 0.0
    ema: float = 0.0
    patience: int = 0


@dataclass(frozen=True)
class Config:
    """A resolved configuration.

    Attributes:
        name: as on the command line.
        data, model, run, gradient, objective, optimizer: its sections.
        choices: what the paper leaves open and this run decides, a sentence each.
        smoke: whether the smoke tables were applied.
    """

    name: str
    data: DataOptions
    model: ModelOptions
    run: RunOptions = RunOptions()
    gradient: GradientOptions = GradientOptions()
    objective: ObjectiveOptions = ObjectiveOptions()
    optimizer: OptimizerOptions = OptimizerOptions()
    choices: tuple[str, ...] = ()
    smoke: bool = False

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


_SECTIONS: dict[str, type] = {"data": DataOptions, "run": RunOptions, "gradient": GradientOptions,
                              "objective": ObjectiveOptions, "optimizer": OptimizerOptions}


def list_configs() -> dict[str, Path]:
    """The packaged configurations that stand for a row of a table, by name ("table1/celeba-deq")."""
    paths = sorted(CONFIG_FOLDER.glob("*/*.toml"))
    return {path.relative_to(CONFIG_FOLDER).with_suffix("").as_posix(): path for path in paths}


def load_config(name: str | Path, *, smoke: bool = False,
                overrides: Mapping[str, Mapping[str, Any]] | None = None) -> Config:
    """Read and resolve a configuration.

    Args:
        name: of a packaged configuration, or a path to a TOML file.
        smoke: apply its smoke tables.
        overrides: values by section and key that win over the file.

    Raises:
        ConfigError: no such configuration, bad TOML, unknown keys or values of the wrong type.
    """
    path = list_configs().get(str(name), Path(name))
    if not path.is_file():
        near = difflib.get_close_matches(str(name), list_configs(), n=3, cutoff=0.3)
        hint = f"; near it: {', '.join(near)}" if near else ""
        raise ConfigError(f"no configuration {str(name)!r}{hint}. `deqproof train --list` shows all; a path ends in "
                          f".toml")
    table = _read(path, set())
    shrink = table.pop("smoke", {})
    for extra in ([shrink] if smoke else []) + ([overrides] if overrides else []):
        table = _merge(table, extra)
    return _resolve(table, path, str(name), smoke)


def from_dict(table: Mapping[str, Any]) -> Config:
    """The configuration that `Config.as_dict` gave (the options.json of a run; other keys are ignored).

    Raises:
        ConfigError: keys or values that are not known.
    """
    model = {"kind": table["model"]["kind"], **table["model"]["options"]}
    sections = {key: table[key] for key in _SECTIONS}
    whole = {**sections, "model": model, "choices": table["choices"]}
    return _resolve(whole, Path("options.json"), table["name"], table["smoke"])


def _read(path: Path, seen: set[Path]) -> dict[str, Any]:
    path = path.resolve()
    if path in seen:
        raise ConfigError(f"{path} extends itself")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist; an `extends` points there") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    base = table.pop("extends", None)
    return table if base is None else _merge(_read(path.parent / base, seen | {path}), table)


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(merged.get(key), Mapping) and isinstance(value, Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _resolve(table: Mapping[str, Any], path: Path, name: str, smoke: bool) -> Config:
    known = [*_SECTIONS, "model", "choices"]
    _refuse_unknown(table, known, f"{path.name}")
    for section in ("data", "model"):
        if section not in table:
            raise ConfigError(f"{path.name} has no [{section}] section")
    sections = {key: _build(_SECTIONS[key], table[key], f"{path.name} [{key}]") for key in _SECTIONS if key in table}
    return Config(name=name, model=_model(table["model"], f"{path.name} [model]"),
                  choices=tuple(table.get("choices", ())),
                  smoke=smoke, **sections)


def _refuse_unknown(table: Mapping[str, Any], known: list[str], where: str) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise ConfigError(f"{where}: unknown key {key!r}; {hint}")


def _build(kind: type, table: Mapping[str, Any], where: str) -> Any:
    known = {item.name: item for item in fields(kind)}
    _refuse_unknown(table, list(known), where)
    values = {}
    for key, value in table.items():
        wanted = {"int": int, "float": float, "str": str, "bool": bool}[str(known[key].type)]
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
            raise ConfigError(f"{where}: {key} must be {wanted.__name__}, not {value!r}")
        values[key] = value
    try:
        return kind(**values)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}") from error


def _model(table: Mapping[str, Any], where: str) -> ModelOptions:
    kind = table.get("kind")
    if kind not in MODELS:
        raise ConfigError(f"{where}: kind must be one of {', '.join(MODELS)}, not {kind!r}")
    options = {key: value for key, value in table.items() if key != "kind"}
    known = [key for key in inspect.signature(MODELS[kind]).parameters if key not in ("gradient", "generator", "dtype")]
    _refuse_unknown(options, known, where)
    return ModelOptions(kind, options)
