"""`python -m verification.proofs`: compile every theorem, try every mutation, a line each; status 1 on failure."""

from __future__ import annotations

import sys

from tqdm import tqdm

from verification.proofs.catalogue import THEOREMS
from verification.proofs.coq import CoqMissing, check, try_mutant


def main() -> int:
    """Run all; 0 when every theorem goes through and no mutation does, 1 otherwise or where Coq is missing."""
    bad = 0
    for theorem in tqdm(THEOREMS, unit="theorem", disable=not sys.stderr.isatty()):
        try:
            checked, mutant = check(theorem), try_mutant(theorem)
        except CoqMissing as missing:
            print(missing)
            return 1
        except RuntimeError as error:
            print(f"FAILS   {theorem.name}: {error}")
            bad += 1
            continue
        good = checked.accepted and mutant.well_typed and not mutant.proved
        bad += not good
        rests = "no axiom" if not checked.assumptions else f"{len(checked.assumptions)} axioms of reals and integers"
        state = "proved" if good else "FAILS "
        print(f"{state}  {theorem.name:34s} {rests}; mutation ({theorem.mutation}) "
              f"{'goes through' if mutant.proved else 'fails' if mutant.well_typed else 'is ill typed'}")
    print(f"{len(THEOREMS) - bad} of {len(THEOREMS)} theorems proved, each with a mutation that fails")
    return bad > 0


if __name__ == "__main__":
    sys.exit(main())
