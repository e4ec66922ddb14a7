"""Every numbered statement, table, figure and quantitative sentence of [SM], and of [RMT] what its summary states.

Each place names the claims that test it and says what they leave open, or why nothing tests it. Words in braces, such
as {table2}, are filled in from the stored results when the report is made.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """A place of a paper.

    Attributes:
        where: paper and place, "[SM] table 5".
        what: what stands there, in a line.
        claims: ids of the claims that test it.
        left: what they leave open; for a place without claims, why there are none.
    """

    where: str
    what: str
    claims: tuple[str, ...] = ()
    left: str = ""


_DEFINITION = "a definition or a description: nothing that could fail"
_PICTURE = "a picture without a statement that could fail beyond its table"

PLACES: tuple[Place, ...] = (
    Place("[SM] abstract, sections 1 and 5", "improved performance at comparable cost; deep and expressive models",
          (), "judgements over all benchmarks; their precise parts stand at the tables below"),
    Place("[SM] section 2.1, Fisher divergence", "no normaliser is needed", ("sm-19f2",)),
    Place("[SM] eq. (1)", "score matching is the Fisher divergence up to a constant", ("sm-38ba",)),
    Place("[SM] section 2.1, after eq. (1)", "a trace needs the full Hessian", ("sm-d27c",)),
    Place("[SM] eq. (2)", "denoising score matching", ("sm-5358",)),
    Place("[SM] eq. (3)", "sliced score matching", ("sm-d7ba",)),
    Place("[SM] eq. (4)", "sliced score matching with reduced variance", ("sm-a4e7", "sm-d7ba")),
    Place("[SM] section 2.2", "an equilibrium keeps constant memory", ("sm-57c2",)),
    Place("[SM] section 3.1, eq. (5)", "the cell", (), _DEFINITION),
    Place("[SM] section 3.2", "well-posedness by a Frobenius norm; linear convergence",
          ("sm-46a0", "sm-5865", "sm-6398", "sm-b928")),
    Place("[SM] eqs. (6), (7)", "chain rules", ("sm-8e57",)),
    Place("[SM] Prop. 1, eqs. (8), (9)", "derivatives of an equilibrium",
          ("sm-2d4b", "sm-1758", "sm-930c", "sm-6e69", "sm-79ce")),
    Place("[SM] section 3.4, warm start", "reusing the last fixed point", ("sm-36f8",)),
    Place("[SM] section 3.4, overhead", "K more steps cost little beside the solve", (),
          "small is not a number; `deqproof bench` times rules side by side"),
    Place("[SM] section 3.4, K = 2", "two steps are enough for good performance",
          ("sm-6e94", "sm-41d8", "sm-b05e", "sm-28fb"),
          "no pair was trained to the end on every table: {compare}. The map of sm-6e94 and sm-28fb is equation (5), "
          "not the released one"),
    Place("[SM] Prop. 2, eq. (10)", "derivatives of K steps and their limits",
          ("sm-b592", "sm-636d", "sm-02e3", "sm-8bf7", "sm-e0d5")),
    Place("[SM] section 4.1, eq. (11)", "the evidence lower bound", ("sm-c1b8",)),
    Place("[SM] section 4.1, figure 1", "courses of loss, bound, FID and memory of the VAEs", (), _PICTURE),
    Place("[SM] table 1, FID", "image quality of four VAEs on two data sets", ("sm-7e90", "sm-4ed0"),
          "10^5 steps at full width take hours to days on a GPU; {table1}, and no FID was computed from them"),
    Place("[SM] table 1, parameters, memory and time", "cost of four VAEs", ("sm-ef44", "sm-58c3", "sm-984a"),
          "gigabytes as figures: GPU, batch and tool are not stated; ratios are counted on a CPU"),
    Place("[SM] table 2, losses and likelihoods", "nine ways of training on three data sets",
          ("sm-8d31", "sm-60f4"),
          "the values themselves and the order of all nine rows: {table2}. The released configurations with the "
          "paper's numbers have no early stop. Seeds, folds and the selected checkpoint are not stated"),
    Place("[SM] table 2, parameters", "sizes of the networks", ("sm-f61d", "sm-22a7")),
    Place("[SM] table 2, memory and time", "the equilibrium is more efficient", ("sm-b3f1",),
          "gigabytes as figures, and training time, which is said to be better and not printed"),
    Place("[SM] figures 2 and 3", "courses of loss, likelihood and memory", (), _PICTURE),
    Place("[SM] table 3, values", "losses, likelihoods and Fisher divergences in 100 and 200 dimensions",
          ("sm-4d1e", "sm-93b7", "sm-c05a", "sm-e81c", "sm-4c6d"),
          "the trained rows: {table3}. What the printed rows say of each other is tested instead"),
    Place("[SM] table 3, parameters", "sizes of the networks", ("sm-ce7f",)),
    Place("[SM] table 3, memory", "3.8 to 14.8 GB", (), "GPU, batch and tool are not stated"),
    Place("[SM] table 4, losses and likelihoods", "NICE on MNIST under seven objectives", ("sm-f02a", "sm-d96e"),
          "five rows are copied from Song et al. 2019; {table4}. Which checkpoint the table scores is not stated"),
    Place("[SM] table 4, parameters and memory", "15 and 14 M, 6.5 and 5.5 GB", ("sm-8893", "sm-58c3")),
    Place("[SM] table 5, FID and time", "three NCSNs on CIFAR-10", (),
          "200,000 steps of 0.4 to 0.9 seconds are one to two days on GPUs of unstated type; {table5}"),
    Place("[SM] table 5, parameters and memory", "28, 9 and 9 M; MiB of the score's graph", ("sm-8893", "sm-7a0c")),
    Place("[SM] section 4.4, marginally faster", "391 against 481 ms an iteration", (),
          "marginal is not a number: it is a fifth less time by the printed figures"),
    Place("[SM] figure 4", "loss, FID, memory and time against the number of GPUs", (), _PICTURE),
    Place("[SM] appendix A, proof of Prop. 2", "induction, recursions and limits",
          ("sm-6e8a", "sm-3b71", "sm-5c94", "sm-eb34", "sm-d3d9")),
    Place("[SM] appendix B, algorithm 1", "the phantom steps in code", ("sm-91ad",)),
    Place("[SM] appendix C, figures 5 to 7", "errors of phantom derivatives while DKEF trains",
          ("sm-c5e1", "sm-6b3a", "sm-e92f", "sm-28fb", "sm-cf30", "sm-5a1e")),
    Place("[SM] appendix D.1", "the kernels of DKEF", ("sm-f61d",),
          "the sum over inducing points is printed up to 3, the number of kernels, where 64 or 200 are meant"),
    Place("[SM] appendix D.2", "the couplings of NICE", ("sm-8893",)),
    Place("[SM] appendix D.3, tables 6 and 7", "the networks of the VAE", ("sm-ef44",)),
    Place("[SM] appendix D.4, tables 8 and 9", "the networks of NCSN; residual cells",
          ("sm-8f51", "sm-8893", "sm-7a0c"),
          "table 9 feeds 128 channels to a block of 256: the tables are read as far as they chain"),
    Place("[SM] appendix E, figures 8 and 9", "pictures of faces and of CIFAR-10", (), _PICTURE),
    Place("[SM] appendix F, table 10", "tolerances and mean iterations", ("sm-66df", "sm-0f3b"),
          "over which solves the averages go is not stated; DKEF's rows need training to the end; the paper's stop is "
          "absolute and for the whole batch, ours per sample with a relative part"),
    Place("[SM] released code, sampler", "annealed Langevin dynamics", ("sm-21cb",)),
    Place("[RMT] summary, kernels of a DEQ", "conjugate and tangent kernel", ("rmt-e435", "rmt-b3f8", "rmt-5cfa")),
    Place("[RMT] summary, four equations", "kernels depend on phi and the variances through four equations",
          ("rmt-a41c", "rmt-bf2e", "rmt-0698", "rmt-998d"),
          "the limit n, p to infinity itself: no computation proves it; rates, coefficients and algebra are tested"),
    Place("[RMT] summary, centred activations", "a requirement of the theory", ("rmt-ce47",)),
    Place("[RMT] summary, equivalent networks", "a shallow network with the same kernels, for ReLU and tanh",
          ("rmt-47be", "rmt-83e6", "rmt-d14f", "rmt-2d90", "rmt-6b38"),
          "matching of real networks of other widths and depths than the released code's"),
    Place("[RMT] summary, spectra", "similar spectral properties", ("rmt-5d71", "rmt-1e6a")),
    Place("[RMT] summary, real data", "performance on MNIST, Fashion-MNIST and CIFAR-10",
          ("rmt-80b0", "rmt-f53d", "rmt-bfeb", "rmt-4671"),
          "accuracies on Fashion-MNIST (`python -m verification.experiments.accuracy --dataset fashion-mnist`) and on "
          "CIFAR-10, whose VGG-16 features are not published in a form that can be loaded; curves point by point"),
    Place("[RMT] summary, savings", "the explicit network saves computation", (),
          "how much is not said; operations and seconds stand beside the accuracies in the figures"),
    Place("[RMT] released code, sampled kernels", "a kernel by averaging networks", ("rmt-de3a",)),
)
