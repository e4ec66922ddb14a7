"""Small rooms: progress, terminal summary, provenance."""

import io
import subprocess

from verification import provenance, terminal
from verification.context import Context
from verification.progress import Progress
from verification.registry import Topic
from verification.result import ClaimResult
from verification.verdict import Verdict


def result(verdict, expected=Verdict.SUPPORTED, **more):
    data = {"id": "sm-0001", "topic": "t", "title": "A title", "source": "s", "statement": "s", "correction": "",
            "expected": expected, "verdict": verdict, "method": (), "evidence": (), "seconds": 2.0, "cpu_seconds": 1.0,
            "control": "passed", "control_note": "n"}
    return ClaimResult(**{**data, **more})


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_prints_a_line_a_claim_away_from_a_terminal():
    stream = io.StringIO()
    with Progress(2, stream) as progress:
        progress.start("A title")
        progress.finish(result(Verdict.SUPPORTED))
        progress.finish(result(Verdict.REFUTED))
    first, second = stream.getvalue().splitlines()
    assert first.startswith("[1/2] ✓ supported")
    assert second.endswith("<- expected supported")


def test_progress_shows_title_and_verdicts_on_a_terminal():
    stream = Terminal()
    with Progress(2, stream) as progress:
        progress.start("A title")
        progress.finish(result(Verdict.SUPPORTED))
    assert "A title" in stream.getvalue()
    assert "✓ 1" in stream.getvalue()


def test_colours_only_on_a_terminal(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[" in terminal.paint("x", Verdict.ERROR, Terminal())
    assert terminal.paint("x", Verdict.ERROR, io.StringIO()) == "x"
    monkeypatch.setenv("NO_COLOR", "1")
    assert terminal.paint("x", Verdict.ERROR, Terminal()) == "x"


def test_the_table_is_aligned():
    topics = [Topic("t", "Short"), Topic("u", "A much longer title of a topic")]
    results = [result(Verdict.SUPPORTED), result(Verdict.CORRECTED, topic="u")]
    head, *rows = terminal.table(topics, results, io.StringIO()).splitlines()
    assert len({len(line) for line in (head, *rows)}) == 1
    assert head.split() == ["topic", "supported", "corrected", "seconds"]


def test_marks_tell_verdicts_apart_without_colour():
    assert set(terminal.MARKS) == set(Verdict)
    assert len(set(terminal.MARKS.values())) == len(Verdict)


def test_commit_of_a_checkout_and_of_none(tmp_path):
    assert provenance.commit(tmp_path) is None
    git = ["git", "-c", "user.name=n", "-c", "user.email=e@x", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "a").write_text("1")
    subprocess.run([*git, "add", "a"], check=True)
    subprocess.run([*git, "commit", "-qm", "m"], check=True)
    clean = provenance.commit(tmp_path)
    assert len(clean) == 40
    (tmp_path / "a").write_text("2")
    assert provenance.commit(tmp_path) == clean + "+changes"


def test_provenance_has_what_a_repeat_needs():
    about = provenance.provenance(Context(seed=5), "deqproof verify", 2)
    assert about["seed"] == 5
    assert about["versions"]["torch"]
    assert about["threads"] == 1
    assert about["data"] is None
