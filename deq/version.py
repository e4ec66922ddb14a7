"""The version, in one place: packaging, `deq.__version__` and `deqproof --version` read it here."""

__version__ = "0.2.0"
