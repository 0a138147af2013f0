"""The algorithmic tasks: sequences of bits, for the Neural Turing Machine and for an LSTM beside it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from backhand import datasets, models
from backhand.inspection import plot_answer, plot_memory, style
from backhand.layers import LSTM, Layer, Linear
from backhand.losses import SequenceBCELoss
from backhand.training.metrics import bits_per_sequence, wrong_bits
from backhand.training.modes import evaluating
from backhand.training.option_types import CommandError
from backhand.training.recipes.base import Plan, Recipe

TASKS: dict[str, tuple[Callable[[], datasets.Task], str]] = {
    "copy": (datasets.CopyTask, "say again what was said"),
    "repeat-copy": (datasets.RepeatCopyTask, "say it so many times"),
    "associative-recall": (datasets.AssociativeRecallTask, "shown one item of a list, say the next"),
    "n-grams": (datasets.NGramsTask, "guess the next bit of a source that changes"),
    "priority-sort": (datasets.PrioritySortTask, "say the vectors in the order of their priorities"),
}
EPOCH = 1000  # sequences
TESTED = 500
# Thousands of sequences after which something is to be seen.
THOUSANDS = {"copy": 8, "repeat-copy": 40, "associative-recall": 40, "n-grams": 20, "priority-sort": 40}
LONGER = {"copy": (10, 20, 30, 60), "repeat-copy": (10, 15, 20), "associative-recall": (6, 10, 15)}


class Sequences(Recipe):
    """A network over time that is asked for bits. An epoch is 1,000 sequences; no sequence comes twice."""

    data = tuple(TASKS)

    def defaults_for(self, data: str) -> Mapping[str, Any]:
        return {"epochs": THOUSANDS[data], **self.defaults}

    def example(self, options: argparse.Namespace) -> Any:
        return (20, options.batch_size, TASKS[options.data][0]().inputs)

    def plan(self, options: argparse.Namespace) -> Plan:
        model = self.build(options)
        task = TASKS[options.data][0]()
        batches = max(1, EPOCH // options.batch_size)
        plan = Plan(
            model,
            SequenceBCELoss(),
            task.stream(batches, options.batch_size, options.seed),
            f"{options.data}: {task.inputs} channels in, {task.outputs} out; who guesses needs {task.chance:g} bits "
            f"per sequence; {batches * options.batch_size:,} sequences an epoch",
        )
        plan.validation = task.fixed(10, 10, 1 + options.seed)
        plan.test = task.fixed(TESTED // 20, 20, 1_000_003 + options.seed)
        plan.metrics = {"bits": bits_per_sequence, "wrong_bits": wrong_bits}
        plan.batch_axis = 1
        plan.after_epoch = lambda folder, model: self.draw(folder, model, task, options)
        plan.report = lambda folder, model, scores: self.report(model, task, options, scores)
        return plan

    def report(self, model: Layer, task: Any, options: argparse.Namespace, scores: dict[str, float]) -> list[str]:
        """Bits per sequence, and what becomes of longer ones."""
        lines = [f"test {scores['bits']:.3f} bits per sequence   {100 * scores['wrong_bits']:.2f} % of the bits wrong"]
        if options.data == "n-grams":
            best = np.concatenate(
                [task.optimum(each) for each in task.fixed(TESTED // 20, 20, 1_000_003 + options.seed)]
            ).mean()
            lines.append(f"who counts as well as can be needs {best:.2f} bits")
        found = []
        for length in LONGER.get(options.data, ()):
            x, y = task.draw(2_000_003 + options.seed, 20, length)
            with evaluating(model):
                found.append(f"{100 * wrong_bits(model.forward(x), y):.2f} % at {length}")
        if found:
            lines.append(f"wrong bits by length: {', '.join(found)}")
        return lines

    def draw(self, folder: Path, model: Any, task: Any, options: argparse.Namespace) -> None:
        """What is asked, wanted and said; with a memory, also where its heads looked."""
        x, y = task.draw(3_000_017 + options.seed, 1, {"n-grams": 60, "copy": 20}.get(options.data))
        machine = isinstance(model, models.NTM)
        figure = style.new_figure(6.4, 4.5 + 5.5 * model.read_heads if machine else 4.5)
        (plot_memory if machine else plot_answer)(model, x, y, figure=figure)
        style.save_png(figure, folder / ("memory.png" if machine else "answer.png"))


class TuringMachine(Sequences):
    """models.NTM, with the optimizer and the loss of Graves: lr 1e-4, one sequence at a time."""

    about = "the Neural Turing Machine (--hidden: its controller's size, --controller, --heads)"
    defaults = {
        "batch_size": 1,
        "optimizer": "graves",
        "lr": 1e-4,
        "schedule": "constant",
        "clip_norm": 10.0,
    }
    takes = ("hidden", "controller", "heads")

    def build(self, options: argparse.Namespace) -> Layer:
        task = TASKS[options.data][0]()
        hidden = options.hidden or (100,)
        if len(hidden) != 1:
            raise CommandError(f"--hidden of the ntm is one size, that of its controller, got {len(hidden)}")
        heads = options.heads or 1
        return models.NTM(
            task.inputs,
            task.outputs,
            hidden[0],
            options.controller or "feedforward",
            read_heads=heads,
            write_heads=heads,
            rng=options.seed,
        )


class Baseline(Sequences):
    """An LSTM of three layers with 256 units, the paper's baseline on the same tasks."""

    about = "three layers of LSTM on the NTM's tasks (--hidden: their sizes, all the same)"
    defaults = {**TuringMachine.defaults, "lr": 3e-5}
    takes = ("hidden",)

    def build(self, options: argparse.Namespace) -> Layer:
        task = TASKS[options.data][0]()
        sizes = options.hidden or (256, 256, 256)
        if len(set(sizes)) != 1:
            raise CommandError(f"--hidden of the lstm names one size for each layer, all the same, got {sizes}")
        rng = np.random.default_rng(options.seed)
        return models.Sequential(
            {
                "lstm": LSTM(task.inputs, sizes[0], len(sizes), rng=rng),
                "output": Linear(sizes[0], task.outputs, rng=rng),
            }
        )


RECIPES: dict[str, Recipe] = {"ntm": TuringMachine(), "lstm": Baseline()}
