"""What the machine checked, theorem by theorem: the statement in words, and a mutation that must not go through."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Theorem:
    """One theorem of a `.v` file.

    Attributes:
        name: in Coq.
        file: of the theorem, without ending.
        title: in a line.
        statement: prose with LaTeX between dollar signs.
        old: a piece of the Coq statement.
        new: what the mutated statement has in its place; well typed, and not to be proved by the same proof.
        mutation: what the mutation says, in words.
        identity: claim id.
    """

    name: str
    file: str
    title: str
    statement: str
    old: str
    new: str
    mutation: str
    identity: str


SETTING = (r"Over any field, for $J = \partial f/\partial z$ at an equilibrium and $S = (I - J)^{-1}$: ")
NORM = r"In any norm in which $J$ contracts with factor $q < 1$, over any ordered field: "

THEOREMS: tuple[Theorem, ...] = (
    Theorem("contraction_invertible", "bounds", "A contraction leaves I - J invertible",
            NORM + r"$I - J$ is invertible ([SM] Prop. 1, first sentence).",
            "q < 1 ->", "q <= 1 ->", "q = 1 allowed", "own-a001"),
    Theorem("proposition_1", "derivatives", "Proposition 1, both orders",
            SETTING + r"the derivatives along $u$, $v$ and both that the chain rule reproduces are $S B u$, $S B v$ "
            r"and "
            r"$S(f_{xx}[u,v] + f_{zx}[Dz\,u, v] + f_{zx}[Dz\,v, u] + f_{zz}[Dz\,u, Dz\,v])$, and no others.",
            "along_uv j = S *m bracket (S *m bu) (S *m bv)", "along_uv j = S *m bracket (S *m bv) (S *m bu)",
            "the two directions exchanged in the bracket", "own-a002"),
    Theorem("proposition_2_first", "derivatives", "Proposition 2, first order",
            SETTING + r"$K$ phantom steps have $D z^{(K)} = \sum_{k=0}^{K-1} J^k B$.",
            "partial_sum K *m bu", "partial_sum K.+1 *m bu", "one term more", "own-a003"),
    Theorem("proposition_2_second", "derivatives", "Proposition 2, second order, with the right recursion",
            SETTING + r"$D^2 z^{(K)}[u,v] = A_K f_{xx} + B_K[f_{zx}]\dots + C_K[f_{zz}]$ with $A_0 = 0$, $A_K = J "
            r"A_{K-1} + I$, $B_K[P] = J B_{K-1}[P] + P A_{K-1}$ and $C_K[Q](b,b') = J C_{K-1}[Q](b,b') + Q(A_{K-1} b, "
            r"A_{K-1} b')$: each factor acts on its own leg of the tensor.",
            "mended_B Pv K *m bu", "mended_B Pu K *m bu", "the mixed tensors of u and v exchanged", "own-a004"),
    Theorem("printed_B_at_3", "errata", "The printed recursion holds at K = 3 exactly where J commutes with f_zx",
            r"With the printed $B_K = J B_{K-1} + \sum_{k \le K-2} J^k$ acting from the left, $B_3 P$ is the "
            r"derivative's "
            r"term if and only if $J P = P J$.",
            "(J *m P = P *m J)", "(J *m P = P)", "another condition", "own-a005"),
    Theorem("printed_recursion_B_refuted", "errata", "A contraction for which the printed B_K is wrong at K = 3",
            r"There are rational $2 \times 2$ matrices, $J$ of Frobenius norm $1/2$, for which the printed $B_3$ is "
            r"not "
            r"the derivative's.",
            "printed_B J 3 *m P != mended_B J P 3", "printed_B J 3 *m P == mended_B J P 3", "equality claimed",
            "own-a006"),
    Theorem("printed_recursion_C_refuted", "errata", "A contraction for which the printed C_K is wrong at K = 3",
            r"There are a rational $2 \times 2$ matrix $J$ and a bilinear $Q$ for which the printed $C_3$, with $A_2 "
            r"A_2$ "
            r"acting from the left, is not the derivative's.",
            "printed_C J 3 *m Q b b != mended_C J Q b b 3", "printed_C J 3 *m Q b b == mended_C J Q b b 3",
            "equality claimed", "own-a007"),
    Theorem("printed_start", "errata", "The printed A_0 = I is right only for J = 0",
            r"With $A_0 = I$ the recursion gives $A_1 = I + J$; the derivative's factor is $I$, so this is right "
            r"exactly "
            r"if $J = 0$.", "(J = 0)", "(J = 1%:M)", "J = I", "own-a008"),
    Theorem("contraction_is_needed", "errata", "Proposition 2 needs a contraction",
            r"For $f(z, x) = -\frac32 z + x$, $|Dz - Dz^{(K)}| \ge \frac25 = |Dz|$ for every $K$.",
            ">= 2%:R / 5%:R :> rat", ">= 3%:R / 5%:R :> rat", "a larger bound, false at K = 0", "own-a009"),
    Theorem("neumann_series_converges", "bounds", "The Neumann series converges to S",
            NORM + r"$\sum_{k<K} J^k b \to S b$ (Archimedean field): the limit in Prop. 2, first order.",
            "0 <= q -> q < 1 ->", "0 <= q -> q <= 1 ->", "q = 1 allowed", "own-a00a"),
    Theorem("family_law", "bounds", "The error law of the preconditioned family",
            SETTING + r"the iteration $z \leftarrow z + M(f(z) - z)$ with $M$ fixed has $Dz - Dz^{(K)} = R^K Dz$, $R "
            r"= I "
            r"- M (I - J)$; $M = I$ is the phantom gradient, $M = S$ leaves nothing.",
            "= R ^+ K *m exact", "= R ^+ K.+1 *m exact", "one power more", "own-a00b"),
    Theorem("exact_to_order_K", "exactness", "Exact to order K for M = S",
            r"For a vector of polynomial expressions over any commutative ring and any element $h$: if $f(z^*) = z^*$, "
            r"$z_0 \equiv z^*$ and $M (I - J(z_0)) \equiv I$ modulo $h$, then $K$ steps $z \leftarrow z + M(f(z) - z)$ "
            r"give $z_K \equiv z^*$ modulo $h^{K+1}$: every derivative of total order at most $K$ along every curve.",
            "congruent_vec K.+1", "congruent_vec K.+2", "one order more", "own-a00c"),
    Theorem("first_order_bound", "bounds", "Phantom error at finite K, first order",
            NORM + r"$|Dz - Dz^{(K)}| \le q^K |Dz|$.",
            "q ^+ K * N (S J *m b)", "q ^+ K.+1 * N (S J *m b)", "one power more", "own-a00d"),
    Theorem("second_order_bound", "bounds", "Phantom error at finite K, second order",
            NORM + r"$|D^2 z - D^2 z^{(K)}| \le q^K |D^2 z| + K q^{K-1} L_1 + q^{K-1} \frac{1-q^K}{1-q} L_2$ along two "
            r"directions, $L_1 = |f_{zx}[\cdot,v]||Dz\,u| + |f_{zx}[\cdot,u]||Dz\,v| + 2|f_{zz}||Dz\,u||Dz\,v|$, "
            r"$L_2 = "
            r"|f_{zz}||Dz\,u||Dz\,v|$.",
            "(q ^+ K.-1 * L1) *+ K", "(q ^+ K.-1 * L1) *+ K.-1", "one term less", "own-a00e"),
    Theorem("frobenius_bounds_dense", "norms", "The Frobenius norm bounds a dense map",
            r"$|W v|_2 \le |W|_F |v|_2$ over any ordered field.",
            "(\\sum_i \\sum_j W i j ^+ 2) *", "(\\sum_i \\sum_j W i j) *", "the sum of the entries", "own-a00f"),
    Theorem("frobenius_fails_for_convolutions", "norms", "The Frobenius norm of a kernel does not bound a convolution",
            r"On images of every size, with circular padding, there is a $5 \times 5$ kernel of Frobenius norm $0.9$ "
            r"that multiplies the length of an image by $4.5$.",
            "(9%:R / 2%:R) ^+ 2 * size2 x", "(9%:R / 10%:R) ^+ 2 * size2 x", "factor 0.9", "own-a010"),
    Theorem("kap_enclosed", "constants", "1 - 2/pi to fifteen digits",
            r"$0.3633802276324186 \le 1 - 2/\pi \le 0.3633802276324187$.",
            "0.3633802276324186 <= kap", "0.36338022763241866 <= kap", "a bound above the value", "own-a011"),
    Theorem("depth_limit_enclosed", "constants", "The depth limit",
            r"$1.69249 \le 4/(3 - 2/\pi) \le 1.69250$, the $\sigma_a^2$ beyond which no leaky-ReLU network of any "
            r"depth "
            r"has the kernel of a ReLU DEQ.",
            "<= 1.69250", "<= 1.69249", "an upper bound below the value", "own-a012"),
    Theorem("two_layers_suffice", "constants", "Two layers suffice at 0.8527",
            r"At $\sigma_a^2 = 0.8527$ some $1 \le r \le R$ has $(r - 1) + (R - r)/r^2 = \kappa Q$.",
            "two_cells 0.8527 r = target 0.8527", "two_cells 0.8527 r = target 0.8528", "another target", "own-a013"),
    Theorem("two_layers_fail", "constants", "Two layers fail at 0.8528",
            r"At $\sigma_a^2 = 0.8528$ every $1 \le r \le R$ has $(r - 1) + (R - r)/r^2 > \kappa Q$.",
            "two_cells 0.8528 r > target 0.8528", "two_cells 0.8526 r > target 0.8526",
            "0.8526, where two layers do", "own-a014"),
    Theorem("three_layers_suffice", "constants", "Three layers suffice at 1.1349",
            r"At $\sigma_a^2 = 1.1349$ some $1 \le r_1 \le r_2 \le R$ has $(r_1 - 1) + (r_2 - r_1)/r_1^2 + (R - "
            r"r_2)/r_2^2 = \kappa Q$.",
            "three_cells 1.1349 r1 r2 = target 1.1349", "three_cells 1.1349 r1 r2 = target 1.135",
            "another target", "own-a015"),
    Theorem("three_layers_fail", "constants", "Three layers fail at 1.15",
            r"At $\sigma_a^2 = 1.15$ every $1 \le r_1 \le r_2 \le R$ has a sum above $\kappa Q$.",
            "three_cells 1.15 r1 r2 > target 1.15", "three_cells 1.15 r1 r2 > target 1.15 + 1",
            "above by one", "own-a016"),
)

#: In the order of their dependence.
FILES = ("derivatives", "errata", "bounds", "exactness", "norms", "constants")
