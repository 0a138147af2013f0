"""python -m benchmarks.growth: how time and memory of a training step grow with batch, depth, width and length.

python -m benchmarks.growth --figure growth.png         the table below, and as a picture
python -m benchmarks.growth --memory                    what summary() predicts for each model, and what is used
python -m benchmarks.growth --eval                      forward in eval() beside forward in training
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from backhand.inspection import summary
from benchmarks.growth_picture import draw, table
from benchmarks.growth_sizes import AXES, FAMILIES, Point, fastest, measured, most_bytes
from benchmarks.sides import Ours, resident
from benchmarks.workloads import MODELS

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
