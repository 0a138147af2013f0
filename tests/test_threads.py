"""Work that is split over threads: the same results, errors and settings as without."""

import os
import threading

import numpy as np
import pytest

from backhand.layers import Parameter, threads
from backhand.training import SGD, Adam
from backhand.training.optimizers import RMSprop, blocks


class Library:
    """A BLAS that remembers how many threads it was given."""

    def __init__(self, num_threads):
        self.num_threads = num_threads
        self.seen = []

    def set_num_threads(self, n):
        self.num_threads = n
        self.seen.append(n)


@pytest.fixture
def blas(monkeypatch):
    """Three threads, whatever this machine has."""
    library = Library(3)
    monkeypatch.setattr(threads, "_blas", [library])
    return library


def test_parts_cover_everything_in_order(blas):
    for length in (3, 4, 10, 101):
        parts = threads.in_parts(lambda part: part, length)
        assert len(parts) == 3
        assert [i for part in parts for i in range(part.start, part.stop)] == list(range(length))


@pytest.mark.parametrize(
    ("length", "least", "parts"), [(10, 4, 2), (10, 5, 2), (10, 6, 1), (2, 1, 2), (1, 1, 1), (0, 1, 1)]
)
def test_no_part_is_shorter_than_the_least(blas, length, least, parts):
    found = threads.in_parts(lambda part: part.stop - part.start, length, least)
    assert len(found) == parts
    assert sum(found) == length
    assert parts == 1 or min(found) >= least


def test_one_thread_stays_here(blas):
    blas.num_threads = 1
    assert threads.in_parts(lambda part: (part, threading.current_thread()), 100) == [
        (slice(0, 100), threading.current_thread())
    ]
    assert blas.seen == []


def test_parts_run_side_by_side(blas):
    barrier = threading.Barrier(3, timeout=10)
    threads.in_parts(lambda part: barrier.wait(), 3)


def test_the_blas_is_held_to_one_thread_and_let_go(blas):
    assert threads.in_parts(lambda part: threads.get_num_threads(), 3) == [1, 1, 1]
    assert blas.num_threads == 3


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_an_error_comes_out_when_all_have_ended(blas, bad):
    ended = []

    def work(part):
        if part.start == bad:
            raise KeyError(bad)
        threading.Event().wait(0.02)
        ended.append(part.start)

    with pytest.raises(KeyError, match=str(bad)):
        threads.in_parts(work, 3)
    assert sorted(ended) == sorted({0, 1, 2} - {bad})
    assert blas.num_threads == 3


def test_the_first_of_several_errors(blas):
    def work(part):
        raise KeyError(part.start)

    with pytest.raises(KeyError, match="0"):
        threads.in_parts(work, 3)


def test_an_interrupt_lets_the_blas_go(blas):
    def work(part):
        if part.start == 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        threads.in_parts(work, 3)
    assert blas.num_threads == 3


def test_errstate_holds_in_all_parts(blas):
    zero = np.zeros(3)
    with np.errstate(divide="raise"):
        for bad in range(3):
            with pytest.raises(FloatingPointError):
                threads.in_parts(lambda part, bad=bad: 1 / zero if part.start == bad else None, 3)
    with np.errstate(divide="ignore"):
        assert np.isinf(threads.in_parts(lambda part: 1 / zero, 3)).all()


def test_parts_of_parts(blas):
    def outer(part):
        return threads.in_parts(lambda inner: (part.start, threading.get_ident()), 9)

    for found in threads.in_parts(outer, 3):
        assert len(found) == 1  # the cores are taken
    assert blas.num_threads == 3


def test_two_at_the_same_time(blas):
    # one begins before the other has ended, and ends after it: the BLAS gets back what it had before both
    first_in, second_out = threading.Event(), threading.Event()

    def slow(part):
        first_in.set()
        assert second_out.wait(10)

    one = threading.Thread(target=threads.in_parts, args=(slow, 3))
    one.start()
    assert first_in.wait(10)
    with threads._held_to_one():
        pass
    assert blas.num_threads == 1
    second_out.set()
    one.join()
    assert blas.num_threads == 3
    assert threads._inside == 0


def test_numbers_of_threads(blas):
    threads.set_num_threads(2)
    assert threads.get_num_threads() == 2
    for wrong in (0, -1, 1.5, True, "2", None):
        with pytest.raises(ValueError, match="set_num_threads: expected an integer, 1 or more, got"):
            threads.set_num_threads(wrong)
    assert threads.get_num_threads() == 2


def test_more_threads_later(blas):
    assert len(threads.in_parts(lambda part: part, 100)) == 3
    blas.num_threads = 5
    assert len(threads.in_parts(lambda part: part, 100)) == 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own(blas):
    threads.in_parts(lambda part: part, 3)
    with threads._held_to_one():
        child = os.fork()
        if child == 0:
            good = blas.num_threads == 3 and len(threads.in_parts(lambda part: part, 3)) == 3
            os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (Adam, {"weight_decay": 0.1, "amsgrad": True}),
        (SGD, {"momentum": 0.9, "weight_decay": 0.1, "nesterov": True}),
        (RMSprop, {"momentum": 0.5, "centered": True}),
    ],
)
def test_optimizers_do_not_depend_on_the_number_of_threads(blas, monkeypatch, cls, options):
    monkeypatch.setattr(blocks, "PIECE", 100)
    monkeypatch.setattr(blocks, "LEAST", 2)
    results = []
    for n in (1, 2, 3):
        blas.num_threads = n
        rng = np.random.default_rng(0)
        p = Parameter(rng.standard_normal((37, 61), np.float32))
        optimizer = cls([p], **options)
        for _ in range(5):
            p.grad[...] = rng.standard_normal(p.shape)
            optimizer.step()
        results.append(p.data.copy())
    assert 1 in blas.seen  # it was split
    assert all(np.array_equal(results[0], each) for each in results[1:])
