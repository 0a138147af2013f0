"""Losses over the last steps of a sequence, where the answer is wanted."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from backhand.layers.activations import sigmoid, softplus
from backhand.losses.base import Loss


class SequenceBCELoss(Loss):
    """What a sequence of bits costs: the binary cross-entropy, summed over it.

        l_b = sum over t, c of softplus(x) - target x,    over the last L steps        dx = dl (sigmoid(x) - target)

    x : (T, B, C) logits      target : (L, B, C), numbers from 0 to 1, wanted at the last L steps, L <= T
    reduction : "mean" over the B sequences, "sum", or "none" for all l, (B,)

    In nats; divided by ln 2 it is bits per sequence. dx is 0 at the steps before, where nothing is asked.
    Graves, Wayne & Danihelka 2014, arXiv:1410.5401, section 4, count their costs so.
    """

    def forward(self, x: ArrayLike, target: ArrayLike) -> Any:
        x = self.input(x)
        target = self.input(target, x.dtype)
        fits = x.ndim == target.ndim == 3 and x.shape[1:] == target.shape[1:] and len(target) <= len(x)
        if not fits:
            self.reject("x (T, B, C) and a target (L, B, C) for its last L steps", f"{x.shape} and {target.shape}")
        last = x[len(x) - len(target) :]
        losses = (softplus(last) - target * last).sum(axis=(0, 2))
        self.save(x, target, out=losses)
        return self.reduce(losses)

    def backward(self, dout: Any = None) -> Any:
        dl = self.upstream(dout)
        x, target = self.saved()
        dx = np.zeros_like(x)
        start = len(x) - len(target)
        dx[start:] = dl[:, None] * (sigmoid(x[start:]) - target)
        return dx
