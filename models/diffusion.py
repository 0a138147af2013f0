"""Diffusion: pictures dissolve into noise step by step, and a network learns to take the noise off again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from backhand.layers.arguments import whole as whole_number
from backhand.layers.arguments import within
from backhand.layers.base import Layer
from backhand.layers.parameter import Array


class Noised(NamedTuple):
    """Pictures with noise in them: what a network is trained with; unpacks as `(x, t), noise = noised`.

    inputs : x (N, ...), the noisy pictures, and t (N,), how far each has dissolved, from 0 to steps - 1
    noise : (N, ...), what was added: the target of the MSELoss
    """

    inputs: tuple[Array, Array]
    noise: Array


class DDPM:
    """The schedule of the noise, and what follows from it: adding it in one step, and taking it off in many.

        beta_t from `start` to `end`, evenly        alpha_t = 1 - beta_t        alphabar_t = alpha_1 ... alpha_t
        x_t = sqrt(alphabar_t) x_0 + sqrt(1 - alphabar_t) eps        (eq. 4: any t in one step)
        L = mean of (eps - model(x_t, t))^2,    t drawn evenly        (eq. 14; the MSELoss)
        x_{t-1} = (x_t - beta_t / sqrt(1 - alphabar_t) model(x_t, t)) / sqrt(alpha_t) + sigma_t z    (algorithm 2)
        sigma_t^2 = beta_t (1 - alphabar_{t-1}) / (1 - alphabar_t),    0 at the last step

    steps : how many there are. With fewer than 1000 the betas are scaled by 1000 / steps, else too much of the picture
        would be left at the end; start and end are those of 1000 steps
    betas, alphas, alphabars : (steps,) float64; index 0 is t = 1 of the paper

    The model is any Layer with forward(x, t): a DiffusionUNet. Pictures should be from -1 to 1.
    Ho, Jain & Abbeel 2020, arXiv:2006.11239
    """

    def __init__(self, steps: int = 1000, start: float = 1e-4, end: float = 0.02) -> None:
        self.steps = whole_number(self, "steps", steps)
        scale = 1000 / self.steps
        self.start = within(self, "start", start, 0, 1)
        self.end = within(self, "end", end, start, 1)
        self.betas = np.minimum(scale * np.linspace(start, end, steps), 0.999)
        self.alphas = 1 - self.betas
        self.alphabars = np.cumprod(self.alphas)

    def q_sample(self, x: ArrayLike, t: ArrayLike, noise: ArrayLike) -> Array:
        """x_t for pictures x_0 (N, ...), steps t (N,) counted from 0, and noise in the shape of x."""
        x, noise = np.asarray(x), np.asarray(noise)
        moments = np.asarray(t)
        if moments.shape != x.shape[:1] or moments.dtype.kind not in "iu" or x.shape != noise.shape:
            raise ValueError(
                f"DDPM: expected x and noise of one shape (N, ...) and whole numbers t of shape (N,), got "
                f"{x.shape}, {noise.shape} and {moments.dtype} {moments.shape}"
            )
        if moments.min() < 0 or moments.max() >= self.steps:
            raise ValueError(f"DDPM: expected t from 0 to {self.steps - 1}, got {moments.min()} to {moments.max()}")
        alphabar = self.alphabars[moments].reshape(-1, *(1,) * (x.ndim - 1))
        signal, spread = np.sqrt(alphabar).astype(x.dtype), np.sqrt(1 - alphabar).astype(x.dtype)
        return np.asarray(signal * x + spread * noise.astype(x.dtype, copy=False))

    def noised(self, x: ArrayLike, rng: np.random.Generator | int | None = None) -> Noised:
        """A batch to train with: pictures x (N, ...), each with its own t and its own noise."""
        pictures = np.asarray(x)
        generator = np.random.default_rng(rng)
        t = generator.integers(0, self.steps, len(pictures))
        noise = generator.standard_normal(pictures.shape, np.float32).astype(pictures.dtype, copy=False)
        return Noised((self.q_sample(pictures, t, noise), t), noise)

    def stream(self, x: Array, batch: int, rng: np.random.Generator | int | None = 0) -> NoisedStream:
        """Batches to train with, for `Trainer.fit`: pictures x in a new order in each epoch, with new noise."""
        return NoisedStream(self, x, whole_number(self, "batch", batch), np.random.default_rng(rng))

    def sample(
        self,
        model: Layer,
        shape: tuple[int, ...],
        *,
        few: int | None = None,
        rng: np.random.Generator | int | None = None,
        watch: Callable[[int, Array], object] | None = None,
    ) -> Array:
        """Pictures (N, C, H, W) out of nothing but noise, from -1 to 1; the model is in eval mode meanwhile.

        few : so many steps instead of all, without new noise on the way (DDIM: Song, Meng & Ermon 2020,
            arXiv:2010.02502, eq. 12 with sigma 0); 50 draw nearly as well
        watch : is called with (t, x_t) after each step
        """
        generator = np.random.default_rng(rng)
        x = generator.standard_normal(shape, np.float32)
        times = np.arange(self.steps)
        if few is not None:
            few = whole_number(self, "few", few)
            times = np.unique(np.linspace(0, self.steps - 1, min(few, self.steps)).round().astype(int))
        modes = [(layer, layer.training, layer.caching) for layer in model.modules()]
        model.eval()
        try:
            for i in reversed(range(len(times))):
                t = int(times[i])
                guess = model.forward(x, np.full(len(x), t))
                if few is None:
                    x = self._step(x, guess, t, generator)
                else:
                    x = self._stride(x, guess, t, int(times[i - 1]) if i else -1)
                if watch is not None:
                    watch(t, x)
        finally:
            for layer, training, caching in modes:
                layer.training, layer.caching = training, caching
        return np.clip(x, -1, 1)

    def _step(self, x: Array, guess: Array, t: int, rng: np.random.Generator) -> Array:
        """x_{t-1} from x_t: algorithm 2."""
        beta, alpha, alphabar = self.betas[t], self.alphas[t], self.alphabars[t]
        mean = (x - float(beta / np.sqrt(1 - alphabar)) * guess) * float(alpha**-0.5)
        if t == 0:
            return np.asarray(mean)
        sigma = float(np.sqrt(beta * (1 - self.alphabars[t - 1]) / (1 - alphabar)))
        return np.asarray(mean + sigma * rng.standard_normal(x.shape, np.float32))

    def _stride(self, x: Array, guess: Array, t: int, before: int) -> Array:
        """x at the step `before` from x_t: what the guess says is the picture, with the guessed noise put back."""
        alphabar, wanted = self.alphabars[t], self.alphabars[before] if before >= 0 else 1.0
        picture = (x - float(np.sqrt(1 - alphabar)) * guess) * float(alphabar**-0.5)
        picture = np.clip(picture, -1, 1)
        return np.asarray(float(np.sqrt(wanted)) * picture + float(np.sqrt(1 - wanted)) * guess)

    def __repr__(self) -> str:
        return f"DDPM({self.steps}, start={self.start:g}, end={self.end:g})"


class NoisedStream:
    """Batches of noised pictures, other ones each time it is gone through; `list` keeps some, for validation."""

    def __init__(self, ddpm: DDPM, x: Array, batch: int, rng: np.random.Generator) -> None:
        self.ddpm, self.x, self.batch, self.rng = ddpm, x, batch, rng

    def __len__(self) -> int:
        return -(-len(self.x) // self.batch)

    def __iter__(self) -> Iterator[Noised]:
        order = self.rng.permutation(len(self.x))
        for a in range(0, len(order), self.batch):
            yield self.ddpm.noised(self.x[order[a : a + self.batch]], self.rng)
