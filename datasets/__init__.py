"""The bundled digits, readers of the standard files, and generators of small tasks."""

from backhand.datasets.base import Data, DataError, MissingDataError, Splits
from backhand.datasets.cifar10 import load_cifar10
from backhand.datasets.digits import load_digits
from backhand.datasets.download import download
from backhand.datasets.mnist import load_mnist, read_idx
from backhand.datasets.split import stratified
from backhand.datasets.tasks import (
    AssociativeRecallTask,
    CopyTask,
    NGramsTask,
    PrioritySortTask,
    RepeatCopyTask,
    Sequences,
    Task,
)
from backhand.datasets.toy import moons, spirals

__all__ = [
    "AssociativeRecallTask",
    "CopyTask",
    "Data",
    "DataError",
    "MissingDataError",
    "NGramsTask",
    "PrioritySortTask",
    "RepeatCopyTask",
    "Sequences",
    "Splits",
    "Task",
    "download",
    "load_cifar10",
    "load_digits",
    "load_mnist",
    "moons",
    "read_idx",
    "spirals",
    "stratified",
]
