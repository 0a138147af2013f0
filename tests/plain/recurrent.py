"""The recurrent layers as their equations stand in the docstrings: one step, one product, one gate at a time."""

import numpy as np


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def rnn(layer, x, h):
    """(T, N, F), (N, H) -> y of one layer in one direction."""
    squash = np.tanh if layer.nonlinearity == "tanh" else lambda a: np.maximum(a, 0)
    outputs = []
    for x_t in x:
        a_x, a_h = products(layer, x_t, h)
        h = squash(a_x + a_h)
        outputs.append(h)
    return np.stack(outputs)


def lstm(layer, x, h, c):
    """Likewise; with weight_hr, if there is one."""
    outputs = []
    for x_t in x:
        i, f, g, o = np.split(sum(products(layer, x_t, h)), 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        if layer.proj_size:
            h = h @ layer.weight_hr_l0.data.T
        outputs.append(h)
    return np.stack(outputs)


def gru(layer, x, h):
    """Likewise."""
    outputs = []
    for x_t in x:
        (r_x, z_x, n_x), (r_h, z_h, n_h) = (np.split(a, 3, axis=-1) for a in products(layer, x_t, h))
        r, z = sigmoid(r_x + r_h), sigmoid(z_x + z_h)
        n = np.tanh(n_x + r * n_h)
        h = (1 - z) * n + z * h
        outputs.append(h)
    return np.stack(outputs)


def products(layer, x, h):
    """(x W_ih^T + b_ih, h W_hh^T + b_hh)."""
    a_x, a_h = x @ layer.weight_ih_l0.data.T, h @ layer.weight_hh_l0.data.T
    if layer.bias:
        a_x, a_h = a_x + layer.bias_ih_l0.data, a_h + layer.bias_hh_l0.data
    return a_x, a_h
