"""Data-parallel runs under torchrun, two processes on a CPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from deq.training import checkpoint

ROOT = Path(__file__).parents[3]


def torchrun(out, *extra):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "figures.cli", "train",
               "table4/deq-ssm", "--smoke", "--quiet", "--out", str(out), *extra]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
                          timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    folder = next(Path(out).glob("*-smoke"))
    return checkpoint.load(checkpoint.checkpoints(folder / "checkpoints")[-1]).state


@pytest.mark.slow
def test_two_processes_train_and_resume_to_the_last_bit(tmp_path):
    whole = torchrun(tmp_path / "whole", "--steps", "4")
    torchrun(tmp_path / "parts", "--steps", "2")
    rest = torchrun(tmp_path / "parts", "--steps", "4", "--resume")
    assert len(whole["random"]) == 2
    assert not torch.equal(whole["random"][0]["cpu"], whole["random"][1]["cpu"])
    for name, value in whole["module"].items():
        if torch.is_tensor(value):
            assert torch.equal(value, rest["module"][name]), name
