"""The engine and the measurements on a CUDA device."""

import pytest
import torch

from deq.evaluation import peak_memory
from deq.training import load_config
from deq.training.start import train

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("name", [
    "table1/cifar10-deq", "table2/redwine-cp", "table2/redwine-dsm", "table2/redwine-ssm-vr", "table2/redwine-deq-ssm",
    "table3/gaussian-100-deq-sm", "table4/deq-ssm", "table5/deq"])
def test_smoke_runs_and_resumes_on_cuda(name, tmp_path):
    config = load_config(name, smoke=True)
    result = train(config, tmp_path, device="cuda", progress=False)
    assert all(value == value for value in result.stats.values())
    more = load_config(name, smoke=True, overrides={"run": {"steps": config.run.steps + 1}})
    assert train(more, tmp_path, device="cuda", resume=True, progress=False).step == config.run.steps + 1


def test_cuda_peak_of_a_known_sequence():
    """Two blocks of 2 MiB live together; the allocator rounds to 512 bytes, and these need no rounding."""
    def step():
        a = torch.ones(2**18, dtype=torch.float64, device="cuda")
        b = a + 1
        del a
        return b * 2

    assert peak_memory(step, "cuda") == 2 * 8 * 2**18
