(** Constants of the random-matrix part, enclosed by interval arithmetic that Coq checks. *)
From Coq Require Import Reals Ranalysis5 Lra.
From Interval Require Import Tactic.
Local Open Scope R_scope.

Definition kap := 1 - 2 / PI.

(** The least ratio alpha_1 tau_0^2 / gamma^2 of a hard tanh is 2 / pi; kap = 1 - 2 / pi to 15 digits. *)
Theorem kap_enclosed : 0.3633802276324186 <= kap <= 0.3633802276324187.
Proof. unfold kap; split; interval with (i_prec 80). Qed.

(** Beyond sigma_a^2 = 4 / (3 - 2 / pi) no leaky-ReLU network of any depth has the kernel of a ReLU DEQ. *)
Theorem depth_limit_enclosed : 1.69249 <= 4 / (3 - 2 / PI) <= 1.69250.
Proof. split; interval with (i_prec 60). Qed.

(** R and kap Q of a ReLU DEQ at sigma_a^2 = s (A = s / 4, k = kap), and the sum that a network's layers give. *)
Definition end_ratio (s : R) := (1 + kap) * (1 - s / 4) / (1 - s / 4 * (1 + kap)).
Definition target (s : R) := kap * (1 - s / 4 * (1 + kap)) / (1 - s / 4) ^ 2.
Definition two_cells (s r : R) := (r - 1) + (end_ratio s - r) / r ^ 2.
Definition three_cells (s r1 r2 : R) := (r1 - 1) + (r2 - r1) / r1 ^ 2 + (end_ratio s - r2) / r2 ^ 2.

(** Two layers have the kernel at sigma_a^2 = 0.8527, and no two layers have it at 0.8528. *)
Theorem two_layers_suffice : exists r, 1 <= r <= end_ratio 0.8527 /\ two_cells 0.8527 r = target 0.8527.
Proof.
assert (high : two_cells 0.8527 1 - target 0.8527 > 0).
  unfold two_cells, target, end_ratio, kap; interval with (i_prec 60).
assert (low : two_cells 0.8527 1.218 - target 0.8527 < 0).
  unfold two_cells, target, end_ratio, kap; interval with (i_prec 60).
assert (inside : 1.218 <= end_ratio 0.8527).
  unfold end_ratio, kap; interval with (i_prec 60).
destruct (IVT_interv (fun r => target 0.8527 - two_cells 0.8527 r) 1 1.218) as [r [range zero]].
- intros a range. unfold two_cells. reg. apply Rgt_not_eq. nra.
- lra.
- lra.
- lra.
- exists r. split; lra.
Qed.

Theorem two_layers_fail : forall r, 1 <= r <= end_ratio 0.8528 -> two_cells 0.8528 r > target 0.8528.
Proof.
assert (bound : end_ratio 0.8528 <= 1.5123).
  unfold end_ratio, kap; interval with (i_prec 60).
intros r range. assert (range' : 1 <= r <= 1.5123) by lra.
unfold two_cells, target, end_ratio, kap.
interval with (i_bisect r, i_taylor r, i_depth 25, i_prec 60).
Qed.

(** Three layers have it at 1.1349, and no three layers have it at 1.15. *)
Theorem three_layers_suffice :
  exists r1 r2, 1 <= r1 <= r2 /\ r2 <= end_ratio 1.1349 /\ three_cells 1.1349 r1 r2 = target 1.1349.
Proof.
assert (high : three_cells 1.1349 1 1.34832 - target 1.1349 > 0).
  unfold three_cells, target, end_ratio, kap; interval with (i_prec 60).
assert (low : three_cells 1.1349 1.15517 1.34832 - target 1.1349 < 0).
  unfold three_cells, target, end_ratio, kap; interval with (i_prec 80).
assert (inside : 1.34832 <= end_ratio 1.1349).
  unfold end_ratio, kap; interval with (i_prec 60).
destruct (IVT_interv (fun r => target 1.1349 - three_cells 1.1349 r 1.34832) 1 1.15517) as [r [range zero]].
- intros a range. unfold three_cells. reg. nra.
- lra.
- lra.
- lra.
- exists r, 1.34832. split; [lra | split; lra].
Qed.

Theorem three_layers_fail : forall r1 r2, 1 <= r1 <= r2 -> r2 <= end_ratio 1.15 ->
  three_cells 1.15 r1 r2 > target 1.15.
Proof.
assert (bound : end_ratio 1.15 <= 1.5977).
  unfold end_ratio, kap; interval with (i_prec 60).
intros r1 r2 range last.
assert (range1 : 1 <= r1 <= 1.5977) by lra. assert (range2 : 1 <= r2 <= 1.5977) by lra.
unfold three_cells, target, end_ratio, kap.
interval with (i_bisect r1, i_bisect r2, i_depth 40, i_prec 53).
Qed.
