"""Mutation testing: plant one small fault at a time, as cosmic-ray's operators make them, and see which tests notice.

    python tests/mutants.py [--rooms NAME ...] [--sample N] [--seed N] [--seconds S] [--out FILE]

Each mutant is planted in a copy of the tree and meets the tests of its room (`ROOMS`); the process is forked after
torch is imported, so that a mutant costs its tests and no more. A mutant is killed by a failing test or by passing the
time limit. Survivors are printed with their line, to be read: some cannot be told from the original.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

ROOT = Path(__file__).parents[1]
#: Room: files that are mutated, tests that ought to notice.
ROOMS = {
    "linear": ("deq/linear/*.py", "tests/test_deq/test_linear"),
    "solvers": ("deq/solvers/*.py", "tests/test_deq/test_solvers"),
    "normalize": ("deq/normalize.py", "tests/test_deq/test_normalize.py"),
    "density": ("deq/density/*.py", "tests/test_deq/test_density"),
    "gradients": ("deq/gradients/*.py", "tests/test_deq/test_gradients"),
    "verdict": ("verification/verdict.py", "tests/test_verification/test_verdict.py"),
    "evidence": ("verification/evidence.py", "tests/test_verification/test_verdict.py"),
}
# Annotations are not evaluated, so `X | None` cannot be mutated; the others make nothing but noise here.
_SKIPPED = ("BitOr", "BitAnd", "BitXor", "Shift", "VariableReplacer", "VariableInserter", "ExceptionReplacer")


def mutants(path: Path) -> Iterator[tuple[str, str]]:
    """Every mutant of a file: operator and mutated source."""
    source = path.read_text(encoding="utf-8")
    for name in operator_names():
        if any(word in name for word in _SKIPPED):
            continue
        occurrence = 0
        while True:
            mutated = mutate_code(source, get_operator(name)(), occurrence)
            if mutated is None:
                break
            occurrence += 1
            yield name.removeprefix("core/"), mutated


def line_of(original: str, mutated: str) -> str:
    """The line that was changed, before and after."""
    lines = difflib.unified_diff(original.splitlines(), mutated.splitlines(), n=0, lineterm="")
    changed = [line for line in lines if line[0] in "+-" and line[:3] not in ("+++", "---")]
    return "  ->  ".join(line[1:].strip() for line in changed[:2])


def notice(tree: Path, tests: str, seconds: float) -> str:
    """Run the tests of a room on the tree in a fork: killed, timeout or survived."""
    child = os.fork()
    if child == 0:
        os.setsid()
        os.chdir(tree)
        sys.path[:] = [str(tree), *(entry for entry in sys.path if Path(entry or ".").resolve() != ROOT)]
        import pytest

        quiet = io.StringIO()
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            code = pytest.main(["-n", "0", "-x", "-q", "-p", "no:cacheprovider", "--no-header", "-m",
                                "not slow and not gpu", tests])
        os._exit(0 if code == 0 else 1)
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return "survived" if status == 0 else "killed"
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "timeout"


def examine(room: str, sample: int, seed: int, seconds: float, out: Path) -> None:
    """Try a sample of a room's mutants, a line of JSON each."""
    files, tests = ROOMS[room]
    found = [(path, name, text) for path in sorted(ROOT.glob(files)) for name, text in mutants(path)]
    chosen = random.Random(seed).sample(found, min(sample, len(found)))
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
        for name in tracked.stdout.splitlines():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, tree / name)
        begun = time.monotonic()
        if notice(tree, tests, 100 * seconds) != "survived":
            raise SystemExit(f"the tests of {room} fail on the code as it is")
        limit = max(seconds, 3 * (time.monotonic() - begun))
        for path, name, text in chosen:
            place = tree / path.relative_to(ROOT)
            original = path.read_text(encoding="utf-8")
            place.write_text(text, encoding="utf-8")
            try:
                state = notice(tree, tests, limit)
            finally:
                place.write_text(original, encoding="utf-8")
            with out.open("a", encoding="utf-8") as stream:
                print(json.dumps({"room": room, "of": len(found), "state": state, "operator": name,
                                  "file": str(path.relative_to(ROOT)), "line": line_of(original, text)}), file=stream)


def report(out: Path) -> None:
    """Shares by room, and the survivors."""
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    for room in dict.fromkeys(row["room"] for row in rows):
        mine = [row for row in rows if row["room"] == room]
        dead = sum(row["state"] != "survived" for row in mine)
        print(f"{room}: {dead} of {len(mine)} killed ({dead / len(mine):.0%}), sampled from {mine[0]['of']}")
        for row in mine:
            if row["state"] == "survived":
                print(f"  survived {row['file']} [{row['operator']}] {row['line']}")


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rooms", nargs="+", choices=sorted(ROOMS), default=list(ROOMS))
    parser.add_argument("--sample", type=int, default=40, help="mutants a room")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60.0, help="least time limit of a mutant")
    parser.add_argument("--out", type=Path, default=Path("out/mutants.jsonl"))
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text("")
    import scipy.stats  # noqa: F401  (imported before the forks, once)
    import sympy  # noqa: F401
    import torch

    torch.set_num_threads(1)
    for room in arguments.rooms:
        examine(room, arguments.sample, arguments.seed, arguments.seconds, arguments.out)
    report(arguments.out)


if __name__ == "__main__":
    main()
