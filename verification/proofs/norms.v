(** The normalisation of [SM] 3.2: the Frobenius norm bounds a dense map, and does not bound a convolution. *)
From mathcomp Require Import all_ssreflect all_algebra.
Set Implicit Arguments. Unset Strict Implicit. Unset Printing Implicit Defensive.
Import GRing.Theory Num.Theory Order.TTheory.
Local Open Scope ring_scope.

Section Dense.
Variable T : realFieldType.

Lemma twice (b c : T) : c * (b * c *+ 2) = b * c ^+ 2 + b * c ^+ 2.
Proof. by rewrite mulrnAr mulr2n expr2 [c * (b * c)]mulrCA. Qed.

Lemma collect (a b c : T) : b * (a * b - c ^+ 2) = a * b ^+ 2 - (b * c ^+ 2 + b * c ^+ 2) + b * c ^+ 2.
Proof. by rewrite opprD addrA subrK mulrBr [b * (a * b)]mulrCA -expr2. Qed.

Lemma cauchy_schwarz n (a b : 'I_n -> T) :
  (\sum_j a j * b j) ^+ 2 <= (\sum_j a j ^+ 2) * (\sum_j b j ^+ 2).
Proof.
set A := \sum_j a j ^+ 2; set B := \sum_j b j ^+ 2; set C := \sum_j a j * b j.
have B_ge0 : 0 <= B by apply: sumr_ge0 => j _; exact: sqr_ge0.
have [B0 | B_neq0] := eqVneq B 0.
  have b0 j : b j = 0.
    have := psumr_eq0P (fun i _ => sqr_ge0 (b i)) B0 (i := j) isT.
    by move/eqP; rewrite sqrf_eq0 => /eqP.
  have -> : C = 0 by rewrite /C big1 // => j _; rewrite b0 mulr0.
  by rewrite expr0n /= B0 mulr0.
have B_gt0 : 0 < B by rewrite lt_def B_neq0.
suff : 0 <= B * (A * B - C ^+ 2) by rewrite pmulr_rge0 // subr_ge0.
have -> : B * (A * B - C ^+ 2) = \sum_j (a j * B - b j * C) ^+ 2.
  have expand j : (a j * B - b j * C) ^+ 2 = a j ^+ 2 * B ^+ 2 - a j * b j * (B * C *+ 2) + b j ^+ 2 * C ^+ 2.
    by rewrite sqrrB !exprMn [a j * B * _]mulrACA -mulrnAr.
  under eq_bigr => j _ do rewrite expand.
  rewrite big_split /= sumrB -!mulr_suml -/A -/B -/C.
  rewrite twice.
  exact: collect.
by apply: sumr_ge0 => j _; exact: sqr_ge0.
Qed.

(** |W v|_2 <= |W|_F |v|_2: so a dense layer with |W|_F < 1 and a 1-Lipschitz activation contracts. *)
Theorem frobenius_bounds_dense m n (W : 'M[T]_(m, n)) (v : 'cV[T]_n) :
  \sum_i (W *m v) i 0 ^+ 2 <= (\sum_i \sum_j W i j ^+ 2) * \sum_j v j 0 ^+ 2.
Proof.
rewrite mulr_suml; apply: ler_sum => i _; rewrite !mxE.
exact: (cauchy_schwarz (W i) (fun j => v j 0)).
Qed.
End Dense.

Section Convolution.
Variables (T : realFieldType) (height width : nat).
Definition image := 'I_height.+1 -> 'I_width.+1 -> T.
Definition kernel := 'I_5 -> 'I_5 -> T.

(** One channel, 5 x 5, circular padding (indices add modulo the image's size). *)
Definition convolve (k : kernel) (x : image) : image :=
  fun i j => \sum_(s < 5) \sum_(t < 5) k s t * x (i + inord s) (j + inord t).
Definition size2 (x : image) : T := \sum_i \sum_j x i j ^+ 2.
Definition frobenius2 (k : kernel) : T := \sum_s \sum_t k s t ^+ 2.

(** A kernel with |k|_F = 0.9 that multiplies the length of an image by 4.5, on images of every size. *)
Theorem frobenius_fails_for_convolutions : exists (k : kernel) (x : image),
  [/\ frobenius2 k = (9%:R / 10%:R) ^+ 2, 0 < size2 x & size2 (convolve k x) = (9%:R / 2%:R) ^+ 2 * size2 x].
Proof.
exists (fun _ _ => 9%:R / 50%:R), (fun _ _ => 1); split.
- rewrite /frobenius2 !sumr_const !card_ord -mulrnA -mulr_natr natrM -[5%:R * _]expr2 -exprMn.
  by congr (_ ^+ 2); rewrite mulrAC -natrM; apply/eqP; rewrite eqr_div ?pnatr_eq0 // -!natrM eqr_nat.
- rewrite /size2; under eq_bigr => i _ do under eq_bigr => j _ do rewrite expr1n.
  under eq_bigr => i _ do rewrite sumr_const card_ord.
  by rewrite sumr_const card_ord -mulrnA pmulrn_lgt0 ?ltr01.
- have factor : \sum_(s < 5) \sum_(t < 5) 9%:R / 50%:R * 1 = 9%:R / 2%:R :> T.
    rewrite !sumr_const !card_ord mulr1 -mulrnA -mulr_natr mulrAC -natrM; apply/eqP.
    by rewrite eqr_div ?pnatr_eq0 // -!natrM eqr_nat.
  rewrite /size2 mulr_sumr; apply: eq_bigr => i _; rewrite mulr_sumr; apply: eq_bigr => j _.
  by rewrite /convolve factor expr1n mulr1.
Qed.
End Convolution.
