"""Configurations: what is packaged resolves, what is wrong is named."""

import pytest
import torch

from deq.training import ConfigError, list_configs, load_config
from deq.training.config import GradientOptions
from deq.training.sources import Batches, load_source
from deq.training.task import build_model, build_optimizer

MINIMAL = '[data]\nname = "synthetic"\n[model]\nkind = "nice"\ndim = 16\nwidth = 4\n'


def write(path, text):
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", list_configs())
def test_every_row_resolves_and_builds_at_full_size(name):
    config = load_config(name)
    assert config.run.table == int(name[5])
    assert config.run.row
    assert config.choices
    with torch.device("meta"):
        model = build_model(config)
    assert sum(p.numel() for p in model.parameters()) > 1000


def test_rows_of_the_tables_are_all_there():
    counts = {table: sum(name.startswith(f"table{table}/") for name in list_configs()) for table in range(1, 6)}
    assert counts == {1: 8, 2: 27, 3: 8, 4: 7, 5: 3}


def test_smoke_and_overrides_win_over_the_file(tmp_path):
    path = write(tmp_path / "a.toml", MINIMAL + "[run]\nsteps = 7\n[smoke.run]\nsteps = 3\n")
    assert load_config(path).run.steps == 7
    assert load_config(path, smoke=True).run.steps == 3
    assert load_config(path, smoke=True, overrides={"run": {"steps": 5}}).run.steps == 5


def test_extends_merges_section_by_section(tmp_path):
    write(tmp_path / "base.toml", MINIMAL + "[run]\nsteps = 7\nseed = 4\n")
    path = write(tmp_path / "child.toml", 'extends = "base.toml"\n[run]\nsteps = 9\n')
    config = load_config(path)
    assert (config.run.steps, config.run.seed) == (9, 4)


@pytest.mark.parametrize(("text", "message"), [
    (MINIMAL + "[run]\nstep = 3\n", "did you mean 'steps'"),
    (MINIMAL + "[rum]\nsteps = 3\n", "did you mean 'run'"),
    (MINIMAL + "[run]\nsteps = 3.5\n", "steps must be int"),
    (MINIMAL + "[run]\nsteps = true\n", "steps must be int"),
    (MINIMAL.replace("width", "widht"), "did you mean 'width'"),
    (MINIMAL.replace("nice", "mlp"), "kind must be one of"),
    ('[model]\nkind = "nice"\n', r"no \[data\]"),
    ("[data]\nbatch = 3\n[model]\nkind = 'nice'\n", "name"),
    ("x = ", "not valid TOML"),
    ('extends = "a.toml"\n', "extends itself"),
    ('extends = "b.toml"\n', "does not exist"),
])
def test_mistakes_are_named(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path / "a.toml", text))


def test_unknown_configuration_suggests_near_names():
    with pytest.raises(ConfigError, match="table4/deq-ssm"):
        load_config("table4/deq-sms")


def test_unknown_choices_are_refused(tmp_path):
    path = write(tmp_path / "a.toml", MINIMAL)
    with pytest.raises(ConfigError, match="rule"):
        GradientOptions(rule="magic").build()
    with pytest.raises(ConfigError, match="cannot be built"):
        build_model(load_config(path, overrides={"model": {"variant": "resnet"}}))
    with pytest.raises(ConfigError, match="optimizer"):
        build_optimizer([], load_config(path, overrides={"optimizer": {"name": "lion"}}).optimizer)
    with pytest.raises(ConfigError, match=r"data\.name"):
        load_source(load_config(path, overrides={"data": {"name": "imagenet"}}).data)


def test_gradient_rules_are_built():
    assert GradientOptions("phantom", steps=4).build().steps == 4
    assert GradientOptions("exact", order=2).build().order == 2
    assert GradientOptions("neumann", terms=7).build().terms == 7


def test_batches_cover_an_epoch_once_and_split_over_processes():
    rows, batch = 25, 6
    whole = Batches(rows, batch, seed=1)
    epoch = torch.cat([whole(step) for step in range(4)])
    assert len(set(epoch.tolist())) == 24
    assert not torch.equal(whole(0), whole(4))
    parts = [Batches(rows, batch, 1, rank, 3)(2) for rank in range(3)]
    assert sorted(torch.cat(parts).tolist()) == sorted(whole(2).tolist())
    assert torch.equal(Batches(rows, batch, seed=1)(17), whole(17))


def test_batches_refuse_what_does_not_divide():
    with pytest.raises(ConfigError, match="cannot come from"):
        Batches(3, 4, 0)
    with pytest.raises(ConfigError, match="divide"):
        Batches(10, 4, 0, 0, 3)


def test_synthetic_images_are_the_same_each_time():
    options = load_config("table1/cifar10-ssm", smoke=True).data
    first, second = load_source(options), load_source(options)
    assert torch.equal(first.train, second.train)
    assert first.train.dtype == torch.uint8
    assert len(first.train) + len(first.validation) + len(first.test) == options.rows
