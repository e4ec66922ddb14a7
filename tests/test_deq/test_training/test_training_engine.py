"""The engine: smoke runs of all rows, resuming to the last bit, and trouble that is named."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from deq.training import CheckpointError, checkpoint, list_configs, load_config
from deq.training.engine import Trainer, TrainingStopped
from deq.training.monitor import EquilibriumMonitor, StatsWriter, spectral_radius
from deq.training.start import make_task, train
from deq.training.task import MovingAverage

ROOT = Path(__file__).parents[3]


def smoke(name, **sections):
    return load_config(name, smoke=True, overrides=sections)


def final_tensors(folder):
    return checkpoint.load(checkpoint.checkpoints(folder / "checkpoints")[-1]).state


def assert_equal_states(a, b):
    """Every tensor of two nested states, bit for bit."""
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal_states(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_equal_states(x, y)
    else:
        assert a == b


@pytest.mark.parametrize("name", list_configs())
def test_every_row_runs_at_smoke_size(name, tmp_path):
    config = smoke(name)
    result = train(config, tmp_path, progress=False)
    assert result.step == config.run.steps
    assert all(value == value for value in result.stats.values())
    lines = [json.loads(line) for line in (result.folder / "stats.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, config.run.steps + 1))
    assert ("spectral_radius" in result.stats) == ("deq" in name)
    options = json.loads((result.folder / "options.json").read_text())
    assert options["model"]["kind"] == config.model.kind
    assert options["provenance"]["torch"] == torch.__version__


@pytest.mark.parametrize(("name", "model"), [("table1/cifar10-deq", {"reuse": True}), ("table4/deq-ssm", {}),
                                             ("table5/two-res", {}), ("table2/redwine-deq-ssm", {}),
                                             ("table2/redwine-cp", {})])
def test_resumed_run_is_bitwise_the_uninterrupted_one(name, model, tmp_path):
    whole = train(smoke(name, run={"steps": 6}, model=model), tmp_path / "whole", progress=False)
    train(smoke(name, run={"steps": 4}, model=model), tmp_path / "parts", progress=False)
    rest = train(smoke(name, run={"steps": 6}, model=model), tmp_path / "parts", resume=True, progress=False)
    assert_equal_states(final_tensors(whole.folder), final_tensors(rest.folder))
    drop = ("seconds_per_step", "memory_bytes")
    logs = [[{k: v for k, v in json.loads(line).items() if k not in drop}
             for line in (folder / "stats.jsonl").read_text().splitlines() if '"train"' in line]
            for folder in (whole.folder, rest.folder)]
    assert logs[0] == logs[1]


def test_evaluating_more_often_changes_nothing(tmp_path):
    runs = [train(smoke("table4/ssm", run={"steps": 4, "evaluate_every": every}), tmp_path / str(every), progress=False)
            for every in (0, 1)]
    assert_equal_states(*(final_tensors(run.folder)["module"] for run in runs))


def test_kill_9_loses_at_most_the_steps_since_the_checkpoint(tmp_path):
    command = [sys.executable, "-m", "figures.cli", "train", "table4/ssm", "--smoke", "--steps", "100000", "--quiet",
               "--set", "run.checkpoint_every=5", "--out", str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        deadline = time.monotonic() + 120
        while not (found := list(tmp_path.glob("*/checkpoints/step-*"))) or len(found) < 2:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    folder = next(tmp_path.glob("*-smoke"))
    kept = checkpoint.load(checkpoint.checkpoints(folder / "checkpoints")[-1]).step
    lines = (folder / "stats.jsonl").read_text().splitlines()
    logged = [json.loads(line)["step"] for line in lines if line.endswith("}")]
    assert kept % 5 == 0
    # the line of the last step before the next checkpoint may have been written already
    assert max(logged) - kept <= 5
    target = kept + 3
    rest = train(smoke("table4/ssm", run={"steps": target}), tmp_path, resume=True, progress=False)
    assert rest.folder == folder
    whole = train(smoke("table4/ssm", run={"steps": target}), tmp_path / "whole", progress=False)
    assert_equal_states(final_tensors(whole.folder)["module"], final_tensors(rest.folder)["module"])


@pytest.mark.parametrize("victim", ["tensors.safetensors", "state.json"])
def test_damaged_checkpoint_is_named_and_the_one_before_serves(victim, tmp_path):
    config = smoke("table4/ssm", run={"steps": 4})
    folder = train(config, tmp_path, progress=False).folder
    newest = checkpoint.checkpoints(folder / "checkpoints")[-1]
    data = bytearray((newest / victim).read_bytes())
    data[len(data) // 2] ^= 1
    (newest / victim).write_bytes(bytes(data))
    more = smoke("table4/ssm", run={"steps": 6})
    with pytest.raises(CheckpointError, match=victim):
        train(more, tmp_path, resume=True, progress=False)
    shutil.rmtree(newest)
    assert train(more, tmp_path, resume=True, progress=False).step == 6


def test_a_half_written_checkpoint_is_ignored_and_cleared(tmp_path):
    (tmp_path / ".writing-3").mkdir()
    module = torch.nn.Linear(2, 2)
    state = checkpoint.pack(module, {}, [checkpoint.random_state(torch.device("cpu"))])
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, step, state, keep=2)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-000000002", "step-000000003"]
    assert_equal_states(checkpoint.load(tmp_path / "step-000000003").state, state)


def test_missing_part_of_a_checkpoint_is_named(tmp_path):
    path = checkpoint.save(tmp_path, 1, {"a": torch.ones(2)})
    (path / "tensors.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"tensors\.safetensors is missing"):
        checkpoint.load(path)
    with pytest.raises(TypeError, match="cannot keep"):
        checkpoint.save(tmp_path, 2, {"a": object()})


def test_foreign_checkpoint_does_not_fit(tmp_path):
    state = checkpoint.pack(torch.nn.Linear(2, 2), {}, [])
    with pytest.raises(CheckpointError, match="does not fit"):
        checkpoint.unpack(state, torch.nn.Linear(3, 2), {})


def test_other_options_are_not_resumed(tmp_path):
    train(smoke("table4/ssm"), tmp_path, progress=False)
    with pytest.raises(TrainingStopped, match=r"optimizer\.lr"):
        train(smoke("table4/ssm", optimizer={"lr": 0.5}), tmp_path, resume=True, progress=False)
    with pytest.raises(TrainingStopped, match="no run of"):
        train(smoke("table4/mle"), tmp_path, resume=True, progress=False)


def test_non_finite_loss_stops_and_leaves_the_checkpoint(tmp_path):
    config = smoke("table4/ssm", run={"steps": 50, "checkpoint_every": 1}, optimizer={"lr": 1e30})
    with pytest.raises(TrainingStopped, match="step"):
        train(config, tmp_path, progress=False)
    kept = checkpoint.checkpoints(next(tmp_path.iterdir()) / "checkpoints")
    assert kept
    assert checkpoint.load(kept[-1]).step >= 1


def test_gradients_that_are_not_finite_make_no_update(tmp_path):
    config = smoke("table4/ssm", run={"steps": 2})

    def broken(device):
        task = make_task(config, device)
        task.model.scale.register_hook(lambda gradient: gradient * float("nan"))
        return task

    with pytest.raises(TrainingStopped, match="no update was made"):
        Trainer(config, broken, tmp_path, progress=False).run()


def test_run_folders_are_numbered(tmp_path):
    names = [train(smoke("table4/mle"), tmp_path, progress=False).folder.name for _ in range(2)]
    assert names == ["00001-table4-mle-smoke", "00002-table4-mle-smoke"]


def test_patience_stops_a_run_early(tmp_path):
    config = smoke("table2/parkinson-sm", run={"steps": 60}, optimizer={"patience": 3, "lr": 1e-12})
    result = train(config, tmp_path, progress=False)
    # nothing moves; later validations fix alpha on other rows and may be a little better than the first
    assert 4 <= result.step < 60
    assert "best_step" in result.stats


def test_moving_average_follows(generator):
    model = torch.nn.Linear(2, 1)
    average = MovingAverage(model, 0.9)
    old = model.weight.detach().clone()
    with torch.no_grad():
        model.weight.add_(1.0)
    average.follow(model)
    torch.testing.assert_close(average.model.weight, old + 0.1)
    with pytest.raises(ValueError, match="decay"):
        MovingAverage(model, 1.0)


def test_spectral_radius_of_a_known_matrix():
    """A normal matrix, so that the growth rate is the largest modulus of its eigenvalues."""
    matrix = torch.diag(torch.tensor([0.9, -0.3, 0.1], dtype=torch.float64))
    radius = spectral_radius(lambda z, x: z @ matrix.T + x, torch.zeros(2, 3, dtype=torch.float64),
                             torch.zeros(2, 3, dtype=torch.float64), iterations=40)
    # the second eigenvalue's share falls like (1/3)^40
    assert radius == pytest.approx(0.9, rel=1e-9)


def test_monitor_of_an_explicit_model_is_empty():
    monitor = EquilibriumMonitor(torch.nn.Linear(2, 2))
    assert not monitor.found
    assert monitor.read() == {}


def test_stats_of_a_cut_and_rewound_run(tmp_path):
    (tmp_path / "stats.jsonl").write_text('{"step": 1, "kind": "train"}\n{"step": 5, "kind": "train"}\n{"step": 6, "ki')
    writer = StatsWriter(tmp_path, events=False, from_step=3)
    writer.write(4, "train", {"loss": 2.0})
    writer.close()
    steps = [json.loads(line)["step"] for line in (tmp_path / "stats.jsonl").read_text().splitlines()]
    assert steps == [1, 4]


def test_events_can_be_written(tmp_path):
    train(smoke("table4/mle", run={"events": True}), tmp_path, progress=False)
    assert list(tmp_path.glob("*/events/events.out.tfevents.*"))
