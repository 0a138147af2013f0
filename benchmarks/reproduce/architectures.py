"""Published figures of the image architectures: parameters, multiply-adds, the shapes on the way, and who says so.

Multiply-adds are seldom published to the last digit. Those below are the ones of the layers' shapes (pixels of the
output * filters * channels in a group * window; of attention two products for each pair of words and head), and rounded
they must be the published figure. PyTorch's own counter finds the same to the last digit of every model that is in
torchvision, and of three more (tests/test_counts.py).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from backhand.inspection.multiply_adds import counting
from backhand.layers import Layer
from backhand.models import VGG, AlexNet, AlexNet2012, CifarAlexNet, CifarResNet, LeNet5, MobileNetV2, ResNet, ViT

Shape = tuple[int, ...]


class Architecture(NamedTuple):
    """One row of the table.

    build : makes the model; takes rng=      image : the shape of its input, without the batch
    parameters, multiply_adds : of one forward of one image
    published : what `source` says of parameters and of multiply-adds: "61,100,840", "0.714 G"; "" where it is silent
    torchvision : the model's name there
    stages : the shapes of outputs that the paper's table or the source has, by the layers' names
    layers : parameters and multiply-adds of single layers, by their names, where each is published
    """

    build: Callable[..., Layer]
    image: Shape
    parameters: int
    multiply_adds: int
    published: tuple[str, str]
    source: str
    torchvision: str = ""
    stages: dict[str, Shape] = {}
    layers: dict[str, tuple[int, int]] = {}


def vgg(depth: int, batch_norm: bool = False) -> tuple[Callable[..., Layer], dict[str, Shape]]:
    """The model, and table 1 of arXiv:1409.1556: each of the five poolings halves the image."""
    times = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}[depth]
    stages: dict[str, Shape] = {}
    at = -1
    for n, channels, size in zip(times, (64, 128, 256, 512, 512), (112, 56, 28, 14, 7), strict=True):
        at += n * (3 if batch_norm else 2) + 1
        stages[f"features.{at}"] = (channels, size, size)
    stages |= {"classifier.0": (4096,), "classifier.3": (4096,)}
    return lambda rng=None: VGG(depth, batch_norm=batch_norm, rng=rng), stages


def resnet(depth: int, wide: int) -> tuple[Callable[..., Layer], dict[str, Shape]]:
    """The model, and table 1 of arXiv:1512.03385; `wide` channels for each of the 64."""
    stages: dict[str, Shape] = {"conv1": (64, 112, 112), "maxpool": (64, 56, 56)}
    for i in range(4):
        stages[f"layer{i + 1}"] = (64 * wide << i, 56 >> i, 56 >> i)
    return lambda rng=None: ResNet(depth, rng=rng), {**stages, "avgpool": (512 * wide, 1, 1)}


def cifar_resnet(depth: int) -> tuple[Callable[..., Layer], dict[str, Shape]]:
    """The model, and the table in section 4.2 of arXiv:1512.03385."""
    stages: dict[str, Shape] = {"layer1": (16, 32, 32), "layer2": (32, 16, 16), "layer3": (64, 8, 8)}
    return lambda rng=None: CifarResNet(depth, rng=rng), stages


HUB = "torchvision's documentation of the weights"
DEEP = "arXiv:1512.03385, table 6"

ALEXNET = {
    "features.0": (23_296, 70_276_800),
    "features.3": (307_392, 223_948_800),
    "features.6": (663_936, 112_140_288),
    "features.8": (884_992, 149_520_384),
    "features.10": (590_080, 99_680_256),
    "classifier.1": (37_752_832, 37_748_736),
    "classifier.4": (16_781_312, 16_777_216),
    "classifier.6": (4_097_000, 4_096_000),
}
ALEXNET_STAGES: dict[str, Shape] = {
    **{"features.0": (64, 55, 55), "features.2": (64, 27, 27), "features.3": (192, 27, 27)},
    **{"features.5": (192, 13, 13), "features.6": (384, 13, 13), "features.8": (256, 13, 13)},
    **{"features.10": (256, 13, 13), "features.12": (256, 6, 6), "classifier.1": (4096,), "classifier.4": (4096,)},
}
ALEXNET_2012 = {
    "conv1": (34_944, 105_415_200),
    "conv2": (307_456, 223_948_800),
    "conv3": (885_120, 149_520_384),
    "conv4": (663_936, 112_140_288),
    "conv5": (442_624, 74_760_192),
    "fc6": (37_752_832, 37_748_736),
    "fc7": (16_781_312, 16_777_216),
    "fc8": (4_097_000, 4_096_000),
}
ALEXNET_2012_STAGES: dict[str, Shape] = {
    **{"conv1": (96, 55, 55), "pool1": (96, 27, 27), "conv2": (256, 27, 27), "pool2": (256, 13, 13)},
    **{"conv3": (384, 13, 13), "conv4": (384, 13, 13), "conv5": (256, 13, 13), "pool5": (256, 6, 6)},
    **{"fc6": (4096,), "fc7": (4096,)},
}
# Table 2 of arXiv:1801.04381: the last block of each line.
MOBILENET_STAGES: dict[str, Shape] = {
    **{"features.0": (32, 112, 112), "features.1": (16, 112, 112), "features.3": (24, 56, 56)},
    **{"features.6": (32, 28, 28), "features.10": (64, 14, 14), "features.13": (96, 14, 14)},
    **{"features.16": (160, 7, 7), "features.17": (320, 7, 7), "features.18": (1280, 7, 7)},
}
# LeCun et al. 1998, figure 2. Their C3, which does not see all maps, has 1,516 parameters; this one 2,416.
LENET = {
    "c1": (156, 117_600),
    "c3": (2_416, 240_000),
    "c5": (48_120, 48_000),
    "f6": (10_164, 10_080),
    "out": (850, 840),
}
LENET_STAGES: dict[str, Shape] = {
    **{"c1": (6, 28, 28), "s2": (6, 14, 14), "c3": (16, 10, 10), "s4": (16, 5, 5), "c5": (120,), "f6": (84,)}
}
SMALL_STAGES: dict[str, Shape] = {
    **{"features.0": (64, 8, 8), "features.3": (192, 4, 4), "features.6": (384, 2, 2), "features.8": (256, 2, 2)},
    **{"features.10": (256, 2, 2), "features.12": (256, 1, 1)},
}


def imagenet(
    name: str, made: tuple[Callable[..., Layer], dict[str, Shape]], parameters: int, multiply_adds: int, giga: str
) -> Architecture:
    """A model of torchvision, whose documentation gives both counts."""
    build, stages = made
    words = (f"{parameters:,}", f"{giga} G")
    return Architecture(build, (3, 224, 224), parameters, multiply_adds, words, HUB, name, stages)


ARCHITECTURES: dict[str, Architecture] = {
    "LeNet5": Architecture(
        lambda rng=None: LeNet5(image_size=32, rng=rng),
        (1, 32, 32),
        # C3 sees all maps (900 more), the output is linear (850), poolings learn nothing (44 fewer)
        *(61_706, 416_520, ("60,000 + 900 + 850 - 44", ""), "LeCun et al. 1998, section II.B"),
        stages=LENET_STAGES,
        layers=LENET,
    ),
    "CifarAlexNet": Architecture(
        CifarAlexNet,
        (3, 32, 32),
        *(2_472_266, 14_957_056, ("2.47 M", ""), "README of bearpaw/pytorch-classification"),
        stages=SMALL_STAGES,
    ),
    "AlexNet": imagenet("alexnet", (AlexNet, ALEXNET_STAGES), 61_100_840, 714_188_480, "0.714")._replace(
        layers=ALEXNET
    ),
    # In the paper's own words: 60 million parameters. A survey of hardware counts the multiply-adds.
    "AlexNet2012": Architecture(
        AlexNet2012,
        (3, 227, 227),
        *(60_965_224, 724_406_816, ("61 M", "724 M"), "Sze et al. 2017, arXiv:1703.09039, table II"),
        stages=ALEXNET_2012_STAGES,
        layers=ALEXNET_2012,
    ),
    "VGG-11": imagenet("vgg11", vgg(11), 132_863_336, 7_609_090_048, "7.609"),
    "VGG-13": imagenet("vgg13", vgg(13), 133_047_848, 11_308_466_176, "11.308"),
    "VGG-16": imagenet("vgg16", vgg(16), 138_357_544, 15_470_264_320, "15.47"),
    "VGG-16 BN": imagenet("vgg16_bn", vgg(16, True), 138_365_992, 15_470_264_320, "15.47"),
    "VGG-19": imagenet("vgg19", vgg(19), 143_667_240, 19_632_062_464, "19.632"),
    "ResNet-18": imagenet("resnet18", resnet(18, 1), 11_689_512, 1_814_073_344, "1.814"),
    "ResNet-34": imagenet("resnet34", resnet(34, 1), 21_797_672, 3_663_761_408, "3.664"),
    # The paper has 3.8 G: with the stride in the first convolution of a block, which is 1x1, three of these cost a
    # quarter, 231,211,008 less, and 3,857,973,248 are left. torchvision has it in the 3x3 one.
    "ResNet-50": imagenet("resnet50", resnet(50, 4), 25_557_032, 4_089_184_256, "4.089"),
    "ResNet-20": Architecture(
        cifar_resnet(20)[0], (3, 32, 32), 269_722, 40_551_040, ("0.27 M", ""), DEEP, stages=cifar_resnet(20)[1]
    ),
    "ResNet-32": Architecture(
        cifar_resnet(32)[0], (3, 32, 32), 464_154, 68_862_592, ("0.46 M", ""), DEEP, stages=cifar_resnet(32)[1]
    ),
    "ResNet-56": Architecture(
        cifar_resnet(56)[0], (3, 32, 32), 853_018, 125_485_696, ("0.85 M", ""), DEEP, stages=cifar_resnet(56)[1]
    ),
    "MobileNetV2": imagenet("mobilenet_v2", (MobileNetV2, MOBILENET_STAGES), 3_504_872, 300_774_272, "0.301"),
    "ViT-B/16": imagenet(
        "vit_b_16",
        (ViT, {"conv_proj": (768, 14, 14), "encoder.layers": (197, 768), "encoder": (197, 768)}),
        *(86_567_656, 17_563_828_224, "17.564"),
    ),
}


def fits(n: int, words: str) -> bool:
    """Whether a count is the published one: rounded to as many digits, or a sum of whole numbers.

    >>> fits(714_188_480, "0.714 G"), fits(61_706, "60,000 + 900 + 850 - 44"), fits(61_706, "")
    (True, True, True)
    """
    number, _, unit = words.partition(" ")
    if unit in ("M", "G"):
        digits = len(number.partition(".")[2])
        return f"{n / {'M': 1e6, 'G': 1e9}[unit]:.{digits}f}" == f"{float(number):.{digits}f}"
    return not words or n == sum(int(part) for part in words.replace(",", "").replace("- ", "+ -").split("+"))


class Measured(NamedTuple):
    """What a model really has and does: see `Architecture`."""

    parameters: int
    multiply_adds: int
    output: Shape
    stages: dict[str, Shape]
    layers: dict[str, tuple[int, int]]


def measure(model: Layer, image: Shape) -> Measured:
    """One forward of one image in eval mode, with every output and every product looked at."""
    names = {id(layer): name for name, layer in model.named_modules()}
    stages: dict[str, Shape] = {}
    for name, layer in model.named_modules():
        _watch(layer, name, stages)
    with counting(model) as calls:
        y = model.eval()(np.zeros((1, *image), np.float32))
    for layer in model.modules():
        del layer.__dict__["forward"]
    work: dict[str, int] = {}
    for layer, call in calls:
        work[names[id(layer)]] = work.get(names[id(layer)], 0) + call.forward
    held = {names[id(layer)]: sum(p.size for p in layer.parameters()) for layer, _ in calls}
    layers = {name: (held[name], n) for name, n in work.items()}
    return Measured(sum(p.size for p in model.parameters()), sum(work.values()), y.shape[1:], stages, layers)


def _watch(layer: Layer, name: str, shapes: dict[str, Shape]) -> None:
    run = layer.forward

    @functools.wraps(run)  # whoever counts asks for its arguments
    def watched(*inputs: Any, **options: Any) -> Any:
        y = run(*inputs, **options)
        shapes[name] = y.shape[1:] if isinstance(y, np.ndarray) else ()
        return y

    layer.forward = watched  # type: ignore[method-assign]


class Blank(np.random.Generator):
    """A generator that draws nothing but 0, at no cost: what is counted does not depend on the weights.

    The 140 million weights of a VGG take some seconds to draw.
    """

    def __init__(self) -> None:
        super().__init__(np.random.PCG64())

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        return np.broadcast_to(np.float32(0), size)

    def standard_normal(self, size: Any = None, dtype: Any = float, out: Any = None) -> Any:
        return np.broadcast_to(np.float32(0), size)
