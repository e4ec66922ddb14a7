"""Rules of operations that move, pick, join or sum entries: linear in their tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from deq.density.jet import Jet
from deq.density.rules import LINEAR, RULES, each, mapped, scaled, spread
from deq.interop.private import tree_flatten, tree_unflatten

__all__: list[str] = []
_ATEN = torch.ops.aten


def _from_the_end(dims: Any, rank: int) -> Any:
    if isinstance(dims, int):
        return dims if dims < 0 else dims - rank
    return [_from_the_end(dim, rank) for dim in dims]


def _by_dims(place: int, extra: int = 0, default: Any = None) -> Callable:
    """A linear operation whose argument `place` names dimensions; counted from the end, directions may come first."""
    def rule(call: Any, jet: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(jet, Jet):
            return NotImplemented
        given = list(args)
        if len(given) < place and default is not None:
            given.append(default)
        rank = jet.value.dim()
        if len(given) < place or given[place - 1] is None or given[place - 1] == []:
            given[place - 1:place] = [list(range(rank))]
        given[place - 1] = _from_the_end(given[place - 1], rank + extra)

        def run(t: Tensor) -> Tensor:
            return call(t, *given, **kwargs)

        return mapped(jet, run, run)
    return rule


for _overload in (_ATEN.sum.dim_IntList, _ATEN.mean.dim, _ATEN.flip.default, _ATEN.squeeze.dims):
    RULES[_overload] = _by_dims(1)
for _overload in (_ATEN.select.int, _ATEN.squeeze.dim, _ATEN.cumsum.default, _ATEN.index_select.default):
    RULES[_overload] = _by_dims(1)
RULES[_ATEN.slice.Tensor] = _by_dims(1, default=0)
RULES[_ATEN.unsqueeze.default] = _by_dims(1, extra=1)


def _transpose(call: Any, jet: Jet, a: int = 0, b: int = 1) -> Jet:
    rank = jet.value.dim()
    if rank < 2:
        return jet
    a, b = _from_the_end(a, rank), _from_the_end(b, rank)
    return mapped(jet, lambda t: t.transpose(a, b), lambda t: t.transpose(a, b))


RULES[_ATEN.transpose.int] = RULES[_ATEN.t.default] = _transpose


def _permute(call: Any, jet: Jet, dims: Sequence[int]) -> Jet:
    rank = jet.value.dim()
    given, order = tuple(dims), (0, *(dim % rank + 1 for dim in dims))
    return mapped(jet, lambda t: t.permute(given), lambda t: t.permute(order))


RULES[_ATEN.permute.default] = _permute


def _reshape(call: Any, jet: Jet, *args: Any, **kwargs: Any) -> Jet:
    value = jet.value.reshape(*args)
    return Jet(value, jet.first.reshape(len(jet.first), *value.shape),
               None if jet.laplacian is None else jet.laplacian.reshape(value.shape))


for _overload in (_ATEN.view.default, _ATEN._unsafe_view.default, _ATEN.reshape.default):
    RULES[_overload] = _reshape


def _expand(call: Any, jet: Jet, sizes: Sequence[int], **_: Any) -> Jet:
    value = jet.value.expand(sizes)
    return Jet(value, spread(jet.first, value.dim()).expand(len(jet.first), *value.shape),
               None if jet.laplacian is None else jet.laplacian.expand(value.shape))


RULES[_ATEN.expand.default] = _expand


def _same(call: Any, jet: Jet, *_: Any, **kwargs: Any) -> Any:
    wanted = kwargs.get("dtype")
    return jet if wanted in (None, jet.value.dtype) and kwargs.get("device") in (None, jet.value.device) else \
        NotImplemented


for _overload in (_ATEN.clone.default, _ATEN._to_copy.default):
    RULES[_overload] = _same


def _total(call: Any, jet: Jet, **_: Any) -> Jet:
    return mapped(jet, lambda t: t.sum(), lambda t: t.flatten(1).sum(1))


RULES[_ATEN.sum.default] = _total
RULES[_ATEN.mean.default] = lambda call, jet, **_: scaled(_total(call, jet), 1 / jet.value.numel())


def _affine(count: int) -> Callable:
    """Linear in the first `count` tensors (or lists, or numbers) together: for derivatives constants become zeros."""
    def rule(call: Any, *args: Any, **kwargs: Any) -> Any:
        flat, spec = tree_flatten((args, kwargs), is_leaf=lambda item: isinstance(item, Jet))
        linear = _linear_slots(args, count)
        slots = [i for i, item in enumerate(flat) if isinstance(item, Jet)]
        if any(i not in linear for i in slots):
            return NotImplemented

        def run(tensors: Sequence[Tensor], constants: bool) -> Any:
            items = list(flat)
            for i in linear:
                if not isinstance(items[i], Jet) and not constants and items[i] is not None:
                    items[i] = torch.zeros_like(items[i]) if isinstance(items[i], Tensor) else 0.0
            for i, tensor in zip(slots, tensors, strict=True):
                items[i] = tensor
            inner_args, inner_kwargs = tree_unflatten(items, spec)
            return call(*inner_args, **inner_kwargs)

        jets: list[Jet] = [flat[i] for i in slots]
        value = run([jet.value for jet in jets], True)
        first = torch.vmap(lambda *tensors: run(tensors, False))(*(jet.first for jet in jets))
        laplacian = None
        if jets[0].laplacian is not None:
            laplacian = run([jet.laplacian for jet in jets], False)  # type: ignore[misc]
        if not isinstance(value, (tuple, list)):
            return Jet(value, first, laplacian)
        return tuple(Jet(v, f, None if laplacian is None else laplacian[i])
                     for i, (v, f) in enumerate(zip(value, first, strict=True)))
    return rule


def _linear_slots(args: tuple, count: int) -> set[int]:
    """Places, in the flattened arguments, of what the operation is linear in: tensors, then numbers in their stead."""
    slots: set[int] = set()
    place = seen = 0
    for arg in args:
        leaves = tree_flatten(arg, is_leaf=lambda item: isinstance(item, Jet))[0]
        listed = isinstance(arg, (tuple, list)) and any(isinstance(leaf, (Jet, Tensor)) for leaf in leaves)
        tensor = isinstance(arg, Jet) or (isinstance(arg, Tensor) and arg.is_floating_point())
        if seen < count and (tensor or listed):
            slots.update(range(place, place + len(leaves)))
            seen += 1
        place += len(leaves)
    return slots


for _overload in (
        _ATEN.constant_pad_nd.default, _ATEN.roll.default, _ATEN.tril.default, _ATEN.triu.default,
        _ATEN.diagonal.default, _ATEN.diag_embed.default, _ATEN.gather.default, _ATEN.index.Tensor,
        _ATEN.unfold.default, _ATEN.repeat.default, _ATEN.split.Tensor, _ATEN.split_with_sizes.default,
        _ATEN.unbind.int, _ATEN.avg_pool2d.default, _ATEN._adaptive_avg_pool2d.default, _ATEN.reflection_pad1d.default,
        _ATEN.replication_pad1d.default, _ATEN.reflection_pad2d.default, _ATEN.replication_pad2d.default,
        _ATEN.upsample_nearest1d.default, _ATEN.upsample_nearest2d.default, _ATEN.upsample_linear1d.default,
        _ATEN.upsample_bilinear2d.default, _ATEN.im2col.default, _ATEN.trace.default, _ATEN.rot90.default,
        _ATEN.squeeze.default, _ATEN.pixel_shuffle.default):
    RULES[_overload] = _affine(1)
for _overload in (_ATEN.cat.default, _ATEN.stack.default):
    RULES[_overload] = _affine(1)
for _overload in (_ATEN.scatter.src, _ATEN.scatter_add.default, _ATEN.index_add.default, _ATEN.index_copy.default,
                  _ATEN.select_scatter.default, _ATEN.slice_scatter.default):
    RULES[_overload] = _affine(2)


def _where(call: Any, condition: Tensor, a: Any, b: Any) -> Jet:
    return choose(condition, a, b)


def choose(condition: Tensor, a: Any, b: Any) -> Jet:
    """A where the condition holds, else b."""
    value = torch.where(condition, a.value if isinstance(a, Jet) else a, b.value if isinstance(b, Jet) else b)
    jet = a if isinstance(a, Jet) else b
    nothing = value.new_zeros(())
    first, other = (spread(item.first, value.dim()) if isinstance(item, Jet) else nothing for item in (a, b))
    bent, plain = (item.laplacian if isinstance(item, Jet) else nothing for item in (a, b))
    laplacian = None if jet.laplacian is None else torch.where(condition, bent, plain)  # type: ignore[arg-type]
    return Jet(value, torch.where(condition, first, other), laplacian)


RULES[_ATEN.where.self] = _where
RULES[_ATEN.masked_fill.Scalar] = lambda call, jet, mask, value: choose(~mask, jet, value)


def _picked(call: Any, jet: Jet, *args: Any, **kwargs: Any) -> Any:
    """Values and where they were found along one dimension: max, sort, topk, kthvalue and their like."""
    _, indices = call(jet.value, *args, **kwargs)
    rank = jet.value.dim()
    place = {"topk": 1, "kthvalue": 1}.get(call.overloadpacket.__name__, 0)
    dim = _from_the_end(args[place] if len(args) > place else kwargs.get("dim", -1), rank)
    keepdim = indices.dim() == rank
    where = indices if keepdim else indices.unsqueeze(dim)

    def pick(t: Tensor) -> Tensor:
        found = t.gather(dim, where)
        return found if keepdim else found.squeeze(dim)

    return Jet(pick(jet.value), each(pick, jet.first), None if jet.laplacian is None else pick(jet.laplacian)), None


for _overload in (_ATEN.max.dim, _ATEN.min.dim, _ATEN.sort.default, _ATEN.topk.default, _ATEN.kthvalue.default,
                  _ATEN.median.dim):
    RULES[_overload] = _picked


def _pooled(call: Any, jet: Jet, *args: Any, **kwargs: Any) -> Any:
    value, indices = call(jet.value, *args, **kwargs)

    def pick(t: Tensor) -> Tensor:
        return t.flatten(-2).gather(-1, indices.flatten(-2)).reshape(value.shape)

    return Jet(pick(jet.value), each(pick, jet.first), None if jet.laplacian is None else pick(jet.laplacian)), None


RULES[_ATEN.max_pool2d_with_indices.default] = _pooled

LINEAR.update(overload for overload, rule in RULES.items() if rule.__module__ == __name__)
