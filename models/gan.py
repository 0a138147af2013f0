"""A generator and a discriminator: the one learns to draw what the other cannot tell from the real thing."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from backhand.layers.activations import Tanh
from backhand.layers.arguments import whole, whole_tuple
from backhand.layers.base import Layer
from backhand.layers.batch_norm import BatchNorm1d, BatchNorm2d
from backhand.layers.conv import Conv2d
from backhand.layers.conv_transpose import ConvTranspose2d
from backhand.layers.linear import Linear
from backhand.layers.rectifiers import LeakyReLU, ReLU
from backhand.layers.shape import Flatten, Unflatten
from backhand.models.containers import Sequential
from backhand.models.initialize import normal, zero


class Generator(Sequential):
    """Noise in, pictures out.

        name        layer                                 (1, 28, 28), width 32: output
        project     Linear, BatchNorm1d, ReLU, Unflatten  (64, 7, 7)
        up1         ConvTranspose2d 4x4 stride 2          (32, 14, 14)
                    BatchNorm2d, ReLU
        up2         ConvTranspose2d 4x4 stride 2, Tanh    (1, 28, 28)

    x : (N, latent) from N(0, 1)      y : (N, *image_shape), numbers from -1 to 1
    image_shape : (channels, H, W), H and W multiples of 4      width : of the maps

    Weights start from N(0, 0.02^2), those of BatchNorm from N(1, 0.02^2), biases from 0.
    Radford, Metz & Chintala 2015, arXiv:1511.06434 (DCGAN), with two steps up instead of four
    """

    def __init__(
        self,
        latent: int = 64,
        image_shape: tuple[int, int, int] = (1, 28, 28),
        width: int = 32,
        *,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.latent = whole(self, "latent", latent)
        self.image_shape = _fourths(self, image_shape)
        self.width = whole(self, "width", width)
        channels, height, breadth = self.image_shape
        small = (2 * width, height // 4, breadth // 4)
        size = int(np.prod(small))
        rng = np.random.default_rng(rng)
        layers: dict[str, Layer] = {
            "project": Linear(latent, size, bias=False, rng=rng, dtype=dtype),
            "bn0": BatchNorm1d(size, dtype=dtype),
            "relu0": ReLU(),
            "unflatten": Unflatten(1, small),
            "up1": ConvTranspose2d(2 * width, width, 4, 2, 1, bias=False, rng=rng, dtype=dtype),
            "bn1": BatchNorm2d(width, dtype=dtype),
            "relu1": ReLU(),
            "up2": ConvTranspose2d(width, channels, 4, 2, 1, rng=rng, dtype=dtype),
            "tanh": Tanh(),
        }
        super().__init__(layers)
        start_small(self, rng)

    __repr__ = Layer.__repr__


class Discriminator(Sequential):
    """Pictures in, one score out: above 0 says "real".

        name        layer                                 (1, 28, 28), width 32: output
        down1       Conv2d 4x4 stride 2, LeakyReLU 0.2    (32, 14, 14)
        down2       Conv2d 4x4 stride 2                   (64, 7, 7)
                    BatchNorm2d, LeakyReLU 0.2
        out         Flatten, Linear                       (1,)

    x : (N, *image_shape), numbers from -1 to 1      y : (N, 1), logits for BCEWithLogitsLoss
    image_shape : (channels, H, W), H and W multiples of 4      width : of the maps

    Weights start as in Generator.
    Radford, Metz & Chintala 2015, arXiv:1511.06434 (DCGAN), with two steps down instead of four
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int] = (1, 28, 28),
        width: int = 32,
        *,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.image_shape = _fourths(self, image_shape)
        self.width = whole(self, "width", width)
        channels, height, breadth = self.image_shape
        rng = np.random.default_rng(rng)
        layers: dict[str, Layer] = {
            "down1": Conv2d(channels, width, 4, 2, 1, rng=rng, dtype=dtype),
            "leaky1": LeakyReLU(0.2),
            "down2": Conv2d(width, 2 * width, 4, 2, 1, bias=False, rng=rng, dtype=dtype),
            "bn2": BatchNorm2d(2 * width, dtype=dtype),
            "leaky2": LeakyReLU(0.2),
            "flatten": Flatten(),
            "out": Linear(2 * width * (height // 4) * (breadth // 4), 1, rng=rng, dtype=dtype),
        }
        super().__init__(layers)
        start_small(self, rng)

    __repr__ = Layer.__repr__


def start_small(model: Layer, rng: np.random.Generator) -> None:
    """Weights from N(0, 0.02^2), those of BatchNorm from N(1, 0.02^2), biases from 0."""
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            zero(parameter)
        else:
            normal(parameter, rng, 0.02)
            if parameter.data.ndim == 1:
                parameter.data += 1


def _fourths(layer: Layer, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
    shape = whole_tuple(layer, "image_shape", image_shape, 3)
    if shape[1] % 4 or shape[2] % 4:
        raise ValueError(
            f"{type(layer).__name__}: expected an image whose sides are multiples of 4, got {shape[1]}x{shape[2]}"
        )
    return shape
