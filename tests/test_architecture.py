"""The house rules that a machine can check: arrows one way, small files, no star imports."""

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ORDER = ["deq", "analysis", "verification", "figures"]
FILES = sorted(path for package in ORDER for path in (ROOT / package).rglob("*.py"))


def imported_packages(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_house_rules(path: Path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = path.relative_to(ROOT).parts[0]
    above = set(ORDER[ORDER.index(package) + 1:])
    assert not imported_packages(tree) & above, f"{path} imports from a package above it"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, f"{path} is two rooms in one"
    stars = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and any(a.name == "*" for a in n.names)]
    assert not stars, f"{path} has a star import"


#: Folders that exist on one machine only; in the packages temporary folders too, which `tempfile` or the user names.
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:home|Users|root|mnt|scratch|srv|work|farm)/")
PASSING_PATH = re.compile(MACHINE_PATH.pattern + r"|(?<![\w.~-])/(?:var/)?tmp/")
TEXTS = {".py", ".md", ".toml", ".txt", ".json", ".html", ".css", ".js", ".svg", ".yml", ".yaml"}


def committed_texts() -> list[Path]:
    folders = [ROOT / name for name in (*ORDER, "tests", ".ci", "docs")]
    inside = [path for folder in folders for path in folder.rglob("*") if path.suffix in TEXTS or path.parent == folder]
    return sorted(path for path in [*ROOT.glob("*"), *inside]
                  if path.is_file() and (path.suffix in TEXTS or (path.suffix == "" and path.name[0] != ".")))


def test_no_text_names_a_path_of_one_machine():
    found = []
    for path in committed_texts():
        inside = path.relative_to(ROOT)
        pattern = PASSING_PATH if inside.parts[0] in ORDER else MACHINE_PATH
        hits = pattern.finditer(path.read_text(encoding="utf-8"))
        found += [f"{inside}: {hit.group()}" for hit in hits]
    assert not found


def test_the_rule_on_paths_sees_what_it_should():
    parts = ["", "home", "somebody", "data"]
    assert MACHINE_PATH.search("read " + "/".join(parts))
    assert PASSING_PATH.search("--out " + "/".join(["", "tmp", "one"]))
    assert not MACHINE_PATH.search("https://example.org" + "/".join(parts))
    assert {"README.md", "Makefile", "run"} <= {path.name for path in committed_texts()}


#: Packages all of whose exported classes and functions must show how they are used.
SHOWN = ("deq", "deq.losses", "deq.models", "analysis")


def exported(package: str) -> dict[str, object]:
    """Classes and functions that a package exports."""
    module = importlib.import_module(package)
    listed = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
    found = {f"{package}.{name}": getattr(module, name) for name in listed}
    return {name: item for name, item in found.items()
            if (inspect.isclass(item) or inspect.isfunction(item)) and name != "analysis.need"}


@pytest.mark.parametrize("package", SHOWN)
def test_every_exported_name_has_an_example(package):
    names = exported(package)
    assert len(names) > 3
    assert [name for name, item in names.items() if ">>> " not in (item.__doc__ or "")] == []
