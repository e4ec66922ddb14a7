"""`deqproof train` from the outside."""

import json

import pytest

from figures.cli import main


def test_list_names_every_row_and_both_counts(capsys):
    assert main(["train", "--list"]) == 0
    out = capsys.readouterr().out
    assert "table1/celeba-aug16" in out
    assert "15,154,352" in out


def test_dry_run_prints_options_and_counts_and_runs_nothing(capsys, tmp_path):
    assert main(["train", "table4/deq-ssm", "--smoke", "--dry-run", "--out", str(tmp_path), "--seed", "5"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["config"]["run"]["seed"] == 5
    # four shifts: 8 x 8 to width 8 and back with biases, W without; scale of 16
    assert printed["parameters"]["total"] == 4 * (72 + 64 + 72) + 16
    assert "well-posed" in printed["well_posedness"]
    assert list(tmp_path.iterdir()) == []


def test_summary_is_saved_with_its_provenance(tmp_path):
    path = tmp_path / "run.json"
    assert main(["train", "table4/mle", "--smoke", "--quiet", "--out", str(tmp_path), "--save", str(path)]) == 0
    record = json.loads(path.read_text())
    assert record["reduced"]
    assert record["steps"] == 3
    assert [line["step"] for line in record["training"]][:3] == [1, 2, 3]
    assert {"commit", "command", "device", "date", "torch"} <= record["provenance"].keys()
    assert "test_log_likelihood" in record["final"]


def test_run_and_resume(capsys, tmp_path):
    assert main(["train", "table4/mle", "--smoke", "--quiet", "--out", str(tmp_path)]) == 0
    arguments = ["train", "table4/mle", "--smoke", "--quiet", "--out", str(tmp_path), "--resume", "--steps", "5"]
    assert main(arguments) == 0
    assert "5 steps" in capsys.readouterr().out
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(("arguments", "message"), [
    (["train"], "which configuration"),
    (["train", "table9/x"], "no configuration"),
    (["train", "table4/mle", "--set", "lr=3"], "section.key=value"),
    (["train", "table4/mle", "--set", "optimizer.rl=3"], "unknown key 'rl'"),
    (["train", "table4/mle", "--smoke", "--resume"], "no run of"),
])
def test_usage_trouble_is_a_line(arguments, message, capsys, tmp_path):
    status = main([*arguments, "--out", str(tmp_path)] if len(arguments) > 1 else arguments)
    assert status in (1, 2)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("word", [["--dry-run"], []])
@pytest.mark.parametrize(("setting", "message"), [
    ("optimizer.lr=-1", "optimizer.lr"), ("optimizer.clip=-3", "optimizer.clip"), ("run.steps=0", "run.steps"),
    ("data.batch=0", "data.batch"), ("run.precision=8-true", "run.precision"), ("objective.kind=smm", "did you mean"),
    ("model.variant=deqq", "deqq")])
def test_values_out_of_range_are_refused_also_by_a_dry_run(setting, message, word, capsys, tmp_path):
    out = tmp_path / "runs"
    assert main(["train", "table4/mle", "--smoke", *word, "--set", setting, "--out", str(out)]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_stopped_training_gives_status_1(capsys, tmp_path):
    assert main(["train", "table4/mle", "--smoke", "--quiet", "--out", str(tmp_path), "--steps", "40",
                 "--set", "optimizer.lr=1e30"]) == 1
    assert "training stopped" in capsys.readouterr().err
