"""One sweep, serial, on processes and on a local Dask cluster: the same numbers."""

import numpy as np
import pytest

from verification.bench.cases_kernels import kernel_grid
from verification.sweep import sweep


def test_order_and_arguments():
    assert sweep(divmod, [(7, 2), (9, 4), (3, 5)], jobs=1) == [(3, 1), (2, 1), (0, 3)]
    assert sweep(divmod, []) == []


def test_a_real_sweep_on_a_local_dask_cluster_equals_the_serial_one():
    joblib = pytest.importorskip("joblib")
    distributed = pytest.importorskip("distributed")
    serial = kernel_grid(40)
    local = {"n_workers": 2, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with (distributed.LocalCluster(**local) as cluster, distributed.Client(cluster) as client,
          joblib.parallel_config(backend="dask", client=client)):
        spread = kernel_grid(40, jobs=None)
    assert spread.shape == (9, 40, 40)
    np.testing.assert_array_equal(spread, serial)
