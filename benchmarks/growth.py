"""python -m benchmarks.growth: how time and memory of a training step grow with batch, depth, width and length.

python -m benchmarks.growth --figure growth.png         the table below, and as a picture
python -m benchmarks.growth --memory                    what summary() predicts for each model, and what is used
python -m benchmarks.growth --eval                      forward in eval() beside forward in training
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import multiprocessing
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from backhand.inspection import multiply_adds, style, summary
from backhand.inspection.step_memory import pool_apart
from backhand.layers import LSTM, AdaptiveAvgPool2d, BatchNorm2d, Conv2d, Flatten, Layer, Linear, ReLU, memory
from backhand.layers.parameter import Array
from backhand.layers.threads import get_num_threads
from backhand.losses import CrossEntropyLoss
from backhand.models import Residual, Sequential
from backhand.training.optimizers import Adam
from benchmarks import networks
from benchmarks.backhand_nn import Backhand
from benchmarks.sides import Ours, resident
from benchmarks.workloads import MODELS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CLASSES = 10
CLIFF = 1.5  # a step from one size to the next where a unit costs so many times more is pointed out
Sizes = dict[str, int]


class Family(NamedTuple):
    """Networks of one kind in all sizes.

    build, batch : make the network, and its inputs, from the sizes
    usual : the sizes that stay while one is varied      axes : the values of the one that is varied
    square : the sizes that the memory may grow with the square of
    """

    build: Callable[[Sizes], Layer]
    batch: Callable[[Sizes, np.random.Generator], Array]
    usual: Sizes
    axes: dict[str, tuple[int, ...]]
    square: tuple[str, ...] = ("width",)


class Point(NamedTuple):
    """One size: the seconds and the bytes of a step, and the multiply-adds that it has to do."""

    value: int
    seconds: float
    bytes: int
    work: int


def doubled(first: int, last: int) -> tuple[int, ...]:
    """first, 2 first, 4 first, ... last."""
    return tuple(itertools.takewhile(lambda n: n <= last, (first << i for i in range(64))))


# ---------------------------------------------------------------------- the networks


def mlp(sizes: Sizes) -> Layer:
    """Linear and ReLU, `depth` times, and a Linear."""
    width = sizes["width"]
    layers: list[Layer] = []
    for i in range(sizes["depth"]):
        linear = Linear(width, width, rng=i)
        linear.weight.data *= np.float32(np.sqrt(6))  # He's start: else a deep one computes with denormal numbers
        layers += [linear, ReLU()]
    return Sequential(*layers, Linear(width, CLASSES, rng=0))


def convnet(sizes: Sizes) -> Layer:
    """Convolution 3x3, normalisation and ReLU, `depth` times, and the mean over the image."""
    channels = [3, *(sizes["width"] for _ in range(sizes["depth"]))]
    layers: list[Layer] = []
    for i, (a, b) in enumerate(itertools.pairwise(channels)):
        layers += [Conv2d(a, b, 3, padding=1, bias=False, rng=i), BatchNorm2d(b), ReLU()]
    return Sequential(*layers, AdaptiveAvgPool2d(1), Flatten(), Linear(channels[-1], CLASSES, rng=0))


def lstm(sizes: Sizes) -> Layer:
    """LSTM layers with a way around each, and a Linear at every step."""
    width = sizes["width"]
    layers = [Residual(LSTM(width, width, rng=i)) for i in range(sizes["depth"])]
    return Sequential(*layers, Linear(width, CLASSES, rng=0), Flatten(0, 1))


def gpt(sizes: Sizes) -> Layer:
    """The blocks of nanoGPT, four heads each."""
    return networks.gpt(Backhand(), CLASSES, sizes["length"], sizes["depth"], 4, sizes["width"])


def normal(*names: str) -> Callable[[Sizes, np.random.Generator], Array]:
    """Inputs of normal numbers, of the shape that these sizes make."""
    return lambda sizes, rng: rng.standard_normal([sizes[name] for name in names], np.float32)


FAMILIES = {
    "MLP": Family(
        mlp,
        normal("batch", "width"),
        {"batch": 64, "depth": 4, "width": 256},
        {"batch": doubled(1, 1024), "depth": doubled(2, 64), "width": doubled(16, 2048)},
    ),
    "ConvNet": Family(
        convnet,
        lambda sizes, rng: rng.standard_normal((sizes["batch"], 3, sizes["length"] // 8, 8), np.float32),
        {"batch": 16, "depth": 4, "width": 16, "length": 256},
        {
            "batch": doubled(1, 1024),
            "depth": doubled(2, 64),
            "width": doubled(4, 128),
            "length": doubled(64, 8192),
        },
    ),
    "LSTM": Family(
        lstm,
        normal("length", "batch", "width"),
        {"batch": 16, "depth": 2, "width": 64, "length": 32},
        {
            "batch": doubled(1, 1024),
            "depth": doubled(2, 64),
            "width": doubled(16, 512),
            "length": doubled(8, 1024),
        },
    ),
    "GPT": Family(
        gpt,
        lambda sizes, rng: rng.integers(0, CLASSES, (sizes["batch"], sizes["length"])),
        {"batch": 8, "depth": 2, "width": 64, "length": 32},
        {
            "batch": doubled(1, 1024),
            "depth": doubled(2, 64),
            "width": doubled(16, 512),
            "length": doubled(8, 1024),
        },
        square=("width", "length"),
    ),
}
AXES = {
    "batch": "batch size",
    "depth": "depth, layers or blocks",
    "width": "width, units or channels",
    "length": "length: steps, tokens, pixels",
}


# ---------------------------------------------------------------------- measuring


class Trained:
    """A network with its batch, loss and optimizer."""

    def __init__(self, family: Family, sizes: Sizes) -> None:
        rng = np.random.default_rng(0)
        self.model = family.build(sizes).input_requires_grad_(False)
        self.x = family.batch(sizes, rng)
        rows = self.x.size if self.x.dtype.kind == "i" else len(self.x)
        if family.build is lstm:
            rows = sizes["length"] * sizes["batch"]
        self.target = rng.integers(0, CLASSES, rows)
        self.loss = CrossEntropyLoss()
        self.optimizer = Adam(self.model.parameters(), lr=1e-4)

    def step(self) -> None:
        """One step of training."""
        self.optimizer.zero_grad()
        self.loss(self.model(self.x), self.target)
        self.model.backward(self.loss.backward())
        self.optimizer.step()


def measured(family: Family, sizes: Sizes, seconds: float) -> tuple[float, int, int]:
    """The fewest seconds of a step, the most bytes in it, its multiply-adds."""
    return (
        fastest(Trained(family, sizes).step, seconds),
        most_bytes(lambda: Trained(family, sizes)),
        _work(family, sizes),
    )


def _work(family: Family, sizes: Sizes) -> int:
    trained = Trained(family, sizes)
    return multiply_adds(trained.model, trained.x)["step"]


def fastest(run: Callable[[], Any], seconds: float) -> float:
    """The shortest time of a run, of three at least: what else the machine did can only have made one longer.

    With one thread it is the processor's time, which does not count when others had the core.
    """
    clock = time.process_time if get_num_threads() == 1 else time.perf_counter
    run()
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        start = clock()
        run()
        times.append(clock() - start)
    return min(times)


def most_bytes(build: Callable[[], Any]) -> int:
    """The most that Python and NumPy hold in the third step of what is built, itself included."""
    tracemalloc.start()
    try:
        with pool_apart(memory.Pool()):
            trained = build()
            for _ in range(3):
                tracemalloc.reset_peak()
                trained.step()
            return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# ---------------------------------------------------------------------- what it says


def exponent(points: list[Point], what: str) -> float:
    """p of cost = c * size^p, fitted to the larger half of the sizes: below them, what is constant counts."""
    half = points[min(len(points) // 2, len(points) - 2) :]
    if len(half) < 2:
        return float("nan")
    x, y = (np.log([float(getattr(p, name)) for p in half]) for name in ("value", what))
    return float(np.polyfit(x, y, 1)[0])


def cliffs(points: list[Point], square: bool) -> list[str]:
    """The sizes at which a multiply-add takes, or a unit of size holds, CLIFF times as much as at the size before."""
    found = []
    for a, b in itertools.pairwise(points):
        slower = (b.seconds / b.work) / (a.seconds / a.work)
        growth = (b.value / a.value) ** (2 if square else 1)
        larger = b.bytes / a.bytes / growth
        if slower > CLIFF:
            found.append(f"time x{slower:.1f} at {b.value}")
        if larger > CLIFF:
            found.append(f"memory x{larger:.1f} at {b.value}")
    return found


def table(found: dict[str, dict[str, list[Point]]]) -> Iterator[str]:
    """A line for each curve, and one for each cliff."""
    yield f"{'network':<9}{'by':<8}{'sizes':<13}{'ms':>16}{'~ size^':>9}{'MB':>16}{'~ size^':>9}  cliffs"
    for name, curves in found.items():
        for axis, points in curves.items():
            first, last = points[0], points[-1]
            yield (
                f"{name:<9}{axis:<8}{f'{first.value} to {last.value}':<13}"
                f"{f'{1e3 * first.seconds:.3g} to {1e3 * last.seconds:.3g}':>16}{exponent(points, 'seconds'):>9.2f}"
                f"{f'{first.bytes / 1e6:.3g} to {last.bytes / 1e6:.3g}':>16}{exponent(points, 'bytes'):>9.2f}"
                f"  {', '.join(cliffs(points, axis in FAMILIES[name].square)) or 'none'}"
            )


def draw(found: dict[str, dict[str, list[Point]]], path: str) -> None:
    """Time above, memory below, a column for each size, both axes logarithmic; grey lines have slope 1 and 2."""
    columns = [axis for axis in AXES if any(axis in curves for curves in found.values())]
    figure = style.new_figure(3.0 * len(columns) + 0.6, 6.0)
    panels = figure.subplots(2, len(columns), sharex="col", sharey="row", squeeze=False)
    for row, (what, scale, unit) in enumerate([("seconds", 1e3, "ms a step"), ("bytes", 1e-6, "MB at most in a step")]):
        panels[row][0].set_ylabel(unit)
        every = [scale * getattr(p, what) for curves in found.values() for points in curves.values() for p in points]
        for column, axis in enumerate(columns):
            curves = {name: curves[axis] for name, curves in found.items() if axis in curves}
            values = [p.value for points in curves.values() for p in points]
            first, last = min(values), max(values)
            ax = panels[row][column]
            ax.set_xscale("log", base=2)
            ax.set_yscale("log")
            ax.set_xlim(first / 1.3, last * max(last / first, 2) ** 0.3)  # room for the names
            ax.set_ylim(min(every) / 2, max(every) * 2)
            ticks = doubled(first, last)[:: 2 if len(doubled(first, last)) < 9 else 3]
            ax.set_xticks(ticks, [str(n) for n in ticks])
            ax.minorticks_off()
            ax.grid(True, color="0.92", linewidth=0.6)
            ax.spines[["top", "right"]].set_visible(False)
            ends: list[tuple[float, float, str, str]] = []
            for name, points in curves.items():
                colour, marker = (choice[list(FAMILIES).index(name)] for choice in (style.RUNS, style.MARKERS))
                y = [scale * float(getattr(p, what)) for p in points]
                ax.plot([p.value for p in points], y, color=colour, marker=marker, markersize=3.5, linewidth=1.4)
                ends.append((y[-1], points[-1].value, name, colour))
            _label(ax, ends, "left" if axis == "width" else "right")
            steepest = 2 if any(axis in FAMILIES[name].square for name in curves) else 1
            for slope in range(1, steepest + 1):
                _guide(ax, slope, last / max(last / first, 2) ** 0.35, last)
            if row:
                ax.set_xlabel(AXES[axis])
    figure.savefig(path, format="png", dpi=68, metadata={"Software": None}, pil_kwargs={"optimize": True})


def _label(ax: Axes, ends: list[tuple[float, float, str, str]], side: str) -> None:
    """The name of each curve beside its end, those that end close together moved apart."""
    low, high = np.log(ax.get_ylim())
    left = side == "left"
    below: dict[float, float] = {}  # where a curve ends -> the height of the last name there
    for y, x, name, colour in sorted(ends):
        below[x] = at = max(np.log(y), below.get(x, -np.inf) + 0.06 * (high - low))
        ax.annotate(
            name,
            (x, np.exp(at)),
            xytext=(-6, 3) if left else (6, 0),
            textcoords="offset points",
            color=colour,
            fontsize=8,
            ha="right" if left else "left",
            va="center",
        )


def _guide(ax: Axes, slope: int, first: float, last: float) -> None:
    """A straight line of this slope between two sizes, in the lower right corner, where the curves leave room."""
    low, high = ax.get_ylim()
    start = low * (high / low) ** 0.04
    last = min(last, first * (0.5 * high / start) ** (1 / slope))
    end = start * (last / first) ** slope
    ax.plot([first, last], [start, end], color=style.NEUTRAL, linewidth=1, linestyle="--" if slope == 1 else ":")
    ax.annotate(
        f"slope {slope}", (last, end), xytext=(4, 0), textcoords="offset points", color="0.4", fontsize=7, va="center"
    )


# ---------------------------------------------------------------------- prediction, and eval


def predicted(name: str) -> dict[str, int]:
    """What summary() says of a model: its parts, and their sum."""
    workload = MODELS[name]
    side = Ours(name, 1)
    cls, options = getattr(side.optimizers, workload.optimizer), workload.options
    found = summary(side.model, side.batch[0], optimizer=lambda parameters: cls(parameters, **options))
    assert found.peak_bytes and found.cached_bytes is not None and found.working_bytes is not None
    return {
        "parameters": found.parameter_bytes + found.gradient_bytes,
        "optimizer": found.optimizer_bytes or 0,
        "cached": found.cached_bytes,
        "working": found.working_bytes,
        "peak": found.peak_bytes,
    }


def used(name: str) -> tuple[int, float]:
    """What real steps of training need in a process of their own: bytes counted, and bytes resident above its start."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as counting:
        counted = counting.apply(_counted, (name,))
    with context.Pool(1) as running:
        above = running.apply(_resident, (name,))
    return counted, above


