"""Every data set the papers' models are trained on: its files, checksums, public sources and terms."""

from __future__ import annotations

from dataclasses import dataclass

from deq.data.locate import DataFile

_UCI = "https://archive.ics.uci.edu/ml/machine-learning-databases"
_WINE = "UCI repository, Wine Quality (Cortez et al. 2009), CC BY 4.0: https://archive.ics.uci.edu/dataset/186"


@dataclass(frozen=True)
class Dataset:
    """A data set by name.

    Attributes:
        name: as on the command line.
        title: a line.
        files: all of them are needed, or any one where `alternatives` is set.
        alternatives: the files are different packings of the same data.
    """

    name: str
    title: str
    files: tuple[DataFile, ...]
    alternatives: bool = False


def _idx(folder: str, base: tuple[str, ...], sums: tuple[str, str, str, str], source: str) -> tuple[DataFile, ...]:
    names = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz",
             "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")
    return tuple(DataFile(f"{folder}/{name}", checksum, tuple(f"{address}/{name}" for address in base), source)
                 for name, checksum in zip(names, sums, strict=True))


PARKINSON = Dataset("parkinson", "Parkinsons Telemonitoring, 5875 rows", (DataFile(
    "uci/parkinsons_updrs.data", "f2c7d5025dec4e92e7feae367a5f7ccf58789a10ac6b54bdf15976c599f9dd39",
    (f"{_UCI}/parkinsons/telemonitoring/parkinsons_updrs.data",),
    "UCI repository, Parkinsons Telemonitoring (Tsanas and Little 2009), CC BY 4.0: "
    "https://archive.ics.uci.edu/dataset/189"),))
RED_WINE = Dataset("redwine", "Wine Quality, red, 1599 rows", (DataFile(
    "uci/winequality-red.csv", "38cb54f15a085ae1cb8595ea3d9ec9e9ce0482d907e7c370d4bf40db6158edc8",
    (f"{_UCI}/wine-quality/winequality-red.csv",), _WINE),))
WHITE_WINE = Dataset("whitewine", "Wine Quality, white, 4898 rows", (DataFile(
    "uci/winequality-white.csv", "460e47bcddee5e93beece1fa3b495a7274d739b9f22ae76ab5be40545417c60a",
    (f"{_UCI}/wine-quality/winequality-white.csv",), _WINE),))
MNIST = Dataset("mnist", "MNIST, 60000 + 10000 digits, 28 x 28", _idx(
    "mnist", ("https://ossci-datasets.s3.amazonaws.com/mnist", "https://storage.googleapis.com/cvdf-datasets/mnist"),
    ("ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
     "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
     "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
     "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
    "LeCun, Cortes and Burges, CC BY-SA 3.0"))
FASHION_MNIST = Dataset("fashion-mnist", "Fashion-MNIST, 60000 + 10000 garments, 28 x 28", _idx(
    "fashion-mnist", ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",),
    ("c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
     "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
     "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
     "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
    "Zalando Research, MIT: https://github.com/zalandoresearch/fashion-mnist"))
CIFAR10 = Dataset("cifar10", "CIFAR-10, 50000 + 10000 images, 32 x 32, original binaries or (lossy) JPEG files", (
    DataFile("cifar10/cifar-10-binary.tar.gz", "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
             ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",), "Krizhevsky 2009"),
    DataFile("cifar10/cifar10-jpeg.zip", "0287a3668d9e0d204fc6ffa0e85a171724de09b8aec55d93153b270368489df4", (),
             "a zip of train/CLASS/NNNN.jpg and test/CLASS/NNNN.jpg made from Krizhevsky 2009")), alternatives=True)

DATASETS: dict[str, Dataset] = {
    dataset.name: dataset for dataset in (PARKINSON, RED_WINE, WHITE_WINE, MNIST, FASHION_MNIST, CIFAR10)}
CELEBA_FOLDER = "celeba/img_align_celeba"
CELEBA_SOURCE = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html (aligned images, non-commercial research)"
