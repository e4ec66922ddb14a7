"""Image sets: MNIST and Fashion-MNIST (IDX), CIFAR-10 (original binary form, or JPEG files in a zip), CelebA."""

from __future__ import annotations

import gzip
import io
import os
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from deq.data.catalogue import CELEBA_FOLDER, CELEBA_SOURCE, CIFAR10, DATASETS
from deq.data.locate import DamagedDataError, MissingDataError, check, find, locate, search_path

try:
    from PIL import Image, UnidentifiedImageError
except ImportError:                                       # an extra: only the image sets stored as JPEG need it
    Image = None  # type: ignore[assignment]

PARTS = ("train", "test")
CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def _part(part: str) -> str:
    if part not in PARTS:
        raise ValueError(f"part must be 'train' or 'test', got {part!r}")
    return part


def read_idx(path: Path) -> Tensor:
    """A gzipped IDX file of unsigned bytes, as a uint8 tensor of its stored shape.

    Raises:
        DamagedDataError: the header or the length is wrong.
    """
    try:
        with gzip.open(path) as stream:
            data = stream.read()
    except (OSError, EOFError) as error:
        raise DamagedDataError(f"{path} cannot be unpacked ({error}); delete it and fetch it again") from error
    if len(data) < 4 or data[:3] != b"\x00\x00\x08":
        raise DamagedDataError(f"{path} is not an IDX file of unsigned bytes (it starts with {data[:4].hex()})")
    dimensions = data[3]
    start = 4 + 4 * dimensions
    if len(data) < start:
        raise DamagedDataError(f"{path} ends inside its header")
    shape = struct.unpack(f">{dimensions}I", data[4:start])
    if len(data) - start != int(np.prod(shape)):
        raise DamagedDataError(f"{path} holds {len(data) - start} bytes of data, its header {shape} asks for "
                               f"{int(np.prod(shape))}")
    return torch.from_numpy(np.frombuffer(data, np.uint8, offset=start).reshape(shape).copy())


def load_mnist(part: str, folder: str | os.PathLike[str] | None = None, *, fashion: bool = False,
               download: bool = False) -> tuple[Tensor, Tensor]:
    """Images `[n, 28, 28]` uint8 and labels `[n]` int64 of MNIST or Fashion-MNIST.

    Raises:
        ValueError: part is neither "train" nor "test".
        DataError: a file is missing or damaged.
    """
    first = 0 if _part(part) == "train" else 2
    files = DATASETS["fashion-mnist" if fashion else "mnist"].files[first:first + 2]
    images, labels = (read_idx(locate(file, folder, download=download)) for file in files)
    if len(images) != len(labels):
        raise DamagedDataError(f"{files[0].name} has {len(images)} images, {files[1].name} {len(labels)} labels")
    return images, labels.long()


def _decode(data: bytes, name: str) -> Tensor:
    if Image is None:
        raise RuntimeError("reading JPEG images needs pillow; install it with `pip install 'deqproof[train]'`")
    try:
        with Image.open(io.BytesIO(data)) as image:
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()
    except (UnidentifiedImageError, OSError) as error:
        raise DamagedDataError(f"{name} is not a readable image ({error})") from error


