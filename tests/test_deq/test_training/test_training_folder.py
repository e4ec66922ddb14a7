"""Trouble around a run's folder, each with a message of its own, nothing lost."""

import errno
import json
import os
import signal

import pytest
import torch
from filelock import FileLock

from deq.training import CheckpointError, ConfigError, checkpoint, load_config
from deq.training.engine import Trainer
from deq.training.folder import TrainingInterrupted, TrainingStopped, find_run, new_run, write_whole
from deq.training.start import train

MLE = load_config("table4/mle", smoke=True)


def longer(steps):
    return load_config("table4/mle", smoke=True, overrides={"run": {"steps": steps}})


def test_two_runs_do_not_write_to_one_folder(tmp_path):
    folder = train(MLE, tmp_path, progress=False).folder
    before = sorted(path.name for path in folder.rglob("*"))
    with FileLock(folder / ".lock"), pytest.raises(TrainingStopped, match="another process is writing"):
        train(longer(5), tmp_path, resume=True, progress=False)
    assert sorted(path.name for path in folder.rglob("*")) == before
    assert train(longer(5), tmp_path, resume=True, progress=False).step == 5


def test_a_run_without_checkpoints_is_not_resumed(tmp_path):
    new_run(tmp_path, MLE)
    with pytest.raises(TrainingStopped, match="has no checkpoint to go on from"):
        train(MLE, tmp_path, resume=True, progress=False)


def test_no_cuda_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="no CUDA device"):
        train(MLE, tmp_path, device="cuda", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    folder = train(MLE, tmp_path, progress=False).folder / "checkpoints"
    kept = checkpoint.checkpoints(folder)

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(CheckpointError, match=r"step 4 cannot be written .*No space left.*--resume"):
        train(longer(4), tmp_path, resume=True, progress=False)
    assert checkpoint.checkpoints(folder) == kept
    assert not list(folder.glob(".writing-*"))
    monkeypatch.undo()
    assert train(longer(4), tmp_path, resume=True, progress=False).step == 4


def test_sigterm_saves_and_the_rest_is_as_if_nothing_had_happened(tmp_path, monkeypatch):
    whole = train(longer(7), tmp_path / "whole", progress=False)
    real = Trainer._update

    def ended(self, task, rows, step):
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, task, rows, step)

    monkeypatch.setattr(Trainer, "_update", ended)
    with pytest.raises(TrainingInterrupted, match="at step 3; the state was saved"):
        train(longer(7), tmp_path / "parts", progress=False)
    monkeypatch.undo()
    rest = train(longer(7), tmp_path / "parts", resume=True, progress=False)
    moods = ("seconds_per_step", "memory_bytes")
    assert {k: v for k, v in rest.stats.items() if k not in moods} == {
        k: v for k, v in whole.stats.items() if k not in moods}


def test_options_are_there_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "options.json"
    write_whole(path, "first")

    def killed(*arguments):
        raise OSError("killed")

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(OSError, match="killed"):
        write_whole(path, "second")
    assert path.read_text() == "first"
    assert [item.name for item in tmp_path.iterdir()] == ["options.json"]
    monkeypatch.undo()
    (tmp_path / "00009-table4-mle-smoke").mkdir()          # died before its options: not a run
    assert find_run(tmp_path, MLE) is None
    folder = new_run(tmp_path, MLE)
    assert folder.name == "00010-table4-mle-smoke"
    assert json.loads((folder / "options.json").read_text())["model"]["kind"] == "nice"
    assert find_run(tmp_path, MLE) == folder