def _counted(name: str) -> int:
    Ours("digits-mlp", 1).run(1)  # imports what is imported late
    return most_bytes(lambda: Ours(name, 1))


def _resident(name: str) -> float:
    Ours("digits-mlp", 1).run(1)
    a = np.ones((512, 512), np.float32)
    a @ a  # the BLAS maps its buffers
    before = resident("VmRSS")
    side = Ours(name, 1)
    side.run(1)
    side.forget_peak()
    side.run(3)
    return resident("VmHWM") - before


def memory_table(names: list[str]) -> Iterator[str]:
    """Predicted and used memory of each model, in MB."""
    parts = ("parameters", "optimizer", "cached", "working", "peak")
    heads = ("+ gradients", *parts[1:4], "predicted")
    yield f"{'model':<18}{''.join(f'{head:>12}' for head in heads)}{'counted':>12}{'off by':>9}{'resident':>10}"
    for name in names:
        guess, (counted, above) = predicted(name), used(name)
        numbers = "".join(f"{guess[part] / 1e6:>12.3g}" for part in parts)
        yield f"{name:<18}{numbers}{counted / 1e6:>12.3g}{guess['peak'] / counted - 1:>+9.1%}{above / 1e6:>10.3g}"


def _forward(side: Ours) -> None:
    side.model(side.batch[0])
    for layer in side.model.modules():
        layer.forget()


