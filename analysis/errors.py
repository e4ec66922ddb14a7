"""What the random-matrix module refuses to do, each refusal with its own name."""


class EquationsError(ValueError):
    """The parent of every refusal of the four equations; its message names the value and the remedy."""


class GrowsTooFast(EquationsError):
    """E phi(tau xi)^2 is infinite, or cannot be told from infinite in double precision."""


class NotResolved(EquationsError):
    """The quadrature cannot reach its tolerance: phi is too rough, or phi' is not square integrable."""


class NoSolution(EquationsError):
    """The tau equation has no positive root."""


class SeveralSolutions(EquationsError):
    """The tau equation has several roots and none was chosen."""


class NotWellPosed(EquationsError):
    """A denominator of the four equations is zero or negative: sigma_a2 is at or past the edge."""


class NoEquivalentNetwork(ValueError):
    """No network of the asked family and depth has the same kernel; `reason` is the certificate."""

    def __init__(self, message: str, **certificate: float | int | str) -> None:
        super().__init__(message)
        self.certificate = certificate


class DepthNotDecided(NoEquivalentNetwork):
    """No network was found up to the depth that was tried, and nothing says that there is none beyond it."""
