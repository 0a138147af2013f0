"""Batch normalization as its derivation has it: centre, scale, and the three ways back."""

from backhand.layers.broadcasting import along
from backhand.layers.normalization import centre, standardize, standardize_backward, sum_over


def forward(x, weight, bias, eps):
    axes = (0, *range(2, x.ndim))
    _, centred, var = centre(x, axes)
    return centred / (var + eps) ** 0.5 * along(weight, 1, x.ndim) + along(bias, 1, x.ndim)


def backward(x, dout, weight, eps):
    """Returns dx, dweight, dbias."""
    axes = (0, *range(2, x.ndim))
    mean, _, var = centre(x, axes)
    rstd = 1 / (var + eps) ** 0.5
    xhat = standardize(x, mean, rstd)
    dweight, dbias = sum_over(axes, dout, xhat).reshape(-1), sum_over(axes, dout).reshape(-1)
    return standardize_backward(dout * along(weight, 1, x.ndim), xhat, rstd, axes), dweight, dbias