def eval_table(names: list[str], seconds: float) -> Iterator[str]:
    """Forward with caches beside forward in eval(), in turn."""
    yield f"{'model':<18}{'training ms':>12}{'eval ms':>10}{'training / eval':>17}"
    for name in names:
        side = Ours(name, 1)
        best = {True: np.inf, False: np.inf}
        end = time.perf_counter() + seconds
        turns = 0
        while turns < 4 or time.perf_counter() < end:
            for training in best:
                side.model.train(training)
                best[training] = min(best[training], fastest(functools.partial(_forward, side), 0))
            turns += 1
        yield f"{name:<18}{1e3 * best[True]:>12.3g}{1e3 * best[False]:>10.3g}{best[True] / best[False]:>17.2f}"


# ---------------------------------------------------------------------- the command line


def main(arguments: list[str] | None = None) -> int:
    """Run it; returns the exit status."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.growth", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", help=f"some of {', '.join(FAMILIES)} (default: all)")
    parser.add_argument("--by", help=f"some of {', '.join(AXES)} (default: all)")
    parser.add_argument("--largest", type=int, help="leave out the sizes above this")
    parser.add_argument("--seconds", type=float, default=0.3, help="for each size, or each model (default: 0.3)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--figure", metavar="FILE", help="draw it there, as PNG")
    parser.add_argument("--json", metavar="FILE", help="write all numbers there")
    parser.add_argument("--memory", action="store_true", help="predicted and used memory of the benchmarks' models")
    parser.add_argument("--eval", action="store_true", help="forward in training and in eval, of the same models")
    parser.add_argument("--model", help="with --memory and --eval: some of the models (default: all)")
    options = parser.parse_args(arguments)
    networks_ = _chosen(parser, "--network", options.network, FAMILIES)
    axes = _chosen(parser, "--by", options.by, AXES)
    models = _chosen(parser, "--model", options.model, MODELS)
    with threadpool_limits(options.threads):
        if options.memory or options.eval:
            for lines in [memory_table(models)] * options.memory + [eval_table(models, options.seconds)] * options.eval:
                for line in lines:
                    print(line, flush=True)
            return 0
        found: dict[str, dict[str, list[Point]]] = {}
        for name in networks_:
            family = FAMILIES[name]
            for axis, values in family.axes.items():
                if axis in axes:
                    points = found.setdefault(name, {}).setdefault(axis, [])
                    for value in values:
                        if options.largest is None or value <= options.largest:
                            sizes = {**family.usual, axis: value}
                            points.append(Point(value, *measured(family, sizes, options.seconds)))
    print(*table(found), sep="\n")
    if options.figure:
        draw(found, options.figure)
    if options.json:
        with open(options.json, "w") as file:
            plain = {n: {axis: [p._asdict() for p in points] for axis, points in c.items()} for n, c in found.items()}
            json.dump(plain, file, indent=1)
    return 0


def _chosen(parser: argparse.ArgumentParser, option: str, given: str | None, names: Any) -> list[str]:
    chosen = list(names) if given is None else given.split(",")
    for name in chosen:
        if name not in names:
            parser.error(f"{option} {name}: expected some of {', '.join(names)}")
    return chosen


if __name__ == "__main__":
    sys.exit(main())
