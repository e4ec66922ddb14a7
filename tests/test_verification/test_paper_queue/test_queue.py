import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from deq.evaluation.diagonal import diagonal_gaussian
from deq.training import checkpoint
from deq.training.engine import Trainer
from deq.training.folder import TrainingInterrupted, TrainingStopped
from deq.training.image_tasks import NICETask
from figures.cli import main
from verification.errors import UserError
from verification.paper.tables import TABLES
from verification.paper_queue import work as work_module
from verification.paper_queue.cells import put_cell
from verification.paper_queue.cost import Cost, Costs
from verification.paper_queue.queue import only_queue, plan
from verification.paper_queue.runs import PaperRun, choose, paper_runs
from verification.paper_queue.work import Place, progress_of, stored, work

RUN = PaperRun("table2/redwine-deq-sm", 1, 0)
#: Numbers of a run that depend on the machine's mood.
MOODS = ("seconds_per_step", "memory_bytes")


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path / "runs", tmp_path / "results", None, "cpu", "deqproof paper", smoke=True)


def cells(place, name="table2.json"):
    return json.loads((place.results / name).read_text())["cells"]


def numbers(cell):
    return {key: value for key, value in cell["numbers"].items() if key not in MOODS}


def test_every_row_of_every_table_is_run_for_its_seeds_and_names_are_unique():
    runs = paper_runs()
    assert len({run.name for run in runs}) == len(runs)
    for table in (1, 2, 3, 4, 5):
        rows = {run.row for run in runs if run.table == table and not run.variant}
        assert rows == set(TABLES[table].rows)
    assert len([run for run in runs if run.table == 2 and not run.variant]) == 81
    pairs = [(run.row, run.rule) for run in runs if run.rule]
    assert {pair: pairs.count(pair) for pair in set(pairs)} == {
        (f"{name}-deq-sm", rule): count for name, count in (("redwine", 8), ("whitewine", 4), ("parkinson", 4))
        for rule in ("exact", "phantom-2")}
    for run in runs:        # no early stopping, the printed lengths
        config = run.resolve()
        assert config.optimizer.patience == 0
        assert config.run.seed == run.seed
    assert {run.resolve().run.steps for run in runs if run.table == 3} == {30_200}


def test_both_rules_of_a_pair_differ_in_the_rule_alone():
    first, second = (run.resolve() for run in choose(["redwine-deq-sm-compare"]) if run.seed == 5)
    assert {first.gradient.rule, second.gradient.rule} == {"exact", "phantom"}
    assert replace(first, gradient=second.gradient) == second


def test_a_killed_run_resumes_to_the_result_of_an_uninterrupted_one(place, tmp_path, monkeypatch):
    work(RUN, place)
    whole, = cells(place)
    assert (whole["steps"], whole["stopped_by"], whole["reduced"]) == (3, "steps", True)
    assert stored(RUN, place) == whole
    again = Place(tmp_path / "second", tmp_path / "second-results", None, "cpu", "deqproof paper", smoke=True)
    real = Trainer._update

    def killed(self, task, rows, step):
        if step == 3:
            raise SystemError("killed")
        return real(self, task, rows, step)

    monkeypatch.setattr(Trainer, "_update", killed)
    with pytest.raises(SystemError):
        work(RUN, again)
    assert progress_of(RUN, again) == pytest.approx(2 / 3)
    monkeypatch.setattr(Trainer, "_update", real)
    work(RUN, again)
    resumed, = cells(again)
    assert numbers(resumed) == numbers(whole)
    assert resumed["curve"] == whole["curve"]


def test_sigterm_saves_the_state_and_says_so(place, monkeypatch):
    real = Trainer._update

    def ended(self, task, rows, step):
        if step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, task, rows, step)

    monkeypatch.setattr(Trainer, "_update", ended)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(TrainingInterrupted, match="step 1"):
        work(RUN, place)
    assert signal.getsignal(signal.SIGTERM) is before
    assert progress_of(RUN, place) == pytest.approx(1 / 3)
    assert stored(RUN, place) is None


def test_a_damaged_newest_checkpoint_costs_its_steps_only(place, monkeypatch):
    work(RUN, place)
    expected = numbers(cells(place)[0])
    folder = next((place.runs / RUN.name).glob("0*")) / "checkpoints"
    newest = checkpoint.checkpoints(folder)[-1] / "state.json"
    newest.write_text(newest.read_text()[:40])
    work(RUN, place)
    assert numbers(cells(place)[0]) == expected


