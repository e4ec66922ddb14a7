"""What the claims do not cover, and why: the honest end of the report."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NotCovered:
    """A place of a paper that no claim tests.

    Attributes:
        place: paper and place, "[SM] table 5".
        what: what stands there, in a line.
        reason: why it is left out.
    """

    place: str
    what: str
    reason: str


#: In the order of the papers. A test sees that no entry names a place twice.
NOT_COVERED: tuple[NotCovered, ...] = (
    NotCovered("[SM] table 1, figures 1 and 8, CIFAR-10",
               "FID after $10^4$, $5 \\cdot 10^4$ and $10^5$ steps of VAEs with an implicit encoder, and what the "
               "figures show",
               "$10^5$ steps at full width take hours to days on a GPU. A configuration of every row is there "
               "(`deqproof train table1/cifar10-deq`); the runs stored in `results` are of tens of steps at reduced "
               "width, marked so, and no FID was computed from them. The released FID scales covariances, which is a "
               "claim, so the printed values compare with no other"),
    NotCovered("[SM] table 1, figures 1 and 8, CelebA",
               "FID and pictures, and table 10's CelebA row",
               "the images were not at hand: they are for non-commercial research and fetched by hand from their "
               "owners. The four configurations run once `deqproof data list celeba` finds them; claims about "
               "CelebA's rows (parameter counts, training times) are computed from the architectures alone"),
    NotCovered("[SM] tables 1, 4 and 5, seconds and gigabytes",
               "training time per iteration and memory, as figures",
               "the GPU, the batch and the tool are not stated, and no GPU run is stored. What is claimed is which "
               "variant takes less memory, by counting bytes of one step at reduced width on a CPU, and what the "
               "times of table 1 can mean; `deqproof costs` measures rows on the machine at hand"),
    NotCovered("[SM] table 2, values",
               "SM losses and log-likelihoods of nine ways of training on three data sets, and their order",
               "full length is 3,000 to 11,100 steps a run, for 27 rows and several seeds. The stored runs have far "
               "fewer steps, marked as reduced, and no likelihood; `deqproof table 2` prints them beside the "
               "paper's. No claim rests on them, since rows at reduced length may stand in another order. Seeds, "
               "folds and the selected checkpoint are not stated either"),
    NotCovered("[SM] table 2, figures 2 and 3",
               "density plots",
               "pictures without a statement that could fail"),
    NotCovered("[SM] table 3, trained rows",
               "losses, likelihoods and Fisher divergences of DKEF trained in 100 and 200 dimensions",
               "not trained again: what the printed rows say of each other, of the entropy and of the normaliser is "
               "tested instead, and a configuration of every row is there"),
    NotCovered("[SM] table 4, rows other than DEQ-SSM",
               "losses and likelihoods of NICE on MNIST under SSM, MLE, CP, DSM and approximate backpropagation",
               "all but SSM are copied from Song et al. 2019, whose code trains 42,000 steps. Which of four saved "
               "checkpoints the table reports is not stated"),
    NotCovered("[SM] table 5, figures 4 and 9",
               "FID and pictures of NCSN on CIFAR-10, and time against the number of GPUs",
               "200,000 steps of 0.4 to 0.9 seconds are one to two days on the paper's GPUs, whose type is not "
               "stated, and each sample takes 1,160 Langevin steps more. A configuration of every row is there; the "
               "sampler, the parameter counts and the memory of one step are claims"),
    NotCovered("[SM] table 10, DKEF rows",
               "12.8 and 14.5 iterations on average",
               "over which solves the average goes is not stated, and each row needs training to the end. The rows of "
               "the image models are tested, early in training, NICE over its whole stored run too"),
    NotCovered("[SM] section 3.4, outcome of training at full length",
               "that training with $K = 2$ ends where training with exact derivatives does, on the paper's data",
               "the claim on it reads paired runs of three seeds on Parkinson, 1,400 of the paper's 11,100 steps long, "
               "and they do not decide it; no pair was trained to the end, and none on the wines. The bias shows on a "
               "density whose optimum is known, too, and the error of the gradient measured on a longer training. "
               "`deqproof compare --steps 11100 --seeds 0 1 2 3 4` could decide it"),
    NotCovered("[SM] section 5",
               "that equilibrium layers are more expressive for their parameters",
               "a judgement over benchmarks, with no statement precise enough to test"),
    NotCovered("[RMT] theorems 1 and 2, proofs",
               "the limit $n, p \\to \\infty$ itself",
               "no computation proves a limit: the suite tests the rate at which errors fall, with intervals, and "
               "proves the algebra that leads to the four equations"),
    NotCovered("[RMT] section 4, Fashion-MNIST",
               "test accuracies",
               "the claims on kernels take both image sets, those on accuracy MNIST alone, as the longest of the run; "
               "`python -m verification.experiments.accuracy --dataset fashion-mnist` runs the same study"),
    NotCovered("[RMT] section 4, CIFAR-10",
               "accuracies and kernels on VGG-16 features",
               "the pretrained network is not published in a form that can be loaded. `python -m "
               "verification.experiments.accuracy --dataset cifar10` takes features of a small network that it trains, "
               "and no claim rests on them"),
    NotCovered("[RMT] section 4, curves",
               "the printed accuracy curves point by point",
               "the released code runs the networks at different variances, so the curves compare unlike things; the "
               "suite runs them at one variance. Its default scale takes fewer images, epochs and widths than the "
               "paper; `deqproof verify --scale paper` takes as many"),
)
