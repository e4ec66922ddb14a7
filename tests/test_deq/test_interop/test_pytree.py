from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch

from deq.interop.pytree import Layout, cast, flatten, leaves, rows_of, unflatten

Pair = namedtuple("Pair", ["a", "b"])


@dataclass
class Node:
    left: torch.Tensor
    right: dict


TREES = {
    "tensor": torch.randn(3, 2, 4),
    "one entry a sample": torch.randn(3),
    "tuple": (torch.randn(3, 2), torch.randn(3, 1, 2)),
    "nested": {"h": [torch.randn(3, 2)], "c": (torch.randn(3, 5),)},
    "named": Pair(torch.randn(3, 2), torch.randn(3)),
    "dataclass": Node(torch.randn(3, 2), {"x": torch.randn(3, 4)}),
    "complex": (torch.randn(3, 2, dtype=torch.complex64), torch.randn(3, 2)),
    "mixed": (torch.randn(3, 2, dtype=torch.float64), torch.randn(3, 2).bfloat16()),
}


@pytest.mark.parametrize("name", TREES)
def test_a_tree_comes_back_from_its_matrix(name):
    tree = TREES[name]
    layout = Layout.of(tree)
    flat = layout.pack(tree)
    assert flat.shape == (3, layout.size)
    assert not flat.dtype.is_complex
    back = layout.unpack(flat)
    assert type(back) is type(tree)
    for a, b in zip(leaves(back), leaves(tree), strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


def test_the_matrix_has_the_widest_dtype():
    assert Layout.of(TREES["mixed"]).dtype == torch.float64
    assert Layout.of(torch.zeros(2, 2, dtype=torch.complex128)).dtype == torch.float64


def test_packing_is_differentiable():
    z = (torch.randn(3, 2, requires_grad=True), torch.randn(3, 1, 2, requires_grad=True))
    flat = Layout.of(z).pack(z)
    weights = torch.arange(12.0).reshape(3, 4)
    a, b = torch.autograd.grad((flat * weights).sum(), z)
    assert torch.equal(a, weights[:, :2])
    assert torch.equal(b, weights[:, 2:].reshape(3, 1, 2))


def test_fewer_rows_and_wider_leaves():
    tree = TREES["mixed"]
    layout = Layout.of(tree)
    part = layout.unpack(layout.pack(tree)[1:], native=False)
    assert [leaf.dtype for leaf in leaves(part)] == [torch.float64, torch.float64]
    assert [len(leaf) for leaf in leaves(rows_of((*tree, torch.ones(7)), torch.tensor([0, 2]), 3))] == [2, 2, 7]
    assert cast({"n": torch.ones(2, dtype=torch.int64), "x": torch.ones(2)}, torch.float64)["x"].dtype == torch.float64


@pytest.mark.parametrize(("tree", "error", "words"), [
    ((), ValueError, "no tensors"), ((torch.zeros(2), 1.0), TypeError, "float"),
    (torch.zeros(2, dtype=torch.int64), TypeError, "int64"), (torch.tensor(1.0), ValueError, "batch dimension"),
    ((torch.zeros(2, 1), torch.zeros(3, 1)), ValueError, "disagree"),
])
def test_what_is_no_state_is_refused(tree, error, words):
    with pytest.raises(error, match=words):
        Layout.of(tree)


def test_another_state_is_refused():
    layout = Layout.of(torch.zeros(3, 2))
    with pytest.raises(ValueError, match="structure"):
        layout.pack((torch.zeros(3, 2),))
    with pytest.raises(ValueError, match="expected a state"):
        layout.pack(torch.zeros(3, 4))


def test_a_dataclass_is_a_node():
    values, structure = flatten(TREES["dataclass"])
    assert len(values) == 2
    assert isinstance(unflatten(values, structure), Node)
