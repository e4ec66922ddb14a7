"""Names of torch that carry no promise: the whole list, what each is for, and a check when `deq` is imported.

A new torch may rename any of them. Then the import of `deq` fails and says which name is gone, in place of an
AttributeError in the middle of a backward pass. Only this room touches them; other rooms take what they need from here.
"""

# ruff: noqa: E402 - the check comes before the imports that would fail without a word of advice

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

import torch

#: Private name: what the package does with it.
NAMES: Mapping[str, str] = {
    "torch._C._are_functorch_transforms_active": "whether a torch.func transform is running",
    "torch._C._functorch.get_interpreter_stack": "which transforms are running, and in what order",
    "torch._C._functorch.TransformType.Vmap": "whether one of them is vmap",
    "torch._C._functorch.is_functorch_wrapped_tensor": "whether a closure's tensor belongs to a transform",
    "torch._C._functorch.is_legacy_batchedtensor": "whether autograd.grad is batching its right-hand sides",
    "torch._add_batch_dim": "to hand a batch back to it",
    "torch._remove_batch_dim": "to see that batch as a dimension",
    "torch._C._autograd._top_saved_tensors_default_hooks": "whether someone packs saved tensors (checkpointing)",
    "torch.utils._pytree": "states that are tuples, lists, dictionaries, dataclasses",
    "torch.utils._pytree.tree_flatten": "the same, and arguments of recorded operations",
    "torch.utils._pytree.tree_unflatten": "the same",
    "torch.utils._pytree.tree_leaves": "the same",
    "torch.utils._pytree.tree_map": "the same",
    "torch.Tensor._make_wrapper_subclass": "stand-ins that record operations",
    "torch._C._disabled_torch_function_impl": "to let them pass torch functions by",
    "torch.utils._python_dispatch.TorchDispatchMode": "to follow memory, and count operations",
}


def check_names(names: Mapping[str, str] = NAMES) -> None:
    """Make sure that this torch has every private name that is used.

    Args:
        names: dotted name below torch: what it is for.

    Raises:
        ImportError: one is gone; the text names it, and the torch.

    Example:
        >>> check_names()
        >>> try:
        ...     check_names({"torch._gone": "a test"})
        ... except ImportError as error:
        ...     print(str(error).partition(" (")[0].partition(" has ")[2])
        no torch._gone
    """
    for name, use in names.items():
        try:
            reduce(getattr, name.split(".")[1:], torch)
        except AttributeError:
            raise ImportError(f"torch {torch.__version__} has no {name} (used for: {use}). This deqproof was "
                              f"tested with torch 2.13; install that one, or a newer deqproof") from None


check_names()

from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode
from torch.utils._pytree import tree_flatten as tree_flatten
from torch.utils._pytree import tree_leaves as tree_leaves
from torch.utils._pytree import tree_map as tree_map
from torch.utils._pytree import tree_unflatten as tree_unflatten

make_wrapper_subclass = torch.Tensor._make_wrapper_subclass
disabled_torch_function = torch._C._disabled_torch_function_impl
