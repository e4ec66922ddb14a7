"""`deqproof train`: run a configuration, a row of the paper's tables or one's own file."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deq import NotConverged
from deq.data import DataError
from deq.models.counts import report
from deq.training import CheckpointError, ConfigError, list_configs, load_config
from deq.training.engine import describe
from deq.training.folder import TrainingInterrupted, TrainingStopped
from deq.training.start import train
from deq.training.task import build_model
from deq.training.trained import summary
from verification.errors import UserError

EXAMPLES = """\
examples:
  deqproof train --list                             every row of tables 1 to 5, with parameter counts
  deqproof train table4/deq-ssm                     NICE with equilibrium couplings, as table 4 has it
  deqproof train table1/cifar10-deq --smoke         three steps at tiny widths on synthetic images
  deqproof train table5/deq --dry-run               resolved options and parameter counts, nothing run
  deqproof train table4/ssm --resume                go on from the last checkpoint of the newest run
  deqproof train mine.toml --set optimizer.lr=1e-4 --device cuda
  torchrun --nproc-per-node 4 -m figures.cli train table5/deq --device cuda

OUT/NNNNN-NAME gets options.json, stats.jsonl, events/ (TensorBoard) and checkpoints/ (safetensors and JSON).
A killed run loses at most the steps since its last checkpoint (run.checkpoint_every).
exit status: 0 finished, 1 the training stopped (loss or gradient not finite), 2 usage, data or checkpoint trouble,
143 ended by SIGTERM after saving its state.
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("train", help="train a model of the paper's tables", epilog=EXAMPLES,
                                   formatter_class=argparse.RawDescriptionHelpFormatter,
                                   description="Trains a row of tables 1 to 5 of [SM], or a configuration of your own.")
    parser.add_argument("config", nargs="?", metavar="CONFIG", help="name from --list, or a TOML file")
    parser.add_argument("--list", action="store_true", help="list configurations and parameter counts, then stop")
    parser.add_argument("--dry-run", action="store_true", help="print resolved options and parameter counts, then stop")
    parser.add_argument("--smoke", action="store_true", help="a trial of seconds: the file's smoke tables")
    parser.add_argument("--resume", action="store_true", help="go on from the newest run of this configuration")
    parser.add_argument("--steps", type=int, metavar="N", help="updates in all, in place of the file's")
    parser.add_argument("--seed", type=int, metavar="N", help="seed, in place of the file's")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE",
                        help="override one option; repeatable")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    parser.add_argument("--devices", type=int, metavar="N", help="processes (default: torchrun's number, else 1)")
    parser.add_argument("--data", type=Path, metavar="DIR", help="data folder (default: DEQPROOF_DATA)")
    parser.add_argument("--out", type=Path, default=Path("runs"), metavar="DIR", help="folder of runs (default: runs)")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write a summary of the finished run as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked; the exit status."""
    if arguments.list:
        print(listing())
        return 0
    if arguments.config is None:
        raise UserError("which configuration? `deqproof train --list` shows them, `deqproof train --help` how to "
                        "write one")
    try:
        config = load_config(arguments.config, smoke=arguments.smoke, overrides=_overrides(arguments))
        if arguments.dry_run:
            print(json.dumps(describe(config, build_model(config)), indent=1))
            return 0
        result = train(config, arguments.out, device=arguments.device, devices=arguments.devices,
                       resume=arguments.resume,
                       data=arguments.data, progress=not arguments.quiet)
    except (ConfigError, DataError, CheckpointError, ModuleNotFoundError) as error:
        raise UserError(str(error)) from error
    except OSError as error:
        raise UserError(f"the run cannot write to its folder ({error}); its checkpoints are whole. Make room, then go "
                        f"on with --resume") from error
    except TrainingInterrupted as error:
        print(f"deqproof: {error}", file=sys.stderr)
        return 143
    except (TrainingStopped, NotConverged) as error:
        print(f"deqproof: training stopped: {error}", file=sys.stderr)
        return 1
    if int(os.environ.get("RANK", "0")) > 0:  # one voice under torchrun
        return 0
    print(f"{result.folder}: {result.step} steps, {result.seconds:.1f} s")
    if arguments.save is not None:
        arguments.save.parent.mkdir(parents=True, exist_ok=True)
        record = summary(result.folder)
        record["provenance"] |= {"command": shlex.join(["deqproof", *sys.argv[1:]]), "device": arguments.device}
        arguments.save.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for name, value in result.stats.items():
        print(f"  {name:<24} {value:.6g}")
    return 0


def listing() -> str:
    """All configurations, then the parameter counts beside the paper's."""
    lines = []
    for name in list_configs():
        config = load_config(name)
        lines.append(f"  {name:<28} table {config.run.table}: {config.run.row}")
    return "\n".join(["configurations, one a row of the paper's tables:", *lines, "",
                      "parameter counts, rebuilt from the architectures:", report()])


def _overrides(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    overrides = parse_overrides(arguments.set)
    for key in ("steps", "seed"):
        if getattr(arguments, key) is not None:
            overrides.setdefault("run", {})[key] = getattr(arguments, key)
    return overrides


def parse_overrides(items: Sequence[str]) -> dict[str, dict[str, Any]]:
    """`section.key=value` texts as nested options; values are JSON where they can be, else text.

    Raises:
        UserError: an item of another form.
    """
    overrides: dict[str, dict[str, Any]] = {}
    for item in items:
        place, separator, text = item.partition("=")
        section, dot, key = place.partition(".")
        if not separator or not dot:
            raise UserError(f"--set {item!r} is not of the form section.key=value, such as optimizer.lr=1e-4")
        overrides.setdefault(section, {})[key] = _value(text)
    return overrides


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


