"""`deqproof distance` and the report behind it."""

import pytest
import torch

from deq.data import DataError
from deq.training import ConfigError, load_config
from deq.training.distance import image_distance, labelled_images
from deq.training.options import DataOptions
from deq.training.start import train
from deq.training.trained import load_trained
from figures.cli import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return train(load_config("table1/cifar10-ssm", smoke=True), tmp_path_factory.mktemp("run"), progress=False).folder


def test_the_distance_has_its_own_name(folder, capsys):
    assert main(["distance", str(folder), "--count", "12"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("classifier-feature distance")
    assert "not comparable with an FID" in out
    assert "rank deficient" in out


def test_scaled_value_is_smaller_and_untrained_samples_are_far(folder):
    model, config = load_trained(folder)
    size = config.data.size
    report = image_distance(model, config.data, (3, size, size), count=20)
    assert report.released_value < report.value
    assert report.value > report.floor


def test_what_cannot_be_done_is_named(folder, capsys):
    assert main(["distance", str(folder), "--features", "inception", "--count", "4"]) == 2
    assert "pytorch-fid" in capsys.readouterr().err
    assert main(["distance", str(folder), "--count", "2"]) == 2
    with pytest.raises(ConfigError, match="no labels"):
        labelled_images(DataOptions("celeba"), "train")
    model, config = load_trained(folder)
    with pytest.raises(ConfigError, match="features"):
        image_distance(model, config.data, (3, 16, 16), features="pixels")


def test_missing_data_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("DEQPROOF_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(DataError):
        labelled_images(DataOptions("mnist"), "test", tmp_path)


def test_labels_of_the_synthetic_set():
    images, labels = labelled_images(DataOptions("synthetic", rows=50, size=8), "train")
    assert images.shape == (50, 3, 8, 8)
    assert 0 <= images.min() <= images.max() <= 1
    assert set(labels.tolist()) <= {0, 1, 2, 3}
    assert torch.equal(images, labelled_images(DataOptions("synthetic", rows=50, size=8), "train")[0])
