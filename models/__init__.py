"""Containers, and the named architectures built with them."""

from backhand.models.alexnet import AlexNet, AlexNet2012, CifarAlexNet
from backhand.models.captioning import CaptionRNN
from backhand.models.char_rnn import CharRNN
from backhand.models.cifar_resnet import CifarResNet, PaddedShortcut
from backhand.models.containers import Concat, Parallel, Repeat, Residual, Sequential, Sum, Unroll
from backhand.models.convnet import ConvNet
from backhand.models.gpt import GPT, CausalSelfAttention, GPTBlock
from backhand.models.lenet import LeNet5
from backhand.models.makemore import NameMLP, NameWaveNet, UnbiasedBatchNorm
from backhand.models.mlp import MLP
from backhand.models.mobilenet import InvertedResidual, MobileNetV2
from backhand.models.ntm import NTM, HeadParameters
from backhand.models.resnet import BasicBlock, Bottleneck, ResNet
from backhand.models.seq2seq import Seq2SeqTransformer
from backhand.models.vgg import VGG

__all__ = [
    "GPT",
    "MLP",
    "NTM",
    "VGG",
    "AlexNet",
    "AlexNet2012",
    "BasicBlock",
    "Bottleneck",
    "CaptionRNN",
    "CausalSelfAttention",
    "CharRNN",
    "CifarAlexNet",
    "CifarResNet",
    "Concat",
    "ConvNet",
    "GPTBlock",
    "HeadParameters",
    "InvertedResidual",
    "LeNet5",
    "MobileNetV2",
    "NameMLP",
    "NameWaveNet",
    "PaddedShortcut",
    "Parallel",
    "Repeat",
    "ResNet",
    "Residual",
    "Seq2SeqTransformer",
    "Sequential",
    "Sum",
    "UnbiasedBatchNorm",
    "Unroll",
]
