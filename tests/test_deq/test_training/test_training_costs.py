"""Costs of rows and the verb that prints them."""

import json

from deq.training import load_config
from deq.training.costs import measure_row
from figures.cli import main


def test_deeper_rows_need_more_memory():
    costs = [measure_row(load_config(name, smoke=True), repeats=2).peak_bytes
             for name in ("table1/cifar10-ssm", "table1/cifar10-aug8", "table1/cifar10-aug16")]
    assert costs == sorted(costs)
    assert costs[0] < costs[-1]


def test_costs_are_saved_with_their_provenance(tmp_path, capsys):
    path = tmp_path / "costs.json"
    arguments = ["costs", "table4/deq", "--set", "data.name=synthetic", "--set", "data.size=4", "--set",
                 "data.channels=1",
                 "--set", "data.batch=4", "--set", "model.dim=16", "--set", "model.width=6", "--repeats", "2",
                 "--save", str(path)]
    assert main(arguments) == 0
    assert "table4/deq-ssm" in capsys.readouterr().out
    record = json.loads(path.read_text())
    assert record["reduced"]
    assert record["rows"][0]["iterations"] > 0
    assert {"commit", "command", "device", "seed", "date"} <= record["provenance"].keys()


def test_costs_of_nothing_is_a_usage_error(capsys):
    assert main(["costs", "table9"]) == 2
    assert "no configuration begins" in capsys.readouterr().err
