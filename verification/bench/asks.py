"""What users of other libraries asked for, and where this project answers it: data for the report."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Ask:
    """One public request.

    Attributes:
        thread: where it was asked.
        asked: in a few words.
        met: whether this project answers it.
        shown: the test or benchmark that shows it, or why it is not met.
    """

    thread: str
    asked: str
    met: bool
    shown: str


_EQ, _TF = "test_deq/test_equilibrium.py", "test_deq/test_gradients/test_transforms.py"
_AF, _SOLVE = "test_deq/test_affine_score.py", "test_deq/test_solvers.py"
_GUARD = "test_deq/test_gradients/test_order_guard.py"

ASKS = (
    Ask("locuslab/deq#25", "second and higher derivatives of the equilibrium", True,
        f"{_EQ}: test_exact_third_order_matches_the_unroll; benchmark sm-loss"),
    Ask("metaopt/torchopt#223", "Jacobians and Hessians of implicit roots by torch.func", True,
        f"{_TF}: test_nesting_with_and_without_vmap"),
    Ask("google/jaxopt#474", "forward mode, so that forward-over-reverse Hessians work", True,
        f"{_TF}: test_nesting_with_and_without_vmap (jacfwd, hessian)"),
    Ask("pytorch/pytorch#192540", "second derivatives of linear solves that are right", True,
        "no torch solve is differentiated twice: inverses and custom solves; " + f"{_TF}"),
    Ask("pytorch/pytorch#198017", "forward and higher-order derivatives through implicit solves, not silently wrong",
        True, f"{_TF}; {_EQ}: test_exact_is_gradcheck_and_gradgradcheck_clean"),
    Ask("pytorch/pytorch#196695", "the same for solves from the right under nested forward mode", True,
        "as pytorch#192540"),
    Ask("pytorch/pytorch#76185", "raise instead of being silently wrong in double backward", True,
        f"{_GUARD}; {_AF}: test_a_second_derivative_raises"),
    Ask("pytorch/pytorch#100626", "a first-class implicit layer around an nn.Module", True,
        "test_deq/test_layer.py; deq.DEQ, deq.equilibrium on any closure"),
    Ask("google/jaxopt#141", "at least second-order gradients through root finding, no silent zeros", True,
        f"{_EQ}: test_exact_third_order_matches_the_unroll"),
    Ask("google/jaxopt#466", "an error where the backward solve fails, not a zero gradient", True,
        "LinearSolveError from every Krylov and dense solve that misses its tolerance; "
        f"{_AF}: test_a_singular_system_is_named"),
    Ask("patrick-kidger/optimistix#151", "Hessians that do not break with an upgrade", False,
        "nothing to show yet: one torch version is tested"),
    Ask("patrick-kidger/optimistix#129", "gradient of a vmap of a root", True,
        f"{_TF}: test_nesting_with_and_without_vmap (vmap)"),
    Ask("patrick-kidger/optimistix#218", "backward memory that does not depend on the solver", True,
        f"{_EQ}: test_memory_does_not_grow_with_solver_iterations; benchmark memory"),
    Ask("patrick-kidger/optimistix#93", "matrix-free by itself where a dense Jacobian would not fit", True,
        f"{_EQ}: test_sizes_from_one_to_4096 (linear='auto'); benchmark convolution"),
    Ask("google-deepmind/optax#977", "a home for implicit differentiation after jaxopt", False,
        "for PyTorch users only"),
    Ask("ImplicitDifferentiation.jl#26", "third-order Jacobian-vector products of an implicit function", True,
        f"{_TF}: jacfwd(jacfwd(jacfwd))"),
    Ask("ImplicitDifferentiation.jl#77", "Hessians where an iterative inner solve diverges", True,
        "Exact(linear='dense'), and an error where GMRES misses its tolerance"),
    Ask("Clapeyron.jl#502", "true higher-order implicit derivatives, not one last Newton step", True,
        f"{_GUARD}; K steps give K orders, more raise"),
    Ask("rtqichen/torchdiffeq#29", "higher-order differentiation through the adjoint (of an ODE)", False,
        "equilibria only"),
    Ask("cvxpy/cvxpylayers#119", "the divergence by repeated differentiation, the same by two ways", True,
        "test_deq/test_laplacian.py: test_density_gives_the_exact_loss_gradient_in_one_backward_pass"),
    Ask("locuslab/torchdeq#8", "no fixed point that silently lost requires_grad", True,
        f"{_EQ}: derivatives in everything that f closes over"),
    Ask("locuslab/torchdeq#9", "constant memory", True,
        f"{_EQ}: test_memory_does_not_grow_with_solver_iterations; benchmark memory"),
    Ask("locuslab/deq#11", "one backward recipe that passes gradcheck", True,
        f"{_EQ}: test_exact_is_gradcheck_and_gradgradcheck_clean"),
    Ask("locuslab/deq#28", "solvers that do not store all iterates, and that can be exchanged", True,
        f"{_SOLVE}; deq.FixedPointSolver; benchmark memory"),
    Ask("locuslab/deq#15", "no backward hooks", True, "none are used"),
    Ask("metaopt/torchopt#222", "right gradients for a state of one number", True,
        f"{_EQ}: test_trailing_shapes_and_unbatched_features"),
    Ask("xitorch/xitorch#13", "a default solver that solves simple cases", True, f"{_SOLVE}"),
    Ask("jax-ml/jax#5309", "GMRES inside a rule that differentiates in both modes", True,
        f"{_TF}: krylov cases"),
    Ask("pytorch/pytorch#129845", "vmap, custom functions and torch.compile together", False,
        f"{_EQ}: test_inside_a_compiled_function: the layer runs there, by a graph break"),
    Ask("google/neural-tangents#84", "kernels of networks with tied weights", True,
        "analysis.deq_kernels; test_analysis/test_deq_kernels.py; benchmark kernels"),
)
