"""Small networks on CIFAR-10, the images shifted by up to 4 pixels and mirrored in every epoch.

Published, on 50,000 training images: ResNet-20 (269,722 parameters) 91.25 % after 200 epochs; the AlexNet for CIFAR
(2,472,266) 77.22 % after 164 epochs. Here as many images are used as the folder has.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from backhand.datasets import Augmented, crop_and_flip
from backhand.layers import Layer
from backhand.losses import CrossEntropyLoss
from backhand.models import CifarAlexNet, CifarResNet
from backhand.training import SGD, CosineAnnealingLR, LinearLR, SequentialLR, Trainer
from benchmarks.reproduce.files import options
from benchmarks.reproduce.pictures import cifar10

RATES = {"resnet20": 0.1, "alexnet": 0.02}


def main() -> None:
    """SGD with momentum 0.9 and weight decay 5e-4; the rate rises for an epoch and falls along a cosine to 0."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--model", choices=RATES, default="resnet20")
    asked = options("cifar", __doc__, parser, epochs=60)
    splits = cifar10(asked.data_dir)
    x = splits.train.x
    mean, std = (of(axis=(0, 2, 3), keepdims=True, dtype=np.float32) for of in (x.mean, x.std))
    train, test = ((part.x - mean) / std for part in (splits.train, splits.test))
    model: Layer = CifarResNet(20, rng=asked.seed) if asked.model == "resnet20" else CifarAlexNet(rng=asked.seed)
    batches = Augmented(train, splits.train.y, 128, crop_and_flip, rng=asked.seed)
    optimizer = SGD(model.parameters(), lr=RATES[asked.model], momentum=0.9, weight_decay=5e-4)
    each = len(batches)
    rise = each if asked.epochs > 1 else max(1, each // 5)  # of a single epoch a fifth
    up = LinearLR(optimizer, 1 / each, 1.0, rise)
    down = CosineAnnealingLR(optimizer, max(1, asked.epochs * each - rise))
    schedule = SequentialLR(optimizer, [up, down], [rise])
    trainer = Trainer(model, CrossEntropyLoss(), optimizer, schedule=schedule, schedule_every="batch", log_every=0)
    print(f"{asked.model}: {sum(p.size for p in model.parameters()):,} parameters, {len(x):,} images")
    since = time.perf_counter()
    trainer.fit(batches, epochs=asked.epochs)
    seconds = time.perf_counter() - since
    scores = trainer.evaluate((test, splits.test.y))
    n = len(test)
    print(f"seed {asked.seed}: test accuracy {100 * scores['accuracy']:.2f} % of {n:,} images; {seconds:.0f} s")
    print("published, on 50,000 images: resnet20 91.25 %, alexnet 77.22 %")


if __name__ == "__main__":
    main()
