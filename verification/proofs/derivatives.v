(** Propositions 1 and 2 of [SM] at both orders, for a map f on vectors of n + 1 entries over any field.

    J is df/dz at the equilibrium. Along two directions u, v of x: bu, bv are f_x[u], f_x[v]; fuv is f_xx[u,v]; Pu, Pv
    are the matrices w -> f_zx[w,u], w -> f_zx[w,v]; Q is the bilinear map f_zz. A [jet] holds the derivatives of a
    state along u, along v, and along both; [push] is the chain rule, to second order, for f(z(x), x). *)
From mathcomp Require Import all_ssreflect all_algebra ssrAC.
Set Implicit Arguments. Unset Strict Implicit. Unset Printing Implicit Defensive.
Import GRing.Theory.
Local Open Scope ring_scope.

Section Derivatives.
Variables (F : fieldType) (n : nat).
Local Notation vec := 'cV[F]_n.+1.
Local Notation mat := 'M[F]_n.+1.
Variables (J Pu Pv : mat) (bu bv fuv : vec) (Q : vec -> vec -> vec).

Record jet := Jet { along_u : vec; along_v : vec; along_uv : vec }.
Definition bracket (a b : vec) : vec := fuv + Pv *m a + Pu *m b + Q a b.
Definition push (j : jet) : jet :=
  Jet (bu + J *m along_u j) (bv + J *m along_v j) (bracket (along_u j) (along_v j) + J *m along_uv j).

(** The jet of z^(K): K steps of f from a start whose derivatives are cut. *)
Definition phantom (K : nat) : jet := iter K push (Jet 0 0 0).

Definition S : mat := invmx (1%:M - J).
Definition partial_sum (K : nat) : mat := \sum_(k < K) J ^+ k.

Lemma solve_fixed (a b : vec) : 1%:M - J \in unitmx -> (a = b + J *m a) <-> (a = S *m b).
Proof.
move=> unit; split=> [fixed | ->].
- have step : (1%:M - J) *m a = b by rewrite mulmxBl mul1mx {1}fixed addrK.
  by rewrite -step /S mulKmx.
- have split_S : S *m b = (1%:M - J) *m (S *m b) + J *m (S *m b) by rewrite mulmxBl mul1mx subrK.
  by rewrite {1}split_S {1}/S mulKVmx.
Qed.

(** Proposition 1: a jet that f reproduces is given by (8) and (9), and there is one. *)
Theorem proposition_1 (j : jet) : 1%:M - J \in unitmx ->
  push j = j <->
  [/\ along_u j = S *m bu, along_v j = S *m bv & along_uv j = S *m bracket (S *m bu) (S *m bv)].
Proof.
move=> unit; case: j => a b c; rewrite /push /=; split.
- case=> ea eb ec.
  have a_is : a = S *m bu by apply/(solve_fixed _ _ unit).
  have b_is : b = S *m bv by apply/(solve_fixed _ _ unit).
  by split=> //; apply/(solve_fixed _ _ unit); rewrite -a_is -b_is.
- case=> -> -> ->; congr Jet; apply/esym.
  + exact/(solve_fixed _ _ unit).
  + exact/(solve_fixed _ _ unit).
  + exact/(solve_fixed _ _ unit).
Qed.

Lemma partial_sum_recursion K : partial_sum K.+1 = 1%:M + J *m partial_sum K.
Proof.
rewrite /partial_sum big_ord_recl expr0; congr (_ + _).
by rewrite mulmxE mulr_sumr; apply: eq_bigr => k _; rewrite exprS.
Qed.

(** Proposition 2, first order, (10): the sum runs from k = 0 to K - 1. *)
Theorem proposition_2_first (K : nat) :
  along_u (phantom K) = partial_sum K *m bu /\ along_v (phantom K) = partial_sum K *m bv.
Proof.
elim: K => [|K [IHu IHv]]; first by rewrite /partial_sum big_ord0 !mul0mx.
by rewrite partial_sum_recursion !mulmxDl !mul1mx -!mulmxA -IHu -IHv.
Qed.

(** Proposition 2, second order, with the recursion that holds: each factor acts on its own leg of the tensor. *)
Definition mended_B (P : mat) (K : nat) : mat := \sum_(k < K) J ^+ (K - k.+1) *m P *m partial_sum k.
Definition mended_C (a b : vec) (K : nat) : vec :=
  \sum_(k < K) J ^+ (K - k.+1) *m Q (partial_sum k *m a) (partial_sum k *m b).

Lemma mended_B_recursion P K : mended_B P K.+1 = J *m mended_B P K + P *m partial_sum K.
Proof.
rewrite /mended_B big_ord_recr /= subnn expr0 mul1mx; congr (_ + _).
by rewrite mulmx_sumr; apply: eq_bigr => k _; rewrite subSS -subnSK ?ltn_ord // exprS -mulmxE !mulmxA.
Qed.

Lemma mended_C_recursion a b K :
  mended_C a b K.+1 = J *m mended_C a b K + Q (partial_sum K *m a) (partial_sum K *m b).
Proof.
rewrite /mended_C big_ord_recr /= subnn expr0 mul1mx; congr (_ + _).
by rewrite mulmx_sumr; apply: eq_bigr => k _; rewrite subSS -subnSK ?ltn_ord // exprS -mulmxE !mulmxA.
Qed.

Theorem proposition_2_second (K : nat) :
  along_uv (phantom K) =
  partial_sum K *m fuv + mended_B Pv K *m bu + mended_B Pu K *m bv + mended_C bu bv K.
Proof.
elim: K => [|K IH].
  by rewrite /partial_sum /mended_B /mended_C !big_ord0 !mul0mx !addr0.
have [eu ev] := proposition_2_first K.
rewrite partial_sum_recursion !mended_B_recursion mended_C_recursion /=.
rewrite -/(phantom K) IH eu ev /bracket !mulmxDl !mulmxDr mul1mx !mulmxA.
by rewrite [LHS](AC (4*4) ((1*5)*(6*2)*(7*3)*(8*4))).
Qed.
End Derivatives.
