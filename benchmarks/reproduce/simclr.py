"""SimCLR on CIFAR-10: an encoder that has seen no label, and a linear classifier on what it gives.

Beside it, the same classifier on the encoder as it was before training.
"""

from __future__ import annotations

import time

from backhand.datasets import Augmented, simclr_views
from backhand.losses import NTXentLoss
from backhand.models import ConvNet, SimCLR
from backhand.training import Adam, CosineAnnealingLR, Trainer
from backhand.training.recipes.generative import linear_probe
from benchmarks.reproduce.files import options
from benchmarks.reproduce.pictures import cifar10


def main() -> None:
    """Adam 1e-3 along a cosine, 256 images with two views each, temperature 0.5."""
    asked = options("simclr", __doc__, epochs=30)
    splits = cifar10(asked.data_dir)
    encoder = ConvNet(128, (3, 32, 32), rng=asked.seed)
    model = SimCLR(encoder, 128, rng=asked.seed + 1)
    before = linear_probe(model, splits)
    batches = Augmented(splits.train.x, splits.train.y, 256, simclr_views, 2, asked.seed)
    optimizer = Adam(model.parameters(), lr=1e-3)
    schedule = CosineAnnealingLR(optimizer, asked.epochs * len(batches))
    trainer = Trainer(model, NTXentLoss(0.5), optimizer, schedule=schedule, schedule_every="batch", log_every=0)
    since = time.perf_counter()
    trainer.fit(batches, epochs=asked.epochs)
    seconds = time.perf_counter() - since
    after = linear_probe(model, splits)
    print(f"seed {asked.seed}: a linear classifier on the encoder {100 * after:.2f} % of the test images,")
    print(f"on the encoder before training {100 * before:.2f} %; {seconds:.0f} s")


if __name__ == "__main__":
    main()
