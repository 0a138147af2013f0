"""What every data set comes as, and the one error of the readers."""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array = NDArray[Any]
AGAIN = "delete it and get it again"


class DataError(ValueError):
    """Data that cannot be used: says which file, what was expected of it and what it holds."""


class MissingDataError(DataError, FileNotFoundError):
    """A DataError for a file that is not there (and could not be fetched); also a FileNotFoundError."""


class Data(NamedTuple):
    """Samples and their labels; unpacks as `x, y = data`.

    x : (N, ...)      y : (N,) int64
    """

    x: Array
    y: Array

    def __repr__(self) -> str:
        return f"Data(x={self.x.dtype} {self.x.shape}, y={self.y.dtype} {self.y.shape})"


class Splits(NamedTuple):
    """Three parts that share no sample, and the name of each label.

    x : (N, channels, height, width), float in [0, 1] or uint8 as stored      y : (N,) int64, indices into classes
    """

    train: Data
    validation: Data
    test: Data
    classes: tuple[str, ...]


def reject(path: object, expected: str, got: object, hint: str = "") -> NoReturn:
    """Raise the error: which file (or argument), what was expected, what it holds."""
    raise DataError(f"{path}: expected {expected}, got {got}{f'; {hint}' if hint else ''}")


def count(name: str, value: object, least: int, most: int | None = None) -> int:
    """An argument that counts samples, or the error that names it."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):  # type: ignore[operator]
        reject(name, f"a whole number of {least} or more" if most is None else f"{least} to {most}", repr(value))
    return int(value)  # type: ignore[call-overload]


def pixel_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """The dtype that was asked for, if images can come in it."""
    try:
        wanted = np.dtype(dtype)
    except TypeError:
        reject("dtype", "a float dtype, or uint8 for the values as stored", repr(dtype))
    if wanted.kind != "f" and wanted != np.uint8:
        reject("dtype", "a float dtype, or uint8 for the values as stored", wanted)
    return wanted.newbyteorder("=")


def pixels(stored: Array, dtype: np.dtype[Any], white: int) -> Array:
    """Stored values as floats from 0 to 1 (`white` becomes 1), or untouched for uint8."""
    x = stored.astype(dtype)
    if dtype.kind == "f":
        x /= white
    return x


def labels(path: object, stored: Array, classes: int, first: int = 0) -> Array:
    """Stored labels as int64, if each of them names a class."""
    wrong = np.flatnonzero((stored < first) | (stored >= classes))
    if wrong.size:
        at = wrong[0]
        reject(path, f"labels from {first} to {classes - 1}", f"{stored[at]} as label {at} (counting from 0)")
    return stored.astype(np.int64)


def read_bytes(path: Path) -> bytes:
    """The whole file, if there is anything in it."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise MissingDataError(f"{path}: there is no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    if not content:
        raise DataError(f"{path}: the file is empty; {AGAIN}")
    return content


def unpacked(path: Path) -> bytes:
    """The whole file, taken out of gzip where it is in it (the content decides, not the name)."""
    content = read_bytes(path)
    if content[:2] != b"\x1f\x8b":
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path}: the gzip file is damaged or cut short ({error}); {AGAIN}") from None


def folder_of(folder: object) -> Path:
    """The folder that was asked for; it need not exist yet, but it must not be something else."""
    path = Path(folder).expanduser()  # type: ignore[arg-type]
    if path.exists() and not path.is_dir():
        raise DataError(f"{path}: expected a folder, got a file")
    if path.exists() and not os.access(path, os.R_OK | os.X_OK):
        raise DataError(f"{path}: the folder cannot be read: permission denied")
    return path
