"""The networks of which there is a JAX version: functions of the weights (a state_dict) and the batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Weights = dict[str, Any]


def mlp(w: Weights, x: Any) -> Any:
    """The twin of networks.mlp."""
    x = x.reshape(len(x), -1)
    last = len(w) // 2
    for i in range(1, last + 1):
        x = x @ w[f"fc{i}.weight"].T + w[f"fc{i}.bias"]
        if i < last:
            x = jax.nn.relu(x)
    return x


def char_lstm(w: Weights, x: Any) -> Any:
    """The twin of networks.char_lstm: the inputs' products of all steps at once, then a scan over time."""
    layer = 0
    while f"lstm.weight_ih_l{layer}" in w:
        ih, hh = w[f"lstm.weight_ih_l{layer}"], w[f"lstm.weight_hh_l{layer}"]
        inputs = x @ ih.T + w[f"lstm.bias_ih_l{layer}"] + w[f"lstm.bias_hh_l{layer}"]

        def step(state: Any, a: Any, hh: Any = hh) -> Any:
            h, c = state
            i, f, g, o = jnp.split(a + h @ hh.T, 4, axis=-1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        zeros = jnp.zeros((x.shape[1], hh.shape[1]))
        _, x = jax.lax.scan(step, (zeros, zeros), inputs)
        layer += 1
    return (x @ w["head.weight"].T + w["head.bias"]).reshape(-1, len(w["head.bias"]))


def gpt(w: Weights, tokens: Any, heads: int = 4) -> Any:
    """The twin of networks.gpt."""

    def norm(x: Any, weight: Any) -> Any:
        x = x - x.mean(-1, keepdims=True)
        return x / jnp.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * weight

    n, t = tokens.shape
    x = w["wte.weight"][tokens] + w["wpe.weight"][:t]
    width = x.shape[-1]
    seen = jnp.tril(jnp.ones((t, t), bool))
    block = 0
    while f"h{block}.attn.body.c_attn.weight" in w:
        attn, mlp = f"h{block}.attn.body", f"h{block}.mlp.body"
        qkv = norm(x, w[f"{attn}.ln.weight"]) @ w[f"{attn}.c_attn.weight"].T
        q, k, v = qkv.reshape(n, t, 3, heads, -1).transpose(2, 0, 3, 1, 4)
        scores = q @ k.swapaxes(-1, -2) / jnp.sqrt(width / heads)
        y = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf)) @ v
        x = x + y.transpose(0, 2, 1, 3).reshape(n, t, width) @ w[f"{attn}.c_proj.weight"].T
        hidden = norm(x, w[f"{mlp}.ln.weight"]) @ w[f"{mlp}.c_fc.weight"].T
        x = x + jax.nn.gelu(hidden, approximate=False) @ w[f"{mlp}.c_proj.weight"].T
        block += 1
    return (norm(x, w["ln_f.weight"]) @ w["wte.weight"].T).reshape(n * t, -1)


def cross_entropy(scores: Any, target: Any) -> Any:
    """The mean of -log p of the labels."""
    return -jnp.take_along_axis(jax.nn.log_softmax(scores), target[:, None], 1).mean()


def optimizer(name: str, options: dict[str, Any]) -> Callable[[Any, Any, Weights, Weights], tuple[Any, Any, Weights]]:
    """(step number, memory, weights, gradients) -> the same after the update, by the equations of torch.optim."""
    lr = options["lr"]
    decay = options.get("weight_decay", 0)

    def adam(w: Any, g: Any, m: Any, v: Any, t: Any) -> Any:
        b1, b2 = options.get("betas", (0.9, 0.999))
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        return w * (1 - lr * decay) - lr * m / (1 - b1**t) / (jnp.sqrt(v / (1 - b2**t)) + 1e-8), m, v

    def rmsprop(w: Any, g: Any, m: Any, v: Any, t: Any) -> Any:
        v = options["alpha"] * v + (1 - options["alpha"]) * g * g
        return w - lr * g / (jnp.sqrt(v) + 1e-8), m, v

    rule: Callable[..., Any] = {"Adam": adam, "AdamW": adam, "RMSprop": rmsprop}[name]

    def update(t: Any, memory: Any, w: Weights, g: Weights) -> tuple[Any, Any, Weights]:
        new = {key: rule(w[key], g[key], *memory[key], t + 1.0) for key in w}
        return t + 1.0, {key: (m, v) for key, (_, m, v) in new.items()}, {key: x for key, (x, _, _) in new.items()}

    return update
