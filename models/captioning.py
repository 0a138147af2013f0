"""A sentence about a picture: features of an image begin a recurrent network that then writes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from backhand.layers.arguments import one_of, whole
from backhand.layers.attention import ScaledDotProductAttention
from backhand.layers.base import Layer
from backhand.layers.cells import LSTMCell
from backhand.layers.embedding import Embedding
from backhand.layers.linear import Linear
from backhand.layers.parameter import Array
from backhand.layers.recurrent import LSTM, RNN
from backhand.models.initialize import normal, zero
from backhand.models.sampling import sampled, undisturbed

CELLS = ("rnn", "lstm", "attention")


class CaptionRNN(Layer):
    """Scores of each next word of a caption, from the image and the words before it.

        h_0 = proj(features)        x_t = embed[words_t]        h_t = rnn(x_t, h_{t-1})        scores_t = vocab(h_t)

    cell : "rnn" (tanh); "lstm", whose c_0 is 0; or "attention", an LSTM that looks at a part of the image at each step:

        a = proj(features), one vector for each part        h_0 = c_0 = the mean of a over the parts
        seen_t = softmax(h_{t-1} a^T / sqrt(hidden_size)) a        h_t, c_t = lstm([x_t, seen_t], (h_{t-1}, c_{t-1}))

    features : (N, input_size), or for "attention" (N, L, input_size), those of L parts
    words : (N, T) integers below vocab_size: the caption without its last word; the target is it without its first
    scores : (N, T, vocab_size), for SequenceCrossEntropyLoss(ignore_index=what pads, reduction="batchmean")
    attention_map : after a forward (or generate) of "attention", (N, T, L), where each step looked, for drawing

    backward returns (dfeatures, None), so the network that made the features can learn too.
    Weights start from N(0, 1 / fan_in), the words' vectors from N(0, 0.01^2), biases from 0.
    Vinyals et al. 2015, arXiv:1411.4555; Xu et al. 2015, arXiv:1502.03044; built as in Stanford's CS231n, assignment 3
    """

    def __init__(
        self,
        vocab_size: int,
        input_size: int = 512,
        wordvec_size: int = 128,
        hidden_size: int = 128,
        cell: str = "rnn",
        *,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.vocab_size = whole(self, "vocab_size", vocab_size)
        self.input_size = whole(self, "input_size", input_size)
        self.wordvec_size = whole(self, "wordvec_size", wordvec_size)
        self.hidden_size = whole(self, "hidden_size", hidden_size)
        self.cell = one_of(self, "cell", cell, CELLS)
        rng = np.random.default_rng(rng)
        self.proj = Linear(input_size, hidden_size, rng=rng, dtype=dtype)
        self.embed = Embedding(vocab_size, wordvec_size, rng=rng, dtype=dtype)
        self.rnn: Any
        if cell == "attention":
            self.rnn = LSTMCell(wordvec_size + hidden_size, hidden_size, rng=rng, dtype=dtype)
            self.attention = ScaledDotProductAttention()
        else:
            kind: Any = LSTM if cell == "lstm" else RNN
            self.rnn = kind(wordvec_size, hidden_size, batch_first=True, return_state=True, rng=rng, dtype=dtype)
        self.vocab = Linear(hidden_size, vocab_size, rng=rng, dtype=dtype)
        for name, parameter in self.named_parameters():
            if parameter.data.ndim == 1:
                zero(parameter)
            else:
                normal(parameter, rng, 0.01 if name.startswith("embed") else parameter.shape[1] ** -0.5)
        self.attention_map: Array | None = None

    def forward(self, features: ArrayLike, words: ArrayLike) -> Array:
        features, words = self._features(features), self._words(words)
        if len(features) != len(words):
            self.reject("as many captions as images", f"{len(words)} and {len(features)}")
        a = self.proj.forward(features)
        y, _ = self._run(self.embed.forward(words), a, self._start(a))
        scores = self.vocab.forward(y)
        self.save(a.shape, out=scores)
        return scores

    def backward(self, dout: Any) -> tuple[Array, None]:
        dout = self.upstream(dout)
        (shape,) = self.saved()
        dy = self.vocab.backward(dout)
        if self.cell == "attention":
            dx, da = self._attend_back(dy, shape)
        else:
            dx, dstate = self.rnn.backward((dy, None))
            da = (dstate[0] if self.cell == "lstm" else dstate)[0]
        self.embed.backward(dx)
        return self.proj.backward(da), None

    def generate(
        self,
        features: ArrayLike,
        start: int,
        new: int = 30,
        temperature: float = 0.0,
        top_k: int | None = None,
        *,
        rng: np.random.Generator | int | None = None,
    ) -> Array:
        """Captions (N, new), word by word from the word `start` on, in eval mode; temperature 0 takes the likeliest."""
        features, count = self._features(features), whole(self, "new", new)
        generator = np.random.default_rng(rng)
        with undisturbed(self):
            a = self.proj.forward(features)
            state, word = self._start(a), self._words(np.full((len(a), 1), start))
            written: list[Array] = []
            maps: list[Any] = []
            for _ in range(count):
                y, state = self._run(self.embed.forward(word), a, state)
                word = sampled(self.vocab.forward(y)[:, 0], temperature, top_k, generator)[:, None]
                written.append(word)
                maps.append(self.attention_map)
        if self.cell == "attention":
            self.attention_map = np.concatenate(maps, axis=1)
        return np.concatenate(written, axis=1)

    # ------------------------------------------------------------------ over time

    def _start(self, a: Array) -> Any:
        """The state before the first word, from the projected features."""
        if self.cell == "attention":
            mean = a.mean(axis=1)
            return mean, mean
        return (a[None], np.zeros_like(a[None])) if self.cell == "lstm" else a[None]

    def _run(self, x: Array, a: Array, state: Any) -> tuple[Array, Any]:
        """h after each word, (N, T, hidden_size), and the state after the last."""
        if self.cell != "attention":
            y, state = self.rnn.forward(x, state)
            return y, state
        outputs: list[Array] = []
        maps: list[Any] = []
        for x_t in x.swapaxes(0, 1):
            seen = self.attention.forward(state[0][:, None], a, a)
            maps.append(self.attention.attention_map)
            state = self.rnn.forward(np.concatenate([x_t, seen[:, 0]], axis=1), state)
            outputs.append(state[0])
        self.attention_map = np.concatenate(maps, axis=1)
        return np.stack(outputs, axis=1), state

    def _attend_back(self, dy: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """The steps of the attention cell in reverse; every one of them looked at the same a."""
        da = np.zeros(shape, dy.dtype)
        dh = dc = np.zeros_like(dy[:, 0])
        dxs = []
        for dy_t in dy.swapaxes(0, 1)[::-1]:
            dinput, (dh, dc) = self.rnn.backward((dh + dy_t, dc))
            dxs.append(dinput[:, : self.wordvec_size])
            dquery, dkey, dvalue = self.attention.backward(dinput[:, None, self.wordvec_size :])
            da += dkey
            da += dvalue
            dh = dh + dquery[:, 0]
        da += ((dh + dc) / shape[1])[:, None]  # h_0 and c_0 are the mean
        return np.stack(dxs[::-1], axis=1), da

    # ------------------------------------------------------------------ what comes in

    def _features(self, features: ArrayLike) -> Array:
        x = self.input(features, self.proj.weight.dtype)
        axes = 3 if self.cell == "attention" else 2
        if x.ndim != axes or x.shape[-1] != self.input_size:
            wanted = f"(N, L, {self.input_size})" if axes == 3 else f"(N, {self.input_size})"
            self.reject(f"features of shape {wanted}", x.shape)
        return x

    def _words(self, words: ArrayLike) -> Array:
        index = self.array(words)
        if index.ndim != 2 or index.dtype.kind not in "iu" or not index.size:
            self.reject("integer words of shape (N, T)", f"{index.dtype} of shape {index.shape}")
        return index
