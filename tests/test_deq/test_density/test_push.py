"""Jets through single operations: against nested reverse mode, and against nested forward mode where that is right."""

import warnings
from contextlib import suppress

import pytest
import torch
from torch import Tensor

import deq
from deq.density import push as pushing
from deq.density.jet import Jet, coordinate_jet
from deq.density.push import push
from deq.density.rules import RULES
from deq.density.tape import NotRecordable, record
from deq.interop.right_derivatives import right_derivatives
from tests.zoo import ZOO, points

# One of each rule, and operations without one; the rest is `slow`.
COMMON = [
    "tanh",
    "sigmoid",
    "exp",
    "log",
    "rsqrt",
    "sin",
    "erf",
    "pow scalar",
    "pow integer",
    "where",
    "masked_fill",
    "gelu",
    "gelu tanh",
    "silu",
    "mish",
    "softplus beta",
    "elu",
    "logsigmoid",
    "softmax",
    "log_softmax",
    "glu",
    "relu",
    "leaky_relu",
    "add",
    "mul",
    "div",
    "addcmul",
    "addcdiv",
    "lerp",
    "maximum",
    "hypot",
    "logaddexp",
    "sum",
    "mean",
    "cumsum",
    "logsumexp",
    "std",
    "norm",
    "max",
    "sort",
    "topk",
    "cat",
    "stack",
    "split",
    "gather",
    "advanced index",
    "scatter_add",
    "flip",
    "roll",
    "pad constant",
    "diag_embed",
    "linear",
    "matmul",
    "addmm",
    "bmm",
    "baddbmm",
    "einsum",
    "conv1d",
    "conv2d",
    "conv_transpose2d",
    "layer_norm affine",
    "rms_norm affine",
    "group_norm",
    "batch_norm eval",
    "instance_norm",
    "attention",
    "multihead",
    "encoder layer",
    "gru cell",
    "lstm cell",
    "avg_pool2d",
    "max_pool2d",
    "interpolate bilinear",
    "inv",
    "logdet",
]
REFUSED = {
    "cdist",
    "cdist 1",
    "pdist",
    "complex",
    "polar",
    "rrelu",
    "masked write",
    "pad circular",
    "gru",
    "lstm",
    "eigvals",
    "fft",
    "rfft",
    "irfft",
    "fft2",
    "hfft",
    "stft",
}


def parts(name: str) -> tuple[list[Tensor], list[Tensor]]:
    """Value, score, Laplacian and a parameter derivative of weights . sin(op): pushed, and by nested reverse mode."""
    base = points(2)
    generator = torch.Generator().manual_seed(2)
    matrix, x = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((3, 6), (2, 3)))
    x, shift = 0.1 * x, torch.zeros(6, dtype=torch.float64, requires_grad=True)

    def function(x: Tensor) -> Tensor:
        return torch.sin(0.7 * ZOO[name](base + torch.sin(x) @ matrix + shift).reshape(2, -1))

    jet = push(record(function, (x,)), (coordinate_jet(x),))
    weights = torch.cos(torch.arange(jet.value.numel(), dtype=torch.float64)).reshape(jet.value.shape)
    found = [jet.value, (weights * jet.first).sum(2).T, (weights * jet.laplacian).sum(1)]
    with right_derivatives():
        at = x.clone().requires_grad_()
        value = function(at)
    (slope,) = torch.autograd.grad((weights * value).sum(), at, create_graph=True)
    bent = sum(torch.autograd.grad(slope[:, i].sum(), at, create_graph=True)[0][:, i] for i in range(3))
    expected = [value, slope, bent]
    for items in (found, expected):
        items.append(torch.autograd.grad(items[1].square().sum() + items[2].sum(), shift)[0])
    return found, expected


def check(name: str) -> None:
    for a, b in zip(*parts(name), strict=True):
        # Sums of at most a few dozen terms, and conditions below a hundred: far above rounding, far below an error.
        assert float((a - b).detach().norm()) <= 1e-10 * (float(b.detach().norm()) + 1e-3)


@pytest.mark.parametrize("name", COMMON)
def test_jets_of_common_operations(name: str):
    check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(ZOO) - set(COMMON) - REFUSED))
def test_jets_of_the_other_operations(name: str):
    check(name)


def test_rules_cover_many_operations():
    assert len({call.overloadpacket for call in RULES}) >= 100


def test_common_operations_need_no_fallback(monkeypatch: pytest.MonkeyPatch):
    def refuse(call, *_):
        raise AssertionError(f"no rule for {call}")

    monkeypatch.setattr(pushing, "_by_reverse_mode", refuse)
    for name in ("softplus", "layer_norm affine", "attention", "conv2d", "encoder layer", "max_pool2d", "einsum"):
        check(name)


