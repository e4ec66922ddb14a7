"""`deqproof sample` on freshly trained tiny models of each kind."""

import pytest
import torch

from deq.training import load_config
from deq.training.start import train
from deq.training.trained import load_trained, sample_images
from figures.cli import main


@pytest.mark.parametrize("name", ["table4/deq-ssm", "table1/cifar10-deq", "table5/deq"])
def test_a_grid_of_images_is_written(name, tmp_path, capsys):
    folder = train(load_config(name, smoke=True), tmp_path, progress=False).folder
    assert main(["sample", str(folder), "--count", "3"]) == 0
    assert (folder / "samples.png").read_bytes().startswith(b"\x89PNG")
    model, config = load_trained(folder)
    size = config.data.size
    images = sample_images(model, 2, (config.data.channels, size, size))
    assert images.shape == (2, config.data.channels, size, size)
    assert 0 <= images.min() <= images.max() <= 1
    assert torch.equal(images, sample_images(model, 2, (config.data.channels, size, size)))


def test_kernel_models_are_loaded_and_draw_no_images(tmp_path, capsys):
    folder = train(load_config("table2/redwine-sm", smoke=True), tmp_path, progress=False).folder
    model, _ = load_trained(folder)
    assert model.log_density(torch.zeros(2, 3, dtype=torch.float64)).shape == (2,)
    assert main(["sample", str(folder)]) == 2
    assert "no model of images" in capsys.readouterr().err


def test_trouble_is_named(tmp_path, capsys):
    assert main(["sample", str(tmp_path)]) == 2
    assert "options.json" in capsys.readouterr().err
    folder = train(load_config("table4/mle", smoke=True), tmp_path, progress=False).folder
    assert main(["sample", str(folder), "--step", "77"]) == 2
    assert "no checkpoint of step 77" in capsys.readouterr().err
