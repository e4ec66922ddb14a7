"""What the random-matrix module refuses to do, each refusal with its own name."""


class EquationsError(ValueError):
    """The parent of every refusal of the four equations; its message names the value and the remedy.

    Example:
        >>> import analysis
        >>> issubclass(analysis.NotWellPosed, analysis.EquationsError)
        True
    """


class GrowsTooFast(EquationsError):
    """E phi(tau xi)^2 is infinite, or cannot be told from infinite in double precision.

    Example:
        >>> import numpy as np, analysis
        >>> try:
        ...     analysis.solve_equations(lambda x: np.exp(x**2), 0.2)
        ... except analysis.EquationsError as error:
        ...     print(type(error).__name__)
        GrowsTooFast
    """


class NotResolved(EquationsError):
    """The quadrature cannot reach its tolerance: phi is too rough, or phi' is not square integrable.

    Example:
        >>> import analysis
        >>> issubclass(analysis.NotResolved, analysis.EquationsError)
        True
    """


class NoSolution(EquationsError):
    """The tau equation has no positive root.

    Example:
        >>> import numpy as np, analysis
        >>> try:
        ...     analysis.deq_kernels(np.eye(3), "softplus", sigma_a2=50.0, sigma_b2=1.0)
        ... except analysis.NoSolution:
        ...     print("take a smaller sigma_a2")
        take a smaller sigma_a2
    """


class SeveralSolutions(EquationsError):
    """The tau equation has several roots and none was chosen.

    Example:
        >>> import analysis
        >>> issubclass(analysis.SeveralSolutions, analysis.EquationsError)
        True
    """


class NotWellPosed(EquationsError):
    """A denominator of the four equations is zero or negative: sigma_a2 is at or past the edge.

    Example:
        >>> import analysis
        >>> issubclass(analysis.NotWellPosed, analysis.EquationsError)
        True
    """


class NoEquivalentNetwork(ValueError):
    """No network of the asked family and depth has the same kernel; `reason` is the certificate.

    Example:
        >>> import analysis
        >>> try:
        ...     analysis.equivalent_networks(analysis.solve_equations("relu", 0.2), family="hard_tanh")
        ... except analysis.NoEquivalentNetwork:
        ...     print("none: the message is the certificate")
        none: the message is the certificate
    """

    def __init__(self, message: str, **certificate: float | int | str) -> None:
        super().__init__(message)
        self.certificate = certificate


class DepthNotDecided(NoEquivalentNetwork):
    """No network was found up to the depth that was tried, and nothing says that there is none beyond it.

    Example:
        >>> import analysis
        >>> issubclass(analysis.DepthNotDecided, analysis.NoEquivalentNetwork)
        True
    """
