(** How far phantom derivatives are from exact ones at finite K: laws and bounds, for any norm in which J contracts. *)
From mathcomp Require Import all_ssreflect all_algebra ssrAC.
From deqproof Require Import derivatives.
Set Implicit Arguments. Unset Strict Implicit. Unset Printing Implicit Defensive.
Import GRing.Theory Num.Theory Order.TTheory.
Local Open Scope ring_scope.

Section Law.
Variables (F : fieldType) (n : nat) (J M : 'M[F]_n.+1) (b : 'cV[F]_n.+1).
Hypothesis unit_IJ : 1%:M - J \in unitmx.
Local Notation exact := (S J *m b).

(** The whole preconditioned family: z <- z + M (f(z) - z), M fixed, from a start whose derivative is cut. *)
Definition family_step (a : 'cV[F]_n.+1) := a + M *m (b + J *m a - a).
Definition R : 'M[F]_n.+1 := 1%:M - M *m (1%:M - J).

Theorem family_law (K : nat) : exact - iter K family_step 0 = R ^+ K *m exact.
Proof.
have fixed : exact = b + J *m exact by apply/(solve_fixed _ _ unit_IJ).
elim: K => [|K IH]; first by rewrite /= subr0 expr0 mul1mx.
rewrite iterS exprS -mulmxE -mulmxA -IH; set a := iter K _ _; rewrite {1}/family_step.
have b_is : b = (1%:M - J) *m exact by rewrite mulmxBl mul1mx {1}fixed addrK.
have -> : b + J *m a - a = (1%:M - J) *m (exact - a).
  by rewrite mulmxBr -b_is [(1%:M - J) *m a]mulmxBl mul1mx opprB addrA.
by rewrite /R mulmxBl mul1mx mulmxA opprD addrA.
Qed.
End Law.

(** M = I is the phantom gradient of [SM]: R = J. M = S leaves nothing after one step. *)
Corollary phantom_law (F : fieldType) n (J : 'M[F]_n.+1) (b : 'cV[F]_n.+1) K : 1%:M - J \in unitmx ->
  S J *m b - partial_sum J K *m b = J ^+ K *m (S J *m b).
Proof.
move=> unit; rewrite -[J in J ^+ K](_ : R J 1%:M = J); last by rewrite /R mul1mx opprB addrC subrK.
rewrite -family_law //; congr (_ - _); elim: K => [|K IH]; first by rewrite /partial_sum big_ord0 mul0mx.
by rewrite iterS -IH partial_sum_recursion mulmxDl !mul1mx -mulmxA /family_step mul1mx addrCA subrr addr0.
Qed.

Corollary exact_after_one_step (F : fieldType) n (J : 'M[F]_n.+1) (b : 'cV[F]_n.+1) K : 1%:M - J \in unitmx ->
  iter K.+1 (family_step J (S J) b) 0 = S J *m b.
Proof.
move=> unit; apply/eqP; rewrite eq_sym -subr_eq0 family_law // /R /S mulVmx // subrr exprS mul0r mul0mx //.
Qed.

Section Bounds.
Variables (T : realFieldType) (n : nat) (N : 'cV[T]_n.+1 -> T) (q : T) (J : 'M[T]_n.+1).
Hypothesis N_definite : forall v, N v = 0 -> v = 0.
Hypothesis N_ge0 : forall v, 0 <= N v.
Hypothesis N_triangle : forall v w, N (v + w) <= N v + N w.
Hypothesis N_opp : forall v, N (- v) = N v.
Hypothesis q_ge0 : 0 <= q.
Hypothesis contracts : forall v, N (J *m v) <= q * N v.

Lemma power_contracts K v : N (J ^+ K *m v) <= q ^+ K * N v.
Proof.
elim: K => [|K IH]; first by rewrite !expr0 mul1mx mul1r.
rewrite !exprS -mulmxE -mulmxA; apply: le_trans (contracts _) _.
by rewrite -mulrA ler_wpmul2l.
Qed.

(** Proposition 1's first sentence: a contraction leaves I - J invertible. *)
Theorem contraction_invertible : q < 1 -> 1%:M - J \in unitmx.
Proof.
move=> q_lt1; rewrite -unitmx_tr -row_free_unit -kermx_eq0; apply/eqP/row_matrixP=> i.
rewrite row0; set w := row i _.
have kernel : w *m (1%:M - J)^T = 0 by apply/sub_kermxP; exact: row_sub.
have fixed : w^T = J *m w^T.
  apply/eqP; rewrite -subr_eq0 -{1}[w^T]mul1mx -mulmxBl -[1%:M - J]trmxK -trmx_mul kernel trmx0 //.
suff /N_definite /(congr1 trmx) : N w^T = 0 by rewrite trmxK trmx0.
apply/eqP; rewrite eq_le N_ge0 andbT.
have small : N w^T <= q * N w^T by rewrite {1}fixed.
by rewrite -(pmulr_rle0 (N w^T) (_ : 0 < 1 - q)) ?subr_gt0 // mulrBl mul1r subr_le0.
Qed.

(** Finite K, first order. *)
Theorem first_order_bound (b : 'cV[T]_n.+1) K : q < 1 ->
  N (S J *m b - partial_sum J K *m b) <= q ^+ K * N (S J *m b).
Proof. by move=> q_lt1; rewrite phantom_law ?contraction_invertible // power_contracts. Qed.

Section SecondOrder.
Variables (Pu Pv : 'M[T]_n.+1) (bu bv fuv : 'cV[T]_n.+1) (Q : 'cV[T]_n.+1 -> 'cV[T]_n.+1 -> 'cV[T]_n.+1).
Variables (cu cv c : T).
Hypothesis Q_subl : forall x y w, Q (x - y) w = Q x w - Q y w.
Hypothesis Q_subr : forall x y w, Q w (x - y) = Q w x - Q w y.
Hypothesis Pu_bound : forall v, N (Pu *m v) <= cu * N v.
Hypothesis Pv_bound : forall v, N (Pv *m v) <= cv * N v.
Hypothesis Q_bound : forall v w, N (Q v w) <= c * N v * N w.
Hypotheses (cu_ge0 : 0 <= cu) (cv_ge0 : 0 <= cv) (c_ge0 : 0 <= c) (q_lt1 : q < 1).
Local Notation a := (S J *m bu).
Local Notation b := (S J *m bv).
Local Notation H := (bracket Pu Pv fuv Q).
Local Notation z K := (phantom J Pu Pv bu bv fuv Q K).
Definition exact_second := S J *m H a b.
Definition L1 := cv * N a + cu * N b + (c * N a * N b) *+ 2.
Definition L2 := c * N a * N b.

Lemma bracket_gap K : N (H a b - H (along_u (z K)) (along_v (z K))) <= q ^+ K * L1 + q ^+ (K + K) * L2.
Proof.
have [-> ->] := proposition_2_first J Pu Pv bu bv fuv Q K.
set aK := partial_sum J K *m bu; set bK := partial_sum J K *m bv.
have ea : N (a - aK) <= q ^+ K * N a by exact: first_order_bound.
have eb : N (b - bK) <= q ^+ K * N b by exact: first_order_bound.
have -> : H a b - H aK bK =
    Pv *m (a - aK) + Pu *m (b - bK) + (Q (a - aK) b + Q a (b - bK)) - Q (a - aK) (b - bK).
  rewrite /bracket !mulmxBr !Q_subl !Q_subr; set p := Pv *m a; set p' := Pv *m aK; set r := Pu *m b.
  set r' := Pu *m bK; set q1 := Q a b; set q2 := Q aK bK; set q3 := Q aK b; set q4 := Q a bK.
  rewrite !opprD !opprK !addrA.
  rewrite [LHS](AC (7*1) ((1*5)*(2*6*3*7*4*8))) /= subrr add0r.
  by rewrite [RHS](AC (11*1) (((5*9)*(8*10))*(6*11)*(1*2*3*4*7*12))) /= subrr !addNr !add0r.
apply: le_trans (N_triangle _ _) _; rewrite N_opp.
apply: le_trans (ler_add (N_triangle _ _) (lexx _)) _.
apply: le_trans (ler_add (ler_add (N_triangle _ _) (N_triangle _ _)) (lexx _)) _.
have t1 : N (Pv *m (a - aK)) <= q ^+ K * (cv * N a).
  by apply: le_trans (Pv_bound _) _; rewrite mulrCA ler_wpmul2l.
have t2 : N (Pu *m (b - bK)) <= q ^+ K * (cu * N b).
  by apply: le_trans (Pu_bound _) _; rewrite mulrCA ler_wpmul2l.
have t3 : N (Q (a - aK) b) <= q ^+ K * L2.
  apply: le_trans (Q_bound _ _) _; rewrite /L2 mulrA ler_wpmul2r //.
  by rewrite mulrCA ler_wpmul2l.
have t4 : N (Q a (b - bK)) <= q ^+ K * L2.
  apply: le_trans (Q_bound _ _) _; rewrite /L2 mulrCA ler_wpmul2l // mulr_ge0 //.
have t5 : N (Q (a - aK) (b - bK)) <= q ^+ (K + K) * L2.
  apply: le_trans (Q_bound _ _) _; rewrite /L2 exprD.
  apply: (@le_trans _ _ (c * (q ^+ K * N a) * (q ^+ K * N b))).
    by rewrite ler_pmul ?mulr_ge0 // ler_wpmul2l.
  by rewrite le_eqVlt; apply/orP; left; apply/eqP; rewrite !mulrA; rewrite [LHS](AC (4*1) ((2*4)*((1*3)*5))) /= !mulrA.
apply: le_trans (ler_add (ler_add (ler_add t1 t2) (ler_add t3 t4)) t5) _.
by rewrite /L1 -/L2 mulrDr mulrDr mulrnAr mulr2n.
Qed.

(** Finite K, second order: the error decays like K q^K, a factor K slower than the first order. *)
Theorem second_order_bound K :
  N (exact_second - along_uv (z K)) <=
  q ^+ K * N exact_second + (q ^+ K.-1 * L1) *+ K + q ^+ K.-1 * (\sum_(k < K) q ^+ k) * L2.
Proof.
have unit := contraction_invertible q_lt1.
have fixed : exact_second = H a b + J *m exact_second by apply/(solve_fixed _ _ unit).
elim: K => [|K IH]; first by rewrite /= subr0 expr0 mul1r mulr0n big_ord0 mulr0 mul0r !addr0.
have -> : exact_second - along_uv (z K.+1) =
    (H a b - H (along_u (z K)) (along_v (z K))) + J *m (exact_second - along_uv (z K)).
  by rewrite {1}fixed /= mulmxBr opprD addrACA.
apply: le_trans (N_triangle _ _) _.
apply: le_trans (ler_add (bracket_gap K) (contracts _)) _.
apply: le_trans (ler_add (lexx _) (ler_wpmul2l q_ge0 IH)) _.
have step1 : q * (q ^+ K.-1 * L1 *+ K) = q ^+ K * L1 *+ K.
  by case: K {IH} => [|k]; rewrite ?mulr0n ?mulr0 // mulrnAr mulrA -exprS.
have step2 : q * (q ^+ K.-1 * (\sum_(k < K) q ^+ k) * L2) = q ^+ K * (\sum_(k < K) q ^+ k) * L2.
  by case: K {IH step1} => [|k]; rewrite ?big_ord0 ?mulr0 ?mul0r ?mulr0 // !mulrA -exprS.
rewrite /= [q * _]mulrDr [q * (_ + _ *+ _)]mulrDr step1 step2 [q * (q ^+ K * _)]mulrA -exprS.
rewrite big_ord_recr /= [q ^+ K * (\sum_(i < K) _ + _)]mulrDr [(_ + _) * L2]mulrDl -exprD mulrSr.
by rewrite !addrA [X in X <= _](AC (4*1) ((((3*4)*1)*5)*2)) /= lexx.
Qed.
End SecondOrder.
End Bounds.

Section Limits.
Variables (T : archiFieldType) (n : nat) (N : 'cV[T]_n.+1 -> T) (q : T) (J : 'M[T]_n.+1).

(** Bernoulli: powers of a q < 1 fall below every positive number. *)
Lemma powers_vanish (e : T) : 0 <= q -> q < 1 -> 0 < e -> exists K0, forall K, (K0 <= K)%N -> q ^+ K < e.
Proof.
move=> q_ge0 q_lt1 e_gt0; have [-> | q_neq0] := eqVneq q 0.
  by exists 1%N => -[|K] // _; rewrite exprS mul0r.
have q_gt0 : 0 < q by rewrite lt_def q_neq0.
pose d := q^-1 - 1; have d_gt0 : 0 < d by rewrite subr_gt0 invf_gt1.
have bernoulli K : 1 + d *+ K <= q^-1 ^+ K.
  elim: K => [|K IH]; first by rewrite mulr0n addr0 expr0.
  rewrite exprS; apply: (@le_trans _ _ (q^-1 * (1 + d *+ K))); last by rewrite ler_wpmul2l ?invr_ge0.
  have q_inv : q^-1 = 1 + d by rewrite addrC subrK.
  have -> : q^-1 * (1 + d *+ K) = 1 + d *+ K.+1 + d * (d *+ K).
    by rewrite {1}q_inv mulrDl mul1r mulrDr mulr1 mulrSr !addrA.
  by rewrite ler_addl mulr_ge0 ?mulrn_wge0 // ltW.
have [K0 large] : exists K0 : nat, e^-1 / d < K0%:R.
  by exists (Num.bound (e^-1 / d)); apply: archi_boundP; rewrite divr_ge0 ?invr_ge0 ?ltW.
exists K0 => K K0K; rewrite -ltf_pinv ?posrE ?exprn_gt0 // -exprVn.
apply: lt_le_trans (bernoulli K); apply: (@lt_le_trans _ _ (d *+ K0)).
  by rewrite -mulr_natl mulrC -ltr_pdivr_mull // mulrC.
by rewrite -(subnKC K0K) mulrnDr addrCA ler_addl addr_ge0 ?ler01 ?mulrn_wge0 ?ltW.
Qed.

Hypothesis N_definite : forall v, N v = 0 -> v = 0.
Hypothesis N_ge0 : forall v, 0 <= N v.
Hypothesis contracts : forall v, N (J *m v) <= q * N v.

(** The Neumann series converges to S = (I - J)^{-1}: the limit in Proposition 2, first order. *)
Theorem neumann_series_converges (b : 'cV[T]_n.+1) (e : T) : 0 <= q -> q < 1 -> 0 < e ->
  exists K0, forall K, (K0 <= K)%N -> N (S J *m b - partial_sum J K *m b) < e.
Proof.
move=> q_ge0 q_lt1 e_gt0; have size_gt0 : 0 < N (S J *m b) + 1 by exact: ltr_paddl (N_ge0 _) ltr01.
have [K0 small] := powers_vanish q_ge0 q_lt1 (divr_gt0 e_gt0 size_gt0).
exists K0 => K /small near; apply: (@le_lt_trans _ _ (q ^+ K * N (S J *m b))).
  exact: (first_order_bound N_definite N_ge0 q_ge0 contracts).
apply: (@le_lt_trans _ _ (q ^+ K * (N (S J *m b) + 1))).
  by rewrite ler_wpmul2l ?exprn_ge0 // ler_addl ler01.
by rewrite -ltr_pdivl_mulr.
Qed.
End Limits.
