"""Models that learn to write: a text file in, weights and samples of text out.

run = gpt(load_text("shakespeare.txt"))
run.fit("runs/gpt")                     # history.jsonl, samples.txt, model.safetensors, ...
print(run.sample(500))
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backhand.datasets.text import ContiguousBlocks, RandomBlocks, Text
from backhand.losses.sequence import SequenceCrossEntropyLoss
from backhand.models.char_rnn import CharRNN
from backhand.models.gpt import GPT
from backhand.training.optimizers import AdamW, Optimizer, RMSprop
from backhand.training.schedules import LambdaLR, LRScheduler
from backhand.training.trainer import Trainer


@dataclass
class TextRun:
    """Everything that a run needs; change what you like before `fit`.

    model : (N, T) integers in, scores (N, T, V) out, with a `generate`
    train, validation : batches (x, y)      epochs : how often `train` is gone through
    schedule_every, clip_norm, clip_value : as in Trainer
    sample_length : of the text that is written after each epoch
    """

    text: Text
    model: GPT | CharRNN
    optimizer: Optimizer
    train: Iterable[Any]
    validation: Iterable[Any]
    epochs: int
    schedule: LRScheduler | None = None
    schedule_every: str = "epoch"
    clip_norm: float | None = None
    clip_value: float | None = None
    seed: int = 0
    sample_length: int = 300
    loss: SequenceCrossEntropyLoss = field(default_factory=SequenceCrossEntropyLoss)

    def fit(self, folder: str | os.PathLike[str] | None = None, progress: bool = True, **options: Any) -> Trainer:
        """Train; returns the Trainer. The arguments are those of `trainer`."""
        trainer = self.trainer(folder, progress, **options)
        trainer.fit(self.train, self.validation, epochs=self.epochs)
        return trainer

    def trainer(self, folder: str | os.PathLike[str] | None = None, progress: bool = True, **options: Any) -> Trainer:
        """The Trainer of this run; its history also has val_perplexity, exp(val_loss), after each epoch.

        folder : of the run: beside the Trainer's files, samples.txt gets a piece of text after each epoch
        options : further arguments of the Trainer
        """
        trainer = Trainer(
            self.model,
            self.loss,
            self.optimizer,
            schedule=self.schedule,
            schedule_every=self.schedule_every,
            clip_norm=self.clip_norm,
            clip_value=self.clip_value,
            folder=folder,
            seed=self.seed,
            progress=progress,
            after_epoch=lambda record: self._report(trainer, record),
            **options,
        )
        return trainer

    def sample(self, length: int = 500, temperature: float = 1.0, top_k: int | None = None, seed: int = 0) -> str:
        """A piece of text that the model writes, after a newline where the text has one."""
        start = self.text.characters.find("\n")
        tokens = np.array([[max(start, 0)]])
        return self.text.decode(self.model.generate(tokens, length, temperature, top_k, rng=seed)[0, 1:])

    def _report(self, trainer: Trainer, record: dict[str, Any]) -> None:
        perplexity = math.exp(min(record["val_loss"], 700.0))
        trainer.history.append({"step": record["step"], "epoch": record["epoch"], "val_perplexity": perplexity})
        if trainer.folder is None:
            return
        how = "w" if trainer.epochs == 1 else "a"
        with open(os.path.join(trainer.folder, "samples.txt"), how, encoding="utf-8") as file:
            title = f"epoch {trainer.epochs}, step {trainer.steps}: validation perplexity {perplexity:.3f}"
            file.write(f"---------- {title}\n{self.sample(self.sample_length)}\n\n")


def gpt(
    text: Text,
    *,
    block_size: int = 64,
    n_layer: int = 4,
    n_head: int = 4,
    n_embd: int = 128,
    dropout: float = 0.0,
    batch_size: int = 12,
    steps: int = 2000,
    lr: float = 1e-3,
    weight_decay: float = 0.1,
    warmup: int = 100,
    every: int = 250,
    seed: int = 0,
) -> TextRun:
    """A GPT as nanoGPT trains it; the defaults are its configuration for a CPU.

    AdamW with betas (0.9, 0.99) and weight decay on matrices alone; the norm of the gradient at most 1; the rate rises
    over `warmup` steps and falls along a cosine to a tenth.

    every : steps in an epoch, which ends with the loss over 20 new batches of the validation text
    """
    model = GPT(len(text.characters), block_size, n_layer, n_head, n_embd, dropout, bias=False, rng=seed)
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.data.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.data.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = AdamW(groups, lr=lr, betas=(0.9, 0.99))
    every = min(every, steps)
    rng = np.random.default_rng(seed)
    return TextRun(
        text,
        model,
        optimizer,
        RandomBlocks(text.train, block_size, batch_size, every, rng),
        RandomBlocks(text.validation, block_size, batch_size, 20, rng),
        epochs=max(1, round(steps / every)),
        schedule=LambdaLR(optimizer, warm_cosine(warmup, steps, 0.1)),
        schedule_every="batch",
        clip_norm=1.0,
        seed=seed,
    )


def char_lstm(
    text: Text,
    *,
    hidden_size: int = 128,
    num_layers: int = 2,
    cell: str = "lstm",
    dropout: float = 0.0,
    block_size: int = 50,
    batch_size: int = 50,
    epochs: int = 5,
    lr: float = 2e-3,
    seed: int = 0,
) -> TextRun:
    """An LSTM over characters as char-rnn trains it, its state carried along the whole text.

    RMSprop with alpha 0.95; entries of the gradient of the summed loss of a sequence at most 5; the rate falls by
    3 % an epoch after the tenth.
    """
    model = CharRNN(
        len(text.characters), hidden_size, num_layers, cell, dropout, batch_first=True, stateful=True, rng=seed
    )
    optimizer = RMSprop(model.parameters(), lr=lr, alpha=0.95)
    rows = max(1, min(10, (len(text.validation) - 1) // block_size))
    return TextRun(
        text,
        model,
        optimizer,
        ContiguousBlocks(text.train, block_size, batch_size, begin=model.reset),
        ContiguousBlocks(text.validation, block_size, rows, begin=model.reset),
        epochs=epochs,
        schedule=LambdaLR(optimizer, lambda epoch: 0.97 ** max(0, epoch - 9)),
        clip_value=5.0 / block_size,  # the loss is a mean here
        seed=seed,
    )


TEXT_RUNS: dict[str, Callable[..., TextRun]] = {"gpt": gpt, "char-lstm": char_lstm}


def warm_cosine(warmup: int, steps: int, least: float) -> Callable[[int], float]:
    """Step -> factor of the rate: up in a line over `warmup` steps, then down along a cosine to `least` at `steps`."""

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        share = min(1.0, (step - warmup) / max(1, steps - warmup))
        return least + (1 - least) * 0.5 * (1 + math.cos(math.pi * share))

    return factor
