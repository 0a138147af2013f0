"""The VAE of pytorch/examples on MNIST: 652,824 parameters, Adam 1e-3, batches of 128, 10 epochs.

Published (three public logs): test 105.56 to 105.59 nats per image, train 106.3.
"""

from __future__ import annotations

import time

import numpy as np

from backhand.layers.activations import sigmoid
from backhand.losses import ELBOLoss
from backhand.models import VAE
from backhand.training import Adam, Trainer
from backhand.training.recipes.base import draw_images
from benchmarks.reproduce.files import options
from benchmarks.reproduce.pictures import mnist


def main() -> None:
    """Train on all 60,000 images; the test loss with a code drawn for each image, as published."""
    asked = options("vae", __doc__, epochs=10)
    splits = mnist(asked.data_dir)
    train, test = splits.train.x, splits.test.x
    model = VAE(rng=asked.seed)
    trainer = Trainer(model, ELBOLoss(), Adam(model.parameters(), lr=1e-3), seed=asked.seed, log_every=0)
    print(f"{sum(p.size for p in model.parameters()):,} parameters, {len(train):,} images")
    since = time.perf_counter()
    trainer.fit((train, train), epochs=asked.epochs, batch_size=128)
    seconds = time.perf_counter() - since
    loss = trainer.evaluate((test, test))["loss"]
    if asked.picture:
        z = np.random.default_rng(0).standard_normal((64, 20), np.float32)
        draw_images(asked.picture, sigmoid(model.eval().decode(z)).reshape(-1, 1, 28, 28), 16)
    print(
        f"seed {asked.seed}: train {trainer.history['loss'][-1]:.2f}, test {loss:.2f} nats per image; {seconds:.0f} s"
    )
    print("published: train 106.3, test 105.56 to 105.59")


if __name__ == "__main__":
    main()
