"""The bundled digits, readers of the standard files, and generators of small tasks."""

from backhand.datasets.augment import (
    Augmented,
    color_jitter,
    crop_and_flip,
    random_flip,
    random_grey,
    random_resized_crop,
    random_shift,
    simclr_views,
)
from backhand.datasets.base import Data, DataError, MissingDataError, Splits
from backhand.datasets.cifar10 import load_cifar10
from backhand.datasets.digit_strings import Answered, DigitStrings
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
from backhand.datasets.text import ContiguousBlocks, RandomBlocks, Text, load_names, load_text
from backhand.datasets.toy import moons, spirals

__all__ = [
    "Answered",
    "AssociativeRecallTask",
    "Augmented",
    "ContiguousBlocks",
    "CopyTask",
    "Data",
    "DataError",
    "DigitStrings",
    "MissingDataError",
    "NGramsTask",
    "PrioritySortTask",
    "RandomBlocks",
    "RepeatCopyTask",
    "Sequences",
    "Splits",
    "Task",
    "Text",
    "color_jitter",
    "crop_and_flip",
    "download",
    "load_cifar10",
    "load_digits",
    "load_mnist",
    "load_names",
    "load_text",
    "moons",
    "random_flip",
    "random_grey",
    "random_resized_crop",
    "random_shift",
    "read_idx",
    "simclr_views",
    "spirals",
    "stratified",
]
