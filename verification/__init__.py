"""Claims of the papers, the evidence for or against each, and the report."""
