"""Configurations: what is packaged resolves, what is wrong is named."""

import pytest
import torch

from deq.training import ConfigError, list_configs, load_config
from deq.training.options import DataOptions, GradientOptions
from deq.training.sources import Batches, load_source
from deq.training.task import build_model

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
    with pytest.raises(ValueError, match="rule"):
        GradientOptions(rule="magic")
    with pytest.raises(ConfigError, match="cannot be built"):
        build_model(load_config(path, overrides={"model": {"variant": "resnet"}}))
    with pytest.raises(ValueError, match="celeba"):
        DataOptions("celebA")


@pytest.mark.parametrize(("place", "value", "message"), [
    ("optimizer.lr", 0.0, r"optimizer\.lr: it should be greater than 0, not 0\.0"),
    ("optimizer.lr", -1e-3, r"optimizer\.lr"), ("optimizer.lr", float("nan"), r"optimizer\.lr"),
    ("optimizer.lr", float("inf"), r"optimizer\.lr"), ("optimizer.lr", "fast", r"optimizer\.lr must be float"),
    ("optimizer.clip", -1.0, r"optimizer\.clip"), ("optimizer.clip", float("nan"), r"optimizer\.clip"),
    ("optimizer.ema", 1.0, r"optimizer\.ema"), ("optimizer.patience", -1, r"optimizer\.patience"),
    ("optimizer.weight_decay", -1e-9, "weight_decay"),
    ("optimizer.name", "adamm", "did you mean 'adam'"), ("optimizer.name", "lion", r"known are adam, rmsprop, sgd"),
    ("run.steps", 0, r"run\.steps"), ("run.steps", -5, r"run\.steps"), ("run.log_every", 0, "log_every"),
    ("run.checkpoint_every", 0, "checkpoint_every"), ("run.keep", 0, r"run\.keep"), ("run.seed", -1, r"run\.seed"),
    ("run.precision", "16-true", r"run\.precision"), ("run.precision", "64true", "did you mean '64-true'"),
    ("data.batch", 0, r"data\.batch"), ("data.batch", -2, r"data\.batch"), ("data.limit", -1, r"data\.limit"),
    ("data.name", "imagenet", r"data\.name"), ("data.name", "mnits", "did you mean 'mnist'"),
    ("data.name", "redwine", "holds rows, which nice does not take"), ("data.split", "80/10/10", r"data\.split"),
    ("gradient.rule", "magic", r"gradient\.rule"), ("gradient.steps", 0, r"gradient\.steps"),
    ("gradient.damping", 0.0, "damping"), ("gradient.damping", 1.5, "damping"), ("gradient.order", 0, "order"),
    ("objective.kind", "ssmvr", "did you mean 'ssm"), ("objective.sigma", 0.0, "sigma"),
    ("objective.score_updates", 0, "score_updates"), ("objective.distribution", "uniform", "rademacher"),
    ("model.kind", "nicer", "did you mean 'nice'"),
])
def test_values_out_of_range_are_refused_before_anything_runs(tmp_path, place, value, message):
    section, key = place.split(".")
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(write(tmp_path / "a.toml", MINIMAL), overrides={section: {key: value}})
    assert "a.toml" in str(caught.value)
    assert "pydantic" not in str(caught.value)


@pytest.mark.parametrize(("name", "overrides", "message"), [
    ("table2/redwine-sm", {"objective": {"kind": "mle"}}, "not known for dkef"),
    ("table2/redwine-sm", {"data": {"name": "mnist"}}, "holds images, which dkef does not take"),
    ("table2/redwine-sm", {"data": {"batch": 7}}, "must be even"),
    ("table5/deq", {"objective": {"kind": "dsm"}}, "not known for ncsn"),
    ("table5/deq", {"run": 3}, "run must be a section"), ("table5/deq", {"model": "deq"}, "model must be a section")])
def test_what_does_not_fit_together_is_refused(name, overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_config(name, overrides=overrides)


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
