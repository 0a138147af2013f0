"""What a recipe is: all that `backhand train` has to know about one model."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from backhand import datasets
from backhand.inspection import plot_image_grid, style
from backhand.layers import Layer
from backhand.layers.parameter import Array
from backhand.training.metrics import Metric
from backhand.training.option_types import CommandError

Shape = tuple[int, int, int]

IMAGES: dict[str, tuple[Shape, str]] = {
    "digits": ((1, 8, 8), "1,797 handwritten digits, bundled"),
    "mnist": ((1, 28, 28), "70,000 handwritten digits"),
    "cifar10": ((3, 32, 32), "colour photographs in ten classes"),
}
FILE = "FILE"
# What every option is when neither the user nor the recipe says anything else.
DEFAULTS: dict[str, Any] = {
    "epochs": 15,
    "batch_size": 64,
    "optimizer": "adam",
    "lr": 3e-3,
    "schedule": "cosine",
    "warmup": 0.0,
}


@dataclass
class Plan:
    """One run, ready to begin.

    model, loss : what is trained; loss is None where `fit` does it all
    train, validation : as `Trainer.fit` takes them      about : a line on the data
    test : as `Trainer.evaluate` takes it, or None      metrics : as in Trainer
    classes : for the lines of guessing in the picture of the loss
    batch_axis : as in Trainer      average : the decay of an average of the weights, which draws the pictures
    after_epoch : is called with the folder and the model, to draw into the folder
    perplexity : whether the history gets val_perplexity too, exp(val_loss), after each epoch
    report : from what the test gave, the lines that end the run; it may draw too
    fit : instead of a Trainer, (options, folder, say) -> history
    networks : name -> the network whose weights an interrupt leaves in NAME.safetensors; the model, if nothing is said
    extra : what config.json says beside the options
    """

    model: Layer
    loss: Layer | None
    train: Any
    about: str
    validation: Any = None
    test: Any = None
    metrics: Mapping[str, Metric] | None = None
    classes: int | None = None
    batch_axis: int = 0
    average: float | None = None
    after_epoch: Callable[[Path, Layer], None] | None = None
    perplexity: bool = False
    report: Callable[[Path, Layer, dict[str, float]], list[str]] | None = None
    fit: Callable[..., Any] | None = None
    networks: dict[str, Layer] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.networks = self.networks or {"model": self.model}


class Recipe:
    """How one model is trained: its data, its defaults, its loss, its pictures.

    about : a line for --help
    data : the names of the data it takes, the default first; FILE stands for any file
    file : what that file is
    defaults : of the options, where they are not DEFAULTS
    takes : the options that are for some models only, and that it understands
    ignores : the options for all models that it has no use for
    """

    about = ""
    data: tuple[str, ...] = tuple(IMAGES)
    file = "a text"
    defaults: Mapping[str, Any] = {}
    takes: tuple[str, ...] = ()
    ignores: tuple[str, ...] = ()

    def defaults_for(self, data: str) -> Mapping[str, Any]:
        """The defaults with this data."""
        return self.defaults

    def build(self, options: argparse.Namespace) -> Layer:
        """The model."""
        raise NotImplementedError

    def example(self, options: argparse.Namespace) -> Any:
        """What `backhand summary` feeds the model: shapes, or arrays."""
        raise NotImplementedError

    def plan(self, options: argparse.Namespace) -> Plan:
        """The model, the data and the rest."""
        raise NotImplementedError


class Samples:
    """samples.txt in the run folder: a piece of text for each epoch, under a line that says which."""

    def __init__(self) -> None:
        self.epoch = 0

    def add(self, folder: Path, text: str) -> None:
        """What the model writes after one more epoch."""
        self.epoch += 1
        with open(folder / "samples.txt", "w" if self.epoch == 1 else "a", encoding="utf-8") as file:
            file.write(f"---------- epoch {self.epoch}\n{text}\n\n")


def perplexity(loss: float) -> float:
    """exp(loss), as far as floats go."""
    return math.exp(min(loss, 700.0))


def load_images(options: argparse.Namespace) -> Any:
    """The splits of the digits, MNIST or CIFAR-10."""
    if options.data == "digits":
        return datasets.load_digits()
    load = {"mnist": datasets.load_mnist, "cifar10": datasets.load_cifar10}[options.data]
    return load(options.data_dir or Path("data") / options.data)


def shape_of(options: argparse.Namespace) -> Shape:
    """(channels, height, width) of the images."""
    return IMAGES[options.data][0]


def samples_of(splits: Any, data: str) -> str:
    """A line on the data."""
    train, validation, test = (f"{len(part.x):,}" for part in splits[:3])
    return f"{data}: {train} samples to learn from, {validation} to validate, {test} to test"


def multiple(options: argparse.Namespace, of: int, model: str) -> None:
    """CommandError unless the images can be divided so."""
    _, height, width = shape_of(options)
    if height % of or width % of:
        raise CommandError(f"the model {model} takes images whose sides are multiples of {of}, not {height}x{width}")


def draw_images(path: Path, images: Array, columns: int, title: str = "") -> None:
    """A grid of pictures (N, C, H, W), numbers from 0 to 1."""
    shown = np.clip(images, 0, 1)
    rows = -(-len(shown) // columns)
    figure = style.new_figure(0.45 * columns + 0.2, 0.45 * rows * shown.shape[2] / shown.shape[3] + 0.4)
    ax = figure.subplots()
    plot_image_grid(shown, columns=columns, normalize=None, ax=ax)
    ax.set_title(title, fontsize="small")
    style.save_png(figure, path)
