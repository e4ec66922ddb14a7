"""The verb `bench`, its pictures and its page."""

import json
from pathlib import Path

import pytest

from figures.cli import main


def test_list(capsys: pytest.CaptureFixture[str]):
    assert main(["bench", "--list"]) == 0
    assert "sm-loss-hard" in capsys.readouterr().out


def test_unknown_name(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    assert main(["bench", "nonsense", "--out", str(tmp_path)]) == 2
    assert "unknown benchmark 'nonsense'" in capsys.readouterr().err
    assert main(["bench", "trace", "--repeats", "0", "--out", str(tmp_path)]) == 2


def test_a_small_benchmark_leaves_numbers_pictures_and_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    command = ["bench", "depth", "--largest", "1", "--repeats", "3", "--threads", "1", "--out", str(tmp_path)]
    assert main([*command, "--note", "a test"]) == 0
    out = capsys.readouterr().out
    assert "Exact(1), krylov" in out
    record = json.loads((tmp_path / "records" / "bench.json").read_text())
    result = record["benchmarks"]["depth"]
    assert result["about_run"]["note"] == "a test"
    assert [row["right"] for row in result["rows"] if row["role"] == "ours"] == [True]
    report = (tmp_path / "report.html").read_text()
    assert "Speed beside the peers" in report
    assert (tmp_path / "figures" / "bench-time.png").is_file()
