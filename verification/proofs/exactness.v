(** After K steps of the chord-Newton iteration (M = S, fixed) every derivative of total order at most K is exact.

    Derivatives along a curve are coefficients of a power series: the state, the inputs and the parameters are taken in
    a commutative ring A with an element h (for instance polynomials in h, or in h with more unknowns), and "exact up
    to order K" is "equal modulo h^(K+1)". All curves together give all mixed derivatives, by polarisation. The map is
    any vector of polynomial expressions with coefficients in A: that its coefficients depend on h is how inputs and
    parameters move. *)
From mathcomp Require Import all_ssreflect all_algebra ssrAC.
Set Implicit Arguments. Unset Strict Implicit. Unset Printing Implicit Defensive.
Import GRing.Theory.
Local Open Scope ring_scope.

Section Exactness.
Variables (A : comRingType) (h : A) (n : nat).
Local Notation vec := 'cV[A]_n.
Local Notation mat := 'M[A]_n.

Inductive expression :=
  | Constant of A | Unknown of 'I_n | Add of expression & expression | Multiply of expression & expression.

Fixpoint value (e : expression) (z : vec) : A :=
  match e with
  | Constant c => c | Unknown i => z i 0
  | Add e1 e2 => value e1 z + value e2 z | Multiply e1 e2 => value e1 z * value e2 z
  end.

(** Hadamard's lemma: a difference of values is a row times the difference of the points; at equal points the row is
    the gradient. *)
Fixpoint divided (e : expression) (a b : vec) : 'rV[A]_n :=
  match e with
  | Constant _ => 0 | Unknown i => delta_mx 0 i
  | Add e1 e2 => divided e1 a b + divided e2 a b
  | Multiply e1 e2 => value e2 a *: divided e1 a b + value e1 b *: divided e2 a b
  end.

Lemma hadamard e a b : value e a - value e b = (divided e a b *m (a - b)) 0 0.
Proof.
elim: e => [c|i|e1 IH1 e2 IH2|e1 IH1 e2 IH2] /=.
- by rewrite subrr mul0mx mxE.
- by rewrite -rowE !mxE.
- by rewrite mulmxDl mxE -IH1 -IH2 opprD addrACA.
- rewrite mulmxDl -!scalemxAl !mxE; move: IH1 IH2; rewrite !mxE => <- <-.
  by rewrite !mulrBr [value e2 a * value e1 a]mulrC addrA [value e2 a * value e1 b]mulrC subrK.
Qed.

Definition congruent (k : nat) (x y : A) : Prop := exists c, x - y = h ^+ k * c.
Definition congruent_vec (k : nat) (x y : vec) : Prop := exists c : vec, x - y = h ^+ k *: c.

Variable f : 'I_n -> expression.
Definition apply (z : vec) : vec := \col_i value (f i) z.
Definition slopes (a b : vec) : mat := \matrix_(i, j) divided (f i) a b 0 j.
Definition jacobian (z : vec) : mat := slopes z z.

Lemma apply_gap a b : apply a - apply b = slopes a b *m (a - b).
Proof.
apply/matrixP=> i j; rewrite !mxE hadamard !mxE ord1.
by apply: eq_bigr => k _; rewrite !mxE.
Qed.

Lemma value_congruent e a b : congruent_vec 1 a b -> congruent 1 (value e a) (value e b).
Proof.
case=> c gap; exists ((divided e a b *m c) 0 0).
by rewrite hadamard gap -scalemxAr mxE.
Qed.

Lemma divided_congruent e a b z : congruent_vec 1 a z -> congruent_vec 1 b z ->
  exists r : 'rV[A]_n, divided e a b - divided e z z = h *: r.
Proof.
move=> az bz; elim: e => [c|i|e1 [r1 IH1] e2 [r2 IH2]|e1 [r1 IH1] e2 [r2 IH2]] /=.
- by exists 0; rewrite subrr scaler0.
- by exists 0; rewrite subrr scaler0.
- by exists (r1 + r2); rewrite scalerDr -IH1 -IH2 opprD addrACA.
- have [c2] := value_congruent e2 az; have [c1] := value_congruent e1 bz; rewrite expr1 => g1 g2.
  exists (value e2 a *: r1 + c2 *: divided e1 z z + (value e1 b *: r2 + c1 *: divided e2 z z)).
  have -> : divided e1 a b = divided e1 z z + h *: r1 by rewrite -IH1 addrCA subrr addr0.
  have -> : divided e2 a b = divided e2 z z + h *: r2 by rewrite -IH2 addrCA subrr addr0.
  rewrite !scalerDr !scalerA [h * value e2 a]mulrC [h * value e1 b]mulrC -g1 -g2 !scalerBl.
  by rewrite opprD [LHS](AC ((2*2)*2) ((2*(1*5))*(4*(3*6)))).
Qed.

Variables (exact start : vec) (M : mat) (C : mat).
Hypothesis fixed : apply exact = exact.
Hypothesis start_value : congruent_vec 1 start exact.
(** M inverts I - J at the start, which carries values only: that is enough to be right modulo h. *)
Hypothesis inverse : M *m (1%:M - jacobian start) = 1%:M + h *: C.

Definition newton_step (z : vec) : vec := z + M *m (apply z - z).

Lemma one_order_more k z : congruent_vec k.+1 z exact -> congruent_vec k.+2 (newton_step z) exact.
Proof.
case=> c gap.
have near : congruent_vec 1 z start.
  have [d to_start] := start_value; exists (h ^+ k *: c - d).
  rewrite scalerBr scalerA -exprD add1n -gap -to_start opprB addrA subrK //.
have near_exact : congruent_vec 1 exact start.
  by have [d to_start] := start_value; exists (- d); rewrite scalerN -to_start opprB.
have [E slopes_gap] : exists E : mat, slopes z exact - jacobian start = h *: E.
  have rows i : exists r : 'rV[A]_n, divided (f i) z exact - divided (f i) start start = h *: r.
    exact: divided_congruent.
  have [r rP] := fin_all_exists rows.
  exists (\matrix_(i, j) r i 0 j); apply/matrixP=> i j.
  by have /matrixP /(_ 0 j) := rP i; rewrite !mxE.
exists ((M *m E - C) *m c).
have -> : newton_step z - exact = (1%:M - M *m (1%:M - slopes z exact)) *m (z - exact).
  rewrite /newton_step mulmxBl mul1mx -mulmxA mulmxBl mul1mx -apply_gap fixed.
  by rewrite addrAC; congr (_ + _); rewrite -mulmxN opprB opprB addrA subrK.
have -> : slopes z exact = jacobian start + h *: E by rewrite -slopes_gap addrCA subrr addr0.
have -> : 1%:M - M *m (1%:M - (jacobian start + h *: E)) = h *: (M *m E - C).
  by rewrite opprD addrA mulmxBr inverse -scalemxAr opprB addrCA opprD [1%:M + _]addrA subrr add0r scalerBr.
by rewrite gap -scalemxAr -scalemxAl scalerA -exprSr.
Qed.

Theorem exact_to_order_K (K : nat) : congruent_vec K.+1 (iter K newton_step start) exact.
Proof. by elim: K => [|K IH] //; rewrite iterS; apply: one_order_more. Qed.
End Exactness.
