"""Containers, and the named architectures built with them."""

from backhand.models.alexnet import AlexNet, AlexNet2012, CifarAlexNet
from backhand.models.cifar_resnet import CifarResNet, PaddedShortcut
from backhand.models.containers import Concat, Parallel, Repeat, Residual, Sequential, Sum, Unroll
from backhand.models.convnet import ConvNet
from backhand.models.gpt import GPT, CausalSelfAttention, GPTBlock
from backhand.models.lenet import LeNet5
from backhand.models.mlp import MLP
from backhand.models.mobilenet import InvertedResidual, MobileNetV2
from backhand.models.ntm import NTM, HeadParameters
from backhand.models.resnet import BasicBlock, Bottleneck, ResNet
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
    "CausalSelfAttention",
    "CifarAlexNet",
    "CifarResNet",
    "Concat",
    "ConvNet",
    "GPTBlock",
    "HeadParameters",
    "InvertedResidual",
    "LeNet5",
    "MobileNetV2",
    "PaddedShortcut",
    "Parallel",
    "Repeat",
    "ResNet",
    "Residual",
    "Sequential",
    "Sum",
    "Unroll",
]
