"""By how much the Jacobian of a phantom score field differs from what autograd returns, as a series in powers of J."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import hessian, jacrev

from analysis.phantom.equilibrium_point import EquilibriumPoint


def field_gap(point: EquilibriumPoint, slope: Tensor, bend: Tensor, steps: int, *, curvature: bool = True) -> Tensor:
    r"""Jacobian of the phantom score minus the Hessian of `log p(z^(K))` with z^(0) held fixed.

    With g, H the first two derivatives of log p at z*, a_i = Dz e_i and a_i^(k) = a_i - J^k a_i,

        gap_ij = g . sum_{k<K} J^(K-1-k) ( f_zx[J^k a_j, e_i] + f_zz[a_i^(k), J^k a_j] ) + H[a_i^(K), J^K a_j].

    Its trace is the trace gap; as the Hessian is symmetric, its antisymmetric part is the curl of the field.

    Args:
        point: the equilibrium, n states and d inputs.
        slope: g, [n].
        bend: H, [n, n].
        steps: K >= 1.
        curvature: with False the term in f_zz is left out (for a control).

    Returns:
        [d, d], float64; row i is the component of the score, column j the direction in which x moves.

    Example:
        >>> import torch
        >>> from analysis.phantom.equilibrium_point import equilibrium_point
        >>> x = torch.tensor([0.5, 1.0], dtype=torch.float64)
        >>> point = equilibrium_point(lambda z, x: x[1] + x[0] * z, x, torch.tensor([2.0], dtype=torch.float64))
        >>> one, none = torch.ones(1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
        >>> float(field_gap(point, one, none, 2).trace())  # K x1^(K-1) x2 / (1 - x1)^2
        4.0
    """
    n, jacobian = point.z.numel(), point.jacobian
    first = point.solve(point.input_jacobian)  # a, [n, d]
    with torch.no_grad():
        both = hessian(lambda z: point.f(z, point.x))(point.z)                                    # [n, n, n]
        mixed = jacrev(lambda x: jacrev(lambda z: point.f(z, x))(point.z))(point.x)               # [n, n(z), d]
    value = torch.zeros(n, first.shape[1], first.shape[1], dtype=torch.float64)
    power = torch.eye(n, dtype=torch.float64)
    for _ in range(steps):
        left = power @ first                                                                      # J^k a
        bracket = torch.einsum("nzi,zj->nij", mixed, left)
        if curvature:
            bracket = bracket + torch.einsum("nyz,yi,zj->nij", both, first - left, left)
        value = torch.tensordot(jacobian, value, dims=1) + bracket
        power = jacobian @ power
    left = power @ first
    return torch.einsum("n,nij->ij", slope, value) + (first - left).T @ bend @ left
