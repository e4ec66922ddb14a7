(** What the printed proof of Proposition 2 gets wrong, with the least counterexamples, over the rationals. *)
From mathcomp Require Import all_ssreflect all_algebra ssrAC.
From deqproof Require Import derivatives.
Set Implicit Arguments. Unset Strict Implicit. Unset Printing Implicit Defensive.
Import GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Printed.
Variables (F : fieldType) (n : nat) (J : 'M[F]_n.+1).
Local Notation A := (partial_sum J).

(** As printed: B_K = J B_(K-1) + A_(K-1) and C_K = J C_(K-1) + A_(K-1) A_(K-1), acting from the left. *)
Fixpoint printed_B (K : nat) : 'M[F]_n.+1 := if K is k.+1 then J *m printed_B k + A k else 0.
Fixpoint printed_C (K : nat) : 'M[F]_n.+1 := if K is k.+1 then J *m printed_C k + A k *m A k else 0.

Lemma A_0 : A 0 = 0. Proof. by rewrite /partial_sum big_ord0. Qed.
Lemma A_1 : A 1 = 1%:M. Proof. by rewrite partial_sum_recursion A_0 mulmx0 addr0. Qed.
Lemma A_2 : A 2 = 1%:M + J. Proof. by rewrite partial_sum_recursion A_1 mulmx1. Qed.

(** The printed B_K is right for K <= 2, and at K = 3 exactly where J commutes with the tensor's leg. *)
Theorem printed_B_at_3 (P : 'M[F]_n.+1) :
  (printed_B 3 *m P = mended_B J P 3) <-> (J *m P = P *m J).
Proof.
have -> : printed_B 3 *m P = P + J *m P + J *m P.
  by rewrite /= !A_0 A_1 A_2 !mulmx0 !add0r mulmx0 add0r mulmx1 !mulmxDl mul1mx addrC.
have -> : mended_B J P 3 = P + J *m P + P *m J.
  rewrite !mended_B_recursion /mended_B big_ord0 A_0 A_1 A_2 !mulmx0 !addr0 mulmx0 add0r mulmx1 mulmxDr mulmx1.
  by rewrite [RHS](AC (2*1) ((2*1)*3)) addrA.
by split=> [/addrI | ->].
Qed.

(** With the printed A_0 = I the first step gives I + J, which is the derivative's factor I only for J = 0. *)
Theorem printed_start (A0 : 'M[F]_n.+1) : A0 = 1%:M -> (J *m A0 + 1%:M = A 1) <-> (J = 0).
Proof.
move=> ->; rewrite A_1 mulmx1; split=> [e | ->]; last by rewrite add0r.
by apply: (addIr 1%:M); rewrite e add0r.
Qed.
End Printed.

(** The counterexample: J maps e_1 to e_0 / 2 and e_0 to 0, so |J|_F = 1/2 and f contracts. *)
Definition J0 : 'M[rat]_2 := \matrix_(i < 2, j < 2) (if (i == 0) && (j == 1) then 1 / 2%:R else 0).
Definition P0 : 'M[rat]_2 := \matrix_(i < 2, j < 2) (if (i == 1) && (j == 0) then 1 else 0).

Theorem printed_recursion_B_refuted : exists J P : 'M[rat]_2, printed_B J 3 *m P != mended_B J P 3.
Proof.
exists J0, P0; apply/eqP => /printed_B_at_3 /matrixP /(_ 0 0).
by rewrite !mxE !big_ord_recr !big_ord0 /= !mxE.
Qed.

Definition Q0 (a b : 'cV[rat]_2) : 'cV[rat]_2 := \col_(i < 2) (if i == 1 then a 0 0 * b 0 0 else 0).
Definition e1 : 'cV[rat]_2 := \col_(i < 2) (if i == 1 then 1 else 0).

Lemma Q0_bilinear a b c (s : rat) :
  Q0 (s *: a + b) c = s *: Q0 a c + Q0 b c /\ Q0 c (s *: a + b) = s *: Q0 c a + Q0 c b.
Proof.
by split; apply/matrixP=> i j; rewrite !mxE; case: (i == 1);
   rewrite ?mulr0 ?addr0 // ?mulrDl ?mulrDr // -?mulrA //; congr (_ + _); rewrite mulrCA.
Qed.

Theorem printed_recursion_C_refuted :
  exists (J : 'M[rat]_2) (Q : 'cV[rat]_2 -> 'cV[rat]_2 -> 'cV[rat]_2) (b : 'cV[rat]_2),
  (forall s a c d, Q (s *: a + c) d = s *: Q a d + Q c d /\ Q d (s *: a + c) = s *: Q d a + Q d c) /\
  printed_C J 3 *m Q b b != mended_C J Q b b 3.
Proof.
exists J0, Q0, e1; split=> [s a c d|]; first exact: Q0_bilinear.
have zero : Q0 e1 e1 = 0 by apply/matrixP=> i j; rewrite !mxE /= mul0r; case: (i == 1).
rewrite zero mulmx0 !mended_C_recursion /mended_C big_ord0 A_0 A_1 A_2 mulmx0 add0r !mul0mx mul1mx.
have -> : Q0 0 0 = 0 by apply/matrixP=> i j; rewrite !mxE mul0r; case: (i == 1).
rewrite zero mulmx0 addr0 mulmx0 add0r eq_sym; apply/eqP => /matrixP /(_ 1 0).
by rewrite !mxE /= !big_ord_recr !big_ord0 /= !mxE.
Qed.

(** Proposition 2 states no contraction; f(z, x) = -3/2 z + x has Dz = 2/5, and the phantom's error grows. *)
Theorem contraction_is_needed (K : nat) :
  `|2%:R / 5%:R - \sum_(k < K) (- (3%:R / 2%:R)) ^+ k| >= 2%:R / 5%:R :> rat.
Proof.
pose q : rat := - (3%:R / 2%:R); rewrite -/q.
have law : 2%:R / 5%:R - \sum_(k < K) q ^+ k = 2%:R / 5%:R * q ^+ K.
  elim: K => [|K IH]; first by rewrite big_ord0 subr0 expr0 mulr1.
  rewrite big_ord_recr /= opprD addrA IH exprS -{2}[q ^+ K]mul1r mulrCA -mulrBl.
  by rewrite mulrA; congr (_ * _); apply/eqP.
rewrite law normrM normrX ler_pmulr; last by [].
by apply: exprn_ege1.
Qed.
