"""The examples in the docstrings of the kernel and random-matrix modules, run as they stand."""

import doctest
import importlib

import numpy as np
import pytest

MODULES = ("analysis.activations", "analysis.gaussian.moments", "analysis.kernels.implicit", "analysis.rmt.mixtures",
           "analysis.rmt.spectra", "analysis.rmt.trust")


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    results = doctest.testmod(importlib.import_module(name), extraglobs={"np": np})
    assert results.attempted > 0
    assert results.failed == 0
