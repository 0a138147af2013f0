"""Two or more sides of one workload: do they agree, and how long do they take, in turn."""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from benchmarks.sides import WORKERS, State
from benchmarks.workloads import WORKLOADS

STEPS = 3  # whose losses are compared
TURNS = 12  # of each side, as many as the budget should be cut into; at least LEAST
LEAST = 3


class Row(NamedTuple):
    """One line of the table: a part of a workload, one side against ours.

    ms : the median of ours and of theirs      ratio : the quartiles of theirs / ours over the pairs of turns
    peak : bytes of ours and of theirs, above the imported libraries      share : of the peak sgemm rate, ours; or None
    """

    workload: str
    part: str
    against: str
    ms: tuple[float, float]
    ratio: tuple[float, float, float]
    pairs: int
    peak: tuple[float, float]
    gflops: float | None
    share: float | None


class Worker:
    """A side in a process of its own: calls are sent there, results come back."""

    def __init__(self, side: str, workload: str, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.side = side
        self.pipe, end = context.Pipe()
        self.process = context.Process(target=serve, args=(end, side, workload, threads), daemon=True)
        self.process.start()
        end.close()

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any) -> Any:
            try:
                self.pipe.send((name, args))
                failed, result = self.pipe.recv()
            except (EOFError, BrokenPipeError):
                self.process.join(1)
                raise RuntimeError(f"{self.side}: ended with {self.process.exitcode} (out of memory?)") from None
            if failed:
                raise RuntimeError(f"{self.side}: {result}")
            return result

        return call

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.pipe.close()
        self.process.join(5)
        if self.process.is_alive():
            self.process.terminate()


def serve(pipe: Connection, side: str, workload: str, threads: int) -> None:
    """What runs in the process of a Worker."""
    try:
        target: Any = WORKERS[side](workload, threads)
        while True:
            try:
                name, args = pipe.recv()
            except EOFError:
                return
            pipe.send((False, getattr(target, name)(*args)))
    except Exception as error:
        pipe.send((True, f"{type(error).__name__}: {error}"))


def compare(workload: str, against: list[str], threads: int, seconds: float) -> list[Row]:
    """Check that the sides agree on the first steps, then time them in turn for so many seconds."""
    if getattr(WORKLOADS[workload], "jax", None) is None:
        against = [side for side in against if side != "jax"]
    if not against:
        return []
    machine, *workers = (Worker(side, workload, threads) for side in ("machine", "backhand", *against))
    try:
        ours, *others = workers
        agree(workload, ours, others)
        return timed(workload, workers, machine, seconds)
    finally:
        for worker in (machine, *workers):
            worker.__exit__(None)


def agree(workload: str, ours: Any, others: list[Any]) -> None:
    """Give all sides our weights, and raise AssertionError where first losses or gradients differ.

    `ours` and `others` are sides, or the Workers that hold them.
    """
    tolerance = WORKLOADS[workload].tolerance
    state = ours.state()
    for other in others:
        other.load(state)
    losses, gradients = ours.first(STEPS)
    for other in others:
        their_losses, their_gradients = other.first(STEPS)
        problems = [
            f"loss of step {i} is {a:.7g} here and {b:.7g} there"
            for i, (a, b) in enumerate(zip(losses, their_losses, strict=True))
            if not abs(a - b) <= tolerance * abs(b)
        ]
        problems += differences(gradients, their_gradients, tolerance)
        if problems:
            side = getattr(other, "side", type(other).__name__)
            more = [f"and {len(problems) - 3} more"] if len(problems) > 3 else []
            raise AssertionError(f"backhand and {side} differ: {'; '.join(problems[:3] + more)}")


def differences(ours: State, theirs: State, tolerance: float) -> list[str]:
    """Where two sets of gradients are not one, each relative to its size (its norm)."""
    if ours.keys() != theirs.keys():
        return [f"gradients of {sorted(ours.keys() ^ theirs.keys())} are on one side only"]
    largest = max(float(np.linalg.norm(g)) for g in theirs.values())
    problems = []
    for name, wanted in theirs.items():
        if ours[name].shape != wanted.shape:
            problems.append(f"{name} has shape {ours[name].shape} here and {wanted.shape} there")
            continue
        # a gradient that is zero in exact arithmetic (a key's bias) is noise of the size of the others' rounding
        size = max(float(np.linalg.norm(wanted)), 1e-3 * largest)
        error = float(np.linalg.norm(ours[name] - wanted)) / size
        if not error <= tolerance:
            problems.append(f"gradient of {name} differs by {error:.2g} of its size")
    return problems


def timed(workload: str, workers: list[Worker], machine: Worker, seconds: float) -> list[Row]:
    """The rows of one workload: turns of each side, one after the other, A B A B."""
    ours = workers[0]
    once = []  # how long one run takes, on each side, when it is warm
    for worker in workers:
        worker.forget_peak()
        worker.run(2)
        once.append(sum(times[0] for times in worker.run(1).values()))
    turn = seconds / (TURNS * len(workers))
    counts = [max(1, int(turn / each)) for each in once]
    collected: list[list[dict[str, list[float]]]] = [[] for _ in workers]
    rates: list[float] = []
    end = time.perf_counter() + seconds
    while len(rates) < LEAST or time.perf_counter() < end:
        rates.append(machine.sgemm())
        for worker, count, turns in zip(workers, counts, collected, strict=True):
            turns.append(worker.run(count))
    peaks = [worker.peak() for worker in workers]
    flops = ours.flops()
    rows = []
    for part in collected[0][0]:
        medians = [np.array([np.median(each[part]) for each in turns]) for turns in collected]
        ms = [1e3 * float(np.median(np.concatenate([each[part] for each in turns]))) for turns in collected]
        gflops = flops[part] / ms[0] / 1e6 if flops[part] else None
        share = None if gflops is None else gflops * 1e9 / max(rates)
        for i, worker in enumerate(workers[1:], start=1):
            low, middle, high = (float(q) for q in np.percentile(medians[i] / medians[0], (25, 50, 75)))
            rows.append(
                Row(
                    workload,
                    part,
                    worker.side,
                    (ms[0], ms[i]),
                    (low, middle, high),
                    len(rates),
                    (peaks[0], peaks[i]),
                    gflops,
                    share,
                )
            )
    return rows
