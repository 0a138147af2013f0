"""The image sets that the scripts read, and where they leave a picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from backhand.datasets import DataError, MissingDataError, Splits, load_cifar10, load_mnist
from benchmarks.reproduce.files import stop

SOURCES = {
    "mnist": "the four idx files of https://ossci-datasets.s3.amazonaws.com/mnist/ (gzipped or not)",
    "cifar10": "data_batch_1.bin ... and test_batch.bin of https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
}


def mnist(folder: Path, validation: int = 0) -> Splits:
    """MNIST from the files in a folder (or in its folder `mnist`)."""
    return _read("mnist", load_mnist, folder, ("mnist", ""), validation)


def cifar10(folder: Path, validation: int = 0) -> Splits:
    """CIFAR-10, or as much of it as there is, from the files in a folder."""
    return _read("cifar10", load_cifar10, folder, ("cifar10", ""), validation)


def _read(name: str, load: Callable[..., Splits], folder: Path, inside: tuple[str, ...], validation: int) -> Splits:
    error: Any = None
    for part in inside:
        try:
            return load(folder / part, validation, download=False)
        except MissingDataError as problem:
            error = problem
        except DataError as problem:
            stop(problem)
    missing = str(error).split(";")[0]  # what it says of download=True is for Python
    stop(f"{missing}; put {SOURCES[name]} into {folder}")
