"""Convolution as its equation says it: one product for each element of the kernel, on slices of the padded image."""

import itertools

import numpy as np

MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def slices(kernel, outputs, stride, dilation):
    """For each element of the kernel: itself, and where the outputs find it in the padded image."""
    for k in itertools.product(*map(range, kernel)):
        yield (
            k,
            tuple(
                slice(i * d, i * d + (o - 1) * s + 1, s)
                for i, o, s, d in zip(k, outputs, stride, dilation, strict=True)
            ),
        )


def conv(x, weight, bias, dout, pads, stride, dilation, groups=1, mode="zeros"):
    """y, dx, dW and db in float64; x : (N, C, *spatial), pads : (before, after) for each spatial axis."""
    x, weight, dout = (np.asarray(a, np.float64) for a in (x, weight, dout))
    kernel = weight.shape[2:]
    padded = np.pad(x, [(0, 0), (0, 0), *pads], MODES[mode])
    # where each number of the padded image comes from, so that its gradient can go back there
    source = np.pad(np.arange(x.size).reshape(x.shape), [(0, 0), (0, 0), *pads], MODES[mode])
    inside = np.pad(np.ones(x.shape), [(0, 0), (0, 0), *pads], MODES[mode])
    filters, per_group = weight.shape[:2]
    y = np.zeros(dout.shape) + (0 if bias is None else bias.reshape(-1, *[1] * len(kernel)))
    dpadded, dweight = np.zeros_like(padded), np.zeros_like(weight)
    others = (0, *range(2, dout.ndim))
    for g in range(groups):
        rows = slice(g * filters // groups, (g + 1) * filters // groups)
        channels = slice(g * per_group, (g + 1) * per_group)
        for k, at in slices(kernel, dout.shape[2:], stride, dilation):
            seen, w = padded[(slice(None), channels, *at)], weight[(rows, slice(None), *k)]
            y[:, rows] += np.moveaxis(np.tensordot(w, seen, (1, 1)), 0, 1)
            dpadded[(slice(None), channels, *at)] += np.moveaxis(np.tensordot(w, dout[:, rows], (0, 1)), 0, 1)
            dweight[(rows, slice(None), *k)] += np.tensordot(dout[:, rows], seen, (others, others))
    dx = np.bincount(source.ravel(), (dpadded * inside).ravel(), x.size).reshape(x.shape)
    return y, dx, dweight, dout.sum(others)