def test_first_order_alone_and_fixed_arguments():
    x, w = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3), torch.full((3,), 0.3, dtype=torch.float64)
    tape = record(lambda a, b: torch.tanh(a * b), (x, w))
    jet = push(tape, (Jet(x, coordinate_jet(x).first, None), w))
    slope = w * (1 - torch.tanh(x * w) ** 2)
    torch.testing.assert_close(jet.first, torch.diag_embed(slope).transpose(0, 1).contiguous())
    assert jet.laplacian is None
    torch.testing.assert_close(push(tape, (x, w)), torch.tanh(x * w))


def test_detached_parts_and_numbers_carry_no_derivative():
    x = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3)

    def function(x: Tensor) -> Tensor:
        with torch.no_grad():
            scale = x.exp()
        return x.square() * x.detach() + scale + float(x.detach().sum())

    jet = push(record(function, (x,)), (coordinate_jet(x),))
    torch.testing.assert_close(jet.laplacian, 2 * x)


def test_a_gradient_inside_the_function():
    """An energy's gradient step: the operations of the inner backward pass are operations like any other."""
    x = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3)

    def function(x: Tensor) -> Tensor:
        return x - torch.autograd.grad(x.pow(4).sum(), x, create_graph=True)[0]

    jet = push(record(function, (x,)), (coordinate_jet(x),))
    torch.testing.assert_close(jet.laplacian, -24 * x)


def test_in_place_changes():
    x = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3)

    def function(x: Tensor) -> Tensor:
        y = x.sin()
        y += x.square()
        return y.mul_(2)

    jet = push(record(function, (x,)), (coordinate_jet(x),))
    torch.testing.assert_close(jet.laplacian, 2 * (2 - x.sin()))


class _Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.detach() ** 3

    @staticmethod
    def backward(ctx, g):
        return 3 * ctx.saved_tensors[0] ** 2 * g


def test_what_cannot_be_recorded_is_said_and_done_otherwise():
    x = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3)
    with pytest.raises(NotRecordable, match="custom autograd function"):
        record(_Cube.apply, (x,))

    def shared(x: Tensor) -> Tensor:
        y = x.sin()
        y[:, 0] *= 2
        return y

    with pytest.raises(NotRecordable, match="share"):
        record(shared, (x,))
    jet = deq.density.jets.push_forward(_Cube.apply, coordinate_jet(x))
    torch.testing.assert_close(jet.laplacian, 6 * x)


class _Scripted(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.norm = torch.nn.Linear(3, 4), torch.nn.LayerNorm(4)

    def forward(self, x):
        return self.norm(self.linear(x)).exp().sum(1)


def test_scripted_code_is_right_or_refused():
    """Its operations are not all seen, and of LayerNorm torch's third derivative is wrong."""
    model = _Scripted().double()
    scripted = torch.jit.script(model)
    x = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3)
    for _ in range(4):  # the first calls of scripted code are watched by torch's executor, later ones are optimised
        for mode in ("laplacian", "reverse"):
            with warnings.catch_warnings(), suppress(deq.DerivativeOrderError):
                warnings.simplefilter("ignore")  # torch announces that scripting will go
                found = deq.losses.score_matching(scripted, x, mode=mode)
                torch.testing.assert_close(found, deq.losses.score_matching(model, x), rtol=1e-11, atol=1e-12)
    found = deq.losses.score_matching(model, x, mode="laplacian")
    torch.testing.assert_close(found, deq.losses.score_matching(model, x), rtol=1e-11, atol=1e-12)


def test_a_scripted_batch_norm_is_refused():
    x = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3)
    with pytest.raises(deq.DerivativeOrderError, match="write the normalisation out"):
        push(
            record(lambda x: torch.ops.aten.native_batch_norm(x, None, None, None, None, True, 0.1, 1e-5)[0], (x,)),
            (coordinate_jet(x),),
        )


def test_score_matching_of_explicit_densities_by_jets():
    generator = torch.Generator().manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(3, 7), torch.nn.LayerNorm(7), torch.nn.GELU(), torch.nn.Linear(7, 1)
    ).double()
    nice = deq.models.NICE(dim=4, width=5, layers=2).double()
    for log_density, parameters, d in (
        (lambda x: net(x).squeeze(1) - x.square().sum(1), list(net.parameters()), 3),
        (nice.log_density, list(nice.parameters()), 4),
    ):
        x = torch.randn(6, d, generator=generator, dtype=torch.float64)
        losses, gradients = [], []
        for mode in ("laplacian", "reverse"):
            losses.append(deq.losses.score_matching(log_density, x, mode=mode))
            gradients.append(torch.autograd.grad(losses[-1], parameters, allow_unused=True))
        torch.testing.assert_close(losses[0], losses[1], rtol=1e-11, atol=1e-12)
        for a, b in zip(*gradients, strict=True):
            if b is not None:
                torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)
