"""Depthwise convolution as its sum over the kernel, whole arrays at a time."""

import itertools

import numpy as np

from backhand.layers.padding import pad, unpad


def _elements(x, dout, weight, stride, dilation):
    """(Index of an element of the kernel, where in padded x it stands for every output)."""
    for element in itertools.product(*(range(k) for k in weight.shape[2:])):
        yield (
            (..., *element),
            (
                ...,
                *(
                    slice(k * d, k * d + (n - 1) * s + 1, s)
                    for k, d, s, n in zip(element, dilation, stride, dout.shape[2:], strict=True)
                ),
            ),
        )


def forward(x, weight, bias, outputs, stride, pads, dilation, mode):
    x = np.repeat(pad(x, ((0, 0), (0, 0), *pads), mode), len(weight) // x.shape[1], axis=1)
    y = np.zeros((len(x), len(weight), *outputs), x.dtype)
    spread = (slice(None), *(None,) * len(outputs))
    for k, at in _elements(x, y, weight, stride, dilation):
        y += x[at] * weight[k][:, 0][spread]
    return y + bias[spread]


def backward(x, dout, weight, stride, pads, dilation, mode):
    """Returns dx, dweight."""
    channels = x.shape[1]
    everywhere = ((0, 0), (0, 0), *pads)
    x = np.repeat(pad(x, everywhere, mode), len(weight) // channels, axis=1)
    dx, dweight = np.zeros_like(x), np.zeros_like(weight)
    axes = (0, *range(2, x.ndim))
    spread = (slice(None), *(None,) * (x.ndim - 2))
    for k, at in _elements(x, dout, weight, stride, dilation):
        dx[at] += dout * weight[k][:, 0][spread]
        dweight[k] = (dout * x[at]).sum(axes)[:, None]
    dx = unpad(dx, everywhere, mode)
    return dx.reshape(len(dx), channels, -1, *dx.shape[2:]).sum(axis=2), dweight
