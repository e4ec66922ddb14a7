"""Where a data file is: a folder given by hand, then DEQPROOF_DATA, then the download cache; always checked."""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pooch

ENVIRONMENT_VARIABLE = "DEQPROOF_DATA"


class DataError(RuntimeError):
    """Something is wrong with a data file; the text names it and what to do."""


class MissingDataError(DataError, FileNotFoundError):
    """A data file is in none of the folders that were searched."""


class DamagedDataError(DataError):
    """A data file is there, but its contents are not what they should be. It is never loaded."""


@dataclass(frozen=True)
class DataFile:
    """One file of a data set.

    Attributes:
        name: path below a data folder, with forward slashes.
        sha256: of the contents; for a `.gz` file of what it unpacks to, so that repacked copies are accepted.
            Empty where any contents will do.
        urls: public addresses, tried in order. Empty where only a person can fetch it.
        source: where a person finds it and under which terms.
    """

    name: str
    sha256: str
    urls: tuple[str, ...] = ()
    source: str = ""


def cache_folder() -> Path:
    """The download cache of this user."""
    return Path(pooch.os_cache("deqproof"))


def search_path(folder: str | os.PathLike[str] | None = None) -> list[Path]:
    """Folders to look in, first to last: `folder`, then the environment variable's, then the download cache.

    A folder given by hand or by the environment that does not exist is an error, not an empty folder.

    Raises:
        MissingDataError: such a folder is not there.
    """
    given = [(folder, "the data folder given")] if folder is not None else []
    if os.environ.get(ENVIRONMENT_VARIABLE):
        given.append((os.environ[ENVIRONMENT_VARIABLE], f"the folder in {ENVIRONMENT_VARIABLE}"))
    for path, origin in given:
        if not Path(path).is_dir():
            raise MissingDataError(f"{origin}, {str(path)!r}, is not a folder; create it or correct the name")
    return [*(Path(path) for path, _ in given), cache_folder()]


def find(file: DataFile, folder: str | os.PathLike[str] | None = None) -> Path | None:
    """The first copy of `file` on the search path, unchecked, or None."""
    return next((base / file.name for base in search_path(folder) if (base / file.name).is_file()), None)


def content_sha256(path: Path) -> str:
    """SHA256 of a file's contents, of the unpacked contents for `.gz`.

    Raises:
        DamagedDataError: it cannot be unpacked or read.
    """
    digest = hashlib.sha256()
    try:
        packed = path.suffix == ".gz" and not path.name.endswith(".tar.gz")
        with gzip.open(path) if packed else path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    except (OSError, EOFError) as error:
        raise DamagedDataError(f"{path} cannot be read ({error}); delete it and fetch it again") from error
    return digest.hexdigest()


def check(path: Path, file: DataFile) -> Path:
    """`path` if its contents are those of `file`.

    Raises:
        DamagedDataError: they are not.
    """
    if file.sha256 and (found := content_sha256(path)) != file.sha256:
        raise DamagedDataError(f"{path} is damaged or another version: SHA256 of its contents is {found}, expected "
                               f"{file.sha256}. It was not loaded; delete it and run `deqproof data fetch`, or put a "
                               f"good copy there. Source: {file.source}")
    return path


def locate(file: DataFile, folder: str | os.PathLike[str] | None = None, *, download: bool = False) -> Path:
    """Path of a checked copy of `file`.

    Args:
        file: which.
        folder: looked in first.
        download: fetch it into the cache when it is nowhere; otherwise its absence is an error.

    Raises:
        MissingDataError: it is nowhere, and was not or could not be downloaded.
        DamagedDataError: the copy found has other contents.
    """
    path = find(file, folder)
    if path is not None:
        return check(path, file)
    searched = ", ".join(str(base) for base in search_path(folder))
    if download and file.urls:
        return _download(file, searched)
    remedy = ("run `deqproof data fetch`, " if file.urls else f"get it from {file.source}, ")
    raise MissingDataError(f"data file {file.name} is in none of: {searched}. To mend it, {remedy}or point --data or "
                           f"{ENVIRONMENT_VARIABLE} at a folder that holds {file.name}")


def _download(file: DataFile, searched: str) -> Path:
    target = cache_folder() / file.name
    known = None if file.name.endswith(".gz") else f"sha256:{file.sha256}"
    troubles = []
    for url in file.urls:
        try:
            pooch.retrieve(url, known_hash=known, fname=target.name, path=target.parent, progressbar=True)
            return check(target, file)
        except DamagedDataError:
            target.unlink(missing_ok=True)
            troubles.append(f"{url}: other contents than expected")
        except (OSError, ValueError) as error:
            troubles.append(f"{url}: {error}")
    raise MissingDataError(f"data file {file.name} is in none of: {searched}, and its download failed: "
                           f"{'; '.join(troubles)}. Fetch it by hand ({file.source}), into one of those folders")


def missing(files: Sequence[DataFile], folder: str | os.PathLike[str] | None = None) -> list[DataFile]:
    """Those of `files` that are nowhere on the search path."""
    return [file for file in files if find(file, folder) is None]
