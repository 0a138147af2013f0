"""Networks that see the last few characters of a name and guess the next one.

Both end in tanh layers behind a BatchNorm whose variance is the unbiased one, divided by n - 1, in forward, in backward
and in the running statistics; torch's BatchNorm1d divides by n in the first two.
Karpathy 2022, "Neural Networks: Zero to Hero", parts 3 to 5; https://github.com/karpathy/makemore
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from backhand.layers.activations import Tanh
from backhand.layers.arguments import positive, refuse, whole, within
from backhand.layers.base import Layer
from backhand.layers.batch_norm import RunningStatistics
from backhand.layers.embedding import Embedding
from backhand.layers.linear import Linear
from backhand.layers.parameter import Array, Parameter, float_dtype
from backhand.layers.shape import Reshape
from backhand.models.containers import Sequential
from backhand.models.initialize import normal
from backhand.models.sampling import sampled, undisturbed


class UnbiasedBatchNorm(RunningStatistics):
    """BatchNorm of rows, with the variance that is divided by n - 1.

        y = weight * xhat + bias,    xhat = (x - mean) / sqrt(var + eps),    var = sum (x - mean)^2 / (n - 1)
        dx = weight * rstd * (dout - mean(dout) - xhat * sum(dout * xhat) / (n - 1))
        (in eval: weight * rstd * dout)        dweight = sum of dout * xhat,        dbias = sum of dout

    x, y : (n, C)      weight, bias : (C,), from 1 and 0
    momentum : the weight of the newest batch in running_mean and running_var, which eval uses

    By the variance, dvar/dx_i = 2 (x_i - mean) / (n - 1) and drstd/dvar = -rstd^3 / 2: the last term, in which n - 1
    stands where BatchNorm1d has n.
    """

    buffer_names = ("running_mean", "running_var")

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, *, dtype: DTypeLike = np.float32
    ) -> None:
        self.num_features = whole(self, "num_features", num_features)
        self.eps = positive(self, "eps", eps)
        self.momentum = within(self, "momentum", momentum, 0, 1)
        dtype = float_dtype(dtype)
        self.weight = Parameter(np.ones(num_features, dtype))
        self.bias = Parameter(np.zeros(num_features, dtype))
        self.running_mean = np.zeros(num_features, dtype)
        self.running_var = np.ones(num_features, dtype)

    def forward(self, x: ArrayLike) -> Array:
        x = self.input(x, self.weight.dtype)
        if x.ndim != 2 or x.shape[1] != self.num_features:
            self.reject(f"x of shape (n, {self.num_features})", x.shape)
        if self.training and len(x) == 1:
            self.reject("at least two rows to take the variance of", x.shape, "eval() uses the running statistics")
        mean, var = (x.mean(axis=0), x.var(axis=0, ddof=1)) if self.training else (self.running_mean, self.running_var)
        before = self.before() if self.training else []
        if self.training:
            for running, new in ((self.running_mean, mean), (self.running_var, var)):
                running += self.momentum * (new - running)
        rstd = 1 / np.sqrt(var + self.eps)
        xhat = (x - mean) * rstd
        y = xhat * self.weight.data
        y += self.bias.data
        self.save(xhat, rstd, self.training, before, out=y)
        return y

    def backward(self, dout: Any) -> Array:
        dout = self.upstream(dout)
        xhat, rstd, own, _ = self.saved()
        dweight, dbias = (dout * xhat).sum(axis=0), dout.sum(axis=0)
        self.weight.grad += dweight
        self.bias.grad += dbias
        dx = dout
        if own:
            n = len(dout)
            dx = dout - dbias / n - xhat * (dweight / (n - 1))
        return dx * (self.weight.data * rstd)


class _NextCharacter(Sequential):
    """What both networks share: the context, and writing names with it."""

    vocab_size: int
    context: int

    def forward(self, tokens: ArrayLike) -> Any:
        tokens = self.array(tokens)
        if tokens.ndim != 2 or tokens.shape[1] != self.context:  # more of them would be joined to more rows
            self.reject(f"tokens of shape (N, {self.context})", tokens.shape)
        return super().forward(tokens)

    def generate(
        self,
        count: int,
        longest: int = 30,
        temperature: float = 1.0,
        *,
        rng: np.random.Generator | int | None = None,
    ) -> list[list[int]]:
        """So many names, as lists of characters without the 0 that ends them, in eval mode.

        longest : where a name is cut off that does not end      temperature : 0 takes the likeliest character
        """
        known = np.zeros((whole(self, "count", count), self.context), np.int64)
        generator = np.random.default_rng(rng)
        with undisturbed(self):
            for _ in range(whole(self, "longest", longest)):
                drawn = sampled(self.forward(known[:, -self.context :]), temperature, None, generator)
                known = np.concatenate([known, drawn[:, None]], axis=1)
        rows = known[:, self.context :].tolist()
        return [list(itertools.takewhile(bool, row)) for row in rows]

    def calibrate(self, x: ArrayLike) -> None:
        """Let the running statistics of every BatchNorm be those of x, the whole training set.

        Layer by layer: each sees x as the ones before it, calibrated, hand it on in eval mode.
        """
        with undisturbed(self):
            y: Any = x
            for layer in self:
                if isinstance(layer, UnbiasedBatchNorm):
                    layer.running_mean[...] = y.mean(axis=0)
                    layer.running_var[...] = y.var(axis=0, ddof=1)
                y = layer.forward(y)

    __repr__ = Layer.__repr__


class NameMLP(_NextCharacter):
    """The characters' vectors side by side, one hidden layer, and scores of the next character.

        name        layer                                   output             parameters
        embedding   Embedding                               (context, emb)            270
        join        Reshape                                 (context * emb,)
        hidden      Linear                                  (hidden,)               6,200
        norm        UnbiasedBatchNorm                       (hidden,)                 400
        tanh        Tanh
        out         Linear                                  (vocab_size,)           5,427      12,297 in all

    tokens : (N, context) integers below vocab_size; 0 begins and ends a name      scores : (N, vocab_size)

    All starts away from 0 and 1, for there a wrong backward can look right: weights of `hidden` N(0, (5/3)^2 / fan_in),
    all else N(0, 0.1^2), about 1 for the weight of `norm`, and the embedding N(0, 1). The bias of `hidden` is taken off
    again by the mean, so its gradient is 0 but for rounding.
    Bengio et al. 2003, "A Neural Probabilistic Language Model"; part 4 of the lectures at the head of this file
    """

    def __init__(
        self,
        vocab_size: int = 27,
        context: int = 3,
        emb: int = 10,
        hidden: int = 200,
        *,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.vocab_size = whole(self, "vocab_size", vocab_size)
        self.context = whole(self, "context", context)
        self.emb, self.hidden = whole(self, "emb", emb), whole(self, "hidden", hidden)
        rng = np.random.default_rng(rng)
        first = Linear(context * emb, hidden, rng=rng, dtype=dtype)
        last = Linear(hidden, vocab_size, rng=rng, dtype=dtype)
        norm = UnbiasedBatchNorm(hidden, dtype=dtype)
        super().__init__(
            {
                "embedding": Embedding(vocab_size, emb, rng=rng, dtype=dtype),
                "join": Reshape(-1, context * emb),
                "hidden": first,
                "norm": norm,
                "tanh": Tanh(),
                "out": last,
            }
        )
        for parameter in (first.bias, last.weight, last.bias, norm.weight, norm.bias):
            if parameter is not None:
                normal(parameter, rng, 0.1)
        norm.weight.data += 1
        normal(first.weight, rng, 5 / 3 / (context * emb) ** 0.5)


class NameWaveNet(_NextCharacter):
    """Pairs of characters become one vector, pairs of those the next, until one vector knows the whole context.

        layer                                         output                     parameters
        Embedding                                     (8, 24)                           648
        pairs, Linear, UnbiasedBatchNorm, Tanh        (4, 128)                        6,400
        pairs, Linear, UnbiasedBatchNorm, Tanh        (2, 128)                       33,024
        pairs, Linear, UnbiasedBatchNorm, Tanh        (1, 128)                       33,024
        Linear                                        (vocab_size,)                   3,483      76,579 in all

    tokens : (N, context) integers below vocab_size, context a power of 2      scores : (N, vocab_size)

    Neighbours stand side by side in memory: with all places of all samples as rows, (N * 8, 24), joining pairs is
    reading the same numbers as (N * 4, 48), and each layer is one product for all places.
    van den Oord et al. 2016, arXiv:1609.03499, figure 3; part 5 of the lectures at the head of this file
    """

    def __init__(
        self,
        vocab_size: int = 27,
        context: int = 8,
        emb: int = 24,
        hidden: int = 128,
        *,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.vocab_size = whole(self, "vocab_size", vocab_size)
        self.context = whole(self, "context", context, 2)
        if context & (context - 1):
            refuse(self, "context to be a power of 2", context)
        self.emb, self.hidden = whole(self, "emb", emb), whole(self, "hidden", hidden)
        rng = np.random.default_rng(rng)
        layers: dict[str, Layer] = {"embedding": Embedding(vocab_size, emb, rng=rng, dtype=dtype)}
        width = emb
        for i in range(1, context.bit_length()):
            linear = Linear(2 * width, hidden, False, rng=rng, dtype=dtype)
            normal(linear.weight, rng, (2 * width) ** -0.5)
            layers |= {
                f"pairs{i}": Reshape(-1, 2 * width),
                f"linear{i}": linear,
                f"norm{i}": UnbiasedBatchNorm(hidden, dtype=dtype),
                f"tanh{i}": Tanh(),
            }
            width = hidden
        last = Linear(hidden, vocab_size, rng=rng, dtype=dtype)
        normal(last.weight, rng, 0.1 * hidden**-0.5)  # close to even scores at the start
        layers["out"] = last
        super().__init__(layers)
