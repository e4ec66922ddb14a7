"""Every bad subject file gets one clear line and exit status 2; a map that is none fails `map` with one."""

import json
import textwrap

import jsonschema
import pytest

from figures.cli import main

HEAD = "import torch, deq\nx = torch.ones(3, 2)\n"
GOOD = HEAD + "def make():\n    return deq.Subject(lambda z, x: 0.5 * z + x, torch.zeros(3, 2), (x,))\n"


@pytest.fixture
def write(tmp_path):
    def put(text):
        path = tmp_path / "model.py"
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path
    return put


BAD = {
    "import error": ("import no_such_package_at_all\n", "No module named"),
    "syntax error": ("def make(:\n", "SyntaxError"),
    "no make": (HEAD, "has no 'make'"),
    "make is a number": (HEAD + "make = 3\n", "not a function"),
    "make raises": (HEAD + "def make():\n    return 1 / 0\n", "ZeroDivisionError"),
    "CUDA only": (HEAD + "def make():\n    raise RuntimeError('No CUDA GPUs are available')\n", "No CUDA GPUs"),
    "exits": ("import sys\nsys.exit(3)\n", "SystemExit"),
    "wrong return": (HEAD + "def make():\n    return x\n", "returned a Tensor, not a deq.Subject"),
    "no return": (HEAD + "def make():\n    pass\n", "returned None"),
    "no state": (HEAD + "def make():\n    return deq.Subject(lambda z: z, 0.0)\n", "z0 holds float"),
    "integers": (HEAD + "def make():\n    return deq.Subject(lambda z: z, torch.zeros(3, dtype=int))\n", "int64"),
    "empty": (HEAD + "def make():\n    return deq.Subject(lambda z: z, torch.zeros(0, 3))\n", "empty"),
    "no map": (HEAD + "def make():\n    return deq.Subject(None, x)\n", "must be callable"),
    "declared": (HEAD + "def make():\n    return deq.Subject(lambda z: z, x, declared='phantom')\n", "'phantom:K'"),
    "parameters": (HEAD + "def make():\n    return deq.Subject(lambda z: z, x, parameters=[1.0])\n", "float among"),
    "loss shape": (HEAD + "w = torch.ones(2, requires_grad=True)\ndef make():\n    return deq.Subject(lambda z: w * z "
                          "/ 2 + 1, x, loss=lambda z: z)\n", "loss(z, *inputs) must return [batch] = (3,) or a number"),
    "loss raises": (HEAD + "def make():\n    return deq.Subject(lambda z: z / 2, x, loss=lambda z: z @ z)\n", "loss(z"),
    "forward shape": (HEAD + "def make():\n    return deq.Subject(lambda z: z / 2, x, forward=lambda: x[0])\n",
                      "forward() "),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_gets_one_line(name, write, capsys):
    text, words = BAD[name]
    assert main(["audit", f"{write(text)}:make"]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert "Traceback" not in said


@pytest.mark.parametrize(("target", "words"), [("nofile.py:make", "no file"), ("model", "names no subject"),
                                               ("no_such_package:make", "cannot be imported"), (":make", "no subject")])
def test_a_bad_target_gets_one_line(target, words, capsys):
    assert main(["audit", target]) == 2
    assert words in capsys.readouterr().err


MAPS = {
    "NaN": ("lambda z: z + float('nan')", "NaN"),
    "shapes": ("lambda z: z[:, :1]", "shape (3, 1)"),
    "dtype": ("lambda z: z.double()", "float64"),
    "raises": ("lambda z: z @ torch.ones(5)", "RuntimeError"),
    "needs CUDA": ("lambda z: z.cuda()", "device"),
    "returns nothing": ("lambda z: None", "NoneType"),
}


@pytest.mark.parametrize("name", MAPS)
def test_what_is_no_map_fails_with_a_line(name, write, tmp_path, capsys):
    text, words = MAPS[name]
    path = write(HEAD + f"def make():\n    return deq.Subject({text}, torch.zeros(3, 2))\n")
    assert main(["audit", f"{path}:make", "--json", str(tmp_path / "a.json")]) == 1
    checks = {check["name"]: check for check in json.loads((tmp_path / "a.json").read_text())["checks"]}
    assert checks["map"]["verdict"] == "fails"
    assert words in checks["map"]["finding"] + checks["map"]["advice"]
    assert {check["verdict"] for name, check in checks.items() if name != "map"} == {"not-applicable"}
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_without_parameters_gradients_are_not_applicable(write, tmp_path, capsys):
    path = write(HEAD + "def make():\n    return deq.Subject(lambda z: z / 2 + 1, torch.zeros(3, 2), "
                        "forward=lambda: torch.full((3, 2), 2.0))\n")
    assert main(["audit", f"{path}:make", "--json", str(tmp_path / "a.json")]) == 0
    checks = {check["name"]: check for check in json.loads((tmp_path / "a.json").read_text())["checks"]}
    assert checks["gradient"]["verdict"] == "not-applicable"
    assert "no tensor that requires grad" in checks["gradient"]["finding"]


def test_page_and_data(write, tmp_path, capsys):
    from importlib import resources
    assert main(["audit", f"{write(GOOD)}:make", "--out", str(tmp_path / "out"), "--steps", "1", "3", "--budget",
                 "30"]) == 0
    said = capsys.readouterr().out
    assert "no check fails" in said
    assert max(len(line) for line in said.splitlines() if not line.startswith("page:")) <= 80
    data = json.loads((tmp_path / "out" / "audit.json").read_text())
    schema = json.loads((resources.files("verification.audit") / "schema.json").read_text())
    jsonschema.validate(data, schema)
    page = (tmp_path / "out" / "audit.html").read_text()
    assert page.count("<article") == 11
    for outside in ('src="http', 'href="http', "@import", "url(http"):
        assert outside not in page
    radius = next(check for check in data["checks"] if check["name"] == "contraction")["numbers"]["radius"]
    assert radius == pytest.approx(0.5, abs=1e-8)  # z / 2 + x


def test_a_number_out_of_range_is_a_usage_error(write):
    with pytest.raises(SystemExit) as ended:
        main(["audit", f"{write(GOOD)}:make", "--order", "4"])
    assert ended.value.code == 2
