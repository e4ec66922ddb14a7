"""`deqproof costs`: peak memory and time of a training step, for rows of tables 1 to 5, with their provenance."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import torch

from deq.data import DataError
from deq.names import nearest
from deq.training import ConfigError, list_configs
from deq.training.costs import measure_rows
from deq.training.folder import provenance
from figures.commands.train import parse_overrides
from verification.errors import UserError

EXAMPLES = """\
examples:
  deqproof costs table1/cifar10 --device cuda                 the memory and time columns of table 1 at full size
  deqproof costs table1/cifar10 --set data.batch=8 --set model.channels=16 --set data.name=synthetic --set data.rows=64
  deqproof costs table5 --device cuda --save verification/results/table5-cuda.json

NAME is a configuration or the beginning of some (`deqproof train --list`). Memory counts live tensors above those
before the
step: the allocator's figure on CUDA, every storage followed on a CPU. Time is the median of the repeats.
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("costs", help="measure memory and time of training steps", epilog=EXAMPLES,
                                   formatter_class=argparse.RawDescriptionHelpFormatter,
                                   description="Measures one training step of each chosen row.")
    parser.add_argument("names", nargs="+", metavar="NAME", help="configuration, or the beginning of several")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="timed steps (default: 5)")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override one option")
    parser.add_argument("--data", type=Path, metavar="DIR", help="data folder (default: DEQPROOF_DATA)")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the numbers and their provenance as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; the exit status."""
    chosen = [name for name in list_configs() if any(name.startswith(wanted) for wanted in arguments.names)]
    if not chosen:
        near = nearest(arguments.names[0], list_configs())
        raise UserError(f"no configuration begins with {', '.join(arguments.names)}"
                        + (f"; did you mean {' or '.join(near)}?" if near else "") + " See `deqproof train --list`")
    overrides = parse_overrides(arguments.set)
    try:
        rows = measure_rows(chosen, overrides, device=arguments.device, repeats=arguments.repeats, data=arguments.data)
    except (ConfigError, DataError) as error:
        raise UserError(str(error)) from error
    print(f"{'row':<28} {'parameters':>11} {'memory':>10} {'time':>10} {'processor':>10} {'solver':>7}   paper")
    for row in rows:
        paper = "" if row["paper_gigabytes"] is None else f"{row['paper_gigabytes']:g} GB"
        print(f"{row['config']:<28} {row['parameters']:>11,} {row['peak_bytes'] / 2**20:>7.1f} MB "
              f"{row['seconds']:>8.3f} s "
              f"{row['cpu_seconds']:>8.3f} s {row['iterations']:>7.1f}   {paper}")
    if arguments.save is not None:
        arguments.save.parent.mkdir(parents=True, exist_ok=True)
        threads = f"CPU, {torch.get_num_threads()} threads"
        device = torch.cuda.get_device_name() if arguments.device == "cuda" else threads
        record = {"kind": "step costs", "reduced": bool(overrides), "overrides": overrides, "rows": rows,
                  "provenance": {**provenance(), "device": device, "repeats": arguments.repeats, "seed": 0,
                                 "command": shlex.join(["deqproof", *sys.argv[1:]])}}
        arguments.save.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        print(f"saved {arguments.save}")
    return 0
