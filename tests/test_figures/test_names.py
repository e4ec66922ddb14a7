"""Every name on the command line that is mistyped gets the near ones in the complaint, and status 2."""

import re

import pytest

from analysis import as_activation
from analysis.rigorous.balls import NotCertified
from analysis.rigorous.smooth import ball_activation
from figures import cli


@pytest.mark.parametrize(("words", "near"), [
    (["verfy"], "'verify'"),
    (["figure"], "'figures'"),
    (["verify", "--scale", "smoek"], "'smoke'"),
    (["data", "lst"], "'list'"),
    (["data", "list", "parkinsons"], "'parkinson'"),
    (["bench", "gradients"], "'gradient'"),
    (["claims", "--only", "equivalant"], "equivalents"),
    (["compare", "--table", "redwin"], "'redwine'"),
    (["compare", "--rules", "exakt"], "'exact'"),
    (["train", "table4/deq-sm"], "table4/deq-ssm"),
    (["costs", "tabel4"], "table4/"),
])
def test_a_slip_is_answered_with_what_is_near(words, near, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DEQPROOF_DATA", raising=False)
    try:
        status = cli.main(words)
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    error = capsys.readouterr().err
    hint = re.search(r"(?:did you mean|near it:) (.*)", error)
    assert hint is not None, error
    assert near in hint[1]


def test_figures(tmp_path, capsys, store_of_nothing):
    assert cli.main(["figures", "kernel", "--out", str(store_of_nothing)]) == 2
    assert "did you mean" in capsys.readouterr().err


@pytest.fixture
def store_of_nothing(tmp_path, monkeypatch):
    """A results folder of a run that checked no claim."""
    for module in ("verify", "figures"):
        monkeypatch.setattr(f"figures.commands.{module}.load_topics", list)
    assert cli.main(["verify", "--out", str(tmp_path / "out")]) == 0
    return tmp_path / "out"


def test_activations():
    with pytest.raises(ValueError, match="did you mean 'softplus'"):
        as_activation("softpluss")
    with pytest.raises(NotCertified, match="did you mean 'tanh'"):
        ball_activation("than")
