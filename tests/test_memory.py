"""Memory that is used again: never what somebody can still see, and no more of it than is needed."""

import os
import sys
import threading
import types
import weakref

import numpy as np
import pytest

from backhand.layers import Conv2d, Flatten, Linear, Parameter, ReLU, memory
from backhand.losses import CrossEntropyLoss
from backhand.models import Sequential
from backhand.training import Adam

SHAPE = (128, 256)  # of float32: 128 kB
pooled = pytest.mark.skipif(not memory._exact, reason="this interpreter does not count references exactly")


@pytest.fixture
def pool(monkeypatch):
    """A pool of the test's own."""
    fresh = memory.Pool()
    monkeypatch.setattr(memory, "_pool", fresh)
    return fresh


def address(x):
    return x.__array_interface__["data"][0]


# ---------------------------------------------------------------------- what is kept stays


def torch_tensor(y):
    return pytest.importorskip("torch").from_numpy(y)


HOLDERS = {
    "itself": lambda y: y,
    "a slice": lambda y: y[3:5, ::7],
    "a view of a view": lambda y: y[5:][2:].T[1:],
    "one number's view": lambda y: y[7, 7:8],
    "another dtype": lambda y: y.view(np.int32)[9],
    "a memoryview": memoryview,
    "a part of a memoryview": lambda y: memoryview(y)[4:6],
    "a diagonal": lambda y: np.diagonal(y),
    "a broadcast": lambda y: np.broadcast_to(y[0], (4, 256)),
    "flat": lambda y: y.flat,
    "an iterator": iter,
    "the base": lambda y: y.base,
    "a subclass": lambda y: y.view(np.recarray),
    "asarray": np.asarray,
    "a buffer": lambda y: np.frombuffer(y, np.float32),
    "an attribute of an object": lambda y: types.SimpleNamespace(kept=y[1:]),
    "a closure": lambda y: lambda: y,
    "a tensor": torch_tensor,
    "a slice of a tensor": lambda y: torch_tensor(y)[2:],
}


@pooled
@pytest.mark.parametrize("make", [memory.empty, memory.zeros], ids=["empty", "zeros"])
@pytest.mark.parametrize("holder", HOLDERS)
def test_what_is_kept_keeps_its_block(pool, holder, make):
    y = make(SHAPE)
    where = address(y)
    kept = HOLDERS[holder](y)
    del y
    others = [memory.empty(SHAPE) for _ in range(3)]
    assert where not in map(address, others)
    assert pool.bytes()[0] == 4 * y_bytes()
    del kept
    assert pool.bytes()[0] == 3 * y_bytes()
    again = memory.empty(SHAPE)
    assert address(again) == where
    assert pool.bytes() == (4 * y_bytes(), 4 * y_bytes())


def y_bytes():
    return 4 * SHAPE[0] * SHAPE[1]


def test_numbers_that_are_kept_stay():
    model = Sequential(Conv2d(3, 16, 3, rng=0), ReLU(), Flatten(), Linear(16 * 14 * 14, 64, rng=0))
    rng = np.random.default_rng(0)
    kept = []
    for _ in range(4):
        x = rng.standard_normal((32, 3, 16, 16), np.float32)
        y = model.forward(x)
        dx = model.backward(rng.standard_normal(y.shape, np.float32))
        parts = [x, y, dx, dx[3:4, :, ::2], *(p.grad for p in model.parameters())]
        kept += [(part, part.copy()) for part in parts[:4]]
        model.zero_grad()
    assert all(np.array_equal(part, copy) for part, copy in kept)


# ---------------------------------------------------------------------- what is not is used again


@pooled
def test_a_block_is_used_again(pool):
    first = memory.empty(SHAPE)
    where = address(first)
    del first
    assert all(address(memory.empty(SHAPE)) == where for _ in range(3))
    assert pool.bytes() == (0, y_bytes())


@pooled
def test_almost_the_same_size_shares_a_block(pool):
    first = memory.empty((1000, 200))
    where = address(first)
    del first
    assert address(memory.empty((997, 100), np.float64)) == where


@pooled
def test_two_at_once_are_apart(pool):
    a, b = memory.empty(SHAPE), memory.empty(SHAPE)
    assert not np.shares_memory(a, b)


def test_small_arrays_are_numpys(pool):
    assert memory.empty((4, 4)).base is None
    assert memory.empty_like(np.ones((3, 4)).T).flags.f_contiguous
    assert memory.product(np.ones((2, 3)), np.ones((3, 4))).base is None
    assert pool.bytes() == (0, 0)


