"""Architectures: small ones, since every entry of every weight is nudged."""

import numpy as np

from backhand.layers import Tanh
from backhand.models import (
    GPT,
    MLP,
    VGG,
    AlexNet,
    AlexNet2012,
    BasicBlock,
    Bottleneck,
    CausalSelfAttention,
    CifarAlexNet,
    CifarResNet,
    ConvNet,
    GPTBlock,
    InvertedResidual,
    LeNet5,
    MobileNetV2,
    PaddedShortcut,
    ResNet,
)
from tests.cases import Case

CASES = [
    Case(MLP, (6, 5, 3), [(2, 6)]),
    Case(MLP, (12, 5, 4, 3), [(2, 3, 2, 2)], kwargs={"activation": Tanh, "dropout": 0.3}),
    Case(LeNet5, (3,), [(1, 1, 28, 28)]),
    Case(ConvNet, (3, (2, 8, 8), (3, 4)), [(2, 2, 8, 8)]),
    Case(ConvNet, (3, (2, 8, 8), (3, 4)), [(2, 2, 8, 8)], eval=True),
    Case(BasicBlock, (2, 2), [(2, 2, 3, 3)]),
    Case(BasicBlock, (2, 3, 2, True), [(2, 2, 4, 4)]),
    Case(Bottleneck, (8, 2), [(2, 8, 3, 3)]),
    Case(Bottleneck, (3, 2, 2, True), [(2, 3, 4, 4)]),
    Case(PaddedShortcut, (2, 5), [(2, 2, 5, 4)]),
    Case(InvertedResidual, (2, 2, 1, 2), [(2, 2, 3, 3)]),
    Case(InvertedResidual, (2, 3, 2, 1), [(2, 2, 4, 4)]),
    Case(CausalSelfAttention, (4, 2, 0.3), [(2, 3, 4)]),
    Case(GPTBlock, (4, 2), [(2, 3, 4)]),
    Case(GPTBlock, (4, 1, 0.3, False, "tanh"), [(2, 3, 4)]),
    Case(GPT, (6, 4, 2, 2, 4), [np.array([[1, 5, 0], [2, 2, 3]])]),
]

# Too large to have every weight nudged. They are made of layers that are checked, and as a whole all their gradients
# are compared in float64 with torch's, or with a difference along one direction (test_architectures.py).
LARGE = [AlexNet, AlexNet2012, CifarAlexNet, CifarResNet, MobileNetV2, ResNet, VGG]
