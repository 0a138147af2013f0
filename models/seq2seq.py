"""The Transformer as it was published: one sequence of tokens in, another one out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from backhand.layers.arguments import whole, within
from backhand.layers.base import Layer
from backhand.layers.dropout import Dropout
from backhand.layers.embedding import Embedding
from backhand.layers.encoder_decoder import Transformer
from backhand.layers.linear import Linear
from backhand.layers.parameter import Array
from backhand.layers.positional import SinusoidalPositionalEncoding
from backhand.models.initialize import normal
from backhand.models.sampling import sampled, undisturbed


class Seq2SeqTransformer(Layer):
    """Scores of each next token of an answer, from the question and the answer before it.

        x = dropout(sqrt(d_model) src_embed[src] + positions)        z = the same of tgt, with tgt_embed
        scores = generator(transformer(x, z)),    with a mask that hides what comes after each token of tgt

    src : (N, S) integers below src_vocab      tgt : (N, T) integers below tgt_vocab: the answer without its last token
    scores : (N, T, tgt_vocab); the target is the answer without its first token
    padding_idx : the token that fills src and tgt up behind their ends: nothing looks at it (None: there is none)
    nhead, num_encoder_layers, num_decoder_layers, dim_feedforward, dropout, norm_first : as in layers.Transformer

    backward returns (None, None): tokens have no gradient. The vectors of the tokens start from N(0, 1 / d_model), so
    that they enter with the size of the positions; the rest as in layers.Transformer and Linear.
    Vaswani et al. 2017, arXiv:1706.03762
    """

    def __init__(
        self,
        src_vocab: int,
        tgt_vocab: int,
        d_model: int = 64,
        nhead: int = 4,
        num_encoder_layers: int = 2,
        num_decoder_layers: int = 2,
        dim_feedforward: int = 256,
        dropout: float = 0.1,
        norm_first: bool = False,
        padding_idx: int | None = None,
        *,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.src_vocab = whole(self, "src_vocab", src_vocab)
        self.tgt_vocab = whole(self, "tgt_vocab", tgt_vocab)
        self.d_model = whole(self, "d_model", d_model)
        self.nhead, self.dim_feedforward, self.norm_first = nhead, dim_feedforward, norm_first
        self.num_encoder_layers, self.num_decoder_layers = num_encoder_layers, num_decoder_layers
        self.dropout = within(self, "dropout", dropout, 0, 1)
        self.padding_idx = padding_idx
        rng = np.random.default_rng(rng)
        self.src_embed = Embedding(src_vocab, d_model, padding_idx, rng=rng, dtype=dtype)
        self.tgt_embed = Embedding(tgt_vocab, d_model, padding_idx, rng=rng, dtype=dtype)
        self.positions = SinusoidalPositionalEncoding(d_model)
        self.drop = Dropout(dropout, rng=rng)
        self.transformer = Transformer(
            d_model,
            nhead,
            num_encoder_layers,
            num_decoder_layers,
            dim_feedforward,
            dropout,
            batch_first=True,
            norm_first=norm_first,
            rng=rng,
            dtype=dtype,
        )
        self.generator = Linear(d_model, tgt_vocab, rng=rng, dtype=dtype)
        for table in (self.src_embed, self.tgt_embed):
            normal(table.weight, rng, d_model**-0.5)
            if padding_idx is not None:
                table.weight.data[padding_idx] = 0

    def forward(self, src: ArrayLike, tgt: ArrayLike) -> Array:
        src, tgt = self._tokens("src", src), self._tokens("tgt", tgt)
        if len(src) != len(tgt):
            self.reject("as many answers as questions", f"{len(tgt)} and {len(src)}")
        hidden, padded = self._hidden(tgt), self._padding(src)
        y = self.transformer.forward(
            self._embedded(self.src_embed, src),
            self._embedded(self.tgt_embed, tgt),
            tgt_mask=hidden,
            src_key_padding_mask=padded,
            tgt_key_padding_mask=self._padding(tgt),
            memory_key_padding_mask=padded,
        )
        return self.generator.forward(y)

    def backward(self, dout: Any) -> tuple[None, None]:
        dsrc, dtgt = self.transformer.backward(self.generator.backward(dout))
        self._embedded_back(self.tgt_embed, dtgt)
        self._embedded_back(self.src_embed, dsrc)
        return None, None

    def generate(
        self,
        src: ArrayLike,
        start: int,
        end: int,
        new: int = 50,
        temperature: float = 0.0,
        top_k: int | None = None,
        *,
        rng: np.random.Generator | int | None = None,
    ) -> Array:
        """Answers (N, up to `new`), token by token from `start` on, in eval mode; temperature 0 takes the likeliest.

        What stands behind the first `end` of an answer is `end` too. The questions are encoded once.
        """
        src, count = self._tokens("src", src), whole(self, "new", new)
        generator = np.random.default_rng(rng)
        padded = self._padding(src)
        tgt = np.full((len(src), 1), whole(self, "start", start, 0))
        over = np.zeros(len(src), np.bool_)
        with undisturbed(self):
            x = self._embedded(self.src_embed, src)
            memory = self.transformer.encoder.forward(x, src_key_padding_mask=padded)
            for _ in range(count):
                z, hidden = self._embedded(self.tgt_embed, tgt), self._hidden(tgt)
                y = self.transformer.decoder.forward(z, memory, tgt_mask=hidden, memory_key_padding_mask=padded)
                token = sampled(self.generator.forward(y[:, -1]), temperature, top_k, generator)
                token[over] = end
                over |= token == end
                tgt = np.concatenate([tgt, token[:, None]], axis=1)
                if over.all():
                    break
        return tgt[:, 1:]

    # ------------------------------------------------------------------ tokens and masks

    def _embedded(self, table: Embedding, tokens: Array) -> Array:
        vectors = table.forward(tokens)
        vectors *= vectors.dtype.type(self.d_model**0.5)
        return self.drop.forward(self.positions.forward(vectors))

    def _embedded_back(self, table: Embedding, dx: Array) -> None:
        dx = self.positions.backward(self.drop.backward(dx))
        table.backward(dx * dx.dtype.type(self.d_model**0.5))

    def _hidden(self, tgt: Array) -> Array:
        """True where a token of tgt (the row) may not look: after itself."""
        return np.triu(np.ones((tgt.shape[1],) * 2, np.bool_), 1)

    def _padding(self, tokens: Array) -> Array | None:
        return None if self.padding_idx is None else tokens == self.padding_idx

    def _tokens(self, name: str, tokens: ArrayLike) -> Array:
        index = self.array(tokens)
        if index.ndim != 2 or index.dtype.kind not in "iu" or not index.size:
            self.reject(f"{name} as integer tokens (N, {name[0].upper()})", f"{index.dtype} of shape {index.shape}")
        return index
