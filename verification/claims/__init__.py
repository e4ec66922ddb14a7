"""The claims, one topic a file."""

#: Patterns of topic names in the order in which a newcomer reads them; topics that match none come where "*" stands.
READING_ORDER = (
    "implicit-*", "phantom-*", "finite-*", "precondition*", "exact*", "well-posed*", "objective*", "score*", "dkef*",
    "training*", "limit*", "counterexample*", "loss*", "certificate*", "kernel*", "*equation*", "equivalents",
    "equivalent*", "match*", "spectr*", "real-data*", "*", "audit-sm*", "audit*",
)
