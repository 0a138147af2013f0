"""Changes of pictures: what they may do, what they leave, and that batches are whole."""

import numpy as np
import pytest

from backhand.datasets import (
    Augmented,
    DataError,
    color_jitter,
    crop_and_flip,
    random_flip,
    random_grey,
    random_resized_crop,
    random_shift,
    simclr_views,
)

rng = np.random.default_rng(0)
CHANGES = [color_jitter, crop_and_flip, random_flip, random_grey, random_resized_crop, random_shift, simclr_views]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_every_change(change):
    x = rng.random((20, 3, 8, 6)).astype(np.float32)
    x.flags.writeable = False
    y = change(x, np.random.default_rng(1))
    assert y.shape == x.shape and y.dtype == np.float32
    assert y.min() >= 0 and y.max() <= 1
    assert (y != x).any()
    np.testing.assert_array_equal(change(x, np.random.default_rng(1)), y)
    assert (change(x, np.random.default_rng(2)) != y).any()
    with pytest.raises(DataError, match=r"pictures \(N, C, H, W\)"):
        change(x[0], np.random.default_rng(1))


def test_a_shift_is_a_shift():
    x = np.zeros((200, 1, 7, 7), np.float32)
    x[:, :, 3, 3] = 1
    y = random_shift(x, np.random.default_rng(0), 2)
    places = np.argwhere(y[:, 0])
    assert len(places) == 200
    assert {tuple(place) for place in places[:, 1:]} == {(i, j) for i in range(1, 6) for j in range(1, 6)}


def test_a_flip_is_a_flip_of_about_half_of_them():
    x = rng.random((400, 2, 3, 4)).astype(np.float32)
    y = random_flip(x, np.random.default_rng(0))
    mirrored = (y == x[..., ::-1]).all(axis=(1, 2, 3))
    assert 150 < mirrored.sum() < 250
    np.testing.assert_array_equal(y[~mirrored], x[~mirrored])


def test_a_crop_of_all_of_it_is_the_picture_and_a_ramp_stays_one():
    ramp = np.broadcast_to(np.linspace(0, 1, 9, dtype=np.float32), (30, 1, 9, 9)).copy()
    np.testing.assert_allclose(random_resized_crop(ramp, np.random.default_rng(0), 1.0, 1.0), ramp, atol=1e-6)
    y = random_resized_crop(ramp, np.random.default_rng(0))
    np.testing.assert_allclose(y - y[:, :, :1], 0, atol=1e-6)  # nothing changes from top to bottom
    inside = np.diff(y[:, 0, 4, 1:-1], axis=1)
    assert (inside > 0).all() and inside.max() < 0.126
    np.testing.assert_allclose(np.diff(inside, axis=1), 0, atol=1e-5)


def test_grey_has_no_colours():
    x = rng.random((100, 3, 2, 2)).astype(np.float32)
    y = random_grey(x, np.random.default_rng(0), 0.5)
    grey = (np.ptp(y, axis=1) < 1e-6).all(axis=(1, 2))
    assert 30 < grey.sum() < 70
    np.testing.assert_array_equal(y[~grey], x[~grey])
    np.testing.assert_allclose(y[grey, 0], x[grey].mean(axis=1), rtol=1e-6)


def test_batches_are_whole_and_new_in_each_epoch():
    x, y = np.arange(9.0)[:, None, None, None], np.arange(9)
    batches = Augmented(x, y, 4, lambda x, rng: x + 100)
    assert len(batches) == 2  # the ninth alone joins the batch before it
    first = [each for each in batches]
    assert [len(b) for _, b in first] == [4, 5]
    assert sorted(np.concatenate([b for _, b in first])) == list(range(9))
    for a, b in first:
        np.testing.assert_array_equal(a[:, 0, 0, 0], b + 100)
    again = np.concatenate([b for _, b in batches])
    assert (again != np.concatenate([b for _, b in first])).any()
    (one, two), labels = next(iter(Augmented(x, y, 4, lambda x, rng: x + rng.random(x.shape), 2)))
    assert one.shape == two.shape == (4, 1, 1, 1) and (one != two).all()
    np.testing.assert_array_equal(one.astype(int)[:, 0, 0, 0], labels)
    with pytest.raises(DataError, match="as many samples in both"):
        Augmented(x, y[:3], 4)
