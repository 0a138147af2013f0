"""Special functions that NumPy does not have."""

from __future__ import annotations

import numpy as np

from backhand.layers.parameter import Array

# In float64, erf(x) = x P(x^2) / Q(x^2) below a bound, and +-1 beyond it, where erf is 1 to the precision.
# Coefficients of P and Q from the constant up: the rational function that meets erf(x)/x at the Chebyshev points
# in x^2, solved for with 60 digits. All are positive, so no sum in it cancels and Horner's rule loses nothing.
_DOUBLE = (
    5.9,
    (
        1.1283791670955128, 0.2267103861650831, 0.06883072821668317, 0.007568694900056246, 0.000983162521322436,
        7.167829478766433e-05, 5.438358912893914e-06, 2.786170343700642e-07, 1.3753386434038692e-08,
        4.941912996750466e-10, 1.6134252327000997e-11, 3.748233718535866e-13, 7.328387497536714e-15,
        7.279307908272909e-17, 1.9594635116894637e-19, 5.978841035215641e-23,
    ),
    (
        1.0, 0.5342501818326288, 0.1390830385882931, 0.023453099700239843, 0.0028713139341526844,
        0.0002710141151744034, 2.042782300376386e-05, 1.2556741688513528e-06, 6.364624567411487e-08,
        2.6672900154825908e-09, 9.179473429462171e-11, 2.5474802768435038e-12, 5.413187914030998e-14,
        8.332565857982574e-16, 4.592003223043019e-18, 5.0599322680886335e-21,
    ),
)  # fmt: skip
# In float32, erf(x) = tanh(x Q(x^2)), for NumPy has a fast tanh. Q from the constant up: of its degree the one with
# the smallest relative error of erf over [0, 4]; beyond that it grows, and tanh is 1.
_SINGLE = (1.12837927, 0.102769056, -1.91831151e-4, -6.19784432e-4, 8.7637263e-5, -5.66846922e-6, 1.4185223e-7)


def erf(x: Array) -> Array:
    """The error function, 2/sqrt(pi) times the integral of exp(-t^2) from 0 to x.

    x : any shape, of a float dtype, which the result has too
    The relative error is below 2e-15 in float64 and below 5e-7 in float32; +-inf give +-1 and nan gives nan.
    """
    if x.dtype.itemsize < 4:
        return erf(x.astype(np.float32)).astype(x.dtype)
    if x.dtype == np.float32:
        with np.errstate(over="ignore"):
            y = _polynomial(_SINGLE, x * x)
            y *= x
        return np.tanh(y, out=y)
    bound, above, below = _DOUBLE
    z = np.clip(x, -bound, bound)
    square = z * z
    y = _polynomial(above, square)
    y *= z
    y /= _polynomial(below, square)
    return np.where(np.abs(x) < bound, y, np.sign(x))


def _polynomial(coefficients: tuple[float, ...], x: Array) -> Array:
    y = np.full_like(x, coefficients[-1])
    y *= x
    for coefficient in coefficients[-2:0:-1]:
        y += coefficient
        y *= x
    y += coefficients[0]
    return y
