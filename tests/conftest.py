"""Shared fixtures: one seed per test, single-threaded torch, precision reset, Hypothesis profiles."""

import os
import zlib

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

settings.register_profile("dev", max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", max_examples=25, deadline=None, derandomize=True, print_blob=True,
                          suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", max_examples=1000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """A seed that depends on the test's name alone, so that a failure can be replayed."""
    value = zlib.crc32(request.node.nodeid.encode())
    request.node.user_properties.append(("seed", value))
    return value


@pytest.fixture
def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(autouse=True)
def _isolated_numerics():
    """Put back global precision and dtype; tests that run in parallel use one thread each."""
    torch.set_num_threads(1)
    digits, dtype = mpmath.mp.dps, torch.get_default_dtype()
    yield
    mpmath.mp.dps = digits
    torch.set_default_dtype(dtype)
