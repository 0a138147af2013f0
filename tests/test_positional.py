"""Position encodings beside their formulas, written another way: with complex numbers."""

import numpy as np
import pytest

from backhand.layers import LayerError, RotaryPositionalEncoding, SinusoidalPositionalEncoding

BOTH = [SinusoidalPositionalEncoding, RotaryPositionalEncoding]


def waves(positions, width, base=10000.0):
    """exp(i t w) for each position and frequency."""
    frequencies = np.array([base ** (-2 * i / width) for i in range((width + 1) // 2)])
    return np.exp(1j * np.outer(positions, frequencies))


@pytest.mark.parametrize("width", [1, 2, 5, 8])
def test_sinusoids_are_added(width):
    p = SinusoidalPositionalEncoding(width, base=100.0)(np.zeros((7, width)), start=3)
    wanted = waves(np.arange(3, 10), width, 100.0)
    np.testing.assert_allclose(p[:, 0::2], wanted.imag, atol=1e-12)
    np.testing.assert_allclose(p[:, 1::2], wanted.real[:, : width // 2], atol=1e-12)


@pytest.mark.parametrize("interleaved", [True, False])
def test_rotations_are_products_of_complex_numbers(interleaved):
    x = np.random.default_rng(0).standard_normal((2, 5, 6))
    y = RotaryPositionalEncoding(6, interleaved=interleaved)(x, start=2)

    def pairs(z):
        return z[..., 0::2] + 1j * z[..., 1::2] if interleaved else z[..., :3] + 1j * z[..., 3:]

    np.testing.assert_allclose(pairs(y), pairs(x) * waves(np.arange(2, 7), 6), atol=1e-12)


def test_scores_of_rotated_vectors_depend_on_the_distance_alone():
    rng = np.random.default_rng(0)
    layer = RotaryPositionalEncoding(8).eval()
    q, k = np.tile(rng.standard_normal((2, 1, 8)), (1, 20, 1))  # the same vector everywhere
    scores = layer(q) @ layer(k).T
    for distance in (-5, 0, 3):
        diagonal = np.diagonal(scores, distance)
        np.testing.assert_allclose(diagonal, diagonal[0], atol=1e-10)
    np.testing.assert_allclose(np.linalg.norm(layer(q), axis=1), np.linalg.norm(q, axis=1), rtol=1e-12)


@pytest.mark.parametrize("cls", BOTH)
def test_any_axis_and_any_start(cls):
    x = np.random.default_rng(0).standard_normal((2, 7, 3, 4))
    plain = cls(4)(np.moveaxis(x, 1, 2))
    np.testing.assert_array_equal(cls(4, axis=1)(x), np.moveaxis(plain, 2, 1))
    np.testing.assert_array_equal(cls(4, axis=-3)(x), np.moveaxis(plain, 2, 1))
    np.testing.assert_allclose(cls(4, axis=1)(x[:, 5:], start=5), np.moveaxis(plain, 2, 1)[:, 5:], atol=1e-12)


@pytest.mark.parametrize("cls", BOTH)
def test_no_parameters_and_float32_far_out(cls):
    layer = cls(4)
    assert layer.state_dict() == {}
    far = layer(np.ones((3, 4), np.float32), start=10**6)
    assert far.dtype == np.float32
    wide = cls(4)(np.ones((3, 4)), start=10**6)
    np.testing.assert_allclose(far, wide, atol=1e-6)  # the angles are taken in float64


@pytest.mark.parametrize("cls", BOTH)
def test_what_does_not_fit(cls):
    with pytest.raises(LayerError, match=r"expected x of shape \(..., 4\) with the positions on axis -2, got \(3, 5\)"):
        cls(4)(np.ones((3, 5)))
    for x, axis in [(np.ones(4), -2), (np.ones((3, 4)), 1), (np.ones((3, 4)), -3)]:
        with pytest.raises(LayerError, match="with the positions on axis"):
            cls(4, axis=axis)(x)
    with pytest.raises(ValueError, match="start"):
        cls(4)(np.ones((3, 4)), start=-1)
    for kwargs in ({"embed_dim": 0}, {"base": 0.0}, {"base": "e"}, {"axis": -1}, {"axis": True}):
        with pytest.raises(ValueError, match=next(iter(kwargs))):
            cls(**{"embed_dim": 4, **kwargs})
    with pytest.raises(ValueError, match="even"):
        RotaryPositionalEncoding(3)
