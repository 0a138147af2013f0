"""A small DCGAN on MNIST: there is no figure to meet, the pictures count; and one that can be measured.

A LeNet-5 that was trained on the real digits says how sure it is of the drawn ones, and how many of each it sees.
"""

from __future__ import annotations

import time

import numpy as np

from backhand.layers.softmax import softmax
from backhand.losses import CrossEntropyLoss
from backhand.models import Discriminator, Generator, LeNet5
from backhand.training import Adam, AdversarialTrainer, Trainer
from backhand.training.recipes.base import draw_images
from benchmarks.reproduce.files import options
from benchmarks.reproduce.pictures import mnist


def main() -> None:
    """Adam 2e-4 with betas 0.5 and 0.999, batches of 64, as DCGAN was trained."""
    asked = options("gan", __doc__, epochs=10)
    splits = mnist(asked.data_dir)
    generator, discriminator = Generator(rng=asked.seed), Discriminator(rng=asked.seed + 1)
    optimizers = [Adam(each.parameters(), 2e-4, betas=(0.5, 0.999)) for each in (generator, discriminator)]
    trainer = AdversarialTrainer(generator, discriminator, *optimizers, real_label=0.9, seed=asked.seed, log_every=0)
    since = time.perf_counter()
    trainer.fit(2 * splits.train.x - 1, epochs=asked.epochs)
    seconds = time.perf_counter() - since
    if asked.picture:
        draw_images(asked.picture, (trainer.draw(64) + 1) / 2, 16)
    judge = LeNet5(rng=0)
    readers = Trainer(judge, CrossEntropyLoss(), Adam(judge.parameters(), 2e-3), progress=False, log_every=0)
    readers.fit(splits.train, epochs=2)
    drawn = (trainer.draw(2000, rng=1) + 1) / 2
    p = softmax(readers.predict(drawn), 1)
    real = softmax(readers.predict(splits.test.x[:2000]), 1)
    counts = np.bincount(p.argmax(axis=1), minlength=10)
    sure = [float((each.max(axis=1) > 0.9).mean()) for each in (p, real)]
    print(f"seed {asked.seed}: of 2,000 drawn digits a LeNet-5 is sure (> 0.9) of {100 * sure[0]:.1f} %,")
    print(f"of 2,000 real ones of {100 * sure[1]:.1f} %; it sees {counts.tolist()} of 0 to 9; {seconds:.0f} s")


if __name__ == "__main__":
    main()
