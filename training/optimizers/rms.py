"""The gradient divided by the root of its squares, which are summed or averaged over time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from backhand.layers.parameter import Array, Parameter
from backhand.training.optimizers.base import Optimizer, is_number
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

        def move(w: Array, g: Array, v: Array, *rest: Array) -> None:
            *more, a, b = rest
            g = descent(group, w, g, b)
            add_square(v, alpha, g, 1 - alpha, a)
            if centered:
                mean = more[-1]
                lerp(mean, g, 1 - alpha, a)
                _variance(v, mean, a)
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

        block.each(move, *names)


class GravesRMSprop(Optimizer):
    """RMSprop as it was first written down: centred, damped inside of the root, with momentum over finished steps.

        n_t = alpha n_{t-1} + (1 - alpha) g^2        m_t = alpha m_{t-1} + (1 - alpha) g
        D_t = momentum D_{t-1} - lr g / sqrt(n_t - m_t^2 + eps)        w = w + D_t

    n - m^2 is the variance of the gradient; rounding may take it below 0, where it is held. The defaults are the
    paper's. Gradients well below sqrt(eps) = 0.01 are damped, so it wants a loss that is summed over a sequence
    rather than averaged over its parts. `RMSprop(centered=True)` adds eps outside of the root, and multiplies by lr
    outside of the momentum.
    Graves 2013, arXiv:1308.0850, eq. 38 to 45
    """

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-4,
        alpha: float = 0.95,
        eps: float = 1e-4,
        weight_decay: float = 0,
        momentum: float = 0.9,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params, lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum, maximize=maximize
        )

    def update(self, group: dict[str, Any], block: Block) -> None:
        lr, alpha, eps = float(group["lr"]), float(group["alpha"]), float(group["eps"])
        momentum = float(group["momentum"])
        block.count()

        def move(w: Array, g: Array, n: Array, m: Array, velocity: Array, a: Array, b: Array) -> None:
            g = descent(group, w, g, b)
            add_square(n, alpha, g, 1 - alpha, a)
            lerp(m, g, 1 - alpha, a)
            _variance(n, m, a)
            a += eps
            np.sqrt(a, out=a)
            np.divide(g, a, out=a)
            a *= lr
            velocity *= momentum
            velocity -= a
            w += velocity

        block.each(move, "square_avg", "grad_avg", "momentum_buffer")


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
        block.begin("sum", float(group["initial_accumulator_value"]))

        def move(w: Array, g: Array, total: Array, a: Array, b: Array) -> None:
            g = descent(group, w, g, b)
            np.multiply(g, g, out=a)
            total += a
            np.sqrt(total, out=a)
            a += eps
            np.divide(g, a, out=a)
            a *= lr
            w -= a

        block.each(move, "sum")


class Adadelta(Optimizer):
    """Steps in the units of the weights: the root mean square of past steps over that of the gradients.

        v_t = rho v_{t-1} + (1 - rho) g^2
        d = sqrt(u_{t-1} + eps) / sqrt(v_t + eps) * g        u_t = rho u_{t-1} + (1 - rho) d^2
        w = w - lr d

    eps : also the size from which the steps begin to grow
    Zeiler 2012, arXiv:1212.5701, algorithm 1 (there without lr)
    """

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[dict[str, Any]],
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr=lr, rho=rho, eps=eps, weight_decay=weight_decay, maximize=maximize)

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        if not is_number(group["rho"]) or not 0 <= group["rho"] <= 1:
            self._fail(f"expected rho to be a number from 0 to 1, got {group['rho']!r}")

    def update(self, group: dict[str, Any], block: Block) -> None:
        lr, rho, eps = float(group["lr"]), float(group["rho"]), float(group["eps"])
        block.count()

        def move(w: Array, g: Array, v: Array, u: Array, a: Array, b: Array) -> None:
            g = descent(group, w, g, b)
            add_square(v, rho, g, 1 - rho, a)
            np.add(v, eps, out=a)
            np.sqrt(a, out=a)
            np.divide(g, a, out=b)
            np.add(u, eps, out=a)
            np.sqrt(a, out=a)
            b *= a
            add_square(u, rho, b, 1 - rho, a)
            b *= lr
            w -= b

        block.each(move, "square_avg", "acc_delta")


def _variance(squares: Array, mean: Array, out: Array) -> None:
    """E g^2 - (E g)^2, which may come out below 0 by rounding."""
    np.multiply(mean, mean, out=out)
    np.subtract(squares, out, out=out)
    np.maximum(out, 0, out=out)
