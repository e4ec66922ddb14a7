"""The machine-checked core: theorems in Coq (`*.v`), what each says (`catalogue`), and how they are run (`coq`).

`make proofs` compiles all of it and tries every mutated statement; the claims of `verification.claims.proofs` do the
same, one theorem at a time, and are untested where `coqc` is missing.
"""
