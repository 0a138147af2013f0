"""Classifiers of images."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from backhand import datasets, models
from backhand.layers import Layer
from backhand.layers.parameter import Array
from backhand.losses import CrossEntropyLoss
from backhand.training.batches import as_batches
from backhand.training.recipes.base import IMAGES, Plan, Recipe, load_images, samples_of, shape_of


def build_model(
    name: str,
    shape: tuple[int, ...],
    hidden: tuple[int, ...] | None,
    dropout: float | None,
    seed: int,
    classes: int = 10,
) -> Layer:
    """The model that the command line calls `name`, for images of `shape` (C, H, W)."""
    channels, height, width = shape
    if name == "mlp":
        return models.MLP(int(np.prod(shape)), *(hidden or (128,)), classes, dropout=dropout or 0.0, rng=seed)
    if name == "lenet":
        return models.LeNet5(classes, channels, height, rng=seed)
    if name == "alexnet-cifar":
        return models.CifarAlexNet(classes, rng=seed)
    if name.startswith("resnet"):
        return models.CifarResNet(int(name.removeprefix("resnet")), classes, rng=seed)
    if name == "vit":
        patch = 4 if height > 8 else 2
        sizes = (height, patch, 6, 4, 128, 256)
        return models.ViT(*sizes, dropout or 0.0, num_classes=classes, channels=channels, rng=seed)
    return models.ConvNet(classes, (channels, height, width), rng=seed)


class Classifier(Recipe):
    """Images in, the scores of the classes out; the test accuracy counts.

    standardize : take the mean of the training data off each channel, and divide by its deviation
    augment : shift the pictures (photographs are also mirrored) in every epoch, unless --no-augment
    """

    def __init__(
        self,
        name: str,
        about: str,
        data: tuple[str, ...] = tuple(IMAGES),
        takes: tuple[str, ...] = (),
        standardize: bool = False,
        **defaults: Any,
    ) -> None:
        self.name, self.about, self.data, self.takes, self.defaults = name, about, data, takes, defaults
        self.standardize = standardize
        if standardize:
            self.takes = (*takes, "no_augment")

    def build(self, options: argparse.Namespace, classes: int = 10) -> Layer:
        return build_model(self.name, shape_of(options), options.hidden, options.dropout, options.seed, classes)

    def example(self, options: argparse.Namespace) -> Any:
        return (options.batch_size, *shape_of(options))

    def plan(self, options: argparse.Namespace) -> Plan:
        splits = load_images(options)
        model = self.build(options, len(splits.classes))
        plan = Plan(model, CrossEntropyLoss(), splits.train, samples_of(splits, options.data))
        plan.validation, plan.test, plan.classes = splits.validation, splits.test, len(splits.classes)
        if self.standardize:
            x = splits.train.x
            mean, std = (of(axis=(0, 2, 3), keepdims=True, dtype=np.float32) for of in (x.mean, x.std))
            std = np.maximum(std, np.float32(1e-3))
            plan.extra = {"mean": mean.ravel().tolist(), "std": std.ravel().tolist()}
            train, plan.validation, plan.test = (datasets.Data((part.x - mean) / std, part.y) for part in splits[:3])
            plan.train = train
            if not options.no_augment:
                change = datasets.crop_and_flip if options.data == "cifar10" else datasets.random_shift
                if options.data == "digits":
                    change = _by_one
                plan.train = datasets.Augmented(*train, options.batch_size, change, rng=options.seed)
        plan.report = self._report
        return plan

    def _report(self, folder: Path, model: Layer, scores: dict[str, float]) -> list[str]:
        return [f"test accuracy {100 * scores['accuracy']:.2f} %   test loss {scores['loss']:.4f}"]


def _by_one(x: Any, rng: np.random.Generator) -> Any:
    return datasets.random_shift(x, rng, 1)


class OfImageNet(Classifier):
    """An architecture that was published for 1,000 classes, here for the ten of CIFAR-10.

    make : (classes, dropout or nothing, rng) -> the model      size : of the images that it was published with
    times : how often each pixel of CIFAR-10 is repeated, both ways, where 32x32 are too few for the architecture

    `backhand summary` shows it as it was published, unless it is asked for --data.
    """

    def __init__(
        self, name: str, about: str, make: Callable[..., Layer], size: int = 224, times: int = 1, **options: Any
    ) -> None:
        super().__init__(name, about, PHOTOGRAPHS, standardize=True, **options)
        self.make, self.size, self.times = make, size, times

    def build(self, options: argparse.Namespace, classes: int = 10) -> Layer:
        share = {} if options.dropout is None else {"dropout": options.dropout}
        return self.make(1000 if _published(options) else classes, **share, rng=options.seed)

    def example(self, options: argparse.Namespace) -> Any:
        channels, *size = shape_of(options)
        height, width = (self.size if _published(options) else self.times * side for side in size)
        few = 1 if _published(options) else 2  # of one value for each channel, BatchNorm cannot take the variance
        return (max(few, options.batch_size), channels, height, width)

    def plan(self, options: argparse.Namespace) -> Plan:
        plan = super().plan(options)
        if self.times > 1:
            _, height, width = self.example(options)[1:]
            plan.about += f"; every picture enlarged to {height}x{width}"
            if isinstance(plan.train, datasets.Data):  # in a new order in each epoch, as the Trainer would take them
                plan.train = datasets.Augmented(*plan.train, options.batch_size, rng=options.seed)
            plan.train, plan.validation, plan.test = (
                Enlarged(part, self.times, options.batch_size) for part in (plan.train, plan.validation, plan.test)
            )
        return plan


class Enlarged:
    """Batches of pictures whose pixels are repeated; enlarged batch by batch, for all at once there may be no room.

    part : Data, or batches of it
    """

    def __init__(self, part: Any, times: int, batch: int) -> None:
        self.part, self.times = as_batches("pictures", part), times
        self.batch = batch

    def __len__(self) -> int:
        return self.part.count(self.batch) or 0

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        for (x,), y in self.part.batches(self.batch):
            yield x.repeat(self.times, axis=2).repeat(self.times, axis=3), y


def _published(options: argparse.Namespace) -> bool:
    return getattr(options, "published", False)


def _of_imagenet() -> dict[str, Recipe]:
    """The architectures of ImageNet, under torchvision's names."""
    found: dict[str, Recipe] = {}

    def add(name: str, about: str, make: Callable[..., Layer], takes: tuple[str, ...] = (), **options: Any) -> None:
        found[name] = OfImageNet(name, about, make, takes=takes, **{**RESIDUAL, **options})

    own = ("dropout",)
    # Without batch normalisation: in the steps in which Adam had begun to learn, SGD at 0.01 had not moved.
    plain = {"optimizer": "adam", "lr": 1e-4, "weight_decay": 0.0, "batch_size": 64}
    about = "AlexNet, torchvision's variant (pictures enlarged to 64x64; --dropout)"
    add("alexnet", about, models.AlexNet, own, times=2, **plain)
    about = "AlexNet as published (pictures enlarged to 256x256, which takes long; --dropout)"
    add("alexnet2012", about, models.AlexNet2012, own, size=227, times=8, **plain)
    for depth in (11, 13, 16, 19):
        about = f"VGG, {depth} layers with weights"
        make = functools.partial(models.VGG, depth)
        add(f"vgg{depth}", f"{about} (--dropout)", functools.partial(make, batch_norm=False), own, **plain)
        about += ", batch normalisation (--dropout)"
        add(f"vgg{depth}_bn", about, functools.partial(make, batch_norm=True), own, lr=0.01)
    for depth in (18, 34, 50):
        about = f"a residual network of {depth} layers, that of ImageNet"
        add(f"resnet{depth}", about, functools.partial(models.ResNet, depth))
    add("mobilenet_v2", "MobileNetV2 (--dropout)", models.MobileNetV2, own, lr=0.05)
    return found


