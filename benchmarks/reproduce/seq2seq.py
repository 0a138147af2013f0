"""The encoder-decoder Transformer learns to say strings of 1 to 10 digits backwards, and in order. No data needed.

Nothing is published for these tasks: asked is that 99 % of new strings are answered without a mistake.
"""

from __future__ import annotations

import time

import numpy as np

from backhand.datasets import DigitStrings
from backhand.losses import SequenceCrossEntropyLoss
from backhand.models import Seq2SeqTransformer
from backhand.training import Adam, Trainer
from backhand.training.schedules import LambdaLR
from backhand.training.text_runs import warm_cosine
from benchmarks.reproduce.files import options


def main() -> None:
    """For each task 2,000 steps of 64 strings, then 1,000 new strings, written greedily."""
    asked = options("seq2seq", __doc__, steps=2000)
    for answer in ("reverse", "sort"):
        task = DigitStrings(answer)
        model = Seq2SeqTransformer(
            task.vocab_size, task.vocab_size, dropout=0.0, norm_first=True, padding_idx=task.PAD, rng=asked.seed
        )
        optimizer = Adam(model.parameters(), lr=2e-3)
        schedule = LambdaLR(optimizer, warm_cosine(100, asked.steps, 0.01))
        loss = SequenceCrossEntropyLoss(ignore_index=task.PAD)
        trainer = Trainer(
            model, loss, optimizer, schedule=schedule, schedule_every="batch", clip_norm=1.0, progress=False
        )
        since = time.perf_counter()
        trainer.fit(task.stream(asked.steps, 64, asked.seed), epochs=1)
        seconds = time.perf_counter() - since
        (src, _), y = task.draw(asked.seed + 1000, 1000)
        said = task.decode(model.generate(src, task.START, task.END, 12))
        right = np.mean([one == other for one, other in zip(said, task.decode(y), strict=True)])
        example = max(range(20), key=lambda i: len(said[i]))
        print(f"{answer}: {task.decode(src)[example]} -> {said[example]}")
        print(f"seed {asked.seed}: {100 * right:.1f} % of 1,000 strings right, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
