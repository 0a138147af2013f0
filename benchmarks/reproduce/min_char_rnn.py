"""Karpathy's min-char-rnn: a tanh RNN of 100, one sequence of 25 characters a step, Adagrad; 23,165 parameters.

Published on a text of Kafka: 43.11 a sequence after 100,000 steps (1.72 nats a character). Here: tiny Shakespeare.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

from backhand.datasets import ContiguousBlocks, Text, load_text
from backhand.losses import SequenceCrossEntropyLoss
from backhand.models import CharRNN
from backhand.models.initialize import normal, zero
from backhand.training import Adagrad, clip_grad_value_
from benchmarks.reproduce.files import loaded, options


def main() -> None:
    """So many steps; the running loss is 0.999 of the last plus 0.001 of the new, as published."""
    asked = options("min_char_rnn", __doc__, steps=100_000)
    text, batches = loaded(read, asked.data_dir, "tinyshakespeare.txt")
    model = CharRNN(len(text.characters), 100, 1, "rnn", batch_first=True, one_bias=True, stateful=True, rng=asked.seed)
    for parameter in model.parameters():
        if parameter.data.ndim == 2:
            normal(parameter, model.drop.rng, 0.01)
        else:
            zero(parameter)
    loss = SequenceCrossEntropyLoss(reduction="sum")
    optimizer = Adagrad(model.parameters(), lr=0.1)
    smooth = 25 * math.log(len(text.characters))
    print(f"{sum(p.size for p in model.parameters()):,} parameters; at the start {smooth:.2f}")
    since, step = time.perf_counter(), 0
    while step < asked.steps:
        model.reset()
        for x, y in batches:
            optimizer.zero_grad()
            value = loss(model(x), y)
            model.backward(loss.backward())
            clip_grad_value_(model.parameters(), 5)
            optimizer.step()
            smooth += 0.001 * (value - smooth)
            step += 1
            if step % 10_000 == 0:
                print(f"{step:7,}  {smooth:.2f}  {time.perf_counter() - since:.0f} s", flush=True)
            if step == asked.steps:
                break
    # from where the text was left, as published: a state of zeros, seen once in 44,614 steps, may lead to nonsense
    print(text.decode(model.generate(y[:, -1:], 400, state=model.state, rng=asked.seed)[0]))
    print(f"seed {asked.seed}: {smooth:.2f} a sequence, {smooth / 25:.4f} nats a character after {step:,} steps")


def read(path: Path) -> tuple[Text, ContiguousBlocks]:
    """The text, and its sequences one by one."""
    text = load_text(path, 0)
    return text, ContiguousBlocks(text.train, 25, 1)


if __name__ == "__main__":
    main()
