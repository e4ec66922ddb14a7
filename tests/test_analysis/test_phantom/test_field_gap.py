"""The gap between a phantom score's Jacobian and what autograd returns, against closed forms and autodiff."""

import pytest
import torch

from analysis.phantom.equilibrium_point import equilibrium_point
from analysis.phantom.field_gap import field_gap

ONE, NONE = torch.ones(1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_the_rotating_example_in_closed_form(steps):
    x1, x2 = 0.4, -1.5
    point = equilibrium_point(lambda z, x: x[1] + x[0] * z, torch.tensor([x1, x2], dtype=torch.float64),
                              torch.tensor([x2 / (1 - x1)], dtype=torch.float64))
    gap = field_gap(point, ONE, NONE, steps)
    assert gap.trace().item() == pytest.approx(steps * x1 ** (steps - 1) * x2 / (1 - x1) ** 2, rel=1e-12)
    # s_2 = (1 - x1^K)/(1 - x1), s_1 = s_2 x2/(1 - x1): curl = d s_1/d x2 - d s_2/d x1
    factor = (1 - x1**steps) / (1 - x1)
    slope = (-steps * x1 ** (steps - 1) * (1 - x1) + (1 - x1**steps)) / (1 - x1) ** 2
    assert (gap[0, 1] - gap[1, 0]).item() == pytest.approx(factor / (1 - x1) - slope, rel=1e-12)


def test_the_curvature_term_is_that_of_f_zz():
    # z = x + z^2/4 has f_zz = 1/2, f_zx = 0: gap = sum J^(K-1-k) f_zz (1 - J^k) a J^k a
    x = torch.tensor([0.5], dtype=torch.float64)
    z = 2 - (4 - 4 * x).sqrt()
    point = equilibrium_point(lambda z, x: x + z * z / 4, x, z)
    j, a = z.item() / 2, 1 / (1 - z.item() / 2)
    wanted = sum(j ** (2 - k) * 0.5 * (1 - j**k) * a * j**k * a for k in range(3))
    assert field_gap(point, ONE, NONE, 3).item() == pytest.approx(wanted, rel=1e-12)
    assert field_gap(point, ONE, NONE, 3, curvature=False).item() == 0.0


def test_the_density_s_own_curvature():
    # affine cell: only H[a^(K), J^K a] is left
    x = torch.tensor([1.0], dtype=torch.float64)
    point = equilibrium_point(lambda z, x: z / 2 + x, x, 2 * x)
    bend = torch.full((1, 1), 3.0, dtype=torch.float64)
    assert field_gap(point, ONE, bend, 2).item() == pytest.approx(3 * (2 - 0.5) * (0.25 * 2), rel=1e-12)
