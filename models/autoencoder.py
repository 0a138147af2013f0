"""Autoencoders: through a bottleneck and back, so that only what matters gets through."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

from backhand.layers.arguments import whole, whole_tuple
from backhand.layers.base import Layer
from backhand.layers.conv import Conv2d
from backhand.layers.conv_transpose import ConvTranspose2d
from backhand.layers.linear import Linear
from backhand.layers.rectifiers import ReLU
from backhand.layers.shape import Flatten, Unflatten
from backhand.models.containers import Sequential


class Autoencoder(Sequential):
    """Fully connected layers down to a code, and their mirror image back up.

        code = encoder(x)        y = decoder(code),    each Linear, ReLU, Linear, ReLU, ..., Linear

    x, y : (N, sizes[0]); y are logits, for BCEWithLogitsLoss with x from 0 to 1, or numbers, for MSELoss
    sizes : Autoencoder(784, 128, 32), say, from the input to the code
    Hinton & Salakhutdinov 2006, "Reducing the Dimensionality of Data with Neural Networks"
    """

    def __init__(
        self,
        *sizes: int,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        if len(sizes) < 2:
            raise ValueError(f"Autoencoder: expected at least two sizes, from the input to the code, got {sizes}")
        self.sizes = tuple(whole(self, "sizes", size) for size in sizes)
        rng = np.random.default_rng(rng)

        def stack(way: Sequence[int]) -> Sequential:
            layers: list[Layer] = []
            for before, after in itertools.pairwise(way):
                layers += [Linear(before, after, rng=rng, dtype=dtype), ReLU()]
            return Sequential(*layers[:-1])

        super().__init__({"encoder": stack(self.sizes), "decoder": stack(self.sizes[::-1])})

    __repr__ = Layer.__repr__


class ConvAutoencoder(Sequential):
    """Convolutions with stride 2 down to a code, and transposed ones back up.

        code = Linear(flatten(relu(conv(... relu(conv(x))))))
        y = deconv(relu(... deconv(relu(unflatten(Linear(code))))))

    x, y : (N, *image_shape); y are logits, for BCEWithLogitsLoss with x from 0 to 1, or numbers, for MSELoss
    image_shape : (channels, H, W); H and W can be halved once for each of the widths
    code : the numbers that get through      widths : the channels after each step
    Every step halves the image by a convolution of 4x4 with stride 2, whose transpose doubles it again.
    Masci, Meier, Ciresan & Schmidhuber 2011, "Stacked Convolutional Auto-Encoders"
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int] = (1, 28, 28),
        code: int = 32,
        widths: Sequence[int] = (16, 32),
        *,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.image_shape = whole_tuple(self, "image_shape", image_shape, 3)
        self.code = whole(self, "code", code)
        self.widths = tuple(whole(self, "widths", width) for width in widths)
        channels, *sizes = self.image_shape
        small = tuple(size >> len(self.widths) for size in sizes)
        if not self.widths or any(size % (1 << len(self.widths)) for size in sizes):
            raise ValueError(
                f"ConvAutoencoder: expected an image that can be halved {len(self.widths)} times (one width for each), "
                f"got {sizes[0]}x{sizes[1]}"
            )
        rng = np.random.default_rng(rng)
        down: list[Layer] = []
        up: list[Layer] = []
        for before, after in itertools.pairwise((channels, *self.widths)):
            down += [Conv2d(before, after, 4, 2, 1, rng=rng, dtype=dtype), ReLU()]
            up = [ReLU(), ConvTranspose2d(after, before, 4, 2, 1, rng=rng, dtype=dtype), *up]
        map_shape = (self.widths[-1], *small)
        size = int(np.prod(map_shape))
        down += [Flatten(), Linear(size, code, rng=rng, dtype=dtype)]
        up = [Linear(code, size, rng=rng, dtype=dtype), Unflatten(1, map_shape), *up]
        super().__init__({"encoder": Sequential(*down), "decoder": Sequential(*up)})

    __repr__ = Layer.__repr__
