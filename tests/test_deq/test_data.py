import gzip
import hashlib
import importlib
import io
import struct
import tarfile
import zipfile

import numpy as np
import pytest
import torch

from deq import data
from deq.data import images, tabular, uci
from deq.data.catalogue import CELEBA_FOLDER
from deq.data.locate import find

LOCATE = importlib.import_module("deq.data.locate")    # the package exports a function of the same name


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, monkeypatch):
    """No test looks at this machine's data: no variable, an empty download cache."""
    monkeypatch.delenv("DEQPROOF_DATA", raising=False)
    monkeypatch.setattr(LOCATE, "cache_folder", lambda: tmp_path / "cache")


def made_file(content=b"hello", name="set/file.txt", urls=("https://example.org/file",)):
    return data.DataFile(name, hashlib.sha256(content).hexdigest(), urls, "a made-up source")


def put(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_folder_by_hand_beats_the_environment_which_beats_the_cache(tmp_path, monkeypatch):
    file = made_file()
    cached = put(tmp_path / "cache", file.name, b"hello")
    assert data.locate(file) == cached
    environment = put(tmp_path / "environment", file.name, b"hello")
    monkeypatch.setenv("DEQPROOF_DATA", str(tmp_path / "environment"))
    assert data.locate(file) == environment
    by_hand = put(tmp_path / "hand", file.name, b"hello")
    assert data.locate(file, tmp_path / "hand") == by_hand


def test_an_absent_file_is_named_with_the_folders_and_the_remedy(tmp_path):
    (tmp_path / "hand").mkdir()
    with pytest.raises(data.MissingDataError) as caught:
        data.locate(made_file(), tmp_path / "hand")
    for part in ("set/file.txt", str(tmp_path / "hand"), "deqproof data fetch", "DEQPROOF_DATA"):
        assert part in str(caught.value)
    with pytest.raises(data.MissingDataError, match="a made-up source"):
        data.locate(made_file(urls=()), tmp_path / "hand")


def test_a_folder_that_does_not_exist_is_an_error(tmp_path, monkeypatch):
    with pytest.raises(data.MissingDataError, match="nowhere"):
        data.locate(made_file(), tmp_path / "nowhere")
    monkeypatch.setenv("DEQPROOF_DATA", str(tmp_path / "gone"))
    with pytest.raises(data.MissingDataError, match="DEQPROOF_DATA"):
        data.locate(made_file())


def test_a_damaged_file_is_named_and_not_loaded(tmp_path):
    file = made_file()
    put(tmp_path, file.name, b"hellx")
    with pytest.raises(data.DamagedDataError, match=r"file\.txt.*damaged"):
        data.locate(file, tmp_path)


def test_a_gzip_file_is_checked_by_what_it_unpacks_to(tmp_path):
    content = b"pixels" * 100
    file = made_file(content, "set/file.gz")
    path = put(tmp_path, file.name, gzip.compress(content, mtime=1))
    assert data.locate(file, tmp_path) == path
    path.write_bytes(gzip.compress(content, 1, mtime=77))
    assert data.locate(file, tmp_path) == path
    path.write_bytes(gzip.compress(content)[:-20])
    with pytest.raises(data.DamagedDataError, match="cannot be read"):
        data.locate(file, tmp_path)


def test_a_download_is_checked_and_a_failure_lists_every_address(tmp_path, monkeypatch):
    file = made_file(urls=("https://example.org/one", "https://example.org/two"))
    asked = []

    def retrieve(url, known_hash, fname, path, progressbar):
        asked.append((url, known_hash))
        if url.endswith("one"):
            raise OSError("no route")
        put(path, fname, b"hello")

    monkeypatch.setattr(LOCATE.pooch, "retrieve", retrieve)
    assert data.locate(file, download=True).read_bytes() == b"hello"
    assert [url for url, _ in asked] == list(file.urls)
    assert all(known == f"sha256:{file.sha256}" for _, known in asked)
    other = made_file(name="set/other.txt", urls=file.urls[:1])
    with pytest.raises(data.MissingDataError, match="one: no route"):
        data.locate(other, download=True)


def test_a_download_with_other_contents_is_removed(tmp_path, monkeypatch):
    file = made_file(b"right", "set/file.gz")
    monkeypatch.setattr(LOCATE.pooch, "retrieve",
                        lambda url, known_hash, fname, path, progressbar: put(path, fname, gzip.compress(b"wrong")))
    with pytest.raises(data.MissingDataError, match="other contents"):
        data.locate(file, download=True)
    assert find(file) is None


def correlated_table(rng, rows=400, d=4):
    return rng.standard_normal((rows, d)) @ rng.standard_normal((d, d)) * np.array([1e-4, 1.0, 30.0, 2e3]) + 5


def test_whitening_makes_the_covariance_the_identity_and_its_leak_can_be_switched_off(rng):
    table = correlated_table(rng)
    names = ("a", "b", "c", "d")
    for rows, leaks in (("all", True), ("train", False)):
        got = tabular.prepare("t", table, names, data.Preprocessing(noise_scale=0.0, whiten_rows=rows))
        basis = torch.cat([got.train, got.validation, got.test]) if leaks else got.train
        covariance = basis.T @ basis / len(basis)
        # the smallest column has 1e-7 of the largest one's scale: eps times that ratio
        torch.testing.assert_close(covariance, torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-7)
        assert any("test rows included" in note for note in got.notes) is leaks


def test_preparation_is_reproducible_and_noise_is_of_the_stated_size(rng):
    table = correlated_table(rng, rows=4000)
    clean = tabular.prepare("t", table, (), data.Preprocessing(noise_scale=0.0))
    noisy = tabular.prepare("t", table, (), data.Preprocessing())
    again = tabular.prepare("t", table, (), data.Preprocessing())
    assert torch.equal(noisy.train, again.train)
    gap = (noisy.train - clean.train).flatten()
    assert abs(gap.std().item() / 0.05 - 1) < 6 / (2 * len(gap)) ** 0.5


@pytest.mark.parametrize(("rows", "split", "sizes"), [
    (5875, "released", (4760, 528, 587)), (1599, "released", (1296, 144, 159)), (4898, "released", (3969, 440, 489)),
    (20000, "released", (18000, 1000, 1000)), (100, "70/20/10", (70, 20, 10))])
def test_split_sizes_are_those_of_the_papers(rows, split, sizes):
    assert tabular.split_sizes(rows, split) == sizes


def test_correlated_columns_go_one_at_a_time_first_ones_first(rng):
    a, b = rng.standard_normal((2, 500))
    table = np.stack([a, b, -a + 1e-3 * rng.standard_normal(500), a + 1e-3 * rng.standard_normal(500)], 1)
    kept, names = tabular.drop_correlated(table, ("a", "b", "minus a", "a again"), 0.98)
    assert names == ("b", "a again")
    assert kept.shape == (500, 2)


def test_dequantisation_stays_within_one_gap():
    column = np.repeat([0.0, 0.5, 1.0, 1.5], 50)
    table = np.stack([column, 10 * column], 1)
    moved = np.abs(tabular.dequantise(table, np.random.RandomState(0)) - table)
    assert (moved <= [0.5, 5.0]).all()
    assert (moved.max(0) > [0.4, 4.0]).all()


def parkinson_like(rng, rows=300):
    names = ["subject#", "age", "sex", "x", "y", "z", "x again"]
    base = rng.standard_normal((rows, 6))
    table = np.column_stack([base, base[:, 3] * 2 + 1e-4 * rng.standard_normal(rows)])
    return (",".join(names) + "\n" + "\n".join(",".join(repr(float(v)) for v in row) for row in table)).encode()


def test_parkinson_loader_drops_what_the_paper_drops(tmp_path, rng, monkeypatch):
    content = parkinson_like(rng)
    file = made_file(content, "uci/parkinsons_updrs.data")
    monkeypatch.setitem(uci.DATASETS, "parkinson", data.Dataset("parkinson", "made up", (file,)))
    put(tmp_path, file.name, content)
    table = data.load_parkinson(tmp_path)
    assert table.columns == ("y", "z", "x again")
    assert [len(part) for part in (table.train, table.validation, table.test)] == [243, 27, 30]
    assert data.parkinson_or_stand_in(tmp_path).name == "parkinson"


def test_wine_loader_drops_quality(tmp_path, rng, monkeypatch):
    rows = "\n".join(";".join(f"{v:.1f}" for v in row) + ";5" for row in rng.standard_normal((60, 3)))
    content = ('"a";"b";"c";"quality"\n' + rows).encode()
    file = made_file(content, "uci/winequality-red.csv")
    monkeypatch.setitem(uci.DATASETS, "redwine", data.Dataset("redwine", "made up", (file,)))
    put(tmp_path, file.name, content)
    table = data.load_tabular("redwine", tmp_path)
    assert table.columns == ("a", "b", "c")
    assert any("dequantised" in note for note in table.notes)
    with pytest.raises(ValueError, match="rosé"):
        data.load_wine("rosé", tmp_path)


@pytest.mark.parametrize(("content", "message"), [
    (b"a,b\n1,2\n3\n", "line 3"), (b"a,b\n1,x\n", "line 2"), (b"a,b\n", "no rows")])
def test_a_malformed_table_is_named_with_its_line(tmp_path, content, message):
    with pytest.raises(data.DamagedDataError, match=message):
        uci.read_table(put(tmp_path, "t.csv", content), ",")


def test_stand_in_says_what_it_is():
    table = data.parkinson_or_stand_in()
    assert table.name == "breast-cancer"
    assert any("stands in" in note for note in table.notes)
    assert table.dimension == len(table.columns)
    assert torch.isfinite(table.train).all()


def test_gaussian_tables_and_their_entropy():
    table = data.load_tabular("gaussian-100")
    assert table.train.shape == (4860, 100)
    assert (len(table.validation), len(table.test)) == (540, 600)
    d = 7
    truth = torch.distributions.Normal(0.0, 1.0).entropy().item() * d
    assert data.expected_log_likelihood(d) == pytest.approx(-truth, rel=1e-6)
    for bad in ("gaussian-", "iris"):
        with pytest.raises(ValueError, match=bad):
            data.load_tabular(bad)


@pytest.mark.parametrize("options", [{"split": "80/20"}, {"whiten_rows": "test"}, {"noise_scale": -1.0}])
def test_unknown_preprocessing_is_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        data.Preprocessing(**options)


def idx(array):
    return gzip.compress(struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes())


def test_idx_reader_returns_what_was_written_and_names_damage(tmp_path, rng):
    array = rng.integers(0, 256, (5, 4, 3), dtype=np.uint8)
    path = put(tmp_path, "a.gz", idx(array))
    assert np.array_equal(images.read_idx(path).numpy(), array)
    whole = gzip.decompress(path.read_bytes())
    for content, message in ((whole[:-1], "bytes of data"), (whole[:6], "inside its header"), (b"PNG!" + whole, "IDX")):
        path.write_bytes(gzip.compress(content))
        with pytest.raises(data.DamagedDataError, match=message):
            images.read_idx(path)
    path.write_bytes(b"not gzip")
    with pytest.raises(data.DamagedDataError, match="unpacked"):
        images.read_idx(path)


def test_mnist_pairs_images_with_labels(tmp_path, rng, monkeypatch):
    pixels, labels = rng.integers(0, 256, (6, 28, 28), dtype=np.uint8), np.arange(6, dtype=np.uint8)
    files = tuple(data.DataFile(f"mnist/{i}.gz", "") for i in range(4))
    monkeypatch.setitem(images.DATASETS, "mnist", data.Dataset("mnist", "made up", files))
    put(tmp_path, "mnist/2.gz", idx(pixels))
    put(tmp_path, "mnist/3.gz", idx(labels))
    got, classes = data.load_mnist("test", tmp_path)
    assert np.array_equal(got.numpy(), pixels)
    assert classes.tolist() == list(range(6))
    with pytest.raises(ValueError, match="validation"):
        data.load_mnist("validation", tmp_path)


def jpeg(colour, size=(32, 32)):
    pillow = pytest.importorskip("PIL.Image", reason="pillow is an extra")
    stream = io.BytesIO()
    pillow.new("RGB", size, colour).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def test_image_zip_is_read_by_part_and_class(tmp_path):
    path = tmp_path / "images.zip"
    colours = {"red": (255, 0, 0), "blue": (0, 0, 255)}
    with zipfile.ZipFile(path, "w") as archive:
        for name, colour in colours.items():
            for i in range(3):
                archive.writestr(f"train/{name}/{i:04}.jpg", jpeg(colour))
    pictures, labels = images.read_image_zip(path, "train")
    assert pictures.shape == (6, 3, 32, 32)
    assert labels.tolist() == [0, 0, 0, 1, 1, 1]                                  # blue, red
    assert (pictures[0].float().mean((1, 2)) - torch.tensor([0.0, 0.0, 255.0])).abs().max() < 8   # JPEG is lossy
    assert images.read_image_zip(path, "train", limit=2)[1].tolist() == [0, 1]
    with pytest.raises(data.DamagedDataError, match="no images under test"):
        images.read_image_zip(path, "test")
    path.write_bytes(b"not a zip")
    with pytest.raises(data.DamagedDataError, match="not a zip"):
        images.read_image_zip(path, "train")


def test_cifar_binary_archive_is_read_without_unpickling(tmp_path, rng):
    records = rng.integers(0, 10, (4, 3073), dtype=np.uint8)
    path = tmp_path / "cifar.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
        member.size = records.nbytes
        archive.addfile(member, io.BytesIO(records.tobytes()))
    pictures, labels = images.read_cifar_binary(path, "test")
    assert labels.tolist() == records[:, 0].tolist()
    assert np.array_equal(pictures.numpy().reshape(4, -1), records[:, 1:])
    with pytest.raises(data.DamagedDataError, match="data_batch_1"):
        images.read_cifar_binary(path, "train")


def test_celeba_folder_is_cropped_and_resized_and_its_absence_named(tmp_path):
    for i in range(2):
        put(tmp_path, f"{CELEBA_FOLDER}/{i:06}.jpg", jpeg((10, 200, 90), (178, 218)))
    pictures = data.load_celeba(tmp_path, size=16)
    assert pictures.shape == (2, 3, 16, 16)
    assert pictures.dtype == torch.uint8
    assert (pictures[0].float().mean((1, 2)) - torch.tensor([10.0, 200.0, 90.0])).abs().max() < 8
    put(tmp_path, f"{CELEBA_FOLDER}/000009.jpg", jpeg((0, 0, 0), (100, 100)))
    with pytest.raises(data.DamagedDataError, match=r"000009\.jpg"):
        data.load_celeba(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(data.MissingDataError, match="CelebA"):
        data.load_celeba(tmp_path / "empty")
