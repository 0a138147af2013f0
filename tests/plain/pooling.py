"""Max-pooling element by element of the window, over whole arrays: masks in the forward, masks in the backward."""

import numpy as np

from backhand.layers.windows import Windows


def meetings(shape, outputs, kernel, stride, padding):
    """Where the windows' elements meet outputs, from the last to the first, so that the first of equals wins."""
    return list(Windows(kernel, stride, (1, 1)).meetings(shape[-2:], outputs, padding))[::-1]


def forward(x, outputs, kernel, stride, padding):
    """Returns y, and the turn at which the winner of each window came."""
    y = np.full((*x.shape[:2], *outputs), -np.inf, x.dtype)
    winner = np.zeros(y.shape, int)
    for turn, (to, at) in enumerate(meetings(x.shape, outputs, kernel, stride, padding)):
        winner[to] = np.where(x[at] >= y[to], turn, winner[to])
        y[to] = np.maximum(y[to], x[at])
    return y, winner


def backward(dout, winner, shape, kernel, stride, padding):
    dx = np.zeros(shape, dout.dtype)
    for turn, (to, at) in enumerate(meetings(shape, winner.shape[-2:], kernel, stride, padding)):
        dx[at] += dout[to] * (winner[to] == turn)
    return dx
