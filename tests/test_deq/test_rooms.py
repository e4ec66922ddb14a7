"""The rooms as an outsider meets them: what an import needs, whose folder is found, one version, typed."""

import ast
import importlib
import importlib.machinery
import importlib.util
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import deq
from deq.rooms import ROOMS, ShadowedError, check_rooms, command, need

ROOT = Path(__file__).parents[2]
#: Rooms of `deq` that need more than torch, and say so.
WITH_EXTRAS = ("data", "training", "evaluation")
#: Lets through the standard library, torch with what its own metadata require, numpy and `deq`; nothing else.
BLOCKED = '''
import sys
ALLOWED = {"torch", "torchgen", "functorch", "typing_extensions", "sympy", "mpmath", "networkx", "jinja2", "markupsafe",
           "fsspec", "filelock", "numpy", "deq"} | set(sys.stdlib_module_names)
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in ALLOWED:
            raise ModuleNotFoundError(f"{name} is blocked by the test", name=name)
sys.meta_path.insert(0, Blocker())
'''


def run(code: str, folder: Path, *path: Path) -> subprocess.CompletedProcess[str]:
    """Run Python code in `folder`, with `path` before the project on the module path."""
    lines = "".join(f"sys.path.insert(0, {str(place)!r})\n" for place in (ROOT, *reversed(path)))
    return subprocess.run([sys.executable, "-c", f"import sys\n{lines}{code}"], cwd=folder, capture_output=True,
                          text=True, timeout=240, check=False)


def test_deq_runs_where_nothing_but_torch_is_installed(tmp_path):
    done = run(BLOCKED + '''
import torch, deq
layer = deq.DEQ(deq.DenseCell(3, 4), gradient=deq.Exact(order=3), tol=1e-5)
loss = deq.losses.score_matching(lambda x: layer(x).sum(1), torch.randn(2, 3))
loss.backward()
print(deq.__version__, all(p.grad is not None for p in layer.parameters()))
''', tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [deq.__version__, "True"]


def test_deq_imports_torch_and_numpy_alone():
    found = set()
    for path in (ROOT / "deq").rglob("*.py"):
        if path.relative_to(ROOT / "deq").parts[0] in WITH_EXTRAS:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        # What a function imports when it is called (a picture's library) is not needed to import the room.
        late = {id(inner) for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) for inner in ast.walk(node)}
        for node in ast.walk(tree):
            if id(node) in late:
                continue
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            found |= {name.partition(".")[0] for name in names}
    assert found - set(sys.stdlib_module_names) <= {"deq", "torch", "numpy"}


def test_what_lacks_is_named_with_its_extra(tmp_path):
    # A room looks for what it needs by find_spec; let it see no third-party package but torch.
    done = run('''
import importlib, importlib.util
seen = importlib.util.find_spec
ours = {"deq", "analysis", "verification", "figures", "torch", "numpy"}
importlib.util.find_spec = lambda name: seen(name) if name in ours else None
for room in ("deq", "analysis", "verification", "figures", "deq.training", "deq.data", "deq.evaluation"):
    try:
        importlib.import_module(room)
        print(room, "is there")
    except ModuleNotFoundError as error:
        print(room, error)
''', tmp_path)
    assert done.returncode == 0, done.stderr
    for line, (room, extra) in zip(done.stdout.splitlines(), [
        ("deq", None), ("analysis", "verify"), ("verification", "verify"), ("figures", "verify"),
        ("deq.training", "train"), ("deq.data", "train"), ("deq.evaluation", "train"),
    ], strict=True):
        assert line.startswith(f"{room} {room} needs " if extra else f"{room} is there")
        assert extra is None or line.endswith(f"installed: pip install 'deqproof[{extra}]'")


@pytest.fixture
def look_first(monkeypatch, tmp_path):
    """Let Python look for packages in a stranger's folder before ours, loaded or not."""
    finder = importlib.machinery.PathFinder.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: finder(name, [str(tmp_path), str(ROOT)]))
    return tmp_path


@pytest.mark.parametrize("name", ["analysis", "verification", "figures"])
@pytest.mark.parametrize("kind", ["package", "module"])
def test_a_stranger_of_the_same_name_is_named(look_first, name, kind):
    place = look_first / name / "__init__.py" if kind == "package" else look_first / f"{name}.py"
    place.parent.mkdir(exist_ok=True)
    place.write_text("")
    with pytest.raises(ShadowedError) as caught:
        check_rooms()
    assert str(caught.value).startswith(f"{place} hides the package '{name}' of deqproof, which is {ROOT / name}")


def test_a_folder_without_code_is_no_stranger(look_first):
    (look_first / "figures").mkdir()  # a results folder, say: a namespace, which a package further on the path beats
    check_rooms()


def test_a_namespace_that_is_found_first_is_a_stranger(tmp_path, monkeypatch):
    (tmp_path / "figures").mkdir()  # an editable install is looked up after all folders of the path
    finder = importlib.machinery.PathFinder.find_spec
    monkeypatch.setattr(importlib.util, "find_spec",
                        lambda name: finder(name, [str(tmp_path)]) or finder(name, [str(ROOT)]))
    with pytest.raises(ShadowedError, match="hides the package 'figures'"):
        check_rooms()


def test_the_script_says_so_in_one_line(tmp_path):
    (tmp_path / "analysis.py").write_text("")
    done = run("from deq.rooms import command\ncommand()", tmp_path, tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"deqproof: {tmp_path / 'analysis.py'} hides the package 'analysis' of deqproof")
    assert len(done.stderr.splitlines()) == 1


def test_a_room_that_is_missing(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ShadowedError, match="'deq' of deqproof is missing"):
        check_rooms()
    with pytest.raises(SystemExit, match="deqproof: the package 'deq' of deqproof is missing"):
        command()


def test_need_lists_everything_that_lacks():
    with pytest.raises(ModuleNotFoundError, match=r"needs no_a, no_b, which are not installed: pip install 'deq"):
        need("room", "x", ["torch", "no_a", "no_b"])


def test_the_script_and_the_module_are_alike(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["deqproof", "--version"])
    with pytest.raises(SystemExit) as stop:
        command()
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"deqproof {deq.__version__}\n"


def test_metadata():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"deqproof": "deq.rooms:command"}
    assert {item.partition(">")[0] for item in project["dependencies"]} <= {"torch", "numpy"}
    assert {"verify", "train", "cluster", "peers", "docs", "dev"} <= set(project["optional-dependencies"])
    assert f"\nversion: {deq.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## [{deq.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")
    assert all((ROOT / room / "py.typed").is_file() for room in ROOMS)
