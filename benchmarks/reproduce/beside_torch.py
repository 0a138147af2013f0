"""An architecture beside its twin in PyTorch, in float32, on the same random weights: forward and every gradient.

The error of an array is |ours - theirs| / |theirs|, of Euclidean norms over the whole array.

In a deep network of ReLUs and max-pooling a few of millions of numbers lie so near to 0, or to their neighbour, that
the rounding of float32 decides on which side. The output hardly moves, but there the gradient jumps: one decision that
falls otherwise near the end changes all gradients below it, by 1e-4 to 1e-2. Nobody's float32 is right there: PyTorch's
own differs from its float64 by as much. What both must agree on is the gradient of the same straight piece. So PyTorch
is told the decisions of ours (which units were on, which pixel of each window was the largest), and nothing of ours is
changed; and each decision that PyTorch would have taken otherwise must have been a tie within rounding.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch

from backhand.layers import Layer, MaxPool2d, ReLU
from backhand.layers.parameter import Array
from backhand.models import VGG, AlexNet, AlexNet2012, BasicBlock, Bottleneck, ResNet
from benchmarks import networks
from benchmarks.reproduce.architectures import Blank

Arrays = dict[str, Array]


def torchvision() -> Any:
    """torchvision: its models need none of its compiled operators, so a build that cannot load them will do."""
    sys.modules.setdefault("torchvision._meta_registrations", ModuleType("torchvision._meta_registrations"))
    import torchvision

    return torchvision


class Pair(NamedTuple):
    """A model of ours and how it is built in PyTorch, both without dropout; the images' size and number."""

    ours: Callable[..., Layer]
    theirs: Callable[[], Any]
    size: int
    batch: int = 2


def named(name: str, **options: Any) -> Callable[[], Any]:
    """A model of torchvision."""
    return lambda: torchvision().models.get_model(name, **options)


PAIRS: dict[str, Pair] = {
    "AlexNet": Pair(lambda rng: AlexNet(dropout=0, rng=rng), named("alexnet", dropout=0.0), 224),
    "AlexNet2012": Pair(lambda rng: AlexNet2012(dropout=0, rng=rng), lambda: networks.alexnet_2012(torch.nn), 227),
    "VGG-16": Pair(lambda rng: VGG(16, dropout=0, rng=rng), named("vgg16", dropout=0.0), 224, 1),
    "ResNet-18": Pair(lambda rng: ResNet(18, rng=rng), named("resnet18"), 224),
    "ResNet-50": Pair(lambda rng: ResNet(50, rng=rng), named("resnet50"), 224),
}


class Ties(NamedTuple):
    """Decisions that PyTorch would take otherwise than they were taken: how many of how many, and the farthest.

    farthest : how far z is from 0, or below the largest of its window, by the root mean square of all z of its layer
    """

    number: int = 0
    of: int = 0
    farthest: float = 0.0


class Agreement(NamedTuple):
    """The error of the scores, the largest of the gradients by the image and all parameters, and where that is."""

    forward: float
    gradients: float
    worst: str


class Beside:
    """One architecture on both sides, with the same weights, one batch and one upstream, drawn from a seed.

    training : whether batch normalisation takes the statistics of the batch, or those it has kept
    """

    def __init__(self, name: str, seed: int = 0, *, training: bool = True) -> None:
        pair = PAIRS[name]
        rng = np.random.default_rng(seed)
        self.ours = pair.ours(Blank())
        self.ours.train() if training else self.ours.eval(caching=True)
        randomize(self.ours, rng)
        with torch.device("meta"):  # where weights cost neither memory nor time: ours come into their place
            self.theirs = pair.theirs().train(training)
        for module in self.theirs.modules():
            if isinstance(module, torch.nn.ReLU):
                module.inplace = False
        # weights are only read, so both sides have them in one memory; buffers are written to
        state = {key: torch.from_numpy(p.data) for key, p in self.ours.named_parameters()}
        state |= {key: torch.tensor(buffer) for key, buffer in self.ours.named_buffers()}
        self.theirs.load_state_dict(state, assign=True)
        self.x = rng.standard_normal((pair.batch, 3, pair.size, pair.size), np.float32)
        self.dout = rng.standard_normal((pair.batch, 1000), np.float32)

    def run_ours(self) -> tuple[Arrays, list[Any]]:
        """Scores ("y"), gradients ("x" and the parameters' names), and what the kinks decided, as they were run."""
        decisions: list[Any] = []
        kinks = [layer for layer in self.ours.modules() if isinstance(layer, (ReLU, MaxPool2d))]
        for layer in kinks:
            _watch(layer, decisions)
        self.ours.zero_grad()
        y = self.ours(self.x)
        for layer in kinks:
            del layer.__dict__["forward"]
        dx = self.ours.backward(self.dout)
        return {"y": y, "x": dx, **{name: p.grad for name, p in self.ours.named_parameters()}}, decisions

    def run_theirs(self, decisions: list[Any] | None = None, dtype: Any = torch.float32) -> tuple[Arrays, Ties]:
        """The same of PyTorch, which may be told what to decide; float64 stays, so that comes last."""
        model = self.theirs.to(dtype)
        model.zero_grad()
        found: list[Ties] = []
        hooks = []
        if decisions is not None:
            told = iter(decisions)
            for module in model.modules():
                if isinstance(module, (torch.nn.ReLU, torch.nn.MaxPool2d)):
                    hooks.append(module.register_forward_hook(functools.partial(_obey, told, found)))
        x = torch.from_numpy(self.x).to(dtype, copy=True).requires_grad_()
        y = model(x)
        for hook in hooks:
            hook.remove()
        if decisions is not None and len(found) != len(decisions):
            raise AssertionError(f"ours has {len(decisions)} kinks, theirs {len(found)}")
        y.backward(torch.from_numpy(self.dout).to(dtype))
        assert x.grad is not None
        gradients = {name: p.grad.numpy() for name, p in model.named_parameters() if p.grad is not None}
        number, of, farthest = zip(*found, strict=True) if found else ((0,), (0,), (0.0,))
        return {"y": y.detach().numpy(), "x": x.grad.numpy(), **gradients}, Ties(sum(number), sum(of), max(farthest))


