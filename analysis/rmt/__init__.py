"""Random-matrix theory of deep equilibrium models: the four equations, equivalent networks, spectra."""
