"""CIFAR-10 in its binary format."""

from __future__ import annotations

import gzip
import os
import re
import tarfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from backhand.datasets.base import (
    AGAIN,
    Data,
    DataError,
    MissingDataError,
    Splits,
    count,
    folder_of,
    labels,
    pixel_dtype,
    pixels,
    reject,
    unpacked,
)
from backhand.datasets.download import download as fetch
from backhand.datasets.file_kinds import ADVICE, GZIP, kind_of
from backhand.datasets.split import hold_out

MIRRORS = ("https://www.cs.toronto.edu/~kriz/",)
ARCHIVE = "cifar-10-binary.tar.gz"
CHECKSUM = "md5:c32a1d4ab5d03f1284b67883e8d87530"
INSIDE = "cifar-10-batches-bin"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
RECORD = 1 + 3 * 32 * 32
BATCH = re.compile(r"data_batch_(\d+)\.bin")
TEST = "test_batch.bin"
PICKLES = f"(pickles, never opened here); the binary version is {ARCHIVE}"


def load_cifar10(
    folder: str | os.PathLike[str],
    validation: int = 5000,
    *,
    download: bool = True,
    dtype: DTypeLike = np.float32,
) -> Splits:
    """CIFAR-10: 50,000 colour images to train and validate with, 10,000 to test, of 32 x 32 pixels.

    x : (N, 3, 32, 32), red, green and blue from 0 to 1      y : (N,), indices into classes

    folder : holds data_batch_N.bin (all that are there are used) and test_batch.bin, also as .gz, or a folder
        cifar-10-batches-bin with them, or cifar-10-binary.tar.gz, which is read without unpacking it
    validation : how many of the last training images are kept for validation
    download : fetch the archive when neither is there (170 MB)
    dtype : of x; np.uint8 gives the values from 0 to 255 as stored, in a quarter of float32's memory
    Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images
    """
    wanted = pixel_dtype(dtype)
    count("validation", validation, 0)  # before anything is fetched
    root = folder_of(folder)
    batches = _files(root, download)
    test = batches.pop(TEST)
    parts = list(batches.values())
    # Nothing is scaled before all of it is read: floats take four times the room.
    train, held_out = hold_out(
        pixels(np.concatenate([x for x, _ in parts]), wanted, white=255),
        np.concatenate([y for _, y in parts]),
        validation,
    )
    return Splits(train, held_out, Data(pixels(test.x, wanted, white=255), test.y), CLASSES)


def _records(name: str, content: bytes) -> Data:
    """One file: records of a label byte, then 32 x 32 bytes each of red, green and blue."""
    if content and content[0] >= len(CLASSES) and (kind := kind_of(content)):  # no label: no record begins like that
        reject(name, f"records of {RECORD} bytes, a label and a picture", kind, ADVICE.get(kind, AGAIN))
    if not content or len(content) % RECORD:
        over = len(content) % RECORD
        reject(
            name,
            f"records of {RECORD} bytes, at least one",
            f"{len(content)} bytes",
            f"{over} after the last whole record; {AGAIN}" if over else "",
        )
    table = np.frombuffer(content, np.uint8).reshape(-1, RECORD)
    return Data(table[:, 1:].reshape(-1, 3, 32, 32), labels(name, table[:, 0], len(CLASSES)))


def _files(root: Path, download: bool) -> dict[str, Data]:
    """The batches by name, in the order of their numbers; from the loose files, or else from the archive."""
    for folder in (root, root / INSIDE):
        # of two with one name, a file and not a folder, and the one that is unpacked
        paths = folder.iterdir() if folder.is_dir() else ()
        names = _complete(path.name for path in sorted(paths, key=lambda path: (path.is_file(), path.suffix != ".gz")))
        if names:
            return {name: _records(str(folder / own), unpacked(folder / own)) for name, own in names.items()}
    for archive in (root / ARCHIVE, root / INSIDE / ARCHIVE):
        if archive.is_file():
            return _from_archive(archive)
    if download:
        return _from_archive(fetch([mirror + ARCHIVE for mirror in MIRRORS], root / ARCHIVE, CHECKSUM))
    if not root.exists():
        raise MissingDataError(f"{root}: there is no such folder; download=True makes it and fetches {ARCHIVE}")
    raise MissingDataError(_what_is_missing(root))


def _complete(names: Iterable[str]) -> dict[str, str]:
    """The batches among these names, in order, if there is one to train with and the one to test with.

    Each with the name that it has, which may end in .gz; the last one counts.
    """
    present = {name.removesuffix(".gz"): name for name in names}
    batches = sorted((int(match[1]), match[0]) for match in map(BATCH.fullmatch, present) if match)
    wanted = [*(name for _, name in batches), TEST] if batches and TEST in present else []
    return {name: present[name] for name in wanted}


def _what_is_missing(root: Path) -> str:
    folder = root / INSIDE if (root / INSIDE).is_dir() else root
    present = {path.name.removesuffix(".gz") for path in folder.iterdir()}
    for pickles in (folder / "data_batch_1", root / "cifar-10-batches-py", root / "cifar-10-python.tar.gz"):
        if pickles.exists():
            return f"{folder}: this is CIFAR-10 for Python {PICKLES}"
    wanted = [TEST] * (TEST not in present) + ["data_batch_1.bin"] * (not any(map(BATCH.fullmatch, present)))
    return f"{folder}: {' and '.join(wanted)} not there, nor {ARCHIVE}; download=True fetches it"


def _from_archive(archive: Path) -> dict[str, Data]:
    """The batches in the archive, read in one pass and without writing anything."""
    contents, names = {}, []
    try:
        with archive.open("rb") as file:
            start = file.read(4096)
        kind = kind_of(start)
        if kind not in (None, GZIP, "a tar archive"):
            advice = ADVICE.get(kind, AGAIN)
            raise DataError(f"{archive}: cannot be read: expected a gzipped tar archive, got {kind}; {advice}")
        with gzip.open(archive) if kind == GZIP else archive.open("rb") as stream:  # a browser may have unpacked it
            with tarfile.open(fileobj=stream, mode="r|") as tar:
                for member in tar:
                    name = Path(member.name).name
                    names.append(name)
                    inner = tar.extractfile(member) if BATCH.fullmatch(name) or name == TEST else None
                    if inner is not None:
                        contents[name] = inner.read()
            while stream.read(1 << 20):
                pass  # the checksum stands at the end of the gzip file, after what a tar reader reads
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{archive}: cannot be read ({error}); {AGAIN}") from None
    complete = _complete(contents)
    if not complete:
        hint = f"this is CIFAR-10 for Python {PICKLES}" if "data_batch_1" in names else ""
        reject(archive, f"data_batch_1.bin and {TEST} in it", ", ".join(contents) or "neither", hint)
    return {name: _records(f"{archive}, {name}", contents.pop(name)) for name in complete}
