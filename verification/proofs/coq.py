"""Runs Coq over the theorems: compiles a file, asks what a theorem rests on, and tries its mutated statement."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from verification.proofs.catalogue import FILES, THEOREMS, Theorem

FOLDER = Path(__file__).parent
#: What the theorems use of Debian, for the message where it is missing.
PACKAGES = "coq libcoq-mathcomp-ssreflect libcoq-mathcomp-algebra libcoq-interval"
_OPTIONS = ("-w", "-notation-overridden,-ambiguous-paths", "-Q", ".", "deqproof")
_SECONDS = 600  # a machine that does other work takes its time; a theorem takes seconds
#: Axioms that a theorem about real numbers may rest on: the standard library's reals and Coq's machine integers.
_KNOWN_AXIOMS = re.compile(r"(ClassicalDedekindReals\.|FunctionalExtensionality\.|Classical_Prop\.classic|Uint63\.|"
                           r"PrimInt63\.|PrimFloat\.|FloatAxioms\.|FloatOps\.)")


class CoqMissing(Exception):
    """No `coqc`, or not the libraries that the theorems need; the text says what to install."""


@dataclass(frozen=True)
class Checked:
    """What Coq said of a theorem.

    Attributes:
        assumptions: names of the axioms that it and the other theorems of its file rest on; empty for none ("Closed
            under the global context").
    """

    assumptions: tuple[str, ...]

    @property
    def accepted(self) -> bool:
        """Whether nothing but the standard axioms of the real numbers and of machine integers is assumed."""
        return all(_KNOWN_AXIOMS.match(name) for name in self.assumptions)


def _coqc() -> str:
    path = shutil.which("coqc")
    if path is None:
        raise CoqMissing(f"coqc is not installed; on Debian: apt-get install {PACKAGES}")
    return path


def _run(folder: Path, name: str) -> subprocess.CompletedProcess[str]:
    """`coqc NAME.v` in the folder."""
    try:
        return subprocess.run([_coqc(), *_OPTIONS, f"{name}.v"], cwd=folder, capture_output=True, text=True,
                              timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"coqc took longer than {_SECONDS} s over {name}.v") from error


def _needed(file: str) -> tuple[str, ...]:
    """The files of ours that a file requires, itself last."""
    text = (FOLDER / f"{file}.v").read_text(encoding="utf-8")
    required = re.findall(r"^From deqproof Require Import ([\w ]+)\.", text, re.MULTILINE)
    names = {name for group in required for name in group.split()}
    return (*(name for name in FILES if name in names), file)


@lru_cache
def _workshop() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="deqproof-coq-")


@lru_cache
def compiled(file: str) -> Path:
    """Compile a file and what it requires, once a process, in a temporary folder; returns that folder.

    Raises:
        CoqMissing: Coq or a library is not installed.
        RuntimeError: a theorem did not go through; the text is Coq's.
    """
    folder = Path(_workshop().name)
    for name in _needed(file)[:-1]:
        compiled(name)
    shutil.copy(FOLDER / f"{file}.v", folder)
    done = _run(folder, file)
    if done.returncode:
        if "Cannot find a physical path bound to logical path" in done.stderr or "Unable to locate" in done.stderr:
            raise CoqMissing(f"a library that {file}.v needs is not installed; on Debian: apt-get install {PACKAGES}")
        raise RuntimeError(f"{file}.v does not compile: {done.stderr.strip()}")
    return folder


@lru_cache
def _assumptions(file: str) -> tuple[str, ...]:
    """The axioms that the theorems of a file rest on, together: asking for each would walk the libraries each time."""
    folder, names = compiled(file), [f"@{theorem.name}" for theorem in THEOREMS if theorem.file == file]
    text = (f"From deqproof Require Import {file}.\nDefinition all := ({', '.join(names)}, tt).\n"
            "Print Assumptions all.\n")
    (folder / f"assumptions_{file}.v").write_text(text, encoding="utf-8")
    done = _run(folder, f"assumptions_{file}")
    if done.returncode:
        raise RuntimeError(f"Print Assumptions failed for {file}.v: {done.stderr.strip()}")
    if "Closed under the global context" in done.stdout:
        return ()
    return tuple(re.findall(r"^([A-Za-z_][\w.']*)(?= *:|$)", done.stdout.replace("Axioms:", ""), re.MULTILINE))


def check(theorem: Theorem) -> Checked:
    """Compile the theorem's file and ask Coq what its theorems rest on (`Print Assumptions`).

    Raises:
        CoqMissing: Coq or a library is not installed.
        RuntimeError: the file does not compile; the text is Coq's.
    """
    return Checked(_assumptions(theorem.file))


def _pieces(text: str, theorem: Theorem) -> tuple[int, str, int]:
    """Where the theorem starts, its mutated statement, and where its proof starts."""
    start = re.search(rf"^(Theorem|Corollary|Lemma) {theorem.name}\b", text, re.MULTILINE)
    if start is None:
        raise ValueError(f"{theorem.file}.v has no theorem {theorem.name}")
    proof = text.index("\nProof.", start.start())
    statement = text[start.start():proof]
    if statement.count(theorem.old) != 1:
        raise ValueError(f"{theorem.old!r} stands {statement.count(theorem.old)} times in {theorem.name}, not once")
    return start.start(), statement.replace(theorem.old, theorem.new), proof


def with_mutated_proof(text: str, theorem: Theorem) -> str:
    """The file up to the end of the theorem, its statement mutated and its proof kept; open sections are closed."""
    start, statement, proof = _pieces(text, theorem)
    kept = text[:start] + statement + text[proof:text.index("Qed.", proof) + len("Qed.")] + "\n"
    opened = re.findall(r"^Section (\w+)\.", kept, re.MULTILINE)
    closed = re.findall(r"^End (\w+)\.", kept, re.MULTILINE)
    return kept + "".join(f"End {name}.\n" for name in reversed(opened) if name not in closed)


def with_mutants_stated(text: str, theorems: tuple[Theorem, ...]) -> str:
    """The file with each mutated statement set before its theorem, under another name and without proof."""
    for theorem in theorems:
        start, statement, _ = _pieces(text, theorem)
        stated = statement.replace(theorem.name, f"{theorem.name}_mutated", 1)
        text = text[:start] + stated + "\nAdmitted.\n\n" + text[start:]
    return text


@lru_cache
def _mutants_are_well_typed(file: str) -> bool:
    theorems = tuple(theorem for theorem in THEOREMS if theorem.file == file)
    folder, text = compiled(file), (FOLDER / f"{file}.v").read_text(encoding="utf-8")
    (folder / f"mutants_of_{file}.v").write_text(with_mutants_stated(text, theorems), encoding="utf-8")
    return _run(folder, f"mutants_of_{file}").returncode == 0


@dataclass(frozen=True)
class MutantTried:
    """What became of a mutated statement.

    Attributes:
        well_typed: whether Coq took the statement by itself (asked of all mutations of a file at once).
        proved: whether the theorem's proof went through for it (it must not).
        message: Coq's error for the proof, its last line.
    """

    well_typed: bool
    proved: bool
    message: str


def try_mutant(theorem: Theorem) -> MutantTried:
    """State the mutated theorem without its proof (it must be well typed), then with it (it must fail)."""
    folder = compiled(theorem.file)
    text = (FOLDER / f"{theorem.file}.v").read_text(encoding="utf-8")
    name = f"mutant_{theorem.name}"
    (folder / f"{name}.v").write_text(with_mutated_proof(text, theorem), encoding="utf-8")
    done = _run(folder, name)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return MutantTried(_mutants_are_well_typed(theorem.file), done.returncode == 0, lines[-1] if lines else "")
