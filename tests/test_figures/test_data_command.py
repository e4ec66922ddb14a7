import hashlib
import importlib

import pytest

from deq.data import DataFile, Dataset
from figures.cli import main

COMMAND = importlib.import_module("figures.commands.data")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """One made-up data set of two files, of which one is at hand."""
    monkeypatch.delenv("DEQPROOF_DATA", raising=False)
    monkeypatch.setattr(importlib.import_module("deq.data.locate"), "cache_folder", lambda: tmp_path / "cache")
    files = tuple(DataFile(f"set/{name}", hashlib.sha256(name.encode()).hexdigest(), (), "a shelf") for name in "ab")
    monkeypatch.setattr(COMMAND, "DATASETS", {"set": Dataset("set", "a made-up set", files)})
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a").write_bytes(b"a")
    return tmp_path


def test_list_says_what_is_missing(folder, capsys):
    assert main(["data", "list", "--data", str(folder)]) == 0
    assert "set            missing" in capsys.readouterr().out
    (folder / "set" / "b").write_bytes(b"b")
    main(["data", "list", "--data", str(folder)])
    assert "set            at hand" in capsys.readouterr().out


def test_check_names_missing_and_damaged_files(folder, capsys):
    assert main(["data", "check", "set", "--data", str(folder)]) == 1
    streams = capsys.readouterr()
    assert "good" in streams.out
    assert "set/b" in streams.err
    (folder / "set" / "b").write_bytes(b"x")
    assert main(["data", "fetch", "set", "--data", str(folder)]) == 1
    assert "damaged" in capsys.readouterr().err
    (folder / "set" / "b").write_bytes(b"b")
    assert main(["data", "check", "set", "--data", str(folder)]) == 0


def test_wrong_names_and_folders_are_usage_errors(folder, capsys):
    assert main(["data", "check", "iris"]) == 2
    assert "iris" in capsys.readouterr().err
    assert main(["data", "check", "--data", str(folder / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err