def _watch(layer: Any, decisions: list[Any]) -> None:
    """Note what a ReLU (where it is on) or a max-pooling (which pixels it takes) decides."""
    run = layer.forward

    def watched(z: Array) -> Array:
        y: Array = run(z)
        if isinstance(layer, ReLU):
            decisions.append(torch.from_numpy(y > 0))
        else:
            sizes = (layer.kernel_size, layer.stride, layer.padding)
            _, taken = torch.nn.functional.max_pool2d(torch.from_numpy(z), *sizes, return_indices=True)
            decisions.append(taken)
        return y

    layer.forward = watched


def _obey(told: Any, found: list[Ties], module: Any, inputs: Any, y: Any) -> Any:
    """What a ReLU or a max-pooling of PyTorch gives when it decides as it is told."""
    (z,) = inputs
    decision = next(told)
    if isinstance(module, torch.nn.ReLU):
        given = z * decision
        apart = torch.where((z > 0) == decision, 0, z.abs())
    else:
        given = z.flatten(2).gather(2, decision.flatten(2)).view_as(y)
        apart = y - given
    apart = apart.detach() / z.detach().square().mean().sqrt()
    found.append(Ties(int((apart > 0).sum()), apart.numel(), float(apart.max())))
    return given


def agreement(got: Arrays, wanted: Arrays) -> Agreement:
    """How far two sides are apart; none of the gradients here is 0 in exact arithmetic."""
    if got.keys() != wanted.keys():
        raise AssertionError(f"names on one side only: {sorted(got.keys() ^ wanted.keys())}")
    errors = {name: error(got[name], wanted[name]) for name in wanted}
    forward = errors.pop("y")
    worst = max(errors, key=lambda name: errors[name])
    return Agreement(forward, errors[worst], worst)


def error(got: Array, wanted: Array) -> float:
    """|got - wanted| / |wanted|; inf where the shapes differ or something is not finite."""
    if got.shape != wanted.shape:
        return float("inf")
    ratio = float(np.linalg.norm((got - wanted).ravel()) / np.linalg.norm(wanted.ravel()))
    return ratio if np.isfinite(ratio) else float("inf")


def randomize(model: Layer, rng: np.random.Generator) -> None:
    """Weights from N(0, 2 / fan_in), scales near 1, biases near 0, and buffers as if something had been learned."""
    for name, p in model.named_parameters():
        rng.standard_normal(dtype=np.float32, out=p.data)
        if p.data.ndim > 1:
            p.data *= np.float32((2 / p.data[0].size) ** 0.5)
        else:
            p.data *= np.float32(0.1)
            p.data += np.float32(name.endswith("weight"))
    # Where blocks are added to a sum that grows, batch normalisation subtracts means far larger than what it keeps, and
    # rounding shows: with scales of 1, PyTorch's own float32 gradients of a ResNet-50 in training are 1.2e-4 from those
    # of float64 (ours 1.7e-4), the decisions alike. So blocks begin small, as in Goyal et al. 2017, arXiv:1706.02677.
    for layer in model.modules():
        if isinstance(layer, (BasicBlock, Bottleneck)):
            getattr(layer, layer.body[-1]).weight.data *= np.float32(0.2)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer += 0.1 * rng.standard_normal(buffer.shape, np.float32)
        elif name.endswith("running_var"):
            buffer *= rng.uniform(0.5, 1.5, buffer.shape)