def test_comparisons_keep_all_three_losses_along_the_way(place):
    for run in choose(["redwine-deq-sm-compare"])[:2]:
        run = replace(run, overrides={**run.overrides, "run": {**run.overrides["run"], "evaluate_every": 1}})
        work(run, place)
    first, second = cells(place, "exact-vs-phantom.json")
    assert {first["rule"], second["rule"]} == {"exact", "phantom-2"}
    for cell in (first, second):
        assert cell["steps"] == [1, 2]
        assert cell["reduced"]
        exact, deployed, own = (cell["losses"][kind] for kind in ("exact", "deployed", "own"))
        assert len(exact) == len(deployed) == len(own) == 2
        if cell["rule"] == "exact":
            assert own == pytest.approx(exact, rel=1e-4)      # equal but for the tolerance of the equilibria, 5e-6


def test_the_row_without_training_is_a_closed_form(place, monkeypatch):
    run, = choose(["diagonal Gaussian"])
    images = torch.rand(60, 16)
    monkeypatch.setattr(NICETask, "prepare", lambda self, rows: images[:len(rows)])
    assert "closed form" in work(run, place)
    cell, = cells(place, "table4.json")
    assert cell["numbers"].keys() == diagonal_gaussian(images, images).keys()
    assert (cell["row"], cell["steps"], cell["variant"]) == ("mle", 0, "diagonal Gaussian, no training")
    assert stored(run, place) == cell


def test_what_stops_a_run_is_its_stored_outcome(place, monkeypatch):
    def stop(*arguments, **options):
        raise TrainingStopped("the loss of 'model' is nan at step 7")

    monkeypatch.setattr(work_module, "train", stop)
    assert "nan at step 7" in work(RUN, place)
    cell, = cells(place)
    assert cell["stopped_by"] == "failure"
    assert stored(RUN, place) == cell           # it would stop again: not repeated


def test_two_queues_do_not_share_a_folder(tmp_path):
    with only_queue(tmp_path), pytest.raises(UserError, match=f"process {os.getpid()}"), only_queue(tmp_path):
        pass
    with only_queue(tmp_path):
        pass


def test_results_stored_at_once_are_all_kept(tmp_path):
    path = tmp_path / "table2.json"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda seed: put_cell(path, {"row": "a", "seed": seed}, ("row", "seed")), range(24)))
    assert sorted(cell["seed"] for cell in json.loads(path.read_text())["cells"]) == list(range(24))


def test_the_order_is_by_stage_then_cost(place, monkeypatch):
    monkeypatch.setattr(Costs, "of", lambda self, run: Cost(1.0 if "sm-8" in run.row else 2.0, 0.0, 0.0))
    runs = choose(["redwine-sm-", "gaussian-100-sm"])
    items = plan(runs, place, Costs(place.runs / "costs.json", smoke=True))
    assert [item.run.stage for item in items] == sorted(item.run.stage for item in items)
    seconds = [item.seconds for item in items if item.run.stage == 0]
    assert seconds == sorted(seconds) == [3.0] * 3 + [6.0] * 6
    assert all(item.share == 0 for item in items)


def test_a_kind_that_has_run_whole_costs_what_it_did(place, monkeypatch):
    monkeypatch.setattr(Costs, "of", lambda self, run: Cost(1.0, 0.0, 0.0))
    runs = choose(["redwine-sm-8"])
    work(runs[0], place)
    took, = (cell["processor_seconds"] for cell in cells(place))
    items = plan(runs, place, Costs(place.runs / "costs.json", smoke=True))
    assert [item.seconds for item in items] == [took] * 3
    assert [item.share for item in items] == [1.0, 0.0, 0.0]


def test_the_command_runs_and_plans(tmp_path, capsys):
    order = ["paper", "--smoke", "--only", "redwine-sm-8", "--runs", str(tmp_path / "r"), "--results",
             str(tmp_path / "s")]
    assert main(order) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "stage 0 (table2):"
    assert lines[1].strip().startswith("0 of 3 runs whole")
    assert "3 of 3 runs, 100%" in lines[-1]
    assert main([*order, "--plan"]) == 0
    assert "3 of 3" in capsys.readouterr().out
    assert main(order) == 0
    assert "3 of 3 runs whole" in capsys.readouterr().out


def test_runs_without_their_data_are_left_out_and_named(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("DEQPROOF_DATA", raising=False)
    order = ["paper", "--only", "celeba-ssm", "--runs", str(tmp_path / "r"), "--results", str(tmp_path / "s"),
             "--data", str(tmp_path)]
    assert main([*order, "--plan"]) == 0
    assert "celeba" in capsys.readouterr().out.lower()
    assert main(order) == 0
    assert "1 runs left out" in capsys.readouterr().out
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(("order", "message"), [(["--only", "table9"], "table9"), (["--jobs", "0"], "--jobs")])
def test_wrong_orders_are_named(order, message, capsys, tmp_path):
    assert main(["paper", *order, "--runs", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
