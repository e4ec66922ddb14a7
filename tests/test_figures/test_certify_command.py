"""`deqproof certify` from the command line: proves, refuses with a reason, and checks its own certificates."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from figures import cli


@pytest.fixture
def model(tmp_path, rng):
    weight = rng.normal(size=(5, 5))
    weight *= 0.8 / np.linalg.norm(weight, 2)
    path = tmp_path / "model.safetensors"
    tensors = {"W": weight, "U": rng.normal(size=(5, 2)), "b": rng.normal(size=5), "a": rng.normal(size=5)}
    save_file({key: torch.tensor(value) for key, value in tensors.items()}, path, {"activation": "tanh"})
    np.savetxt(tmp_path / "x.csv", rng.normal(size=(1, 2)), delimiter=",")
    return path, tmp_path / "x.csv"


def test_prove_then_check(model, capsys):
    path, x = model
    assert cli.main(["certify", str(path), "--input", str(x), "--steps", "1", "3"]) == 0
    shown = capsys.readouterr().out
    assert "an equilibrium, enclosed" in shown
    assert "K =   3" in shown
    certificate = path.with_name("model.safetensors.certificate.json")
    assert str(certificate) in shown
    assert cli.main(["certify", "--check", str(certificate), str(path)]) == 0
    assert "every claim confirmed" in capsys.readouterr().out
    content = json.loads(certificate.read_text())
    content["claims"]["trace"]["low"] = content["claims"]["trace"]["high"]
    certificate.write_text(json.dumps(content))
    assert cli.main(["certify", "--check", str(certificate)]) == 1
    assert "REJECTED: the digest" in capsys.readouterr().err


def test_what_cannot_be_proved_says_why(model, capsys, tmp_path):
    _, x = model
    singular = tmp_path / "singular.safetensors"
    save_file({"W": torch.eye(2), "U": torch.eye(2), "b": torch.ones(2)}, singular, {"activation": "identity"})
    assert cli.main(["certify", str(singular), "--input", str(x)]) == 1
    assert "not certified: I - J" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "message"), [
    ([], "give a CHECKPOINT"),
    (["{model}"], "give a CHECKPOINT"),
    (["{model}", "--input", "nowhere.csv"], "there is no input file"),
    (["nowhere.safetensors", "--input", "{x}"], "there is no file"),
    (["{x}", "--input", "{x}"], "not a readable safetensors file"),
    (["{model}", "--input", "{x}", "--tensor", "Q=w"], "KEY=NAME"),
    (["{model}", "--input", "{x}", "--bits", "10"], "at least 64"),
    (["{model}", "--input", "{x}", "--row", "4"], "no row 4"),
    (["{model}", "--input", "{x}", "--out", "/nonexistent/folder/c.json"], "cannot write"),
    (["--check", "nowhere.json"], "cannot read"),
    (["--check", "{x}", "--input", "{x}"], "drop --input"),
])
def test_usage_errors_are_one_line(model, capsys, words, message):
    path, x = model
    assert cli.main(["certify", *(word.format(model=path, x=x) for word in words)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_damaged_certificates_are_rejected(model, capsys, tmp_path):
    path, x = model
    whole = tmp_path / "whole.json"
    assert cli.main(["certify", str(path), "--input", str(x), "--steps", "1", "--out", str(whole)]) == 0
    text = whole.read_text()
    head = '{"format": "deqproof certificate", "version": '
    for content, message in (
            ("{", "is not JSON"), (text[:len(text) // 2], "is not JSON"), ("", "is not JSON"), ("[1]", "no deqproof"),
            ("{}", "no deqproof"), ("7", "no deqproof"), (head + '1, "digest": ""}', "of version 1, not 2"),
            (head + '2, "digest": ""}', "lacks 'model'"), (head + "true}", "of version True"),
            (head + "9" * 5000 + "}", "holds a number that no certificate has"),
            (head + "NaN}", "NaN is not a number"), (head + "-Infinity}", "-Infinity is not a number"),
            ("[" * 100_000, "nested too deeply"), (b"\xff\xfe" + text.encode(), "is not UTF-8"),
            (text.replace('"claims": {', '"claims": {"trace": 1, ', 1), "key 'trace' stands twice"),
            (text.replace('"claims": {', '"claims": {"lipschitz": "1", ', 1), "unknown key 'lipschitz'")):
        damaged = tmp_path / "damaged.json"
        damaged.write_bytes(content if isinstance(content, bytes) else content.encode())
        assert cli.main(["certify", "--check", str(damaged)]) == 1
        error = capsys.readouterr().err
        assert error.startswith("REJECTED: ")
        assert message in error
        assert error.count("\n") == 1
