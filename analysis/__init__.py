"""The mathematics of the papers: derivatives and their errors, kernels, random-matrix equivalents."""
