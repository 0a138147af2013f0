"""The image architectures beside what is published of them, and beside PyTorch in float32.

The first table: parameters, output and multiply-adds of one forward of one image. The second, where torch and
torchvision are installed: errors |a - b| / |b| on the same random weights, the largest of all gradients.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator

from backhand.training.option_types import Parser, at_least
from benchmarks.reproduce.architectures import ARCHITECTURES, Blank, fits, measure


def main() -> None:
    """A minute or two, 5 GB."""
    parser = Parser("python -m benchmarks.reproduce.counts", description=__doc__)
    parser.add_argument("--seed", type=at_least(0), default=0)
    parser.add_argument("--counts-only", action="store_true", help="without the comparison in float32")
    asked = parser.parse_args()
    heads = ("model", "parameters", "published", "output", "multiply-adds", "published", "equal", "source")
    show(heads, (12, 11, 23, 10, 14, 9, 5, 42), counted())
    if asked.counts_only:
        return
    try:
        from benchmarks.reproduce import beside_torch

        beside_torch.torchvision()
    except ImportError as error:
        print(f"\n{error}: without it nothing is compared in float32; pip install -e '.[parity]'")
        return
    print(
        "\nfloat32 beside PyTorch (decisions of ReLU and max-pooling alike: see benchmarks/reproduce/beside_torch.py)\n"
    )
    heads = ("model", "mode", "forward", "gradients", "from float64", "torch from float64", "ties", "decided alike")
    since = time.perf_counter()
    show(heads, (11, 5, 7, 9, 12, 18, 15, 13), compared(asked.seed))
    print(f"\nseed {asked.seed}: {time.perf_counter() - since:.0f} s")


def counted() -> Iterator[tuple[str, ...]]:
    """A row for each architecture."""
    for name, row in ARCHITECTURES.items():
        found = measure(row.build(rng=Blank()), row.image)
        equal = (
            (found.parameters, found.multiply_adds) == (row.parameters, row.multiply_adds)
            and fits(found.parameters, row.published[0])
            and fits(found.multiply_adds, row.published[1])
            and {key: found.stages[key] for key in row.stages} == row.stages
            and {key: found.layers[key] for key in row.layers} == row.layers
        )
        parameters, work = (words or "-" for words in row.published)
        yield (
            *(name, f"{found.parameters:,}", parameters, str(found.output)),
            *(f"{found.multiply_adds:,}", work, "yes" if equal else "NO", row.source),
        )


def compared(seed: int) -> Iterator[tuple[str, ...]]:
    """A row for each of the five, and both modes where there is batch normalisation."""
    from benchmarks.reproduce.beside_torch import PAIRS

    for name in PAIRS:
        for training in (True, False) if name.startswith("ResNet") else (True,):
            yield beside(name, training, seed)


def beside(name: str, training: bool, seed: int) -> tuple[str, ...]:
    """One comparison; what it needed, up to some GB, is free when it is done."""
    import torch

    from benchmarks.reproduce.beside_torch import Beside, agreement

    both = Beside(name, seed, training=training)
    ours, decisions = both.run_ours()
    theirs, _ = both.run_theirs()
    plain = agreement(ours, theirs)
    alike, ties = both.run_theirs(decisions)
    same = agreement(ours, alike)
    del alike
    exact, _ = both.run_theirs(dtype=torch.float64)
    errors = (plain.forward, plain.gradients, agreement(ours, exact).gradients, agreement(theirs, exact).gradients)
    return (
        *(name, "train" if training else "eval", *(f"{each:.1e}" for each in errors)),
        *(f"{ties.number} of {ties.of:,}", f"{same.gradients:.1e}"),
    )


def show(heads: tuple[str, ...], widths: tuple[int, ...], rows: Iterable[tuple[str, ...]]) -> None:
    """A table in Markdown, each row printed as soon as it is known."""
    rule = tuple("-" * width for width in widths)
    for row in itertools.chain((heads, rule), rows):
        cells = (f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
