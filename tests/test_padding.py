"""Padding against NumPy's and torch's, and its adjoint."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backhand.layers import LayerError, ReLU
from backhand.layers.padding import MODES, check_pads, pad, unpad

NUMPY_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    amounts=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=3, max_size=3),
    mode=st.sampled_from(MODES),
)
def test_pad_is_numpys_and_unpad_its_adjoint(sizes, amounts, mode):
    pads = tuple(amounts[: len(sizes)])
    x = normal(*sizes)
    slack = min(size - max(amount) for size, amount in zip(sizes, pads, strict=True))
    if slack < {"reflect": 1, "circular": 0}.get(mode, -6):
        with pytest.raises(LayerError, match=mode[:7]):
            check_pads(ReLU(), x.shape, pads, mode)
        return
    check_pads(ReLU(), x.shape, pads, mode)
    padded = pad(x, pads, mode)
    np.testing.assert_array_equal(padded, np.pad(x, pads, mode=NUMPY_MODES[mode]))
    dout = normal(*padded.shape, seed=1)
    before = dout.copy()
    # <pad(x), dout> = <x, unpad(dout)> for every x is what an adjoint is
    np.testing.assert_allclose((padded * dout).sum(), (x * unpad(dout, pads, mode)).sum(), rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(dout, before)


@pytest.mark.parity
@pytest.mark.parametrize("mode", MODES)
def test_negative_padding_crops(torch, mode):
    x = normal(1, 2, 6)
    tensor = torch.from_numpy(x.copy()).requires_grad_()
    for before, after in [(-2, 0), (2, -1), (-1, 3), (-2, -3), (4, -2)]:
        name = {"zeros": "constant"}.get(mode, mode)
        theirs = torch.nn.functional.pad(tensor, (before, after), mode=name)
        pads = ((0, 0), (0, 0), (before, after))
        ours = pad(x, pads, mode)
        np.testing.assert_array_equal(ours, theirs.detach().numpy())
        dout = normal(*ours.shape)
        (wanted,) = torch.autograd.grad(theirs, tensor, torch.from_numpy(dout))
        np.testing.assert_allclose(unpad(dout, pads, mode), wanted.numpy(), rtol=1e-12)
    with pytest.raises(LayerError, match="cropped away"):
        check_pads(ReLU(), x.shape, ((-3, -3),), mode)


def test_circular_padding_goes_round_what_is_not_cropped():
    assert pad(np.arange(5.0), ((2, -2),), "circular").tolist() == [1, 2, 0, 1, 2]
    with pytest.raises(LayerError, match="circular padding of 4"):
        check_pads(ReLU(), (5,), ((4, -2),), "circular")


def test_pad_fills_with_a_value():
    assert pad(np.array([1.0, 2.0]), ((1, 2),), value=7).tolist() == [7, 1, 2, 7, 7]
