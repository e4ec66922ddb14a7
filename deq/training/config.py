"""Configurations: TOML files, one a row of the paper's tables, resolved into frozen records before anything runs.

A file may say `extends = "../base.toml"` and override what differs. Its `[smoke.*]` tables shrink it to a trial of
seconds. Whatever is unknown, of the wrong type, out of its range or does not fit together is refused here, before
anything runs, by a message that names file, section and key, and the nearest known name.
"""

from __future__ import annotations

import difflib
import inspect
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from deq.models import DKEF, NCSN, NICE, SSMVAE
from deq.names import nearest, unknown
from deq.training.options import (
    DataOptions,
    GradientOptions,
    ModelOptions,
    ObjectiveOptions,
    OptimizerOptions,
    RunOptions,
    is_table,
)

CONFIG_FOLDER = Path(__file__).parent / "configs"
MODELS: dict[str, type] = {"nice": NICE, "ssmvae": SSMVAE, "ncsn": NCSN, "dkef": DKEF}


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the file, the key and what is known."""


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
    run: RunOptions = field(default_factory=RunOptions)
    gradient: GradientOptions = field(default_factory=GradientOptions)
    objective: ObjectiveOptions = field(default_factory=ObjectiveOptions)
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    choices: tuple[str, ...] = ()
    smoke: bool = False

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


#: Sections but the model's, whose keys are its class's arguments.
SECTIONS: dict[str, type] = {"data": DataOptions, "run": RunOptions, "gradient": GradientOptions,
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
    sections = {key: table[key] for key in SECTIONS}
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
    known = [*SECTIONS, "model", "choices"]
    _refuse_unknown(table, known, f"{path.name}")
    for section in ("data", "model"):
        if section not in table:
            raise ConfigError(f"{path.name} has no [{section}] section")
    sections = {key: _build(key, table[key], path.name) for key in SECTIONS if key in table}
    config = Config(name=name, model=_model(table["model"], path.name), choices=tuple(table.get("choices", ())),
                    smoke=smoke, **sections)
    _refuse_misfits(config, path.name)
    return config


def _refuse_unknown(table: Mapping[str, Any], known: list[str], where: str) -> None:
    for key in table:
        if key not in known:
            near = nearest(str(key), known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise ConfigError(f"{where}: unknown key {key!r}; {hint}")


def _build(section: str, table: Any, where: str) -> Any:
    kind = SECTIONS[section]
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where}: {section} must be a section, not {table!r}")
    _refuse_unknown(table, [item.name for item in fields(kind)], f"{where} [{section}]")
    try:
        return kind(**table)
    except ValidationError as error:
        raise ConfigError("; ".join(f"{where}: {section}.{_words(item)}" for item in error.errors())) from error


#: What pydantic calls a wrong type, and what we call the right one.
_TYPES = {"int_type": "int", "int_from_float": "int", "float_type": "float", "string_type": "str", "bool_type": "bool"}


def _words(item: Any) -> str:
    key, given, kind = ".".join(map(str, item["loc"])), item["input"], item["type"]
    if kind in _TYPES:
        return f"{key} must be {_TYPES[kind]}, not {given!r}"
    if kind == "missing":
        return f"{key} is missing"
    if kind == "literal_error":
        choices = [word.strip("'") for word in re.split(r", | or ", item["ctx"]["expected"])]
        return f"{key}: {unknown('choice', str(given), choices)}"
    if kind == "value_error":
        return f"{key}: {item['ctx']['error']}"
    return f"{key}: {item['msg'].replace('Input', 'it')}, not {given!r}"


def _model(table: Any, where: str) -> ModelOptions:
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where}: model must be a section, not {table!r}")
    kind = table.get("kind")
    if kind not in MODELS:
        near = nearest(str(kind), MODELS, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"{where} [model]: kind must be one of {', '.join(MODELS)}, not {kind!r}{hint}")
    options = {key: value for key, value in table.items() if key != "kind"}
    known = [key for key in inspect.signature(MODELS[kind]).parameters if key not in ("gradient", "generator", "dtype")]
    _refuse_unknown(options, known, f"{where} [model]")
    return ModelOptions(kind, options)


#: Objectives that a model's training knows.
OBJECTIVES: dict[str, tuple[str, ...]] = {
    "dkef": ("sm", "ssm", "ssm-vr", "dsm", "cp"), "nice": ("mle", "sm", "ssm", "ssm-vr", "dsm", "cp", "approxbp"),
    "ssmvae": ("ssm", "ssm-vr"), "ncsn": ("ssm", "ssm-vr")}


def _refuse_misfits(config: Config, where: str) -> None:
    """What is right by itself and wrong together."""
    kind, objective, data = config.model.kind, config.objective.kind, config.data
    if objective not in OBJECTIVES[kind]:
        raise ConfigError(f"{where}: objective.kind {objective!r} is not known for {kind}; take one of "
                          f"{', '.join(OBJECTIVES[kind])}")
    if data.name != "synthetic" and is_table(data.name) != (kind == "dkef"):
        raise ConfigError(f"{where}: data.name {data.name!r} holds {'rows' if is_table(data.name) else 'images'}, "
                          f"which {kind} does not take")
    if kind == "dkef" and (data.batch < 2 or data.batch % 2):
        raise ConfigError(f"{where}: data.batch must be even for dkef (half of it fixes alpha), not {data.batch}")
