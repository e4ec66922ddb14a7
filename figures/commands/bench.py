"""`deqproof bench`: measure, beside baselines and peers, after a check of what each of them computes."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import torch

from deq.names import unknown
from figures.publish import publish
from verification.bench.case import Settings
from verification.bench.catalogue import load_benchmarks
from verification.bench.engine import run_benchmark
from verification.bench.floor import measure_machine
from verification.bench.keep import keep
from verification.bench.table import text_table
from verification.context import Context
from verification.errors import UserError
from verification.provenance import provenance
from verification.registry import load_topics
from verification.store import Store

EXAMPLES = """\
examples:
  deqproof bench --list
  deqproof bench sm-loss sm-loss-hard --out out
  deqproof bench --largest 64 --repeats 5 --threads 1
  deqproof bench gradient --dtype float32 --device cuda

Peers are optional: pip install "deqproof[peers]". Those that are not installed are listed as absent.
OUT gets records/bench.json (all numbers), the pictures, and a page in report.html.
exit status: 0 every way of ours is right, 1 one is wrong or failed, 2 usage.
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("bench", help="measure speed and memory beside peers", epilog=EXAMPLES,
                                   formatter_class=argparse.RawDescriptionHelpFormatter,
                                   description="Runs benchmarks: a correctness check first, then interleaved timings.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmarks (default: all; see --list)")
    parser.add_argument("--list", action="store_true", help="list the benchmarks and stop")
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="results folder (default: out)")
    parser.add_argument("--repeats", type=int, default=11, metavar="N", help="timed calls of each (default: 11)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads (default: OMP_NUM_THREADS, else all cores)")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float64")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--largest", type=float, metavar="SIZE", help="leave out larger sizes")
    parser.add_argument("--smallest", type=float, default=0, metavar="SIZE", help="leave out smaller sizes")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall",
                        help="cpu: processor time, for a machine that others use too (with --threads 1)")
    parser.add_argument("--note", default="", metavar="TEXT", help="kept with the results (a loaded machine, say)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the benchmarks and return the exit status."""
    known = load_benchmarks()
    if arguments.list:
        for benchmark in known.values():
            print(f"{benchmark.name:<16} {benchmark.title} ({benchmark.size}: "
                  f"{', '.join(str(size) for size in benchmark.sizes)})")
        return 0
    for name in arguments.names:
        if name not in known:
            raise UserError(unknown("benchmark", name, known))
    for name in ("repeats", "threads"):
        if getattr(arguments, name) is not None and getattr(arguments, name) < 1:
            raise UserError(f"--{name} must be at least 1, not {getattr(arguments, name)}")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch finds no CUDA device")
    threads = arguments.threads or _default_threads()
    settings = Settings(repeats=arguments.repeats, dtype=getattr(torch, arguments.dtype), threads=threads,
                        device=torch.device(arguments.device), largest=arguments.largest,
                        smallest=arguments.smallest, clock=arguments.clock)
    store = Store(arguments.out)
    store.prepare()
    return _measure_all([known[name] for name in arguments.names or known], settings, store, arguments.note)


def _measure_all(chosen: list[Any], settings: Settings, store: Store, note: str) -> int:
    torch.set_num_threads(settings.threads)
    about = provenance(Context(out=store.out), shlex.join(["deqproof", *sys.argv[1:]]), 1)
    machine = measure_machine(settings)
    about |= {"note": note, "load": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
              "operations_per_second": machine.operations, "bytes_per_second": machine.bandwidth}
    print(f"machine: {machine.operations / 1e9:.1f} Gflop/s in matrix products, {machine.bandwidth / 2**30:.1f} GiB/s")
    wrong = False
    for benchmark in chosen:
        result = run_benchmark(benchmark, settings, machine, lambda line: print(line, file=sys.stderr))
        keep(store, about, result)
        print("\n" + text_table(result))
        wrong |= any(row["role"] == "ours" and not (row["right"] or row.get("approximate")) for row in result["rows"])
    made = publish(store, load_topics())
    for problem in made.problems:
        print(f"deqproof: {problem}", file=sys.stderr)
    print(f"\nreport: {(store.out / 'report.html').resolve()}")
    return 1 if wrong or made.problems else 0


def _default_threads() -> int:
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdecimal() and int(given) else torch.get_num_threads()
