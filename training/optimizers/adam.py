"""Adam and its kin: a running mean of the gradient over a running measure of its size."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from backhand.layers.parameter import Array, Parameter
from backhand.training.optimizers.base import Optimizer
from backhand.training.optimizers.blocks import Block, add_square, descent, lerp, shrink


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
        amsgrad = group["amsgrad"]
        names = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq") if amsgrad else ("exp_avg", "exp_avg_sq")

        def move(w: Array, g: Array, m: Array, v: Array, *rest: Array) -> None:
            *largest, a, b = rest
            g = moments(group, w, g, m, v, beta1, beta2, a, b)
            if amsgrad:
                v = np.maximum(largest[0], v, out=largest[0])
            np.sqrt(v, out=a)
            a += eps
            np.divide(m, a, out=a)
            a *= size
            w -= a

        block.each(move, *names)


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


class Adamax(Optimizer):
    """Adam with the largest gradient of late in the place of the root mean square.

        m_t = beta1 m_{t-1} + (1 - beta1) g        u_t = max(beta2 u_{t-1}, |g| + eps)
        w = w - lr / (1 - beta1^t) * m_t / u_t

    u is the limit of the p-th root of an average of |g|^p for p to infinity; as a maximum it has no bias to undo.
    Kingma & Ba 2014, arXiv:1412.6980, algorithm 2
    """

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[dict[str, Any]],
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, maximize=maximize)

    def update(self, group: dict[str, Any], block: Block) -> None:
        beta1, beta2 = map(float, group["betas"])
        size = float(group["lr"]) / (1 - beta1 ** block.count())
        eps = float(group["eps"])

        def move(w: Array, g: Array, m: Array, u: Array, a: Array, b: Array) -> None:
            g = descent(group, w, g, b)
            lerp(m, g, 1 - beta1, a)
            np.abs(g, out=a)
            a += eps
            u *= beta2
            np.maximum(u, a, out=u)
            np.divide(m, u, out=a)
            a *= size
            w -= a

        block.each(move, "exp_avg", "exp_inf")


class NAdam(Optimizer):
    """Adam with Nesterov's momentum: the step already holds the next step's share of the momentum.

        mu_t = beta1 (1 - 0.96^(t momentum_decay) / 2)        P_t = mu_1 mu_2 ... mu_t
        m_t, v_t as in Adam,    d = sqrt(v_t / (1 - beta2^t)) + eps
        w = w - lr (mu_{t+1} / (1 - P_{t+1}) m_t + (1 - mu_t) / (1 - P_t) g) / d

    momentum_decay : how soon mu rises from beta1 / 2 to beta1
    decoupled_weight_decay : w = (1 - lr weight_decay) w instead of a term in g, as in AdamW
    Dozat 2016, "Incorporating Nesterov Momentum into Adam"
    """

    scalar_names = ("step", "mu_product")

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[dict[str, Any]],
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            momentum_decay=momentum_decay,
            decoupled_weight_decay=decoupled_weight_decay,
            maximize=maximize,
        )

    def scalar(self, name: str, array: Array) -> Any:
        return super().scalar(name, array) if name == "step" else array.dtype.type(array)

    def update(self, group: dict[str, Any], block: Block) -> None:
        lr, (beta1, beta2), eps = float(group["lr"]), map(float, group["betas"]), float(group["eps"])
        t = block.count()
        mu, mu_next = (beta1 * (1 - 0.5 * 0.96 ** (s * float(group["momentum_decay"]))) for s in (t, t + 1))
        # torch keeps this product in float32, and so its rounding is part of the numbers
        product = block.scalars.get("mu_product", np.float32(1))
        product = block.scalars["mu_product"] = product * type(product)(mu)
        by_gradient = lr * (1 - mu) / (1 - float(product))
        by_average = lr * mu_next / (1 - float(product) * mu_next)
        correction = 1 - beta2**t

        def move(w: Array, g: Array, m: Array, v: Array, a: Array, b: Array) -> None:
            g = moments(group, w, g, m, v, beta1, beta2, a, b)
            np.multiply(g, by_gradient, out=b)
            np.multiply(m, by_average, out=a)
            b += a
            np.divide(v, correction, out=a)
            np.sqrt(a, out=a)
            a += eps
            b /= a
            w -= b

        block.each(move, "exp_avg", "exp_avg_sq")


class RAdam(Optimizer):
    """Adam that divides only when enough gradients have been seen to know their size: a warm-up without a schedule.

        rho_inf = 2 / (1 - beta2) - 1,    rho_t = rho_inf - 2 t beta2^t / (1 - beta2^t),    mhat = m_t / (1 - beta1^t)
        rho_t > 5 :  w = w - lr r mhat sqrt(1 - beta2^t) / (sqrt(v_t) + eps),
                     r^2 = (rho_t - 4) (rho_t - 2) rho_inf / ((rho_inf - 4) (rho_inf - 2) rho_t)
        else      :  w = w - lr mhat

    m_t, v_t are those of Adam; rho_t is the number of gradients that v_t is as good as an average of.
    decoupled_weight_decay : w = (1 - lr weight_decay) w instead of a term in g, as in AdamW
    Liu et al. 2019, arXiv:1908.03265, algorithm 2 (torch divides from rho_t > 5 on, the paper from 4)
    """

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            decoupled_weight_decay=decoupled_weight_decay,
            maximize=maximize,
        )

    def update(self, group: dict[str, Any], block: Block) -> None:
        (beta1, beta2), eps = map(float, group["betas"]), float(group["eps"])
        t = block.count()
        size = float(group["lr"]) / (1 - beta1**t)
        correction = 1 - beta2**t
        longest = 2 / (1 - beta2) - 1
        length = longest - 2 * t * beta2**t / correction
        known = length > 5
        if known:
            ratio = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
            size *= math.sqrt(ratio) * math.sqrt(correction)

        def move(w: Array, g: Array, m: Array, v: Array, a: Array, b: Array) -> None:
            g = moments(group, w, g, m, v, beta1, beta2, a, b)
            if known:
                np.sqrt(v, out=a)
                a += eps
                np.divide(m, a, out=a)
                a *= size
            else:
                np.multiply(m, size, out=a)
            w -= a

        block.each(move, "exp_avg", "exp_avg_sq")


def moments(
    group: dict[str, Any], w: Array, g: Array, m: Array, v: Array, beta1: float, beta2: float, a: Array, b: Array
) -> Array:
    """Decay w, and move m and v, the averages of g and g^2; the gradient to go down, which may stand in b."""
    shrink(group, w)
    g = descent(group, w, g, b)
    lerp(m, g, 1 - beta1, a)
    add_square(v, beta2, g, 1 - beta2, a)
    return g
