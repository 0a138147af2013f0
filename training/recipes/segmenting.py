"""What says something of every pixel."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from backhand import datasets, models
from backhand.layers import Layer
from backhand.layers.parameter import Array
from backhand.losses import CrossEntropyLoss
from backhand.training.metrics import intersection_over_union
from backhand.training.modes import evaluating
from backhand.training.recipes.base import Plan, Recipe, draw_images, load_images, samples_of, shape_of

# The deviation of the noise, where paper is 0 and ink 1: a picture of more pixels can be read under more of it.
NOISE = {"digits": 0.3, "mnist": 0.6}
SHOWN = 16  # pictures, 8 in a row


class Strokes(Recipe):
    """models.UNet finds the stroke of a digit under noise, which is drawn anew in every epoch."""

    about = "a U-Net that finds the stroke of a digit under noise, pixel by pixel (--width)"
    data = ("digits", "mnist")
    takes = ("width",)

    def defaults_for(self, data: str) -> Mapping[str, Any]:
        return {"epochs": 1} if data == "mnist" else {"epochs": 20, "batch_size": 32}

    def build(self, options: argparse.Namespace) -> Layer:
        width = options.width or 16
        return models.UNet(1, 2, (width, 2 * width, 4 * width), padding=1, batch_norm=True, rng=options.seed)

    def example(self, options: argparse.Namespace) -> Any:
        return (options.batch_size, *shape_of(options))

    def plan(self, options: argparse.Namespace) -> Plan:
        model = self.build(options)
        splits = load_images(options)
        deviation = NOISE[options.data]
        noise = functools.partial(noisy, deviation=deviation)
        train = datasets.Augmented(splits.train.x, stroke(splits.train.x), options.batch_size, noise, rng=options.seed)
        validation, test = (
            datasets.Data(noise(part.x, np.random.default_rng(seed)), stroke(part.x))
            for part, seed in ((splits.validation, 1 + options.seed), (splits.test, 2 + options.seed))
        )
        plan = Plan(model, CrossEntropyLoss(), train, samples_of(splits, options.data))
        plan.validation, plan.test, plan.classes = validation, test, 2
        plan.metrics = {"iou": intersection_over_union}
        by_threshold = intersection_over_union(np.concatenate([0.5 - test.x, test.x - 0.5], axis=1), test.y)
        plan.about += (
            f"; noise of deviation {deviation} is laid over them. Who takes every pixel above one half for ink has an "
            f"intersection over union of {by_threshold:.3f}"
        )
        plan.after_epoch = lambda folder, model: self.draw(folder, model, *(part[:SHOWN] for part in test))
        plan.report = lambda folder, model, scores: [
            f"test intersection over union {scores['iou']:.4f}   test loss {scores['loss']:.4f}"
        ]
        return plan

    def draw(self, folder: Path, model: Layer, given: Array, wanted: Array) -> None:
        """Rows of what is given, below each what is wanted, and below that what is found."""
        with evaluating(model):
            found = model.forward(given).argmax(axis=1)
        rows = [
            each[i : i + 8].reshape(-1, *given.shape[1:])
            for i in range(0, len(given), 8)
            for each in (given, wanted, found)
        ]
        title = "given, wanted and found, on test pictures"
        draw_images(folder / "segments.png", np.concatenate(rows), min(8, len(given)), title)


def stroke(x: Array) -> Array:
    """1 where there is ink, else 0: labels (N, H, W)."""
    return (x[:, 0] > 0.5).astype(np.int64)


def noisy(x: Array, rng: np.random.Generator, deviation: float) -> Array:
    """The pictures under noise."""
    return x + x.dtype.type(deviation) * rng.standard_normal(x.shape, np.float32)


RECIPES: dict[str, Recipe] = {"unet": Strokes()}
