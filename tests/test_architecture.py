"""The house rules that a machine can check: arrows one way, small files, no star imports."""

import ast
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
