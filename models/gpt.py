"""GPT: a Transformer that guesses the next token, and writes by guessing again and again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from backhand.layers.arguments import flag, refuse, whole, within
from backhand.layers.attention import ScaledDotProductAttention, masked_softmax
from backhand.layers.base import Layer
from backhand.layers.dropout import Dropout
from backhand.layers.embedding import Embedding
from backhand.layers.gated import GELU
from backhand.layers.guard import widened
from backhand.layers.linear import Linear
from backhand.layers.normalization import LayerNorm
from backhand.layers.parameter import Array
from backhand.models.containers import Sequential
from backhand.models.initialize import normal, zero
from backhand.models.sampling import sampled, undisturbed

Cache = list[tuple[Array, Array]]  # of each block, the keys and values so far, (N, heads, T, head_dim)

# How many times as long as its second axis the first axis of a weight is, (out, in).
TIMES = {"c_attn": 3.0, "c_fc": 4.0, "c_proj": 0.25}


def _upright(state: dict[str, Any], prefix: str, surely: bool = True) -> list[str]:
    """Transpose the weights under `prefix` if they are stored as GPT-2's, in whose Conv1D they are (in, out).

    That is decided for all of them at once: the c_proj of the attention is square, and its shape says nothing.
    surely : without any sign they are upright; else that is an error
    Returns what is wrong, in words.
    """
    found: dict[bool, list[str]] = {True: [], False: []}  # by whether it is transposed
    weights = []
    for name, value in state.items():
        match = re.fullmatch(rf"{re.escape(prefix)}(?:.*\.)?(c_attn|c_fc|c_proj)\.weight", name)
        if match and len(getattr(value, "shape", ())) == 2:
            weights.append(name)
            for transposed, (rows, columns) in ((False, value.shape), (True, value.shape[::-1])):
                if rows == TIMES[match[1]] * columns:
                    found[transposed].append(name)
    if found[True] and found[False]:
        return [f"{found[True][0]} is stored as (in, out), as GPT-2's is, and {found[False][0]} as (out, in)"]
    if weights and not surely and not found[True] and not found[False]:
        return [f"no shape tells whether {weights[0]} is stored as (in, out), as GPT-2's is, or as (out, in)"]
    if found[True]:
        for name in weights:
            state[name] = state[name].T
    return []


class CausalSelfAttention(Layer):
    """Every token looks at those before it, and at itself, in several heads.

        [q, k, v] = c_attn(x), cut into heads        y = c_proj(softmax(q k^T / sqrt(d), causal) v)

    x, y : (N, T, n_embd)
    c_attn : Linear to 3 n_embd, query, key and value side by side      c_proj : Linear
    dropout : of attention weights, and of y
    Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"
    """

    def __init__(
        self,
        n_embd: int,
        n_head: int,
        dropout: float = 0.0,
        bias: bool = True,
        *,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.n_embd = whole(self, "n_embd", n_embd)
        self.n_head = whole(self, "n_head", n_head)
        if n_embd % n_head:
            refuse(self, f"n_embd to be a multiple of n_head={n_head}", n_embd)
        self.dropout = within(self, "dropout", dropout, 0, 1)
        self.bias = flag(self, "bias", bias)
        rng = np.random.default_rng(rng)
        self.c_attn = Linear(n_embd, 3 * n_embd, bias, rng=rng, dtype=dtype)
        self.c_proj = Linear(n_embd, n_embd, bias, rng=rng, dtype=dtype)
        self.attention = ScaledDotProductAttention(dropout, is_causal=True, rng=rng)
        self.resid_dropout = Dropout(dropout, rng=rng)

    def forward(self, x: ArrayLike) -> Array:
        x = self.input(x, self.c_attn.weight.dtype)
        if x.ndim != 3 or x.shape[2] != self.n_embd:
            self.reject(f"x of shape (N, T, {self.n_embd})", x.shape)
        q, k, v = self._heads(self.c_attn.forward(x))
        y = self.c_proj.forward(self._joined(self.attention.forward(q, k, v)))
        y = self.resid_dropout.forward(y)
        self.save(out=y)
        return y

    def backward(self, dout: Any) -> Array:
        dout = self.upstream(dout)
        self.saved()
        dy = self.c_proj.backward(self.resid_dropout.backward(dout))
        n, t, _ = dy.shape
        dheads = dy.reshape(n, t, self.n_head, -1).swapaxes(1, 2)
        dqkv = np.empty((n, t, 3, self.n_head, dheads.shape[-1]), dy.dtype)
        for i, d in enumerate(self.attention.backward(dheads)):
            dqkv[:, :, i] = d.swapaxes(1, 2)
        dx: Array = self.c_attn.backward(dqkv.reshape(n, t, -1))
        return dx

    def step(self, x: Array, before: tuple[Array, Array] | None) -> tuple[Array, tuple[Array, Array]]:
        """y of the newest tokens x (N, T, n_embd), where keys and values of those before are known; and all of them."""
        q, k, v = (widened(each) for each in self._heads(self.c_attn.forward(x)))
        if before is not None:
            k, v = (np.concatenate(pair, axis=2) for pair in zip(before, (k, v), strict=True))
        scores = (q * q.dtype.type(q.shape[-1] ** -0.5)) @ k.swapaxes(-1, -2)
        new, known = scores.shape[-2:]
        scores[..., np.triu(np.ones((new, known), bool), known - new + 1)] = -np.inf
        return self.c_proj.forward(self._joined(masked_softmax(scores) @ v)), (k, v)

    def _adapt_state(self, state: dict[str, Any], prefix: str, version: int | None) -> list[str]:
        for mask in ("bias", "masked_bias"):  # constants that GPT-2 and older nanoGPTs store beside the weights
            state.pop(prefix + mask, None)
        return _upright(state, prefix)

    def _heads(self, qkv: Array) -> tuple[Array, ...]:
        n, t, _ = qkv.shape
        return tuple(qkv.reshape(n, t, 3, self.n_head, -1).transpose(2, 0, 3, 1, 4))

    def _joined(self, y: Array) -> Array:
        n, _, t, _ = y.shape
        return y.swapaxes(1, 2).reshape(n, t, self.n_embd)


class GPTBlock(Layer):
    """Attention, then a small network on each token, each on a way of its own beside x.

        z = x + attn(ln_1(x))        y = z + mlp(ln_2(z)),    mlp = c_proj(GELU(c_fc(.))), 4 times as wide inside

    x, y : (N, T, n_embd)
    approximate : the GELU's: "none" as in nanoGPT, "tanh" as in GPT-2
    Radford et al. 2019, section 2.3: the normalisation comes first ("pre-norm")
    """

    def __init__(
        self,
        n_embd: int,
        n_head: int,
        dropout: float = 0.0,
        bias: bool = True,
        approximate: str = "none",
        *,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.n_embd, self.n_head, self.dropout, self.bias, self.approximate = n_embd, n_head, dropout, bias, approximate
        rng = np.random.default_rng(rng)
        self.ln_1 = LayerNorm(n_embd, bias=bias, dtype=dtype)
        self.attn = CausalSelfAttention(n_embd, n_head, dropout, bias, rng=rng, dtype=dtype)
        self.ln_2 = LayerNorm(n_embd, bias=bias, dtype=dtype)
        self.mlp = Sequential(
            {
                "c_fc": Linear(n_embd, 4 * n_embd, bias, rng=rng, dtype=dtype),
                "gelu": GELU(approximate),
                "c_proj": Linear(4 * n_embd, n_embd, bias, rng=rng, dtype=dtype),
                "dropout": Dropout(dropout, rng=rng),
            }
        )

    def forward(self, x: ArrayLike) -> Array:
        x = self.input(x, self.ln_1.weight.dtype)  # type: ignore[union-attr]
        z = x + self.attn.forward(self.ln_1.forward(x))
        y: Array = z + self.mlp.forward(self.ln_2.forward(z))
        self.save(out=y)
        return y

    def backward(self, dout: Any) -> Array:
        dout = self.upstream(dout)
        self.saved()
        dz = self.ln_2.backward(self.mlp.backward(dout))
        dz += dout
        dx = self.ln_1.backward(self.attn.backward(dz))
        dx += dz
        return dx

    def step(self, x: Array, before: tuple[Array, Array] | None) -> tuple[Array, tuple[Array, Array]]:
        """The same for the newest tokens alone; see CausalSelfAttention.step."""
        y, known = self.attn.step(self.ln_1.forward(x), before)
        z = x + y
        return z + self.mlp.forward(self.ln_2.forward(z)), known

    def _adapt_state(self, state: dict[str, Any], prefix: str, version: int | None) -> list[str]:
        return _upright(state, prefix)


class GPT(Layer):
    """Tokens in, scores of the next token out, at every place.

        x = wte[tokens] + wpe[0 .. T-1]        x = block_i(x), i = 1 .. n_layer        scores = ln_f(x) lm_head^T

    tokens : (N, T) integers below vocab_size, T <= block_size      scores : (N, T, vocab_size)
    n_layer, n_head, n_embd : blocks, heads, width      dropout : after the embedding and in the blocks
    bias : in the Linear layers and LayerNorms      approximate : of the GELU, "none" or "tanh"

    lm_head and wte are one matrix, whose gradient is the sum of both uses. The names are nanoGPT's
    (transformer.wte.weight, transformer.h.0.attn.c_attn.weight, ..., lm_head.weight). `load_state_dict` also reads
    GPT-2 as Hugging Face stores it, with the weights of attn and mlp transposed, and recognises it by their shapes.
    Weights start from N(0, 0.02^2), those that end a way around from N(0, 0.02^2 / (2 n_layer)), biases from 0.

        GPT(65, 64, 4, 4, 128, bias=False)        nanoGPT's configuration for a CPU, 804,096 parameters
        GPT(50257, 1024, 12, 12, 768, approximate="tanh")        GPT-2, 124,439,808 parameters

    Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"; https://github.com/karpathy/nanoGPT
    """

    def __init__(
        self,
        vocab_size: int,
        block_size: int = 64,
        n_layer: int = 4,
        n_head: int = 4,
        n_embd: int = 128,
        dropout: float = 0.0,
        bias: bool = True,
        approximate: str = "none",
        *,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.vocab_size = whole(self, "vocab_size", vocab_size)
        self.block_size = whole(self, "block_size", block_size)
        self.n_layer = whole(self, "n_layer", n_layer)
        self.n_head, self.n_embd, self.dropout = n_head, n_embd, dropout
        self.bias, self.approximate = bias, approximate
        rng = np.random.default_rng(rng)
        self.wte = Embedding(vocab_size, n_embd, rng=rng, dtype=dtype)
        self.wpe = Embedding(block_size, n_embd, rng=rng, dtype=dtype)
        self.drop = Dropout(dropout, rng=rng)
        self.h = tuple(
            GPTBlock(n_embd, n_head, dropout, bias, approximate, rng=rng, dtype=dtype) for _ in range(n_layer)
        )
        self.ln_f = LayerNorm(n_embd, bias=bias, dtype=dtype)
        self.lm_head = Linear(n_embd, vocab_size, False, rng=rng, dtype=dtype)
        self.lm_head.weight = self.wte.weight
        for name, parameter in self.named_parameters():
            if name.endswith("c_proj.weight"):
                normal(parameter, rng, 0.02 / float(np.sqrt(2 * n_layer)))
            elif parameter.data.ndim == 2:
                normal(parameter, rng, 0.02)
            elif name.endswith("bias"):
                zero(parameter)

    def named_children(self) -> Any:
        """nanoGPT's names: all but the head stand in `transformer`."""
        for name in ("wte", "wpe", "drop"):
            yield f"transformer.{name}", getattr(self, name)
        yield from ((f"transformer.h.{i}", block) for i, block in enumerate(self.h))
        yield "transformer.ln_f", self.ln_f
        yield "lm_head", self.lm_head

    def forward(self, tokens: ArrayLike) -> Array:
        index = self._tokens(tokens)
        x = self.wte.forward(index)
        x += self.wpe.forward(np.arange(index.shape[1]))
        x = self.drop.forward(x)
        for block in self.h:
            x = block.forward(x)
        return self.lm_head.forward(self.ln_f.forward(x))

    def backward(self, dout: Any) -> None:
        dx = self.ln_f.backward(self.lm_head.backward(dout))
        for block in reversed(self.h):
            dx = block.backward(dx)
        dx = self.drop.backward(dx)
        self.wpe.backward(widened(dx).sum(axis=0))  # one position for all samples: the copies' gradients add
        self.wte.backward(dx)

    # ------------------------------------------------------------------ writing

    def generate(
        self,
        tokens: ArrayLike,
        new: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        *,
        rng: np.random.Generator | int | None = None,
    ) -> Array:
        """The tokens (N, T), and `new` more of them after each, drawn one by one from what the model expects.

        temperature : the scores are divided by it; 0 takes the likeliest token      top_k : of so many likeliest ones

        Keys and values of the tokens so far are kept, so that a new token costs one step; only beyond block_size, where
        every position changes, all is computed again. The model is in eval mode meanwhile.
        """
        known = self._tokens(tokens)
        count = whole(self, "new", new, least=0)
        generator = np.random.default_rng(rng)
        with undisturbed(self):
            cache: Cache | None = None
            for _ in range(count):
                if known.shape[1] > self.block_size:
                    known_now, cache = known[:, -self.block_size :], None
                else:
                    known_now = known if cache is None else known[:, -1:]
                scores, cache = self.step(known_now, cache)
                drawn = sampled(scores[:, -1], temperature, top_k, generator)
                known = np.concatenate([known, drawn[:, None]], axis=1)
        return known

    def step(self, tokens: ArrayLike, cache: Cache | None = None) -> tuple[Array, Cache]:
        """Scores of the newest tokens (N, T), where a cache holds what is known of those before; and the new cache."""
        index = self.wte.indices(tokens)
        start = 0 if cache is None else cache[0][0].shape[2]
        x = self.wte.forward(index)
        x += self.wpe.forward(np.arange(start, start + index.shape[1]))
        grown: Cache = []
        for i, block in enumerate(self.h):
            x, known = block.step(x, None if cache is None else cache[i])
            grown.append(known)
        return self.lm_head.forward(self.ln_f.forward(x)), grown

    def load_gpt2(self, state: Mapping[str, ArrayLike]) -> None:
        """Load the weights of GPT-2 as its release has them: `load_state_dict`, which knows that layout too."""
        self.load_state_dict(state)

    def _adapt_state(self, state: dict[str, Any], prefix: str, version: int | None) -> list[str]:
        """GPT-2's release: `h.0.attn.c_attn.weight`, with or without `transformer.` before it, and transposed."""
        bare = [
            name for name in state if name.startswith(tuple(prefix + part for part in ("wte.", "wpe.", "h.", "ln_f.")))
        ]
        if any(name.startswith(f"{prefix}transformer.") for name in state):
            bare = []
        for name in bare:
            state[f"{prefix}transformer.{name.removeprefix(prefix)}"] = state.pop(name)
        return _upright(state, prefix, surely=not bare)

    def _tokens(self, tokens: ArrayLike) -> Array:
        index = self.array(tokens)
        if index.ndim != 2 or index.dtype.kind not in "iu":
            self.reject("integer tokens of shape (N, T)", f"{index.dtype} of shape {index.shape}")
        if self.caching and index.shape[1] > self.block_size:
            self.reject(f"at most block_size={self.block_size} tokens", index.shape[1])
        return index
