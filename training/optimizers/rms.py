"""The gradient divided by the root of its squares, which are summed or averaged over time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from backhand.layers.base import Parameter
from backhand.training.optimizers.base import Optimizer
from backhand.training.optimizers.blocks import Block, add_square, descent, lerp


class RMSprop(Optimizer):
    """Divide by a running root mean square of the gradient.

        v_t = alpha v_{t-1} + (1 - alpha) g^2
        w = w - lr g / (sqrt(v_t) + eps),    or with momentum   b_t = momentum b_{t-1} + g / (...),   w = w - lr b_t

    centered : v_t - (running mean of g)^2, the variance, stands in the place of v_t (Graves 2013, arXiv:1308.0850)
    Tieleman & Hinton 2012, COURSERA: Neural Networks for Machine Learning, lecture 6.5
    """

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            alpha=alpha,
            eps=eps,
            weight_decay=weight_decay,
            momentum=momentum,
            centered=centered,
            maximize=maximize,
        )

    def update(self, group: dict[str, Any], block: Block) -> None:
        lr, alpha, eps = float(group["lr"]), float(group["alpha"]), float(group["eps"])
        momentum, centered = float(group["momentum"]), group["centered"]
        block.count()
        names = ("square_avg", *["momentum_buffer"] * (momentum > 0), *["grad_avg"] * centered)
        for w, g, v, *more, a, b in block.pieces(*names):
            g = descent(group, w, g, b)
            add_square(v, alpha, g, 1 - alpha, a)
            if centered:
                mean = more[-1]
                lerp(mean, g, 1 - alpha, a)
                np.multiply(mean, mean, out=a)
                np.subtract(v, a, out=a)
                np.maximum(a, 0, out=a)  # a variance of 0 may come out below it by rounding
                np.sqrt(a, out=a)
            else:
                np.sqrt(v, out=a)
            a += eps
            np.divide(g, a, out=a)
            if momentum > 0:
                velocity = more[0]
                velocity *= momentum
                velocity += a
                np.multiply(velocity, lr, out=a)
            else:
                a *= lr
            w -= a


class Adagrad(Optimizer):
    """Divide by the root of the sum of all squared gradients so far: what moved a lot, moves less.

        s_t = s_{t-1} + g^2,    s_0 = initial_accumulator_value
        w = w - lr / (1 + (t - 1) lr_decay) * g / (sqrt(s_t) + eps)

    Duchi, Hazan & Singer 2011, "Adaptive Subgradient Methods for Online Learning and Stochastic Optimization"
    """

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            lr_decay=lr_decay,
            weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value,
            eps=eps,
            maximize=maximize,
        )

    def update(self, group: dict[str, Any], block: Block) -> None:
        t = block.count()
        lr = float(group["lr"]) / (1 + (t - 1) * float(group["lr_decay"]))
        eps = float(group["eps"])
        for w, g, total, a, b in block.pieces("sum", start=float(group["initial_accumulator_value"])):
            g = descent(group, w, g, b)
            np.multiply(g, g, out=a)
            total += a
            np.sqrt(total, out=a)
            a += eps
            np.divide(g, a, out=a)
            a *= lr
            w -= a
