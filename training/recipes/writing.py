"""Models that learn to write from a text file."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from backhand import models
from backhand.datasets import Data, load_names, load_text
from backhand.inspection import save_loss_curve
from backhand.layers import Layer
from backhand.losses import CrossEntropyLoss
from backhand.training import text_runs
from backhand.training.modes import evaluating
from backhand.training.option_types import CommandError
from backhand.training.recipes.base import FILE, Plan, Recipe, Samples, perplexity

CHARACTERS = 65  # of tiny Shakespeare, where no text is given
LETTERS = 27  # of names, with what ends them
SAMPLE = 500
NAMES = 20  # that are made up after each epoch


class Writer(Recipe):
    """Characters in, the next character out; validation is the end of the text."""

    data = (FILE,)
    epoch = "the whole text"
    ignores = ("optimizer", "weight_decay", "momentum", "schedule", "warmup", "clip_norm")

    def example(self, options: argparse.Namespace) -> Any:
        return np.zeros((options.batch_size, 32), np.int64)

    def run(self, text: Any, options: argparse.Namespace) -> text_runs.TextRun:
        """All that training takes."""
        raise NotImplementedError

    def plan(self, options: argparse.Namespace) -> Plan:
        text = load_text(options.data)
        run = self.run(text, options)
        counts = f"{len(text.train):,} characters to learn from, {len(text.validation):,} to validate"
        about = f"{options.data}: {counts}, {len(text.characters)} different ones; an epoch is {self.epoch}"
        plan = Plan(run.model, None, None, about)

        def fit(folder: Path, progress: bool) -> list[str]:
            trainer = run.trainer(folder, progress, patience=options.patience)
            try:
                trainer.fit(run.train, run.validation, epochs=run.epochs)
            finally:
                if trainer.history.records:
                    save_loss_curve(trainer.history, folder / "loss_curve.png", classes=len(text.characters))
            loss = float(trainer.history["val_loss"][-1])
            bits = loss / math.log(2)
            measured = (
                f"validation loss {loss:.4f} nats a character, {bits:.3f} bits, perplexity {perplexity(loss):.3f}"
            )
            return [measured, *([run.sample(SAMPLE, seed=options.seed)] if progress else [])]

        plan.fit = fit
        plan.extra = {"characters": text.characters}
        return plan


class Transformer(Writer):
    """models.GPT as nanoGPT trains it on a CPU."""

    about = "a Transformer that writes (--data FILE.txt; --width, --dropout)"
    defaults: Mapping[str, Any] = {"epochs": 8, "batch_size": 12, "lr": 1e-3}
    takes = ("dropout", "width")
    every = 250  # steps in an epoch
    epoch = f"{every} batches from anywhere in the text"

    def build(self, options: argparse.Namespace) -> Layer:
        return models.GPT(CHARACTERS, 64, 4, 4, options.width or 128, options.dropout or 0.0, bias=False, rng=0)

    def run(self, text: Any, options: argparse.Namespace) -> text_runs.TextRun:
        return text_runs.gpt(
            text,
            n_embd=options.width or 128,
            dropout=options.dropout or 0.0,
            batch_size=options.batch_size,
            steps=self.every * options.epochs,
            every=self.every,
            lr=options.lr,
            warmup=min(100, self.every * options.epochs // 10),
            seed=options.seed,
        )


class Recurrent(Writer):
    """models.CharRNN as char-rnn trains it."""

    defaults: Mapping[str, Any] = {"epochs": 5, "batch_size": 50, "lr": 2e-3}
    takes = ("hidden", "dropout")

    def __init__(self, cell: str, about: str) -> None:
        self.cell, self.about = cell, about

    def build(self, options: argparse.Namespace) -> Layer:
        size, layers = self._sizes(options)
        return models.CharRNN(CHARACTERS, size, layers, self.cell, options.dropout or 0.0, batch_first=True, rng=0)

    def run(self, text: Any, options: argparse.Namespace) -> text_runs.TextRun:
        size, layers = self._sizes(options)
        return text_runs.char_lstm(
            text,
            hidden_size=size,
            num_layers=layers,
            cell=self.cell,
            dropout=options.dropout or 0.0,
            batch_size=options.batch_size,
            epochs=options.epochs,
            lr=options.lr,
            seed=options.seed,
        )

    def _sizes(self, options: argparse.Namespace) -> tuple[int, int]:
        sizes = options.hidden or (128, 128)
        if len(set(sizes)) != 1:
            raise CommandError(f"--hidden of the {options.model} names one size for each layer, all the same")
        return sizes[0], len(sizes)


class Names(Recipe):
    """models.NameMLP and models.NameWaveNet as makemore trains them: plain gradient descent, 32 examples a step."""

    data = (FILE,)
    file = "a list of words, one a line"
    defaults: Mapping[str, Any] = {"epochs": 20, "batch_size": 32, "optimizer": "sgd", "momentum": 0.0, "lr": 0.1}
    takes = ("hidden",)

    def __init__(self, network: Callable[..., Any], context: int, about: str) -> None:
        self.network, self.context, self.about = network, context, about

    def build(self, options: argparse.Namespace) -> Layer:
        return self._model(LETTERS, options)

    def example(self, options: argparse.Namespace) -> Any:
        return np.zeros((max(2, options.batch_size), self.context), np.int64)  # BatchNorm takes no single sample

    def plan(self, options: argparse.Namespace) -> Plan:
        splits = load_names(options.data, self.context)
        model = self._model(len(splits.classes), options)
        train, validation, test = splits[:3]
        counts = ", ".join(
            f"{len(part.x):,} to {what}"
            for part, what in zip(splits[:3], ("learn from", "validate", "test"), strict=True)
        )
        about = f"{options.data}: the next of {len(splits.classes)} characters, after {self.context} others; {counts}"
        plan = Plan(model, CrossEntropyLoss(), train, about)
        plan.validation, plan.test, plan.classes, plan.perplexity = validation, test, len(splits.classes), True
        plan.extra = {"characters": "".join(splits.classes), "context": self.context}
        samples = Samples()

        def made_up(model: Any) -> list[str]:
            names = model.generate(NAMES, rng=options.seed)
            return ["".join(splits.classes[i] for i in name) for name in names]

        def report(folder: Path, model: Layer, scores: dict[str, float]) -> list[str]:
            losses = [*(_loss(model, part) for part in (train, validation)), scores["loss"]]
            parts = zip(("training", "validation", "test"), losses, strict=True)
            measured = ", ".join(f"{part} {loss:.4f}" for part, loss in parts)
            lines = [f"loss in nats a character: {measured}   perplexity {perplexity(losses[1]):.3f} in validation"]
            return [*lines, *([] if options.quiet else [f"made up: {', '.join(made_up(model)[:8])}"])]

        plan.after_epoch = lambda folder, model: samples.add(folder, "\n".join(made_up(model)))
        plan.report = report
        return plan

    def _model(self, characters: int, options: argparse.Namespace) -> Layer:
        hidden = options.hidden or ()
        if len(hidden) > 1:
            raise CommandError(f"--hidden of {options.model} is one size, got {len(hidden)}")
        model: Layer = self.network(
            characters, self.context, **dict(zip(["hidden"], hidden, strict=False)), rng=options.seed
        )
        return model


def _loss(model: Layer, part: Data) -> float:
    """The mean loss over all of a part, in eval mode."""
    loss = CrossEntropyLoss(reduction="sum")
    with evaluating(model, loss):
        batches = range(0, len(part.x), 4096)
        sums = [loss.forward(model.forward(part.x[i : i + 4096]), part.y[i : i + 4096]) for i in batches]
    return float(sum(sums)) / len(part.x)


RECIPES: dict[str, Recipe] = {
    "gpt": Transformer(),
    "char-lstm": Recurrent("lstm", "an LSTM that writes (--data FILE.txt; --hidden 128,128: two layers; --dropout)"),
    "char-gru": Recurrent("gru", "the same with a GRU"),
    "char-rnn": Recurrent("rnn", "the same with a plain RNN"),
    "makemore": Names(
        models.NameMLP, 3, "a network that makes up names (--data FILE.txt with one name a line; --hidden 200)"
    ),
    "makemore-wavenet": Names(models.NameWaveNet, 8, "the same, with 8 characters joined pair by pair (--hidden 128)"),
}
