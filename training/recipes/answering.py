"""Networks that answer with a sequence: to a string of digits, and to a picture."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from backhand import datasets, models
from backhand.inspection import plot_image_grid, style
from backhand.layers import Layer
from backhand.layers.parameter import Array
from backhand.losses import SequenceCrossEntropyLoss
from backhand.training.metrics import whole_sequences
from backhand.training.modes import evaluating
from backhand.training.option_types import CommandError
from backhand.training.recipes.base import Plan, Recipe, Samples, load_images, perplexity, samples_of, shape_of

ANSWERS = {
    "reverse": "strings of 1 to 10 digits, to be said backwards",
    "sort": "strings of 1 to 10 digits, to be said in order",
}
EPOCH = 12_800  # strings
TESTED = 1000
EXAMPLES = 10  # of which the answer is shown
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SHOWN = 24  # pictures whose caption is shown, 8 in a row
PAD, START, END = 0, 1, 2
LETTERS = sorted(set("".join(NAMES)))  # the first is token 3


class Strings(Recipe):
    """models.Seq2SeqTransformer on datasets.DigitStrings; every epoch draws new strings."""

    about = "an encoder and a decoder: one sequence in, another one out (--dropout)"
    data = tuple(ANSWERS)
    defaults: Mapping[str, Any] = {"epochs": 10, "lr": 2e-3, "clip_norm": 1.0, "warmup": 0.05}
    takes = ("dropout",)

    def build(self, options: argparse.Namespace) -> Layer:
        size, share = datasets.DigitStrings.vocab_size, options.dropout or 0.0
        padding = datasets.DigitStrings.PAD
        return models.Seq2SeqTransformer(
            size, size, dropout=share, norm_first=True, padding_idx=padding, rng=options.seed
        )

    def example(self, options: argparse.Namespace) -> Any:
        return datasets.DigitStrings(options.data).draw(0, options.batch_size).x

    def plan(self, options: argparse.Namespace) -> Plan:
        model = self.build(options)
        task = datasets.DigitStrings(options.data)
        batches = max(1, EPOCH // options.batch_size)
        plan = Plan(
            model,
            SequenceCrossEntropyLoss(ignore_index=task.PAD),
            task.stream(batches, options.batch_size, options.seed),
            f"{options.data}: {ANSWERS[options.data]}; {batches * options.batch_size:,} of them an epoch",
        )
        plan.validation = task.draw(1_000_003 + options.seed, min(500, TESTED))
        plan.test = test = task.draw(2_000_003 + options.seed, TESTED)
        plan.metrics = {"right": functools.partial(whole_sequences, ignore_index=task.PAD)}
        plan.classes, plan.perplexity = 11, True  # ten digits and the end
        samples = Samples()
        shown = tuple(each[:EXAMPLES] for each in (*test.x, test.y))
        plan.after_epoch = lambda folder, model: samples.add(folder, "\n".join(self.answers(model, task, *shown)))
        plan.report = lambda folder, model, scores: [
            f"test: {100 * scores['right']:.1f} % of {TESTED:,} new strings wholly right   "
            f"perplexity {perplexity(scores['loss']):.4f} a digit",
            *([] if options.quiet else self.answers(model, task, *(each[:3] for each in shown))),
        ]
        return plan

    def answers(self, model: Any, task: datasets.DigitStrings, src: Array, tgt: Array, y: Array) -> list[str]:
        """A line for each string: the answer, and the right one where it is another."""
        said = task.decode(model.generate(src, task.START, task.END, y.shape[1]))
        lines = zip(task.decode(src), said, task.decode(y), strict=True)
        return [f"{asked} -> {one}{'' if one == other else f' (no: {other})'}" for asked, one, other in lines]


class Describer(Layer):
    """Scores of each next letter, from a picture and the letters before it.

        scores = writer(encoder(x), words)        dx = dencoder(dfeatures),    dfeatures, _ = dwriter(dout)

    encoder : pictures (N, C, H, W) to features (N, F)      writer : models.CaptionRNN of features of this size
    """

    def __init__(self, encoder: Layer, writer: models.CaptionRNN) -> None:
        self.encoder, self.writer = encoder, writer

    def forward(self, x: ArrayLike, words: ArrayLike) -> Array:
        return self.writer.forward(self.encoder.forward(x), words)

    def backward(self, dout: Any) -> tuple[Any, None]:
        dfeatures, _ = self.writer.backward(dout)
        return self.encoder.backward(dfeatures), None

    def input_requires_grad_(self, requires_grad: bool = True) -> Describer:
        super().input_requires_grad_(requires_grad)
        self.encoder.input_requires_grad_(requires_grad)
        return self


class Captions(Recipe):
    """models.ConvNet looks at a digit, and models.CaptionRNN writes its name, letter by letter."""

    about = "captions of pictures: the names of the digits, letter by letter (--width)"
    data = ("digits", "mnist")
    takes = ("width",)

    def defaults_for(self, data: str) -> Mapping[str, Any]:
        return {"lr": 2e-3, "clip_norm": 1.0, "epochs": {"digits": 15, "mnist": 2}[data]}

    def build(self, options: argparse.Namespace) -> Layer:
        width, rng = options.width or 128, np.random.default_rng(options.seed)
        encoder = models.ConvNet(width, shape_of(options), rng=rng)
        return Describer(encoder, models.CaptionRNN(3 + len(LETTERS), width, 32, width, "lstm", rng=rng))

    def example(self, options: argparse.Namespace) -> Any:
        letters = captions(np.zeros(options.batch_size, np.int64))[:, :-1]
        return ((options.batch_size, *shape_of(options)), letters)

    def plan(self, options: argparse.Namespace) -> Plan:
        model = self.build(options)
        splits = load_images(options)
        if len(splits.classes) != len(NAMES):
            raise CommandError(f"--model captioning is for the ten digits, not for {len(splits.classes)} classes")
        train, validation, test = (
            ((part.x, tokens[:, :-1]), tokens[:, 1:]) for part, tokens in ((p, captions(p.y)) for p in splits[:3])
        )
        plan = Plan(model, SequenceCrossEntropyLoss(ignore_index=PAD), train, samples_of(splits, options.data))
        plan.validation, plan.test = validation, test
        plan.metrics = {"right": functools.partial(whole_sequences, ignore_index=PAD)}
        plan.classes, plan.perplexity = 1 + len(LETTERS), True
        x, y = splits.test.x[:SHOWN], splits.test.y[:SHOWN]
        plan.after_epoch = lambda folder, model: self.draw(folder, model, x, y)
        plan.report = lambda folder, model, scores: [
            f"test: {100 * scores['right']:.2f} % of the captions wholly right   "
            f"perplexity {perplexity(scores['loss']):.4f} a letter"
        ]
        return plan

    def draw(self, folder: Path, model: Any, x: Array, y: Array) -> None:
        """Pictures, and above each what is written about it, in another colour where that is wrong."""
        with evaluating(model):
            written = model.writer.generate(model.encoder.forward(x), START, max(map(len, NAMES)) + 1)
        columns = min(8, len(x))
        rows = -(-len(x) // columns)
        figure = style.new_figure(0.75 * columns + 0.2, 0.95 * rows + 0.4)
        figure.suptitle("what is written about test pictures", fontsize="small")
        for ax, picture, tokens, label in zip(
            figure.subplots(rows, columns, squeeze=False).flat, x, written, y, strict=False
        ):
            plot_image_grid(picture[None], columns=1, normalize=None, ax=ax)
            words = spelled(tokens)
            color = "black" if words == NAMES[label] else style.GRADIENT
            ax.set_title(words or "(nothing)", fontsize="small", color=color)
        for ax in figure.axes[len(x) :]:
            ax.set_axis_off()
        style.save_png(figure, folder / "captions.png")


def captions(labels: Array) -> Array:
    """START, the letters of the names, END, and PAD as far as the longest name needs: tokens (N, 7)."""
    rows = np.full((len(NAMES), max(map(len, NAMES)) + 2), PAD)
    for row, name in zip(rows, NAMES, strict=True):
        row[: len(name) + 2] = [START, *(3 + LETTERS.index(letter) for letter in name), END]
    return rows[labels]


def spelled(tokens: Array) -> str:
    """The letters before the END; what is no letter is a "?"."""
    row = [*tokens.tolist(), END]
    return "".join(LETTERS[token - 3] if token >= 3 else "?" for token in row[: row.index(END)])


RECIPES: dict[str, Recipe] = {"transformer": Strings(), "captioning": Captions()}
