"""AlexNet, that nobody would derive on paper: as published, as torchvision has it, and for small images."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import DTypeLike

from backhand.layers.adaptive import AdaptiveAvgPool2d
from backhand.layers.arguments import whole, within
from backhand.layers.base import Layer
from backhand.layers.conv import Conv2d
from backhand.layers.dropout import Dropout
from backhand.layers.linear import Linear
from backhand.layers.local_response_norm import LocalResponseNorm
from backhand.layers.pooling import MaxPool2d
from backhand.layers.rectifiers import ReLU
from backhand.layers.shape import Flatten
from backhand.models.containers import Sequential


class AlexNet(Sequential):
    """Five convolutions and three fully connected layers: torchvision's variant, with its names.

        name           layer                              output           parameters
        features.0     Conv2d 11x11 stride 4, ReLU        (64, 55, 55)         23,296
                       MaxPool2d 3 stride 2               (64, 27, 27)
        features.3     Conv2d 5x5, ReLU                   (192, 27, 27)       307,392
                       MaxPool2d 3 stride 2               (192, 13, 13)
        features.6     Conv2d 3x3, ReLU                   (384, 13, 13)       663,936
        features.8     Conv2d 3x3, ReLU                   (256, 13, 13)       884,992
        features.10    Conv2d 3x3, ReLU                   (256, 13, 13)       590,080
                       MaxPool2d 3 stride 2               (256, 6, 6)
        classifier.1   Dropout, Linear, ReLU              (4096,)          37,752,832
        classifier.4   Dropout, Linear, ReLU              (4096,)          16,781,312
        classifier.6   Linear                             (1000,)           4,097,000     61,100,840 in all

    x : (N, 3, H, W), 224x224 as a rule, at least 63x63      y : (N, num_classes) scores
    dropout : before each of the first two Linear layers

    A state_dict of torchvision's alexnet loads unchanged. Without local response normalisation and without groups.
    Krizhevsky 2014, arXiv:1404.5997; torchvision.models.alexnet
    """

    def __init__(
        self,
        num_classes: int = 1000,
        dropout: float = 0.5,
        *,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.num_classes = whole(self, "num_classes", num_classes)
        self.dropout = within(self, "dropout", dropout, 0, 1)
        rng = np.random.default_rng(rng)
        features = Sequential(
            Conv2d(3, 64, 11, stride=4, padding=2, rng=rng, dtype=dtype),
            ReLU(),
            MaxPool2d(3, 2),
            Conv2d(64, 192, 5, padding=2, rng=rng, dtype=dtype),
            ReLU(),
            MaxPool2d(3, 2),
            Conv2d(192, 384, 3, padding=1, rng=rng, dtype=dtype),
            ReLU(),
            Conv2d(384, 256, 3, padding=1, rng=rng, dtype=dtype),
            ReLU(),
            Conv2d(256, 256, 3, padding=1, rng=rng, dtype=dtype),
            ReLU(),
            MaxPool2d(3, 2),
        )
        classifier = Sequential(
            Dropout(dropout, rng=rng),
            Linear(256 * 6 * 6, 4096, rng=rng, dtype=dtype),
            ReLU(),
            Dropout(dropout, rng=rng),
            Linear(4096, 4096, rng=rng, dtype=dtype),
            ReLU(),
            Linear(4096, num_classes, rng=rng, dtype=dtype),
        )
        parts = {"features": features, "avgpool": AdaptiveAvgPool2d(6), "flatten": Flatten(), "classifier": classifier}
        super().__init__(parts)

    __repr__ = Layer.__repr__


class AlexNet2012(Sequential):
    """AlexNet as the paper has it: grouped convolutions and local response normalisation.

        name    layer                                     output           parameters
        conv1   Conv2d 11x11 stride 4, ReLU, LRN, pool    (96, 27, 27)         34,944
        conv2   Conv2d 5x5 in 2 groups, ReLU, LRN, pool   (256, 13, 13)       307,456
        conv3   Conv2d 3x3, ReLU                          (384, 13, 13)       885,120
        conv4   Conv2d 3x3 in 2 groups, ReLU              (384, 13, 13)       663,936
        conv5   Conv2d 3x3 in 2 groups, ReLU, pool        (256, 6, 6)         442,624
        fc6     Linear, ReLU, Dropout                     (4096,)          37,752,832
        fc7     Linear, ReLU, Dropout                     (4096,)          16,781,312
        fc8     Linear                                    (1000,)           4,097,000     60,965,224 in all

    x : (N, 3, 227, 227) (the paper says 224, but 55 outputs need 227)      y : (N, num_classes) scores

    All pools are 3x3 with stride 2. The two groups are the two GPUs of 2012. The paper's normalisation,
    a / (2 + 1e-4 sum a^2)^0.75 over 5 channels, is torch's with alpha = 5e-4, which it divides by 5. Weights start from
    N(0, 0.01^2), biases of conv2, conv4, conv5, fc6 and fc7 from 1, the others from 0.
    Krizhevsky, Sutskever & Hinton 2012, "ImageNet Classification with Deep Convolutional Neural Networks"
    """

    def __init__(
        self,
        num_classes: int = 1000,
        dropout: float = 0.5,
        *,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.num_classes = whole(self, "num_classes", num_classes)
        self.dropout = within(self, "dropout", dropout, 0, 1)
        rng = np.random.default_rng(rng)
        convolutions: dict[str, Layer] = {
            "conv1": Conv2d(3, 96, 11, stride=4, rng=rng, dtype=dtype),
            "conv2": Conv2d(96, 256, 5, padding=2, groups=2, rng=rng, dtype=dtype),
            "conv3": Conv2d(256, 384, 3, padding=1, rng=rng, dtype=dtype),
            "conv4": Conv2d(384, 384, 3, padding=1, groups=2, rng=rng, dtype=dtype),
            "conv5": Conv2d(384, 256, 3, padding=1, groups=2, rng=rng, dtype=dtype),
        }
        layers: dict[str, Layer] = {}
        for i, (name, convolution) in enumerate(convolutions.items(), start=1):
            layers |= {name: convolution, f"relu{i}": ReLU()}
            if i in (1, 2):
                layers[f"norm{i}"] = LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2)
            if i in (1, 2, 5):
                layers[f"pool{i}"] = MaxPool2d(3, 2)
        layers["flatten"] = Flatten()
        sizes = (256 * 6 * 6, 4096, 4096)
        for i, (before, after) in enumerate(itertools.pairwise(sizes), start=6):
            layers[f"fc{i}"] = Linear(before, after, rng=rng, dtype=dtype)
            layers |= {f"relu{i}": ReLU(), f"drop{i}": Dropout(dropout, rng=rng)}
        layers["fc8"] = Linear(4096, num_classes, rng=rng, dtype=dtype)
        super().__init__(layers)
        for name, parameter in self.named_parameters():
            if name.endswith("weight"):
                parameter.data[...] = 0.01 * rng.standard_normal(parameter.shape, np.float32)
            else:
                parameter.data[...] = name.split(".")[0] in ("conv2", "conv4", "conv5", "fc6", "fc7")

    __repr__ = Layer.__repr__


class CifarAlexNet(Sequential):
    """AlexNet for images of 32x32 pixels: small enough for a CPU.

        name          layer                              output          parameters
        features.0    Conv2d 11x11 stride 4, ReLU        (64, 8, 8)          23,296
                      MaxPool2d 2                        (64, 4, 4)
        features.3    Conv2d 5x5, ReLU                   (192, 4, 4)        307,392
                      MaxPool2d 2                        (192, 2, 2)
        features.6    Conv2d 3x3, ReLU                   (384, 2, 2)        663,936
        features.8    Conv2d 3x3, ReLU                   (256, 2, 2)        884,992
        features.10   Conv2d 3x3, ReLU                   (256, 2, 2)        590,080
                      MaxPool2d 2                        (256, 1, 1)
        classifier    Linear                             (10,)                2,570     2,472,266 in all

    x : (N, 3, 32, 32)      y : (N, num_classes) scores
    https://github.com/bearpaw/pytorch-classification, whose names these are
    """

    def __init__(
        self,
        num_classes: int = 10,
        *,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.num_classes = whole(self, "num_classes", num_classes)
        rng = np.random.default_rng(rng)
        features = Sequential(
            Conv2d(3, 64, 11, stride=4, padding=5, rng=rng, dtype=dtype),
            ReLU(),
            MaxPool2d(2),
            Conv2d(64, 192, 5, padding=2, rng=rng, dtype=dtype),
            ReLU(),
            MaxPool2d(2),
            Conv2d(192, 384, 3, padding=1, rng=rng, dtype=dtype),
            ReLU(),
            Conv2d(384, 256, 3, padding=1, rng=rng, dtype=dtype),
            ReLU(),
            Conv2d(256, 256, 3, padding=1, rng=rng, dtype=dtype),
            ReLU(),
            MaxPool2d(2),
        )
        classifier = Linear(256, num_classes, rng=rng, dtype=dtype)
        super().__init__({"features": features, "flatten": Flatten(), "classifier": classifier})

    __repr__ = Layer.__repr__