def read_image_zip(path: Path, part: str, limit: int | None = None) -> tuple[Tensor, Tensor]:
    """Images `[n, 3, h, w]` uint8 and labels from a zip of `part/CLASS/NNNN.jpg`; classes are numbered in name order.

    With a limit, the first `limit / classes` images of each class.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(name for name in archive.namelist()
                           if name.startswith(f"{_part(part)}/") and name.lower().endswith((".jpg", ".jpeg", ".png")))
            classes = sorted({name.split("/")[1] for name in names})
            if not names:
                raise DamagedDataError(f"{path} holds no images under {part}/")
            if limit is not None:
                share = -(-limit // len(classes))
                groups = ([name for name in names if name.split("/")[1] == label][:share] for label in classes)
                names = [name for group in groups for name in group][:limit]
            images = torch.stack([_decode(archive.read(name), f"{path}:{name}") for name in names])
    except zipfile.BadZipFile as error:
        raise DamagedDataError(f"{path} is not a zip file ({error}); delete it and fetch it again") from error
    return images, torch.tensor([classes.index(name.split("/")[1]) for name in names])


def read_cifar_binary(path: Path, part: str) -> tuple[Tensor, Tensor]:
    """Images and labels from the original binary archive: records of one label byte and 3072 pixel bytes."""
    wanted = [f"data_batch_{i}.bin" for i in range(1, 6)] if _part(part) == "train" else ["test_batch.bin"]
    blocks = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                if (name := Path(member.name).name) in wanted and (stream := archive.extractfile(member)) is not None:
                    blocks[name] = stream.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DamagedDataError(f"{path} cannot be unpacked ({error}); delete it and fetch it again") from error
    if len(blocks) != len(wanted) or any(len(block) % 3073 for block in blocks.values()):
        raise DamagedDataError(f"{path} does not hold the records of {', '.join(wanted)}")
    data = np.frombuffer(b"".join(blocks[name] for name in wanted), np.uint8).reshape(-1, 3073)
    return torch.from_numpy(data[:, 1:].reshape(-1, 3, 32, 32).copy()), torch.from_numpy(data[:, 0].astype(np.int64))


def load_cifar10(part: str, folder: str | os.PathLike[str] | None = None, *, limit: int | None = None,
                 download: bool = False) -> tuple[Tensor, Tensor]:
    """Images `[n, 3, 32, 32]` uint8 and labels `[n]`; a JPEG copy is lossy, so say so beside any number.

    The original archive is preferred; the zip of JPEG files is taken where only that is at hand.

    Raises:
        DataError: neither is at hand, or the one found is damaged.
    """
    binary, jpeg = CIFAR10.files
    if (path := find(binary, folder)) is None and (zipped := find(jpeg, folder)) is not None:
        return read_image_zip(check(zipped, jpeg), part, limit)
    images, labels = read_cifar_binary(check(path, binary) if path else locate(binary, folder, download=download), part)
    return images[:limit], labels[:limit]


def find_celeba(folder: str | os.PathLike[str] | None = None) -> Path:
    """The folder of aligned CelebA images.

    Raises:
        MissingDataError: it is nowhere, or empty.
    """
    bases = search_path(folder)
    for base in bases:
        if next((base / CELEBA_FOLDER).glob("*.jpg"), None) is not None:
            return base / CELEBA_FOLDER
    raise MissingDataError(f"no CelebA images in {CELEBA_FOLDER} below any of: {', '.join(map(str, bases))}. "
                           f"Get img_align_celeba from {CELEBA_SOURCE} and unpack it there")


def load_celeba(folder: str | os.PathLike[str] | None = None, *, size: int = 64, crop: int = 140,
                limit: int | None = None) -> Tensor:
    """Aligned CelebA images in name order, centre-cropped and resized: `[n, 3, size, size]` uint8.

    Raises:
        DataError: no images, or one that cannot be read or is smaller than the crop.
    """
    paths = sorted(find_celeba(folder).glob("*.jpg"))[:limit]
    images = []
    for path in paths:
        image = _decode(path.read_bytes(), str(path))
        _, height, width = image.shape
        if min(height, width) < crop:
            raise DamagedDataError(f"{path} is {width} x {height}, smaller than the crop of {crop}")
        top, left = (height - crop) // 2, (width - crop) // 2
        centre = image[:, top:top + crop, left:left + crop][None].float()
        small = torch.nn.functional.interpolate(centre, size=(size, size), mode="bilinear", antialias=True)
        images.append(small[0].round().clamp(0, 255).to(torch.uint8))
    return torch.stack(images)
