"""The pieces of a Transformer as their equations have them, in float64: results and gradients in one call."""

import math

import numpy as np


def gelu(x, dout):
    """(y, dx)"""
    cdf = np.vectorize(lambda z: 0.5 * (1 + math.erf(z / math.sqrt(2))), otypes=[float])(x)
    return x * cdf, dout * (cdf + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi))


def gelu_tanh(x, dout):
    """(y, dx)"""
    t = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    du = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)
    return x * (1 + t) / 2, dout * ((1 + t) / 2 + x * (1 - t * t) / 2 * du)


def silu(x, dout):
    """(y, dx)"""
    s = 1 / (1 + np.exp(-x))
    return x * s, dout * (s + x * s * (1 - s))


def mish(x, dout):
    """(y, dx)"""
    t = np.tanh(np.log1p(np.exp(x)))
    return x * t, dout * (t + x * (1 - t * t) / (1 + np.exp(-x)))


def layer_norm(x, dout, weight, bias, eps):
    """(y, dx, dweight, dbias), over the last axis"""
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    rstd = 1 / np.sqrt(var + eps)
    xhat = (x - mean) * rstd
    d = dout * weight
    dx = rstd * (d - d.mean(-1, keepdims=True) - xhat * (d * xhat).mean(-1, keepdims=True))
    samples = tuple(range(x.ndim - 1))
    return xhat * weight + bias, dx, (dout * xhat).sum(samples), dout.sum(samples)


def rms_norm(x, dout, weight, eps):
    """(y, dx, dweight), over the last axis"""
    rstd = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + eps)
    xhat = x * rstd
    d = dout * weight
    dx = rstd * (d - xhat * (d * xhat).mean(-1, keepdims=True))
    return xhat * weight, dx, (dout * xhat).sum(tuple(range(x.ndim - 1)))


def softmax(x, dout, axis=-1):
    """(y, dx)"""
    e = np.exp(x - x.max(axis, keepdims=True))
    y = e / e.sum(axis, keepdims=True)
    return y, y * (dout - (dout * y).sum(axis, keepdims=True))


def log_softmax(x, dout, axis=-1):
    """(y, dx)"""
    p, _ = softmax(x, dout, axis)
    top = x.max(axis, keepdims=True)
    y = x - top - np.log(np.exp(x - top).sum(axis, keepdims=True))
    return y, dout - p * dout.sum(axis, keepdims=True)


def attention(q, k, v, dy, mask):
    """(y, dq, dk, dv); mask is added to the scores, and leaves every query a key"""
    scale = q.shape[-1] ** -0.5
    scores = q @ k.swapaxes(-1, -2) * scale + mask
    p, ds = softmax(scores, dy @ v.swapaxes(-1, -2))
    return p @ v, ds @ k * scale, ds.swapaxes(-1, -2) @ q * scale, p.swapaxes(-1, -2) @ dy
