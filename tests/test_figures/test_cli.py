"""The command line: exit statuses and messages."""

import functools
import json
import subprocess
import sys
from pathlib import Path

import pytest

from deq.data import DATASETS
from figures import cli
from figures.commands import claims, figures, verify
from verification import session
from verification.evidence import Evidence, Method, Outcome
from verification.registry import Topic
from verification.verdict import Verdict

ROOT = Path(__file__).parents[2]


def outcome(name):
    return lambda context: [Evidence(Method.NUMERICAL, Outcome(name), "a test")]


def topic(expected=Verdict.SUPPORTED, **more):
    made = Topic("demo", "A demonstration")
    for id in ("sm-0001", "rmt-0002"):
        made.claim(
            id=id,
            title=f"claim {id}",
            source="[SM]",
            statement="$x$",
            expected=expected,
            control=outcome("fails"),
            control_note="n",
            **more,
        )(outcome("holds"))
    return made


@pytest.fixture
def use(monkeypatch, tmp_path):
    """A function that puts topics in place of the registered ones."""

    def put(*topics):
        for module in (verify, claims, figures):
            monkeypatch.setattr(module, "load_topics", lambda: list(topics))
        monkeypatch.setattr(verify, "Session", functools.partial(session.Session, package="unused"))

    monkeypatch.delenv("DEQPROOF_DATA", raising=False)
    monkeypatch.setattr(sys.modules["deq.data.locate"], "cache_folder", lambda: tmp_path / "cache")
    return put


def run(tmp_path, *words):
    return cli.main(
        [words[0], *map(str, words[1:]), *(["--out", str(tmp_path / "out")] if words[0] != "claims" else [])]
    )


def test_green(use, tmp_path, capsys):
    use(topic())
    assert run(tmp_path, "verify", "--scale", "smoke", "--seed", "3") == 0
    out = capsys.readouterr().out
    assert "2 claims: 2 supported; all as expected" in out
    assert str(tmp_path / "out" / "report.html") in out
    assert "\x1b[" not in out, "no colours away from a terminal"
    about = json.loads((tmp_path / "out/run.json").read_text())
    assert about["seed"] == 3
    assert about["scale"] == "smoke"
    assert {"commit", "python", "platform", "versions", "threads", "date", "command"} <= about.keys()


def test_a_deviation_is_status_1_and_is_listed(use, tmp_path, capsys):
    use(topic(expected=Verdict.PROVED))
    assert run(tmp_path, "verify") == 1
    out = capsys.readouterr().out
    assert "supported where proved was expected: sm-0001 claim sm-0001" in out
    assert "2 deviate from what is expected" in out


def test_untested_does_not_fail_the_run_and_says_what_is_missing(use, tmp_path, capsys):
    use(topic(needs=("data:parkinson",)))
    assert run(tmp_path, "verify") == 0
    out = capsys.readouterr().out
    assert "uci/parkinsons_updrs.data is not at hand" in out
    assert "(2 claims: sm-0001, rmt-0002)" in out
    assert "DEQPROOF_DATA" in out


@pytest.mark.parametrize("by", ["option", "environment"])
def test_data_are_found(use, tmp_path, capsys, monkeypatch, by):
    use(topic(needs=("data:redwine",)))
    path = tmp_path / "data" / DATASETS["redwine"].files[0].name
    path.parent.mkdir(parents=True)
    path.write_text("x")
    if by == "environment":
        monkeypatch.setenv("DEQPROOF_DATA", str(tmp_path / "data"))
    assert run(tmp_path, "verify", *(["--data", tmp_path / "data"] if by == "option" else [])) == 0
    assert "2 supported" in capsys.readouterr().out


def test_only(use, tmp_path, capsys):
    use(topic())
    assert run(tmp_path, "verify", "--only", "rmt") == 0
    assert [item["id"] for item in json.loads((tmp_path / "out/claims.json").read_text())] == ["rmt-0002"]


@pytest.mark.parametrize(("words", "message"), [
    (("--only", "nothing"), "--only 'nothing' matches no claim"),
    (("--data", "/does/not/exist"), "--data names /does/not/exist, which is not a folder"),
])
def test_usage_errors_come_before_any_work(use, tmp_path, capsys, words, message):
    use(topic())
    assert run(tmp_path, "verify", *words) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out" / "claims.json").exists()


@pytest.mark.parametrize(
    "words", [("--scale", "huge"), ("--jobs", "0"), ("--jobs", "two"), ("--seed", "x"), ("--unknown",)]
)
def test_bad_options_are_status_2(use, tmp_path, capsys, words):
    use(topic())
    with pytest.raises(SystemExit) as stop:
        run(tmp_path, "verify", *words)
    assert stop.value.code == 2
    assert words[0] in capsys.readouterr().err


def test_an_output_folder_that_takes_no_files_is_status_2_before_any_work(use, tmp_path, capsys):
    ran = []
    made = Topic("demo", "D")
    made.claim(id="sm-0001", title="t", source="s", statement="s", expected=Verdict.SUPPORTED, control=outcome("fails"),
               control_note="n")(lambda context: ran.append(1) or outcome("holds")(context))
    use(made)
    (tmp_path / "out").write_text("a file is in the way")
    assert run(tmp_path, "verify") == 2
    error = capsys.readouterr().err
    assert "cannot write to the output folder" in error
    assert "--out" in error
    assert ran == []


def test_no_topics_still_make_a_report(use, tmp_path):
    use()
    assert run(tmp_path, "verify") == 0
    assert "No claims in this run." in (tmp_path / "out/report.html").read_text()
    assert json.loads((tmp_path / "out/claims.json").read_text()) == []


def test_claims_lists_without_running(use, tmp_path, capsys):
    use(topic())
    assert run(tmp_path, "claims", "--only", "sm") == 0
    out = capsys.readouterr().out
    assert "sm-0001" in out
    assert "supported" in out
    assert "rmt-0002" not in out


def test_figures_rewrites_the_report_from_stored_results(use, tmp_path, capsys):
    use(topic())
    assert run(tmp_path, "verify") == 0
    before = (tmp_path / "out/report.html").read_text()
    (tmp_path / "out/report.html").unlink()
    assert run(tmp_path, "figures") == 0
    assert (tmp_path / "out/report.html").read_text() == before


def test_figures_of_a_folder_without_results(use, tmp_path, capsys):
    use(topic())
    assert run(tmp_path, "figures") == 2
    assert "run.json is missing" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_figures_names_what_is_not_registered(use, tmp_path, capsys):
    use(topic())
    run(tmp_path, "verify")
    assert run(tmp_path, "figures", "no-such-figure") == 2
    assert "unknown figure 'no-such-figure'" in capsys.readouterr().err


def test_help_teaches():
    done = subprocess.run(
        [sys.executable, "-m", "figures.cli", "verify", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0
    for word in ("--only", "--scale", "--out", "--data", "--jobs", "--seed", "examples:", "DEQPROOF_DATA"):
        assert word in done.stdout


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("deqproof ")


def test_a_verb_is_required(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([])
    assert stop.value.code == 2
