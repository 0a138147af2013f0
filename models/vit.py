"""The Vision Transformer: an image is a sentence, and its patches are the words."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from backhand.layers.arguments import refuse, whole, within
from backhand.layers.base import Layer
from backhand.layers.conv import Conv2d
from backhand.layers.dropout import Dropout
from backhand.layers.gated import GELU
from backhand.layers.guard import widened
from backhand.layers.linear import Linear
from backhand.layers.multihead import MultiheadAttention, xavier_uniform
from backhand.layers.normalization import LayerNorm
from backhand.layers.parameter import Array, Parameter, float_dtype
from backhand.models.containers import Sequential
from backhand.models.initialize import normal, zero


class ViTBlock(Layer):
    """Every patch looks at all patches, then passes through a small network; each on a way of its own beside x.

        z = x + dropout(self_attention(ln_1(x)))        y = z + mlp(ln_2(z)),    mlp = Linear, GELU, Linear

    x, y : (N, T, hidden_dim)
    mlp_dim : the width inside the mlp      dropout : after the attention and in the mlp
    attention_dropout : of the attention's weights
    Dosovitskiy et al. 2020, arXiv:2010.11929, eq. 2 and 3
    """

    def __init__(
        self,
        num_heads: int,
        hidden_dim: int,
        mlp_dim: int,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        *,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.num_heads = whole(self, "num_heads", num_heads)
        self.hidden_dim = whole(self, "hidden_dim", hidden_dim)
        self.mlp_dim = whole(self, "mlp_dim", mlp_dim)
        self.dropout = within(self, "dropout", dropout, 0, 1)
        self.attention_dropout = within(self, "attention_dropout", attention_dropout, 0, 1)
        rng = np.random.default_rng(rng)
        self.ln_1 = LayerNorm(hidden_dim, 1e-6, dtype=dtype)
        self.self_attention = MultiheadAttention(
            hidden_dim, num_heads, attention_dropout, batch_first=True, rng=rng, dtype=dtype
        )
        self.drop = Dropout(dropout, rng=rng)
        self.ln_2 = LayerNorm(hidden_dim, 1e-6, dtype=dtype)
        widen = Linear(hidden_dim, mlp_dim, rng=rng, dtype=dtype)
        narrow = Linear(mlp_dim, hidden_dim, rng=rng, dtype=dtype)
        for layer in (widen, narrow):
            layer.weight = xavier_uniform(rng, layer.weight.shape, dtype)
            if layer.bias is not None:
                normal(layer.bias, rng, 1e-6)
        self.mlp = Sequential(widen, GELU(), Dropout(dropout, rng=rng), narrow, Dropout(dropout, rng=rng))

    def forward(self, x: ArrayLike) -> Array:
        x = self.input(x, self.self_attention.out_proj.weight.dtype)
        words = self.ln_1.forward(x)
        z = x + self.drop.forward(self.self_attention.forward(words, words, words))
        y: Array = z + self.mlp.forward(self.ln_2.forward(z))
        self.save(out=y)
        return y

    def backward(self, dout: Any) -> Array:
        dout = self.upstream(dout)
        self.saved()
        dz = dout + self.ln_2.backward(self.mlp.backward(dout))
        dquery, dkey, dvalue = self.self_attention.backward(self.drop.backward(dz))
        # one array was asked, was looked at and was read: the gradients of the three add
        dx: Array = dz + self.ln_1.backward(dquery + dkey + dvalue)
        return dx

    def _adapt_state(self, state: dict[str, Any], prefix: str, version: int | None) -> list[str]:
        for old, new in (("linear_1", "0"), ("linear_2", "3")):  # as torchvision called them up to 0.13
            for kind in ("weight", "bias"):
                if f"{prefix}mlp.{old}.{kind}" in state:
                    state[f"{prefix}mlp.{new}.{kind}"] = state.pop(f"{prefix}mlp.{old}.{kind}")
        return []


class ViTEncoder(Layer):
    """Words get their places, and go through the blocks.

        y = ln(block_n(... block_1(dropout(x + pos_embedding))))

    x, y : (N, seq_length, hidden_dim)      pos_embedding : (1, seq_length, hidden_dim), learned, from N(0, 0.02^2)
    Dosovitskiy et al. 2020, arXiv:2010.11929, eq. 1 to 4
    """

    def __init__(
        self,
        seq_length: int,
        num_layers: int,
        num_heads: int,
        hidden_dim: int,
        mlp_dim: int,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        *,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.seq_length = whole(self, "seq_length", seq_length)
        self.num_layers = whole(self, "num_layers", num_layers)
        self.num_heads, self.hidden_dim, self.mlp_dim = num_heads, whole(self, "hidden_dim", hidden_dim), mlp_dim
        self.dropout, self.attention_dropout = dropout, attention_dropout
        rng = np.random.default_rng(rng)
        self.pos_embedding = Parameter(np.zeros((1, seq_length, hidden_dim), float_dtype(dtype)))
        normal(self.pos_embedding, rng, 0.02)
        self.drop = Dropout(dropout, rng=rng)
        blocks = {
            f"encoder_layer_{i}": ViTBlock(
                num_heads, hidden_dim, mlp_dim, dropout, attention_dropout, rng=rng, dtype=dtype
            )
            for i in range(num_layers)
        }
        self.layers = Sequential(blocks)
        self.ln = LayerNorm(hidden_dim, 1e-6, dtype=dtype)

    def forward(self, x: ArrayLike) -> Array:
        x = self.input(x, self.pos_embedding.dtype)
        if x.ndim != 3 or x.shape[1:] != self.pos_embedding.shape[1:]:
            self.reject(f"x of shape (N, {self.seq_length}, {self.hidden_dim})", x.shape)
        return self.ln.forward(self.layers.forward(self.drop.forward(x + self.pos_embedding.data)))

    def backward(self, dout: Any) -> Array:
        dx: Array = self.drop.backward(self.layers.backward(self.ln.backward(dout)))
        self.pos_embedding.grad += widened(dx).sum(axis=0, keepdims=True)  # one table for all samples
        return dx


class ViT(Layer):
    """An image cut into patches, each a word; one more word, the class token, gathers what they say.

        words = [class_token, conv_proj(x) patch by patch]        y = heads(encoder(words)[first word])

    x : (N, channels, image_size, image_size)      y : (N, num_classes) scores

        name            layer                                            ViT(): output       parameters
        conv_proj       Conv2d, kernel and stride of patch_size          (768, 14, 14)          590,592
        class_token     learned                                          (768,)                     768
        encoder         pos_embedding, 12 blocks, LayerNorm              (197, 768)          85,207,296
        heads.head      Linear                                           (1000,)                769,000

        ViT()                                               torchvision's vit_b_16, 86,567,656 parameters
        ViT(32, 4, 6, 4, 128, 256, num_classes=10)          a small one for images of 32x32

    The names are torchvision's, whose state_dicts load unchanged; so is the start: conv_proj from N(0, 1 / fan_in), the
    class token and the head from 0, the position embedding from N(0, 0.02^2).
    Dosovitskiy et al. 2020, arXiv:2010.11929
    """

    def __init__(
        self,
        image_size: int = 224,
        patch_size: int = 16,
        num_layers: int = 12,
        num_heads: int = 12,
        hidden_dim: int = 768,
        mlp_dim: int = 3072,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        num_classes: int = 1000,
        *,
        channels: int = 3,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.image_size = whole(self, "image_size", image_size)
        self.patch_size = whole(self, "patch_size", patch_size)
        if image_size % patch_size:
            refuse(self, f"image_size to be a multiple of patch_size={patch_size}", image_size)
        self.num_layers, self.num_heads, self.mlp_dim = num_layers, num_heads, mlp_dim
        self.hidden_dim = whole(self, "hidden_dim", hidden_dim)
        self.dropout, self.attention_dropout = dropout, attention_dropout
        self.num_classes = whole(self, "num_classes", num_classes)
        self.channels = whole(self, "channels", channels)
        rng = np.random.default_rng(rng)
        self.class_token = Parameter(np.zeros((1, 1, hidden_dim), float_dtype(dtype)))
        self.conv_proj = Conv2d(channels, hidden_dim, patch_size, patch_size, rng=rng, dtype=dtype)
        normal(self.conv_proj.weight, rng, (channels * patch_size**2) ** -0.5)
        zero(self.conv_proj.bias)
        words = (image_size // patch_size) ** 2 + 1
        self.encoder = ViTEncoder(
            words, num_layers, num_heads, hidden_dim, mlp_dim, dropout, attention_dropout, rng=rng, dtype=dtype
        )
        head = Linear(hidden_dim, num_classes, rng=rng, dtype=dtype)
        zero(head.weight, head.bias)
        self.heads = Sequential({"head": head})

    def forward(self, x: ArrayLike) -> Array:
        x = self.input(x, self.class_token.dtype)
        if x.ndim != 4 or x.shape[1:] != (self.channels, self.image_size, self.image_size):
            self.reject(f"x of shape (N, {self.channels}, {self.image_size}, {self.image_size})", x.shape)
        patches = self.conv_proj.forward(x)
        n, d = patches.shape[:2]
        words = np.concatenate(
            [np.broadcast_to(self.class_token.data, (n, 1, d)), patches.reshape(n, d, -1).swapaxes(1, 2)], axis=1
        )
        seen = self.encoder.forward(words)
        y: Array = self.heads.forward(seen[:, 0])
        self.save(seen.shape, patches.shape, out=y)
        return y

    def backward(self, dout: Any) -> Any:
        dout = self.upstream(dout)
        words, patches = self.saved()
        dseen = np.zeros(words, dout.dtype)
        dseen[:, 0] = self.heads.backward(dout)  # of all words, the class token alone is looked at
        dwords = self.encoder.backward(dseen)
        self.class_token.grad += widened(dwords[:, :1]).sum(axis=0, keepdims=True)
        return self.conv_proj.backward(dwords[:, 1:].swapaxes(1, 2).reshape(patches))

    def input_requires_grad_(self, requires_grad: bool = True) -> ViT:
        super().input_requires_grad_(requires_grad)
        self.conv_proj.input_requires_grad_(requires_grad)
        return self