@pooled
def test_arrays_begin_aligned(pool):
    kept = [memory.empty(SHAPE) for _ in range(5)]
    assert all(address(each) % memory.ALIGNED == 0 for each in kept)
    assert address(memory.aligned(1001, np.dtype(np.float32))) % memory.ALIGNED == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.bool_])
@pytest.mark.parametrize("shape", [(400, 700), (30, 40, 50, 6), (100_000,), (), (0, 3), (5, 1, 7)])
def test_the_functions_are_numpys(shape, dtype):
    x = np.zeros(shape, dtype)
    for y, wanted in [
        (memory.empty(shape, dtype), np.empty(shape, dtype)),
        (memory.zeros(shape, dtype), np.zeros(shape, dtype)),
        (memory.empty_like(x), np.empty_like(x)),
        (memory.empty_like(x.T), np.empty_like(x.T)),
        (memory.empty_like(x, np.float16), np.empty_like(x, np.float16)),
    ]:
        assert (y.shape, y.dtype, y.strides) == (wanted.shape, wanted.dtype, wanted.strides)
        y[...] = 1
    assert not memory.zeros(shape, dtype).any()


@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (0, 3, 1, 2), (3, 2, 1, 0), (1, 0, 3, 2)])
def test_the_memory_order_is_kept(axes):
    x = np.zeros((20, 30, 40, 8), np.float32).transpose(axes)
    for each in (x, x[::2], x[:, ::-1], x[..., 1:5]):
        assert memory.empty_like(each).strides == np.empty_like(each).strides


def test_products():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((300, 40)), rng.standard_normal((500, 40))
    assert np.array_equal(memory.product(a, b.T), a @ b.T)


# ---------------------------------------------------------------------- how much is held


@pooled
def test_release(pool):
    kept = memory.empty(SHAPE)
    memory.empty((999, 999))
    assert pool.bytes()[1] > y_bytes()
    memory.release()
    assert pool.bytes() == (y_bytes(), y_bytes())
    kept[...] = 1


@pooled
def test_released_memory_is_really_gone(pool):
    memory.empty(SHAPE)
    block = weakref.ref(pool._blocks[y_bytes()][0])
    assert block() is not None
    memory.release()
    assert block() is None


@pooled
@pytest.mark.parametrize("room", [0, 1 << 22, memory.ROOM])
def test_no_more_is_held_than_what_is_allowed(pool, monkeypatch, room):
    monkeypatch.setattr(memory, "ROOM", room)
    rng = np.random.default_rng(0)
    most = 0
    for _ in range(300):
        batch = [memory.empty((int(rng.integers(100, 2000)), 200)) for _ in range(int(rng.integers(1, 10)))]
        in_use, held = pool.bytes()
        most = max(most, in_use)
        assert held <= max((1 + memory.SLACK) * most, most + room)
        del batch


@pooled
def test_a_smaller_network_need_not_keep_the_memory_of_a_larger_one(pool):
    large = [memory.empty((1000, 1000)) for _ in range(10)]
    del large
    for _ in range(2 * memory.FORGOTTEN):
        memory.empty(SHAPE)
    assert pool.bytes() == (0, y_bytes())


@pooled
def test_training_does_not_grow(pool):
    model = Sequential(Linear(100, 300, rng=0), ReLU(), Linear(300, 200, rng=0))
    optimizer, loss = Adam(model.parameters()), CrossEntropyLoss()
    rng = np.random.default_rng(0)

    def epoch():
        for n in (256, 256, 256, 50):
            optimizer.zero_grad()
            value = loss(model(rng.standard_normal((n, 100), np.float32)), rng.integers(0, 200, n))
            model.backward(loss.backward())
            optimizer.step()
        return value

    epoch()
    epoch()
    held = pool.bytes()[1]
    blocks = {id(block) for blocks in pool._blocks.values() for block in blocks}
    for _ in range(5):
        epoch()
    assert pool.bytes() == (0, held)
    assert {id(block) for blocks in pool._blocks.values() for block in blocks} == blocks


@pooled
def test_sizes_that_are_needed_in_turn_do_not_chase_each_other_out(pool, monkeypatch):
    fresh, real = [], pool._fresh
    monkeypatch.setattr(pool, "_fresh", lambda size: fresh.append(size) or real(size))
    for _ in range(5):
        made = len(fresh)
        for n in (100, 200, 300, 400, 500, 400, 300):
            memory.empty((n, 1000))
    assert len(fresh) == made == 5


@pooled
def test_without_memory_the_free_blocks_go(pool, monkeypatch):
    for _ in range(3):
        memory.empty(SHAPE)
    real, calls = memory._bytes, []

    def scarce(size):
        calls.append(pool._held())
        if len(calls) == 1:
            raise MemoryError
        return real(size)

    monkeypatch.setattr(memory, "_bytes", scarce)
    memory.empty((600, 600))
    assert calls == [y_bytes(), 0]


