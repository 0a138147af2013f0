"""Averages of the weights over the steps of training."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from backhand.layers.base import Layer
from backhand.layers.guard import HALF
from backhand.layers.parameter import Array
from backhand.training.interrupts import Uninterrupted
from backhand.training.optimizers.base import is_number


class ExponentialMovingAverage:
    """Weights that follow those of a model slowly: less noisy, and often better ones.

        v_1 = w_1,    v_n = decay v_{n-1} + (1 - decay) w_n,    n = 1, 2, ... counts the calls of `update()`

    model : is left as it is; `module`, a copy of it, holds the averages
    decay : about 1 / (1 - decay) steps count
    use_buffers : average the buffers (running statistics) too; else `module` has the model's own. Whole numbers are
        cut to whole numbers again, as in torch
    warm_up : in the place of decay stands min(decay, n / (9 + n)), so that the first steps are forgotten soon

        average = ExponentialMovingAverage(model, 0.99)
        ...    optimizer.step();    average.update()
        with average.swapped():
            model.forward(x)  # with the averages

    torch.optim.swa_utils.AveragedModel with get_ema_multi_avg_fn(decay), whose state_dict has the same keys;
    Polyak & Juditsky 1992, "Acceleration of stochastic approximation by averaging"
    """

    def __init__(self, model: Layer, decay: float = 0.999, *, use_buffers: bool = False, warm_up: bool = False) -> None:
        if not isinstance(model, Layer):
            raise ValueError(f"ExponentialMovingAverage: expected model to be a Layer, got {model!r}")
        if not is_number(decay) or not 0 <= decay <= 1:
            raise ValueError(f"ExponentialMovingAverage: expected decay to be a number from 0 to 1, got {decay!r}")
        self.model = model
        self.module = copy.deepcopy(model)
        self.module.zero_grad()  # and forget what a forward has left
        if any(p.dtype == HALF for p in self.module.parameters()):
            self.module.astype(np.float32)  # a thousandth of a difference is lost in float16
        self.decay = float(decay)
        self.use_buffers = use_buffers
        self.warm_up = warm_up
        self.n_averaged = 0
        self._swapped = False

    def update(self) -> None:
        """Take in the weights of the model as they are now; call it after the optimizer's step."""
        self._not_swapped("update()")
        parameters = zip(self.module.parameters(), self.model.parameters(), strict=True)
        averaged = [(mine.data, its.data) for mine, its in parameters]
        buffers = [
            (mine, its)
            for (_, mine), (_, its) in zip(self.module.named_buffers(), self.model.named_buffers(), strict=True)
        ]
        if self.n_averaged == 0:
            copied = averaged + buffers
            averaged = []
        elif self.use_buffers:
            averaged, copied = averaged + buffers, []
        else:
            copied = buffers
        n = self.n_averaged + 1
        decay = min(self.decay, n / (9 + n)) if self.warm_up else self.decay
        with Uninterrupted(), np.errstate(all="ignore"):
            for mine, its in averaged:
                _towards(mine, its, decay)
            for mine, its in copied:
                mine[...] = its
            self.n_averaged = n

    @contextlib.contextmanager
    def swapped(self) -> Iterator[Layer]:
        """Give the model the averages (and the buffers that go with them) for a while, and then its own back.

        Whatever is done to its parameters and buffers meanwhile is lost; forward(x) in eval mode does nothing to them.
        """
        self._not_swapped("swapped()")
        own = self.model.state_dict()
        self._swapped = True
        try:
            self.model.load_state_dict(self.module.state_dict())
            yield self.model
        finally:
            self.model.load_state_dict(own)
            self._swapped = False

    def state_dict(self) -> dict[str, Array]:
        """A copy of the averages and of their number, under torch's names."""
        averages = {f"module.{name}": array for name, array in self.module.state_dict().items()}
        return {"n_averaged": np.array(self.n_averaged), **averages}

    def load_state_dict(self, state_dict: Mapping[str, ArrayLike]) -> None:
        """Go on from a `state_dict()`, of this class or of torch's AveragedModel.

        Raises ValueError (a LayerError) where it does not fit; then nothing has been changed.
        """
        self._not_swapped("load_state_dict()")
        averages: dict[str, Any] = dict(state_dict)
        n = averages.pop("n_averaged", None)
        if n is None or np.shape(n) != () or not float(n) >= 0:
            raise ValueError(f"ExponentialMovingAverage: expected n_averaged to be a number, 0 or more, got {n!r}")
        self.module.load_state_dict({name.removeprefix("module."): array for name, array in averages.items()})
        self.n_averaged = int(n)

    def _not_swapped(self, what: str) -> None:
        if self._swapped:
            raise RuntimeError(f"ExponentialMovingAverage: expected {what} outside of swapped(), got it inside")

    def __repr__(self) -> str:
        return (
            f"ExponentialMovingAverage({type(self.model).__name__}, decay={self.decay}, "
            f"use_buffers={self.use_buffers}, warm_up={self.warm_up})"
        )


def _towards(average: Array, x: Array, decay: float) -> None:
    """average = decay average + (1 - decay) x"""
    if average.dtype.kind == "f":
        average += (1 - decay) * (x - average)
    else:  # in float32 as in torch, so that the same numbers are cut
        keep, take = np.float32(decay), np.float32(1 - decay)
        average[...] = average.astype(np.float32) * keep + x.astype(np.float32) * take
