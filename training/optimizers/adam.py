"""Adam and its kin: a running mean of the gradient over a running measure of its size."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from backhand.layers.base import Parameter
from backhand.training.optimizers.base import Optimizer
from backhand.training.optimizers.blocks import Block, add_square, descent, lerp


class Adam(Optimizer):
    """Momentum, with a step for each number that follows the size of its own gradients.

        m_t = beta1 m_{t-1} + (1 - beta1) g        v_t = beta2 v_{t-1} + (1 - beta2) g^2
        w = w - lr (m_t / (1 - beta1^t)) / (sqrt(v_t / (1 - beta2^t)) + eps)

    The divisions by 1 - beta^t undo the bias of averages that began at 0.
    amsgrad : the largest v_t so far stands in the place of v_t (Reddi, Kale & Kumar 2018, arXiv:1904.09237)
    decoupled_weight_decay : w = (1 - lr weight_decay) w instead of a term in g; that is AdamW
    Kingma & Ba 2014, arXiv:1412.6980, algorithm 1
    """

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        decoupled_weight_decay: bool = False,
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            amsgrad=amsgrad,
            maximize=maximize,
            decoupled_weight_decay=decoupled_weight_decay,
        )

    def update(self, group: dict[str, Any], block: Block) -> None:
        lr, (beta1, beta2) = float(group["lr"]), map(float, group["betas"])
        t = block.count()
        # sqrt(v)/c + eps = (sqrt(v) + eps c)/c: with c in the step size, one pass over the vector is saved
        c = math.sqrt(1 - beta2**t)
        eps = float(group["eps"]) * c
        size = lr / (1 - beta1**t) * c
        amsgrad, decoupled = group["amsgrad"], group["decoupled_weight_decay"]
        shrink = 1 - lr * float(group["weight_decay"])
        options = {**group, "weight_decay": 0} if decoupled else group
        names = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq") if amsgrad else ("exp_avg", "exp_avg_sq")
        for w, g, m, v, *largest, a, b in block.pieces(*names):
            if decoupled:
                w *= shrink
            g = descent(options, w, g, b)
            lerp(m, g, 1 - beta1, a)
            add_square(v, beta2, g, 1 - beta2, a)
            if amsgrad:
                v = np.maximum(largest[0], v, out=largest[0])
            np.sqrt(v, out=a)
            a += eps
            np.divide(m, a, out=a)
            a *= size
            w -= a


class AdamW(Adam):
    """Adam whose weight decay shrinks the weights themselves, and is not scaled by the size of the gradients.

        w = (1 - lr weight_decay) w,    then Adam's step without weight decay

    Loshchilov & Hutter 2017, arXiv:1711.05101, algorithm 2
    """

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize, decoupled_weight_decay=True)
