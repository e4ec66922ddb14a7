"""The accuracy study on small made-up data: preparation, networks, readouts, training, honest bookkeeping."""

import numpy as np
import pytest
import torch

import analysis
from verification.experiments.accuracy import MODELS, RandomNetwork, StudySize, accuracy_study, architectures, prepare
from verification.experiments.accuracy.cifar import SmallConvolutionalNetwork, extract, train_network
from verification.experiments.accuracy.data import first_of_each, image_data
from verification.experiments.accuracy.training import descent_readout, ridge_readout, train_all


@pytest.fixture
def blobs(rng):
    def draw(count):
        labels = np.repeat(np.arange(3), count)
        return 2.0 * np.eye(3, 12)[labels] + 0.7 * rng.standard_normal((3 * count, 12)) + 5.0, labels

    return prepare("blobs", *draw(40), *draw(30))


def test_preparation_uses_training_statistics_only(rng):
    train, test = rng.standard_normal((30, 4)) + 2, rng.standard_normal((20, 4)) - 3
    data = prepare("x", train, np.zeros(30, int), test, np.zeros(20, int))
    assert np.abs(data.train.mean(axis=0)).max() < 1e-12
    assert np.square(data.train).sum(axis=1).mean() == pytest.approx(1)
    scale = np.sqrt(np.square(train - train.mean(axis=0)).sum(axis=1).mean())
    np.testing.assert_allclose(data.test, (test - train.mean(axis=0)) / scale)
    with pytest.raises(ValueError, match="all equal"):
        prepare("x", np.ones((3, 2)), np.zeros(3, int), np.ones((3, 2)), np.zeros(3, int))
    with pytest.raises(ValueError, match="not finite"):
        prepare("x", np.full((3, 2), np.nan), np.zeros(3, int), np.ones((3, 2)), np.zeros(3, int))


def test_first_of_each_class_in_file_order():
    labels = np.array([3, 1, 3, 1, 3])
    chosen, renamed = first_of_each(np.arange(5)[:, None], labels, (3, 1), 2)
    np.testing.assert_array_equal(chosen[:, 0], [0, 2, 1, 3])
    np.testing.assert_array_equal(renamed, [0, 0, 1, 1])
    with pytest.raises(ValueError, match="3 are asked for"):
        first_of_each(np.arange(5)[:, None], labels, (1,), 3)
    with pytest.raises(ValueError, match="unknown image set"):
        image_data("cifar", None, per_class_train=1, per_class_test=1)


@pytest.mark.parametrize("name", MODELS)
def test_wide_networks_have_the_exact_kernel(name, generator, rng):
    # independent route: features of a finite network against the kernel matrices of the theory
    x = rng.standard_normal((40, 3)) / np.sqrt(40)
    x /= np.sqrt(np.square(x).sum(axis=0).mean())
    architecture = architectures(0.2, names=(name,))[0]
    width = 1500
    network = RandomNetwork(architecture, width, 40, 2, generator)
    h, steps, _ = network.fixed_features(torch.tensor(x.T, dtype=torch.float32))
    found = (h @ h.T).double().numpy()
    if architecture.implicit:
        activation = name.split()[0]
        eq = analysis.solve_equations(activation, 0.2)
        truth = analysis.deq_kernels(x, activation, 0.2, centre=float(eq.shift)).ck
        assert 3 < steps < 30
    else:
        assert steps == 0
        layers = [lambda u, phi=phi: phi(torch.tensor(u)).numpy() for phi in architecture.layers]
        truth = analysis.explicit_kernels(x, layers).ck
    # entries fluctuate with standard deviation about 1/sqrt(width), a little more for a DEQ; 9 of them
    assert np.abs(found - truth).max() < 6 / np.sqrt(width)


def test_all_networks_have_the_same_final_variance():
    gammas = {name: float(analysis.solve_equations(name, 0.2).gamma2) for name in ("relu", "tanh")}
    x, w = np.polynomial.hermite_e.hermegauss(201)
    w /= w.sum()
    for architecture in architectures(0.2):
        if architecture.implicit:
            continue
        tau = 1.0
        for phi in architecture.layers:
            values = phi(torch.tensor(tau * x)).numpy()
            tau = float(np.sqrt(w @ np.square(values)))
        wanted = gammas["tanh" if "tanh" in architecture.name else "relu"]
        assert tau**2 == pytest.approx(wanted, rel=0.02)  # Gauss-Hermite across a kink: 1/sqrt(201) of its share


def test_ridge_is_least_squares_and_descent_learns(blobs, generator):
    h, y = torch.tensor(blobs.train), torch.tensor(blobs.train_labels)
    t, labels = torch.tensor(blobs.test), torch.tensor(blobs.test_labels)
    found = ridge_readout(h, y, t, labels, penalties=(1e-12,))
    design = np.c_[blobs.train, np.ones(len(h))]
    weights = np.linalg.lstsq(design, np.eye(3)[blobs.train_labels], rcond=None)[0]
    predicted = (np.c_[blobs.test, np.ones(len(t))] @ weights).argmax(axis=1)
    assert found.accuracy == pytest.approx(np.mean(predicted == blobs.test_labels))
    descent = descent_readout(h.float(), y, t.float(), labels, generator, epochs=30)
    assert descent.accuracy > 0.8
    assert descent.train_accuracy > 0.8


@pytest.mark.parametrize("name", ["relu DEQ", "hard tanh equivalent"])
def test_training_all_weights_moves_them_and_learns(name, blobs, generator):
    network = RandomNetwork(architectures(0.2, names=(name,))[0], 24, 12, 3, generator)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    tensors = [torch.tensor(a) for a in (blobs.train, blobs.train_labels, blobs.test, blobs.test_labels)]
    tensors[0], tensors[2] = tensors[0].float(), tensors[2].float()
    found = train_all(network, *tensors, generator, epochs=5, batch=40)
    assert all(not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    assert found.accuracy > 0.8
    assert (found.steps > 0) == (name == "relu DEQ")


def test_study_rows_are_complete_and_reproducible(blobs):
    size = StudySize((8, 16), 2, 2, (8,), 1, 1)
    first, second = (accuracy_study(blobs, size, models=("tanh DEQ", "plain tanh")) for _ in range(2))
    assert len(first["rows"]) == 2 * 2 * 2
    for one, two in zip(first["rows"], second["rows"], strict=True):
        assert one["ridge"]["accuracy"] == two["ridge"]["accuracy"]
        assert ("all weights" in one) == (one["width"] == 8 and one["seed"] == 0)
        layers = 1 if one["model"] == "plain tanh" else 2
        assert one["parameters"] == one["width"] * (12 + 3 + (layers - 1) * one["width"]) + 3
    deq = next(row for row in first["rows"] if row["model"] == "tanh DEQ")
    assert deq["operations"] == pytest.approx(2 * 8 * 12 + 2 * deq["solver steps"] * 64)


def test_unknown_model():
    with pytest.raises(ValueError, match="unknown model"):
        architectures(0.2, names=("resnet",))


def test_feature_network_trains_and_is_deterministic(generator):
    images = torch.rand(40, 3, 32, 32, generator=generator) * 2 - 1
    labels = torch.arange(40) % 10
    one, two = (extract(train_network(images, labels, epochs=1, seed=3, batch=20), images) for _ in range(2))
    assert one.shape == (40, 256)
    np.testing.assert_array_equal(one, two)
    fresh = extract(SmallConvolutionalNetwork(torch.Generator().manual_seed(3)).eval(), images)
    assert np.abs(one - fresh).max() > 1e-3
