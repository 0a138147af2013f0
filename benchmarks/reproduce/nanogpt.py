"""nanoGPT's configuration for a CPU on tiny Shakespeare: 804,096 parameters, 2,000 steps.

Published: step 2000, train 1.7648, validation 1.8857.
"""

from __future__ import annotations

import time
from pathlib import Path

from backhand.datasets import RandomBlocks, load_text
from backhand.training.text_runs import TextRun, gpt
from benchmarks.reproduce.files import loaded, options


def main() -> None:
    """Train, measure as published on 20 batches and then on 500, and write."""
    asked = options("nanogpt", __doc__, steps=2000)

    def made(path: Path) -> TextRun:
        return gpt(load_text(path, 0.1), steps=asked.steps, seed=asked.seed)

    run: TextRun = loaded(made, asked.data_dir, "tinyshakespeare.txt")
    text = run.text
    print(f"{text!r}, {sum(p.size for p in run.model.parameters()):,} parameters")
    since = time.perf_counter()
    trainer = run.fit()
    seconds = time.perf_counter() - since
    print(run.sample(600, temperature=0.8, top_k=200, seed=asked.seed))
    twenty = trainer.history["val_loss"][-1]
    train, validation = (
        trainer.evaluate(RandomBlocks(part, 64, 12, 500, asked.seed))["loss"] for part in (text.train, text.validation)
    )
    print(f"seed {asked.seed}: step {trainer.steps}, validation {twenty:.4f} on 20 batches, {seconds:.0f} s")
    print(f"on 500 batches: train {train:.4f}, validation {validation:.4f}")
    print("published: train 1.7648, validation 1.8857 on 20 batches")


if __name__ == "__main__":
    main()
