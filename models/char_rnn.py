"""Recurrent networks over characters, which learn to write by guessing the next one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from backhand.layers.arguments import flag, one_of, refuse, whole, within
from backhand.layers.base import Layer
from backhand.layers.dropout import Dropout
from backhand.layers.embedding import Embedding
from backhand.layers.linear import Linear
from backhand.layers.parameter import Array
from backhand.layers.recurrent import GRU, LSTM, RNN
from backhand.models.sampling import sampled, undisturbed

CELLS = ("lstm", "gru", "rnn")


class CharRNN(Layer):
    """Characters in, scores of the next character out, at every place.

        x_t = row of an identity matrix, or of an Embedding        y, state = rnn(x, state)        scores = decoder(y)

    tokens : integers below vocab_size, (T, N), with batch_first (N, T), or (T,), the axes as in LSTM
    scores : (T, N, vocab_size), or as tokens
    state : as the LSTM, GRU or RNN takes and gives it; None is zeros, or, if stateful, where the last forward ended
    cell : "lstm", "gru" or "rnn" (tanh)      hidden_size, num_layers : of it
    dropout : between the layers and before the decoder
    embedding_dim : the width of an Embedding; None is one-hot: its rows are never formed in forward
    one_bias : an RNN or LSTM with the bias of its inputs alone; the other (torch has both) adds nothing but a number
    stateful : go on from where the last forward ended, until `reset()`; the gradient ends at the border of the
        batch: "truncated backpropagation through time". In eval mode too, so reset before another text
    return_state : return (scores, state); backward then takes (dscores, dstate)

    backward gives None, for tokens have no gradient, or (None, dstate) when a state was given.

        CharRNN(65)        240,321 parameters: char-rnn's two LSTMs of 128
        CharRNN(65, 100, 1, "rnn", one_bias=True)        23,165: min-char-rnn

    Karpathy 2015, "The Unreasonable Effectiveness of Recurrent Neural Networks"; https://github.com/karpathy/char-rnn
    """

    def __init__(
        self,
        vocab_size: int,
        hidden_size: int = 128,
        num_layers: int = 2,
        cell: str = "lstm",
        dropout: float = 0.0,
        embedding_dim: int | None = None,
        batch_first: bool = False,
        *,
        one_bias: bool = False,
        stateful: bool = False,
        return_state: bool = False,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.vocab_size = whole(self, "vocab_size", vocab_size)
        self.hidden_size, self.num_layers = hidden_size, num_layers
        self.cell = one_of(self, "cell", cell, CELLS)
        self.dropout = within(self, "dropout", dropout, 0, 1)
        self.embedding_dim = None if embedding_dim is None else whole(self, "embedding_dim", embedding_dim)
        self.batch_first = flag(self, "batch_first", batch_first)
        self.one_bias = flag(self, "one_bias", one_bias)
        self.stateful = flag(self, "stateful", stateful)
        self.return_state = flag(self, "return_state", return_state)
        if one_bias and cell == "gru":
            refuse(self, "one_bias with an lstm or rnn, a GRU needs both", cell)
        rng = np.random.default_rng(rng)
        self.embedding = None if embedding_dim is None else Embedding(vocab_size, embedding_dim, rng=rng, dtype=dtype)
        kind: Any = {"lstm": LSTM, "gru": GRU, "rnn": RNN}[cell]
        self.rnn = kind(
            embedding_dim or vocab_size,
            hidden_size,
            num_layers,
            batch_first=batch_first,
            dropout=dropout,
            return_state=True,
            rng=rng,
            dtype=dtype,
        )
        if one_bias:
            for layer in range(num_layers):
                setattr(self.rnn, f"bias_hh_l{layer}", None)
        self.drop = Dropout(dropout, rng=rng)
        self.decoder = Linear(hidden_size, vocab_size, rng=rng, dtype=dtype)
        self.state: Any = None

    def forward(self, tokens: ArrayLike, state: Any = None) -> Any:
        index = self._tokens(tokens)
        before = self._last(index) if state is None and self.stateful else state
        scores, after = self.step(index, before)
        result = (scores, after) if self.return_state else scores
        if self.stateful:
            self.state = after
        self.save(state is not None, before is not None, out=result)
        return result

    def backward(self, dout: Any) -> Any:
        dout = self.upstream(dout)
        given, had_state = self.saved()
        dscores, dstate = dout if self.return_state else (dout, None)
        dy = self.drop.backward(self.decoder.backward(dscores))
        back = self.rnn.backward((dy, dstate))
        dx, dbefore = back if had_state else (back, None)
        if self.embedding is not None:
            self.embedding.backward(dx)
        return (None, dbefore) if given else None

    def reset(self) -> None:
        """Forget where the last forward of a stateful model ended."""
        self.state = None

    def step(self, tokens: ArrayLike, state: Any = None) -> tuple[Array, Any]:
        """Scores of these tokens after those that led to `state`, and the state that they lead to."""
        index = self._tokens(tokens)
        if self.embedding is None:
            y, after = self.rnn.forward(index, state, one_hot=True)
        else:
            y, after = self.rnn.forward(self.embedding.forward(index), state)
        return self.decoder.forward(self.drop.forward(y)), after

    def generate(
        self,
        tokens: ArrayLike,
        new: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        *,
        state: Any = None,
        rng: np.random.Generator | int | None = None,
    ) -> Array:
        """The tokens, and `new` more of them after each sequence, drawn one by one from what the model expects.

        tokens : at least one to begin with, in the axes that forward takes
        temperature : the scores are divided by it; 0 takes the likeliest token      top_k : of so many likeliest ones
        state : what came before the tokens; None is nothing, zeros

        The model is in eval mode meanwhile; the state of a stateful one stays as it is.
        """
        index = self._tokens(tokens)
        count = whole(self, "new", new, least=0)
        generator = np.random.default_rng(rng)
        time = 1 if self.batch_first and index.ndim == 2 else 0
        written = [index]
        with undisturbed(self):
            newest = index
            for _ in range(count):
                scores, state = self.step(newest, state)
                last = np.atleast_2d(scores[:, -1] if time else scores[-1])
                newest = sampled(last, temperature, top_k, generator)
                newest = np.expand_dims(newest, time) if index.ndim == 2 else newest
                written.append(newest)
        return np.concatenate(written, axis=time)

    def _tokens(self, tokens: ArrayLike) -> Array:
        index = self.array(tokens)
        if index.ndim not in (1, 2) or index.dtype.kind not in "iu" or not index.size:
            axes = "(N, T)" if self.batch_first else "(T, N)"
            self.reject(f"integer tokens of shape {axes} or (T,)", f"{index.dtype} of shape {index.shape}")
        low, high = int(index.min()), int(index.max())
        if low < 0 or high >= self.vocab_size:
            self.reject(f"tokens from 0 to {self.vocab_size - 1}", low if low < 0 else high)
        return index

    def _last(self, index: Array) -> Any:
        """Where the last forward ended, if it was of as many sequences."""
        if self.state is None:
            return None
        shape = (self.state[0] if self.cell == "lstm" else self.state).shape[1:-1]
        now = (index.shape[0 if self.batch_first else 1],) if index.ndim == 2 else ()
        if shape != now:
            sizes = [f"{n[0]} sequences" if n else "one without a batch" for n in (shape, now)]
            self.reject(f"{sizes[0]}, as in the forward before", sizes[1], "reset() begins anew")
        return self.state
