"""The Vision Transformer, U-Nets, autoencoders, and what draws pictures: small ones, every weight is nudged."""

import numpy as np

from backhand.layers import Flatten, Linear
from backhand.losses import ELBOLoss
from backhand.models import (
    VAE,
    Autoencoder,
    ConvAutoencoder,
    Discriminator,
    Generator,
    PixelAttention,
    Reparameterize,
    Sequential,
    SimCLR,
    TimedBlock,
    TimeEmbedding,
    UNet,
    ViT,
    ViTBlock,
    ViTEncoder,
)
from tests.cases import Case, uniform


def encoder():
    return Sequential(Flatten(), Linear(6, 4, rng=3))


CASES = [
    Case(ViTBlock, (2, 4, 6), [(2, 3, 4)]),
    Case(ViTBlock, (1, 4, 6, 0.3, 0.2), [(2, 3, 4)]),
    Case(ViTEncoder, (3, 2, 2, 4, 5, 0.2), [(2, 3, 4)]),
    Case(ViT, (4, 2, 1, 2, 4, 6), [(2, 3, 4, 4)], kwargs={"num_classes": 3}),
    Case(ViT, (6, 3, 2, 1, 8, 5, 0.2, 0.1, 3), [(2, 1, 6, 6)], kwargs={"channels": 1}),
    Case(UNet, (1, 2, (2, 3), 1), [(2, 1, 4, 6)]),
    Case(UNet, (2, 1, (2, 2), 1, True), [(2, 2, 4, 6)]),
    Case(UNet, (1, 2, (2, 3), 0), [(2, 1, 18, 20)]),
    Case(TimeEmbedding, (4, 3), [np.array([0, 5, 999])]),
    Case(TimedBlock, (4, 4, 3, 2), [(2, 4, 3, 3), (2, 3)]),
    Case(TimedBlock, (4, 6, 3, 2, 0.3), [(2, 4, 3, 4), (2, 3)]),
    Case(PixelAttention, (4, 2), [(2, 4, 2, 3)]),
    Case(Autoencoder, (5, 4, 2), [(2, 5)]),
    Case(ConvAutoencoder, ((1, 4, 4), 3, (2, 2)), [(2, 1, 4, 4)]),
    Case(Reparameterize, (), [(2, 3), (2, 3)]),
    Case(VAE, (6, 5, 2), [uniform(2, 1, 3, 2)]),
    Case(ELBOLoss, (), [(3, 1, 2), (3, 2), (3, 2), uniform(3, 1, 2)]),
    Case(ELBOLoss, (), [(3, 4), (3, 2), (3, 2), uniform(3, 4)], kwargs={"beta": 4.0, "reduction": "sum"}),
    Case(ELBOLoss, (), [(3, 4), (3, 2), (3, 2), uniform(3, 4)], kwargs={"reduction": "none"}),
    Case(Generator, (3, (1, 4, 8), 2), [uniform(6, 3, low=-90, high=90)]),
    Case(Discriminator, ((2, 4, 8), 2), [(3, 2, 4, 8)]),
    Case(SimCLR, lambda: (encoder(), 4, 5, 3), [(2, 2, 3), (2, 2, 3)]),
]
