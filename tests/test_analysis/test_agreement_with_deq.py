"""The tensors of `analysis` and the differentiation of `deq` check each other: they share no derivative code."""

import pytest
import torch

import deq
from analysis import implicit_derivatives, phantom_derivatives
from analysis.reference.cases import convolution_case, dense_case, draw_cases

F64 = torch.float64


def through_deq(case, rule, order):
    """Derivative tensors by reverse mode through `deq.equilibrium`."""
    x = case.point.x.clone().requires_grad_()
    z = deq.equilibrium(lambda z: case.f(z[0], x)[None], case.point.z[None], gradient=rule, tol=1e-12)[0]
    levels = [z]
    for _ in range(order):
        flat = levels[-1].reshape(-1)
        rows = [torch.autograd.grad(v, x, create_graph=True, allow_unused=True, materialize_grads=True)[0]
                if v.requires_grad else torch.zeros_like(x) for v in flat]
        levels.append(torch.stack(rows).reshape(*levels[-1].shape, len(x)))
    return [level.detach() for level in levels[1:]]


@pytest.mark.parametrize(("rule", "steps"), [(deq.Exact(order=3), 0), (deq.Phantom(steps=3), 3)],
                         ids=["exact", "phantom"])
def test_orders_one_to_three(rule, steps, generator):
    for case in draw_cases(generator, 3, largest=3, contractions=(0.9,)):
        found = through_deq(case, rule, 3)
        mine = (phantom_derivatives(case.f, case.point.x, case.point.z, steps, order=3) if steps
                else implicit_derivatives(case.f, case.point.x, case.point.z, order=3)).tensors
        scale = max(1.0, *(float(t.norm()) for t in mine))
        for a, b in zip(mine, found, strict=True):
            # deq stops at a residual of 1e-12, and each order passes through one more solve.
            assert float((a - b).norm()) <= 1e-10 * case.point.condition**4 * scale


def test_cases_contract_as_they_say(generator):
    for case in draw_cases(generator, 8):
        assert float(torch.linalg.matrix_norm(case.point.jacobian, 2)) <= case.contraction * (1 + 1e-9)
        assert case.point.residual <= 1e-12 * max(1.0, float(case.point.z.norm()))
        assert case.label.startswith(case.kind)


def test_convolution_case_is_a_convolution(generator):
    case = convolution_case(generator, 2, 3, 2, 0.8, "sin")
    assert case.point.z.shape == (18,)
    assert dense_case(generator, 1, 1, 0.0).point.jacobian.abs().max() == 0.0
