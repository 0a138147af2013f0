"""Steps along the gradient itself, or along its running sum."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from backhand.layers.parameter import Array, Parameter
from backhand.training.optimizers.base import Optimizer
from backhand.training.optimizers.blocks import Block, descent


class SGD(Optimizer):
    """Step down the gradient, with or without momentum.

        b_t = momentum b_{t-1} + (1 - dampening) g_t,    b_1 = g_1
        w = w - lr b_t,    or with nesterov   w = w - lr (g_t + momentum b_t)

    Sutskever, Martens, Dahl & Hinton 2013, "On the importance of initialization and momentum in deep learning",
    in torch's form: the learning rate stands outside of the momentum.
    """

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            momentum=momentum,
            dampening=dampening,
            weight_decay=weight_decay,
            nesterov=nesterov,
            maximize=maximize,
        )

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        if group["nesterov"] and (group["momentum"] == 0 or group["dampening"] != 0):
            self._fail("expected a momentum and no dampening together with nesterov=True")

    def update(self, group: dict[str, Any], block: Block) -> None:
        lr, momentum, dampening = float(group["lr"]), float(group["momentum"]), float(group["dampening"])
        if momentum == 0:

            def down(w: Array, g: Array, a: Array, b: Array) -> None:
                np.multiply(descent(group, w, g, b), lr, out=a)
                w -= a

            block.each(down)
            return
        first = "momentum_buffer" not in block.arrays

        def move(w: Array, g: Array, velocity: Array, a: Array, b: Array) -> None:
            g = descent(group, w, g, b)
            if first:
                velocity[...] = g
            else:
                velocity *= momentum
                velocity += np.multiply(g, 1 - dampening, out=a) if dampening else g
            if group["nesterov"]:
                np.multiply(velocity, momentum, out=a)
                a += g
                a *= lr
            else:
                np.multiply(velocity, lr, out=a)
            w -= a

        block.each(move, "momentum_buffer")
