"""Containers, and the named architectures built with them."""

from backhand.models.alexnet import AlexNet, AlexNet2012, CifarAlexNet
from backhand.models.autoencoder import Autoencoder, ConvAutoencoder
from backhand.models.captioning import CaptionRNN
from backhand.models.char_rnn import CharRNN
from backhand.models.cifar_resnet import CifarResNet, PaddedShortcut
from backhand.models.containers import Concat, Parallel, Repeat, Residual, Sequential, Sum, Unroll
from backhand.models.convnet import ConvNet
from backhand.models.diffusion import DDPM, Noised, NoisedStream
from backhand.models.diffusion_unet import DiffusionUNet, PixelAttention, TimedBlock, TimeEmbedding
from backhand.models.gan import Discriminator, Generator
from backhand.models.gpt import GPT, CausalSelfAttention, GPTBlock
from backhand.models.lenet import LeNet5
from backhand.models.makemore import NameMLP, NameWaveNet, UnbiasedBatchNorm
from backhand.models.mlp import MLP
from backhand.models.mobilenet import InvertedResidual, MobileNetV2
from backhand.models.ntm import NTM, HeadParameters
from backhand.models.resnet import BasicBlock, Bottleneck, ResNet
from backhand.models.seq2seq import Seq2SeqTransformer
from backhand.models.simclr import SimCLR
from backhand.models.unet import UNet
from backhand.models.vae import VAE, Reparameterize
from backhand.models.vgg import VGG
from backhand.models.vit import ViT, ViTBlock, ViTEncoder

__all__ = [
    "DDPM",
    "GPT",
    "MLP",
    "NTM",
    "VAE",
    "VGG",
    "AlexNet",
    "AlexNet2012",
    "Autoencoder",
    "BasicBlock",
    "Bottleneck",
    "CaptionRNN",
    "CausalSelfAttention",
    "CharRNN",
    "CifarAlexNet",
    "CifarResNet",
    "Concat",
    "ConvAutoencoder",
    "ConvNet",
    "DiffusionUNet",
    "Discriminator",
    "GPTBlock",
    "Generator",
    "HeadParameters",
    "InvertedResidual",
    "LeNet5",
    "MobileNetV2",
    "NameMLP",
    "NameWaveNet",
    "Noised",
    "NoisedStream",
    "PaddedShortcut",
    "Parallel",
    "PixelAttention",
    "Reparameterize",
    "Repeat",
    "ResNet",
    "Residual",
    "Seq2SeqTransformer",
    "Sequential",
    "SimCLR",
    "Sum",
    "TimeEmbedding",
    "TimedBlock",
    "UNet",
    "UnbiasedBatchNorm",
    "Unroll",
    "ViT",
    "ViTBlock",
    "ViTEncoder",
]
