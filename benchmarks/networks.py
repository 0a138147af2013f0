"""The networks, each written once: `nn` is either library, for both have the same words.

A key of the state_dict is the same in both, so the weights of one load into the other.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from typing import Any


def mlp(nn: Any, *sizes: int) -> Any:
    """Linear layers with ReLU between them, named as in models.MLP."""
    layers: dict[str, Any] = {"flatten": nn.Flatten()}
    for i, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes), start=1):
        layers[f"fc{i}"] = nn.Linear(fan_in, fan_out)
        layers[f"act{i}"] = nn.ReLU()
    del layers[f"act{len(sizes) - 1}"]
    return nn.Sequential(OrderedDict(layers))


def lenet(nn: Any) -> Any:
    """LeNet-5, named as in models.LeNet5."""
    return nn.Sequential(
        OrderedDict(
            c1=nn.Conv2d(1, 6, 5, padding=2),
            relu1=nn.ReLU(),
            s2=nn.MaxPool2d(2),
            c3=nn.Conv2d(6, 16, 5),
            relu3=nn.ReLU(),
            s4=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            c5=nn.Linear(400, 120),
            relu5=nn.ReLU(),
            f6=nn.Linear(120, 84),
            relu6=nn.ReLU(),
            out=nn.Linear(84, 10),
        )
    )


def convnet(nn: Any) -> Any:
    """Three times convolution, batch normalisation, ReLU and pooling, named as in models.ConvNet."""
    layers: dict[str, Any] = {}
    for i, (channels, filters) in enumerate(itertools.pairwise((3, 32, 64, 128)), start=1):
        layers[f"conv{i}"] = nn.Conv2d(channels, filters, 3, padding=1, bias=False)
        layers[f"bn{i}"] = nn.BatchNorm2d(filters)
        layers[f"relu{i}"] = nn.ReLU()
        layers[f"pool{i}"] = nn.MaxPool2d(2)
    return nn.Sequential(OrderedDict(layers, flatten=nn.Flatten(), fc=nn.Linear(2048, 10)))


def resnet20(nn: Any) -> Any:
    """ResNet-20 for 32x32 images: three blocks each of 16, 32 and 64 channels, shortcuts of option A.

    He, Zhang, Ren & Sun 2015, arXiv:1512.03385, section 4.2
    """

    def block(channels: int, filters: int) -> Any:
        stride = 1 if channels == filters else 2
        body = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(channels, filters, 3, stride, 1, bias=False),
                bn1=nn.BatchNorm2d(filters),
                relu=nn.ReLU(),
                conv2=nn.Conv2d(filters, filters, 3, 1, 1, bias=False),
                bn2=nn.BatchNorm2d(filters),
            )
        )
        return nn.Sequential(nn.Residual(body, nn.OptionA(channels, filters) if stride == 2 else None), nn.ReLU())

    stem = (nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    widths = (16, 16, 16, 16, 32, 32, 32, 64, 64, 64)
    blocks = (block(*pair) for pair in itertools.pairwise(widths))
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def alexnet(nn: Any) -> Any:
    """AlexNet in torchvision's variant, with its keys. Krizhevsky 2014, arXiv:1404.5997"""
    features = nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2),
    )
    classifier = nn.Sequential(
        nn.Dropout(0.5),
        nn.Linear(9216, 4096),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(4096, 4096),
        nn.ReLU(inplace=True),
        nn.Linear(4096, 1000),
    )
    parts = {"features": features, "avgpool": nn.AdaptiveAvgPool2d(6), "flatten": nn.Flatten()}
    return nn.Sequential(OrderedDict(parts, classifier=classifier))


def alexnet_2012(nn: Any, classes: int = 1000) -> Any:
    """AlexNet as the paper has it, without dropout, named as in models.AlexNet2012.

    Krizhevsky, Sutskever & Hinton 2012, "ImageNet Classification with Deep Convolutional Neural Networks"
    """
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(3, 96, 11, stride=4),
            relu1=nn.ReLU(),
            norm1=nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0),
            pool1=nn.MaxPool2d(3, 2),
            conv2=nn.Conv2d(96, 256, 5, padding=2, groups=2),
            relu2=nn.ReLU(),
            norm2=nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0),
            pool2=nn.MaxPool2d(3, 2),
            conv3=nn.Conv2d(256, 384, 3, padding=1),
            relu3=nn.ReLU(),
            conv4=nn.Conv2d(384, 384, 3, padding=1, groups=2),
            relu4=nn.ReLU(),
            conv5=nn.Conv2d(384, 256, 3, padding=1, groups=2),
            relu5=nn.ReLU(),
            pool5=nn.MaxPool2d(3, 2),
            flatten=nn.Flatten(),
            fc6=nn.Linear(9216, 4096),
            relu6=nn.ReLU(),
            fc7=nn.Linear(4096, 4096),
            relu7=nn.ReLU(),
            fc8=nn.Linear(4096, classes),
        )
    )


def char_lstm(nn: Any, vocabulary: int, hidden: int, layers: int) -> Any:
    """One-hot characters (T, N, V) in, scores (T * N, V) of the next ones out."""
    lstm = nn.LSTM(vocabulary, hidden, layers)
    return nn.Sequential(OrderedDict(lstm=lstm, head=nn.Linear(hidden, vocabulary), flatten=nn.Flatten(0, 1)))


def gpt(nn: Any, vocabulary: int, context: int, layers: int, heads: int, width: int) -> Any:
    """The GPT of nanoGPT: pre-norm, no biases, exact GELU, one matrix for both ends. Tokens (N, T) in, (N * T, V) out.

    Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.3
    """

    def block() -> Any:
        attention = nn.Sequential(
            OrderedDict(
                ln=nn.LayerNorm(width, bias=False),
                c_attn=nn.Linear(width, 3 * width, bias=False),
                heads=nn.Heads(heads),
                attention=nn.ScaledDotProductAttention(is_causal=True),
                order=nn.Permute(0, 2, 1, 3),
                join=nn.Flatten(2),
                c_proj=nn.Linear(width, width, bias=False),
            )
        )
        mlp = nn.Sequential(
            OrderedDict(
                ln=nn.LayerNorm(width, bias=False),
                c_fc=nn.Linear(width, 4 * width, bias=False),
                gelu=nn.GELU(),
                c_proj=nn.Linear(4 * width, width, bias=False),
            )
        )
        return nn.Sequential(OrderedDict(attn=nn.Residual(attention), mlp=nn.Residual(mlp)))

    model = nn.Sequential(
        OrderedDict(
            wte=nn.Embedding(vocabulary, width),
            wpe=nn.Positions(context, width),
            **{f"h{i}": block() for i in range(layers)},
            ln_f=nn.LayerNorm(width, bias=False),
            lm_head=nn.Linear(width, vocabulary, bias=False),
            flatten=nn.Flatten(0, 1),
        )
    )
    model[-2].weight = model[0].weight
    return model
