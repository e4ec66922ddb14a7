"""The known faults, one record each. `probes` holds a function of each record's name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """A fault of torch that concerns implicit models.

    Attributes:
        name: of the record and of its probe.
        title: what goes wrong, in a line.
        source: where it is known from.
        answer: what this library does about it.
    """

    name: str
    title: str
    source: str
    answer: str


_CURVES = ("nothing here takes a second forward-mode derivative of your map unseen: forward Laplacian, score matching "
           "and `analysis` take reverse mode, or hold the result against it")
_SOLVES = ("nothing here differentiates torch.linalg: equilibria carry their own rules, and "
           "`deq.linear.factorise.solve` its own backward pass, right to any order")

FAULTS: tuple[Fault, ...] = (
    Fault("batched_lu", "LU, inverse and solve of a batch on several CPU threads: wrong pivots, an error, or no return",
          "pytorch issues 141358, 142815; pull request 181570",
          "every batch is factorised on one thread by `deq.linear.factorise`, and the result is tried on a vector"),
    Fault("layer_norm", "second forward-mode derivative of layer_norm", "pytorch issue 198017", _CURVES),
    Fault("batch_norm", "second forward-mode derivative of batch_norm in training", "pytorch issue 198017", _CURVES),
    Fault("instance_norm", "second forward-mode derivative of instance_norm", "pytorch issue 198017", _CURVES),
    Fault("linalg_solve", "second forward-mode derivative of linalg.solve", "pytorch issue 192540", _SOLVES),
    Fault("logdet", "second forward-mode derivative of logdet", "pytorch issue 192540",
          "no log-determinant is differentiated in forward mode; NICE's is a sum of its scales"),
    Fault("vmap_solve", "linalg.solve under vmap with forward mode, already at first order", "found by this project",
          _SOLVES),
    Fault("attention", "double backward of scaled_dot_product_attention by its fused kernels",
          "pytorch issues 116350, 128971",
          "derivatives of higher order ask for its math form; where a kernel without one is used, the error says so"),
    Fault("silu_backward", "forward mode over the backward of silu", "found by this project",
          "the forward Laplacian and `analysis` fall back to reverse mode"),
    Fault("convolution_vmap", "gradients of a convolution's weight under vmap", "probed for safety",
          "per-sample parameter gradients may be taken by torch.func.vmap"),
    Fault("batched_cholesky", "Cholesky, QR and eigenvalues of a batch on several CPU threads", "probed for safety",
          "Anderson's and GMRES's least squares use them as they are"),
)
