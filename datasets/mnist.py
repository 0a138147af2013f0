"""MNIST, and every other data set that comes as idx files."""

from __future__ import annotations

import math
import os
import string
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from backhand.datasets.base import (
    AGAIN,
    Array,
    Data,
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
from backhand.datasets.file_kinds import ADVICE, IDX, kind_of
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
Names = tuple[str, ...]  # of the four files: images and labels to train with, and to test with
PLAIN = tuple(name.removesuffix(".gz") for name in CHECKSUMS)
QMNIST = tuple(
    f"qmnist-{part}-{what}" for part in ("train", "test") for what in ("images-idx3-ubyte", "labels-idx2-int")
)
# The classes by the split of EMNIST, as torchvision has them; of the letters none is 0.
CLASSES = {
    "mnist": tuple(string.digits),
    "digits": tuple(string.digits),
    "letters": ("N/A", *string.ascii_lowercase),
    "balanced": tuple(string.digits + string.ascii_uppercase + "abdefghnqrt"),
    "bymerge": tuple(string.digits + string.ascii_uppercase + "abdefghnqrt"),
    "byclass": tuple(string.digits + string.ascii_letters[26:] + string.ascii_letters[:26]),
}
EMNIST = {
    split: tuple(
        f"emnist-{split}-{part}-{what}"
        for part in ("train", "test")
        for what in ("images-idx3-ubyte", "labels-idx1-ubyte")
    )
    for split in CLASSES
}


def load_mnist(
    folder: str | os.PathLike[str],
    validation: int = 5000,
    *,
    download: bool = True,
    dtype: DTypeLike = np.float32,
    split: str | None = None,
) -> Splits:
    """The MNIST digits: 60,000 images to train and validate with, 10,000 to test, of 28 x 28 pixels.

    x : (N, 1, 28, 28), from 0 (paper) to 1 (ink)      y : (N,), the digit

    folder : holds the four idx files, as .gz or unpacked, or torchvision's folder raw (or MNIST/raw) with them.
        Fashion-MNIST, KMNIST, QMNIST and EMNIST are read too (of EMNIST, as stored: the images are transposed)
    validation : how many of the last training images are kept for validation
    download : fetch the files of MNIST that are not there (11 MB in all)
    dtype : of x; np.uint8 gives the values from 0 to 255 as stored
    split : of EMNIST: "byclass", "bymerge", "balanced", "letters" (from 1 to 26), "digits" or "mnist". None takes the
        one that is there, and the smallest set of classes that all but a few labels fit
    LeCun, Bottou, Bengio & Haffner 1998, Proc. IEEE 86(11), doi:10.1109/5.726791
    """
    wanted = pixel_dtype(dtype)
    count("validation", validation, 0)  # before anything is fetched
    if split is not None and split not in CLASSES:
        reject("split", f"one of {', '.join(CLASSES)}, or None", repr(split))
    paths = _files(folder_of(folder), download, split)
    train_x, train_y = _pair(*paths[:2])
    test_x, test_y = _pair(*paths[2:])
    if train_x.shape[1:] != test_x.shape[1:]:
        reject(paths[2], f"images of the size in {paths[0].name}, {train_x.shape[1:]}", test_x.shape[1:])
    split = split or _split_of(np.concatenate([train_y, test_y]))
    classes, first = CLASSES[split], int(split == "letters")
    train_y, test_y = (labels(path, y, len(classes), first) for path, y in ((paths[1], train_y), (paths[3], test_y)))
    train, held_out = hold_out(pixels(train_x[:, None], wanted, white=255), train_y, validation)
    test = Data(pixels(test_x[:, None], wanted, white=255), test_y)
    return Splits(train, held_out, test, classes)


def read_idx(path: str | os.PathLike[str]) -> Array:
    """The array in an idx file, gzipped or not (the content decides, not the name).

        00 00, one byte for the dtype, one for the number of dimensions; each dimension in 4 bytes; the numbers

    All big-endian; the array has the machine's own byte order. Described at the end of the MNIST page,
    yann.lecun.com/exdb/mnist.
    """
    path = Path(path)
    content = unpacked(path)
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in DTYPES or not 1 <= content[3] <= 32:
        kind = kind_of(content) if content else None
        reject(
            path,
            "an idx file, which starts with 00 00, a dtype from 08 to 0E and a number of dimensions",
            f"{content[:4].hex(' ') or 'nothing'} ({content[:4]!r})" + (f", {kind}" if kind not in (None, IDX) else ""),
            ADVICE.get(kind or "", AGAIN),
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


def _files(folder: Path, download: bool, split: str | None) -> list[Path]:
    """The four files; those of MNIST that are not there are fetched."""
    families = [PLAIN, *EMNIST.values(), QMNIST] if split is None else [EMNIST[split], PLAIN]
    places = [folder, folder / "raw", folder / "MNIST" / "raw", *([folder / "EMNIST" / "raw"] if split else [])]
    found = {each: [_find(each[1], name) for name in each[0]] for each in product(families, places)}
    most = max(sum(map(bool, paths)) for paths in found.values())
    names, place = next(each for each, paths in found.items() if sum(map(bool, paths)) == most)
    if most == 0:
        names, place = families[0], folder
    there = [each for each, names_ in EMNIST.items() if any(found.get((names_, place), ()))]
    if names != PLAIN and len(there) > 1:
        reject("split", f"one of {', '.join(there)}, all of which are in {place}", split)
    missing = [f"{name}.gz" for name, path in zip(names, found[names, place], strict=True) if path is None]
    fetched = names == PLAIN and split is None
    if missing and not (download and fetched):
        problem = f"{', '.join(missing)} not there" if folder.exists() else "there is no such folder"
        others = [path.parent for path in sorted(folder.glob("*/raw")) if path.parent.name != "MNIST"]
        hint = f"; for what is in it, give {' or '.join(map(str, others))}" if others and most == 0 else ""
        again = "; download=True fetches what is missing" if fetched else ""
        raise MissingDataError(f"{place}: {problem}{hint}{again}")
    return [
        path or fetch([f"{mirror}{name}.gz" for mirror in MIRRORS], place / f"{name}.gz", CHECKSUMS[f"{name}.gz"])
        for name, path in zip(names, found[names, place], strict=True)
    ]


def _find(folder: Path, plain: str) -> Path | None:
    # First the .gz, which carries a checksum of its own. The dot is how some copies on the web are named; and some
    # programs unpack a file into a folder of its name.
    dotted = plain.replace("-idx", ".idx")
    paths = [folder / each for each in (f"{plain}.gz", plain, f"{dotted}.gz", dotted)]
    inside = [path / name for path, name in product(paths, (plain, dotted)) if path.is_dir()]
    files = [path for path in [*paths, *inside] if path.is_file()]
    return next((path for path in [*files, *paths] if path.exists()), None)


def _pair(images: Path, digits: Path) -> tuple[Array, Array]:
    x, y = _of(images, "images", 3), read_idx(digits)
    # QMNIST stores with each label who wrote it, and where
    y = y[:, 0] if y.ndim == 2 and y.dtype == np.int32 and y.shape[1] == 8 else _of(digits, "labels", 1, y)
    if len(x) != len(y):
        reject(digits, f"{len(x)} labels, one for each image in {images.name}", len(y))
    return x, y


def _split_of(y: Array) -> str:
    """The smallest set of classes that 19 of 20 labels fit; whatever does not fit it is then an error."""
    for split, lowest in (("mnist", 0), ("letters", 1), ("balanced", 0), ("byclass", 0)):
        if np.mean((y < lowest) | (y >= len(CLASSES[split]))) <= 0.05:
            return split
    return "mnist"


def _of(path: Path, what: str, ndim: int, array: Array | None = None) -> Array:
    if array is None:
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