# ---------------------------------------------------------------------- who comes in between


@pooled
def test_nobody_waits(pool):
    with pool._lock:  # as a signal handler or a __del__ finds it, in the middle of a call
        y = memory.empty(SHAPE)
    y[...] = 1
    assert pool.bytes() == (0, 0)


@pooled
def test_threads_get_memory_of_their_own(pool):
    wrong = []

    def work(number):
        rng = np.random.default_rng(number)
        kept = []
        for _ in range(300):
            y = memory.empty((int(rng.integers(100, 130)), 200))
            y.fill(number)
            kept.append(y)
            if len(kept) > 3:
                each = kept.pop(int(rng.integers(len(kept))))
                if (each != number).any():
                    wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not wrong
    assert pool.bytes()[0] == 0


@pooled
def test_counting_does_not_depend_on_a_debugger():
    seen = []

    def tracer(frame, event, arg):
        seen.append(frame.f_locals)  # what a debugger does: it holds what local variables hold
        return tracer

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        counts = list(memory._references([np.empty(1, np.uint8)]))
    finally:
        sys.settrace(before)
    assert counts == [memory._ALONE]


@pooled
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_has_a_pool_that_works():
    kept = memory.empty(SHAPE)
    kept.fill(3)
    with memory._pool._lock:  # another thread of the parent may hold it
        child = os.fork()
        if child == 0:
            good = not memory._pool._lock.locked()
            y = memory.empty(SHAPE)
            y.fill(5)
            where = address(y)
            del y
            good = good and address(memory.empty(SHAPE)) == where and bool((kept == 3).all())
            os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_without_exact_counts_memory_is_numpys(pool, monkeypatch):
    monkeypatch.setattr(memory, "_exact", False)
    for y in (
        memory.empty(SHAPE),
        memory.empty_like(np.ones(SHAPE)),
        memory.product(np.ones(SHAPE), np.ones((256, 99))),
    ):
        assert y.base is None
    assert pool.bytes() == (0, 0)


# ---------------------------------------------------------------------- the gradient of a parameter


def stale(shape):
    p = Parameter(np.zeros(shape))
    p.grad += 7
    p.zero_grad()
    return p


def test_zeros_are_written_when_they_are_asked_for():
    p = stale((2, 3))
    gradient = p._grad
    assert (gradient == 7).all()
    assert p.grad is gradient and not gradient.any()


@pytest.mark.parametrize("shape", [(4, 6), (4, 2, 3), (24,), (1, 24)])
def test_add_product(shape):
    rng = np.random.default_rng(0)
    rows = 4 if shape[0] == 4 else 1
    a, b = rng.standard_normal((rows, 5)), rng.standard_normal((5, 24 // rows))
    for p in (stale(shape), Parameter(np.zeros(shape))):
        gradient = p._grad
        for times in (1, 2, 3):
            p.add_product(a, b)
            assert p.grad is gradient
            assert np.allclose(p.grad, times * (a @ b).reshape(shape), rtol=1e-13, atol=0)


def test_the_first_product_goes_straight_to_the_gradient(monkeypatch):
    p = stale((200, 300))
    monkeypatch.setattr("backhand.layers.parameter.product", None)  # whoever makes an array for it fails
    a, b = np.ones((200, 5)), np.ones((5, 300))
    p.add_product(a, b)
    assert (p.grad == 5).all()
    with pytest.raises(TypeError):
        p.add_product(a, b)


def test_add_product_to_a_gradient_that_is_not_contiguous():
    p = Parameter(np.zeros((3, 4)))
    p.grad = np.full((4, 3), 7.0).T
    p.zero_grad()
    p.add_product(np.ones((3, 2)), np.ones((2, 4)))
    assert (p.grad == 2).all()


def test_add_product_of_another_dtype():
    p = Parameter(np.zeros((3, 4), np.float32))
    p.zero_grad()
    p.add_product(np.ones((3, 2)), np.ones((2, 4)))
    assert (p.grad == 2).all() and p.grad.dtype == np.float32


def test_a_gradient_that_was_set_is_not_zeroed():
    p = stale((2, 2))
    p.grad = np.ones((2, 2))
    assert (p.grad == 1).all()


def test_holds_leaves_the_gradient_as_it_is():
    p = stale((2, 2))
    assert p.holds(p.data, p._grad)
    assert (p._grad == 7).all()
    assert not p.holds(p.data.copy(), p._grad) and not p.holds(p.data, p._grad.copy())
    p.data = p.data.copy()
    assert p.holds(p.data, p._grad)