PHOTOGRAPHS = ("cifar10",)
RESIDUAL: dict[str, Any] = {
    "optimizer": "sgd",
    "lr": 0.1,
    "weight_decay": 5e-4,
    "batch_size": 128,
    "epochs": 30,
    "warmup": 0.03,
}
RECIPES: dict[str, Recipe] = {
    "mlp": Classifier("mlp", "fully connected layers (--hidden, --dropout)", takes=("hidden", "dropout")),
    "lenet": Classifier("lenet", "LeNet-5, for 28x28 or 32x32 images", ("mnist", "cifar10")),
    "convnet": Classifier("convnet", "three blocks of convolution, batch norm, ReLU and pooling"),
    "alexnet-cifar": Classifier(
        "alexnet-cifar",
        "AlexNet for 32x32 images",
        PHOTOGRAPHS,
        standardize=True,
        **{**RESIDUAL, "lr": 0.02},
    ),
    **{
        f"resnet{depth}": Classifier(
            f"resnet{depth}",
            f"a residual network of {depth} layers, for 32x32 images",
            PHOTOGRAPHS,
            standardize=True,
            **RESIDUAL,
        )
        for depth in (20, 32, 56)
    },
    **_of_imagenet(),
    "vit": Classifier(
        "vit",
        "a small Vision Transformer (--dropout)",
        takes=("dropout",),
        standardize=True,
        optimizer="adamw",
        lr=1e-3,
        weight_decay=0.05,
        warmup=0.1,
        batch_size=128,
        epochs=30,
    ),
}
