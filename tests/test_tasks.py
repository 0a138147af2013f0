"""The algorithmic tasks: what is said, what is wanted, and when."""

import numpy as np
import pytest

from backhand.datasets import AssociativeRecallTask, CopyTask, DataError, NGramsTask, PrioritySortTask, RepeatCopyTask

TASKS = [CopyTask(), RepeatCopyTask(), AssociativeRecallTask(), NGramsTask(), PrioritySortTask()]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: type(task).__name__)
def test_shapes_seeds_and_streams(task):
    x, y = task.draw(rng=0, batch=3)
    assert x.dtype == y.dtype == np.float32
    assert x.shape[1:] == (3, task.inputs) and y.shape[1:] == (3, task.outputs) and len(y) <= len(x)
    assert set(np.unique(y)) <= {0, 1}
    again = task.draw(rng=0, batch=3)
    np.testing.assert_array_equal(x, again.x)
    stream = task.stream(4, 2, rng=5)
    first, second = list(stream), list(stream)
    assert len(stream) == len(first) == 4 and first[0].x.shape[1] == 2
    assert any(a.x.shape != b.x.shape or (a.x != b.x).any() for a, b in zip(first, second, strict=True))
    assert all((a.x == b.x).all() for a, b in zip(task.fixed(2), task.fixed(2), strict=True))
    with pytest.raises(DataError, match="batch"):
        task.draw(batch=0)


def test_copy():
    x, y = CopyTask().draw(0, 2, length=5)
    assert x.shape == (11, 2, 9) and y.shape == (5, 2, 8)
    np.testing.assert_array_equal(x[:5, :, :8], y)
    assert (x[5, :, 8] == 1).all() and not x[6:].any() and not x[:5, :, 8].any()
    lengths = {len(CopyTask(lengths=(2, 4)).draw(seed).y) for seed in range(40)}
    assert lengths == {2, 3, 4}


def test_repeat_copy():
    task = RepeatCopyTask()
    x, y = task._draw(np.random.default_rng(0), 2, 3, 4)
    assert x.shape == (3 + 2 + 12 + 1, 2, 10) and y.shape == (13, 2, 9)
    np.testing.assert_array_equal(y[3:6, :, :8], x[:3, :, :8])
    assert (y[-1, :, 8] == 1).all() and not y[:-1, :, 8].any() and not y[-1, :, :8].any()
    np.testing.assert_allclose(x[4, :, 9], (4 - 5.5) / np.sqrt(8.25), rtol=1e-6)


def test_associative_recall():
    x, y = AssociativeRecallTask().draw(0, 8, length=4)
    assert x.shape == (25, 8, 8) and y.shape == (3, 8, 6)
    items = np.stack([x[4 * i + 1 : 4 * i + 4, :, :6] for i in range(4)])
    query = x[18:21, :, :6]
    for b in range(8):
        asked = [i for i in range(3) if (items[i, :, b] == query[:, b]).all()]
        assert any((items[i + 1, :, b] == y[:, b]).all() for i in asked)
    assert (x[[0, 4, 8, 12, 16], :, 6] == 1).all() and (x[[17, 21], :, 7] == 1).all()
    with pytest.raises(DataError, match="length"):
        AssociativeRecallTask().draw(length=1)


def test_ngrams():
    task = NGramsTask()
    drawn = task.draw(0, 200)
    assert drawn.x.shape == (200, 200, 1) and drawn.y.shape == (195, 200, 1)
    np.testing.assert_array_equal(drawn.x[6:, :, 0], drawn.y[:-1, :, 0])
    assert not drawn.x[0].any()
    # the paper's figure has its optimum at about 133 bits, with the 5 that cannot be guessed
    assert task.optimum(drawn).mean() + 5 == pytest.approx(133, abs=2)


def test_priority_sort():
    x, y = PrioritySortTask().draw(0, 2)
    assert x.shape == (37, 2, 10) and y.shape == (16, 2, 8)
    for b in range(2):
        order = np.argsort(-x[:20, b, 8])
        np.testing.assert_array_equal(x[order[:16], b, :8], y[:, b])
    assert (x[20, :, 9] == 1).all() and not x[21:].any()
