"""Architectures: small ones, since every entry of every weight is nudged."""

import numpy as np

from backhand.layers import Tanh
from backhand.losses import SequenceCrossEntropyLoss
from backhand.models import (
    GPT,
    MLP,
    VGG,
    AlexNet,
    AlexNet2012,
    BasicBlock,
    Bottleneck,
    CaptionRNN,
    CausalSelfAttention,
    CharRNN,
    CifarAlexNet,
    CifarResNet,
    ConvNet,
    DiffusionUNet,
    GPTBlock,
    InvertedResidual,
    LeNet5,
    MobileNetV2,
    NameMLP,
    NameWaveNet,
    PaddedShortcut,
    ResNet,
    Seq2SeqTransformer,
    UnbiasedBatchNorm,
)
from tests.cases import Case, labels

SOURCE = np.array([[1, 4, 2, 0], [3, 1, 2, 4]])  # 0 is padding
ANSWER = np.array([[1, 3, 2], [2, 1, 3]])  # none here: where it asks, a padded row would count

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
    Case(CharRNN, (5, 3), [labels(5, 4, 2)]),
    Case(CharRNN, (5, 3, 2), [labels(5, 4, 2), [(2, 2, 3), (2, 2, 3)]], kwargs={"return_state": True}),
    Case(CharRNN, (5, 3, 1, "gru", 0.3, 2, True), [labels(5, 2, 4), (1, 2, 3)]),
    Case(CharRNN, (5, 3, 2, "rnn", 0.3), [labels(5, 4)], kwargs={"one_bias": True}),
    Case(UnbiasedBatchNorm, (3,), [(4, 3)]),
    Case(UnbiasedBatchNorm, (3,), [(2, 3)], eval=True),
    Case(NameMLP, (5, 3, 2, 4), [labels(5, 4, 3)]),
    Case(NameWaveNet, (5, 4, 2, 3), [labels(5, 3, 4)]),
    Case(CaptionRNN, (5, 4, 2, 3), [(2, 4), labels(5, 2, 3)]),
    Case(CaptionRNN, (5, 4, 2, 3, "lstm"), [(2, 4), labels(5, 2, 3)]),
    Case(CaptionRNN, (5, 4, 2, 3, "attention"), [(2, 6, 4), labels(5, 2, 3)]),
    Case(Seq2SeqTransformer, (5, 4, 4, 2, 1, 1, 3, 0.1, False, 0), [SOURCE, ANSWER]),
    Case(Seq2SeqTransformer, (5, 4, 4, 2, 2, 1, 3), [labels(5, 2, 4), labels(4, 2, 3)], kwargs={"norm_first": True}),
    Case(SequenceCrossEntropyLoss, (), [(2, 3, 4), labels(4, 2, 3)]),
    Case(SequenceCrossEntropyLoss, (), [(3, 4), labels(4, 3)], kwargs={"reduction": "sum", "label_smoothing": 0.2}),
    Case(SequenceCrossEntropyLoss, (), [(2, 3, 4), labels(4, 2, 3)], kwargs={"reduction": "none", "ignore_index": 1}),
    Case(SequenceCrossEntropyLoss, (), [(2, 3, 4), labels(4, 2, 3)], kwargs={"reduction": "batchmean"}),
]

# Too large to have every weight nudged. They are made of layers that are checked, and as a whole all their gradients
# are compared in float64 with torch's, or with a difference along one direction (test_architectures.py,
# test_generative.py).
LARGE = [AlexNet, AlexNet2012, CifarAlexNet, CifarResNet, DiffusionUNet, MobileNetV2, ResNet, VGG]
