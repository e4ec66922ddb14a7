"""Private names of torch: all are listed, all are there, only one room uses them, and a missing one is named."""

import ast
from pathlib import Path

import pytest
import torch

from deq.interop.private import NAMES, TorchDispatchMode, check_names, tree_leaves
from deq.rooms import ROOMS

ROOT = Path(__file__).parents[3]


def dotted(node: ast.AST) -> str:
    """`a.b.c` of nested attributes of a name, else nothing."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def private_names(text: str) -> set[str]:
    """Names below torch with a part that begins with an underscore, as a file uses or imports them."""
    tree = ast.parse(text)
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in inner:
            found.add(dotted(node))
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.startswith("torch.")
            and any(part[0] == "_" and part[1] != "_" for part in name.split("."))}


def test_the_scan_sees_every_form():
    text = ("import torch._a\nfrom torch._b import c\nfrom torch import nn\n"
            "torch._C._d(1)\ntorch.nn.Linear\ntorch.__version__")
    assert private_names(text) == {"torch._a", "torch._b.c", "torch._C._d"}


def test_only_one_room_uses_them_and_lists_them():
    used = {path: private_names(path.read_text(encoding="utf-8"))
            for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    room = ROOT / "deq" / "interop"
    assert {str(path.relative_to(ROOT)): names for path, names in used.items()
            if names and path.parent != room} == {}
    assert set().union(*(used[path] for path in room.glob("*.py"))) == set(NAMES)


def test_all_are_there():
    check_names()


def test_one_that_is_gone_is_named():
    with pytest.raises(ImportError, match=r"has no torch\._C\._gone \(used for: nothing\).*tested with torch 2\.13"):
        check_names({"torch._C._gone": "nothing"})


def test_what_other_rooms_take_from_here_does_what_they_want():
    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(func)
            return func(*args, **(kwargs or {}))

    with Watch():
        torch.ones(2) + 1
    assert torch.ops.aten.add.Tensor in seen
    assert tree_leaves({"a": [1, (2,)]}) == [1, 2]


def test_attributes_of_objects_that_are_looked_at():
    module = torch.nn.Linear(1, 1)
    for name in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks"):
        assert len(getattr(module, name)) == 0, f"torch {torch.__version__}: nn.Module.{name} changed"
    tensor = torch.zeros(1)
    before = tensor._version
    tensor.add_(1)
    assert tensor._version == before + 1
