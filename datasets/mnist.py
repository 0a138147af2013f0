"""MNIST, and every other data set that comes as idx files."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from backhand.datasets.base import (
    Array,
    Data,
    DataError,
    MissingDataError,
    Splits,
    count,
    folder_of,
    labels,
    pixel_dtype,
    pixels,
    read_bytes,
    reject,
)
from backhand.datasets.download import download as fetch
from backhand.datasets.split import hold_out

MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")
CHECKSUMS = {
    "train-images-idx3-ubyte.gz": "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "md5:d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "md5:9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "md5:ec29112dd5afa0611ce80d1b7f02629c",
}
# The third byte of an idx file; its numbers are big-endian.
DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
AGAIN = "delete it and get it again"


def load_mnist(
    folder: str | os.PathLike[str],
    validation: int = 5000,
    *,
    download: bool = True,
    dtype: DTypeLike = np.float32,
) -> Splits:
    """The MNIST digits: 60,000 images to train and validate with, 10,000 to test, of 28 x 28 pixels.

    x : (N, 1, 28, 28), from 0 (paper) to 1 (ink)      y : (N,), the digit

    folder : holds the four idx files, as .gz or unpacked; any data set of ten classes in the same four files works
    validation : how many of the last training images are kept for validation
    download : fetch the files that are not there (11 MB in all)
    dtype : of x; np.uint8 gives the values from 0 to 255 as stored
    LeCun, Bottou, Bengio & Haffner 1998, Proc. IEEE 86(11), doi:10.1109/5.726791
    """
    wanted = pixel_dtype(dtype)
    count("validation", validation, 0)  # before anything is fetched
    paths = _files(folder_of(folder), download)
    train_x, train_y = _pair(*paths[:2])
    test_x, test_y = _pair(*paths[2:])
    if train_x.shape[1:] != test_x.shape[1:]:
        reject(paths[2], f"images of the size in {paths[0].name}, {train_x.shape[1:]}", test_x.shape[1:])
    train, held_out = hold_out(pixels(train_x[:, None], wanted, white=255), train_y, validation)
    test = Data(pixels(test_x[:, None], wanted, white=255), test_y)
    return Splits(train, held_out, test, classes=tuple("0123456789"))


def read_idx(path: str | os.PathLike[str]) -> Array:
    """The array in an idx file, gzipped or not (the content decides, not the name).

        00 00, one byte for the dtype, one for the number of dimensions; each dimension in 4 bytes; the numbers

    All big-endian; the array has the machine's own byte order. Described at the end of the MNIST page,
    yann.lecun.com/exdb/mnist.
    """
    path = Path(path)
    content = read_bytes(path)
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError, zlib.error) as error:
            raise DataError(f"{path}: the gzip file is damaged or cut short ({error}); {AGAIN}") from None
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in DTYPES or not 1 <= content[3] <= 32:
        reject(
            path,
            "an idx file, which starts with 00 00, a dtype from 08 to 0E and a number of dimensions",
            f"{content[:4].hex(' ') or 'nothing'} ({content[:4]!r})",
            AGAIN,
        )
    dtype, ndim = np.dtype(DTYPES[content[2]]), content[3]
    start = 4 + 4 * ndim
    if len(content) < start:
        reject(path, f"a header of {start} bytes", f"a file of {len(content)}", AGAIN)
    shape = tuple(int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4))
    if 0 in shape:
        reject(path, "at least one number", f"the shape {shape} in its header")
    expected = start + dtype.itemsize * math.prod(shape)
    if len(content) != expected:
        off = len(content) - expected
        reject(
            path,
            f"{expected} bytes, from the shape {shape} in its header",
            f"{len(content)}",
            f"{abs(off)} {'missing' if off < 0 else 'too many'}; {AGAIN}",
        )
    return np.frombuffer(content, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def _files(folder: Path, download: bool) -> list[Path]:
    """The four files in the order of CHECKSUMS; the ones that are not there are fetched."""
    found = {name: _find(folder, name) for name in CHECKSUMS}
    missing = [name for name, path in found.items() if path is None]
    if missing and not download:
        problem = f"{', '.join(missing)} not there" if folder.exists() else "there is no such folder"
        raise MissingDataError(f"{folder}: {problem}; download=True fetches what is missing")
    return [
        path or fetch([mirror + name for mirror in MIRRORS], folder / name, CHECKSUMS[name])
        for name, path in found.items()
    ]


def _find(folder: Path, name: str) -> Path | None:
    # First the .gz, which carries a checksum of its own. The dot is how some copies on the web are named.
    plain = name.removesuffix(".gz")
    dotted = plain.replace("-idx", ".idx")
    return next((folder / each for each in (name, plain, dotted + ".gz", dotted) if (folder / each).exists()), None)


def _pair(images: Path, digits: Path) -> tuple[Array, Array]:
    x, y = _of(images, "images", 3), _of(digits, "labels", 1)
    if len(x) != len(y):
        reject(digits, f"{len(x)} labels, one for each image in {images.name}", len(y))
    return x, labels(digits, y, classes=10)


def _of(path: Path, what: str, ndim: int) -> Array:
    array = read_idx(path)
    if array.ndim != ndim or array.dtype != np.uint8:
        looks = {1: "labels", 3: "images"}.get(array.ndim, "something else")
        reject(
            path,
            f"{what}: uint8 with {ndim} dimension{'s' * (ndim > 1)}",
            f"{array.dtype} of shape {array.shape}",
            f"this looks like a file of {looks}" if array.ndim != ndim else "",
        )
    return array
