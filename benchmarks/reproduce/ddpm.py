"""A denoising diffusion model on MNIST: 1,000 steps, a small U-Net.

Published (one public run, a U-Net of 324,705 parameters): loss 0.0619 after 15 epochs. What counts: can they be read?
"""

from __future__ import annotations

import time

from backhand.losses import MSELoss
from backhand.models import DDPM, DiffusionUNet
from backhand.training import Adam, CosineAnnealingLR, ExponentialMovingAverage, Trainer
from backhand.training.recipes.base import draw_images
from benchmarks.reproduce.files import options
from benchmarks.reproduce.pictures import mnist


def main() -> None:
    """Adam, the rate from 1e-3 down to 0 along a cosine; an average of the weights draws 64 pictures."""
    asked = options("ddpm", __doc__, epochs=15, width=16)
    splits = mnist(asked.data_dir, validation=1000)
    train, validation = (2 * part.x - 1 for part in splits[:2])
    ddpm, model = DDPM(), DiffusionUNet(1, asked.width, (1, 2, 4), rng=asked.seed)
    batches = ddpm.stream(train, 64, asked.seed)
    optimizer = Adam(model.parameters(), lr=1e-3)
    average = ExponentialMovingAverage(model, 0.999, warm_up=True)
    trainer = Trainer(
        model,
        MSELoss(),
        optimizer,
        schedule=CosineAnnealingLR(optimizer, asked.epochs * len(batches)),
        schedule_every="batch",
        clip_norm=1.0,
        log_every=0,
        after_step=average.update,
    )
    print(f"{sum(p.size for p in model.parameters()):,} parameters, {len(train):,} images", flush=True)
    since = time.perf_counter()
    trainer.fit(batches, list(ddpm.stream(validation, 200, 1)), epochs=asked.epochs)
    seconds = time.perf_counter() - since
    last = {name: trainer.history[name][-1] for name in ("loss", "val_loss")}
    since = time.perf_counter()
    pictures = ddpm.sample(average.module, (64, 1, 28, 28), rng=asked.seed)
    drawing = time.perf_counter() - since
    if asked.picture:
        draw_images(asked.picture, (pictures + 1) / 2, 16)
    print(f"seed {asked.seed}: loss {last['loss']:.4f}, validation {last['val_loss']:.4f}; {seconds:.0f} s")
    print(f"64 pictures in 1,000 steps: {drawing:.0f} s")
    print("published: loss 0.0619 (another U-Net)")


if __name__ == "__main__":
    main()
