"""The curves that `benchmarks.reproduce.ntm --curve` has left, a panel for each task, in one picture.

python -m benchmarks.reproduce.ntm_curves copy.png runs/copy-*.json
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from backhand.inspection import style
from backhand.training.option_types import Parser, at_least
from benchmarks.reproduce.files import writable
from benchmarks.reproduce.ntm import CONVERGED, TASKS

NAMES = {"feedforward": "NTM, feed-forward", "lstm": "NTM, LSTM", "baseline": "LSTM alone"}


def main() -> None:
    """Draw them; the runs of one model share a colour and a marker."""
    parser = Parser("python -m benchmarks.reproduce.ntm_curves", description=__doc__)
    parser.add_argument("picture", type=Path)
    parser.add_argument("curves", type=Path, nargs="+", metavar="JSON")
    parser.add_argument("--columns", type=at_least(1), default=3)
    asked = parser.parse_args()
    writable(parser, "picture", asked.picture)
    try:
        runs = [json.loads(path.read_text()) for path in asked.curves]
    except (OSError, ValueError) as problem:
        parser.error(f"a curve cannot be read: {problem}")
    tasks = [task for task in TASKS if any(run["task"] == task for run in runs)]
    columns = min(asked.columns, len(tasks))
    rows = -(-len(tasks) // columns)
    figure = style.new_figure(3.6 * columns, 2.9 * rows)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for ax, task in zip(panels, tasks, strict=False):
        draw(ax, task, [run for run in runs if run["task"] == task])
    for ax in panels[len(tasks) :]:
        ax.set_axis_off()
    labels = {label: line for ax in panels for line, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    named = [name for name in NAMES.values() if name in labels]
    figure.legend([labels[name] for name in named], named, loc="outside lower center", ncols=3, frameon=False)
    style.save_png(figure, asked.picture)


def draw(ax: Any, task: str, runs: list[dict[str, Any]]) -> None:
    """The curves of one task; on a logarithmic scale where one of them gets near 0."""
    named = set()
    for run in runs:
        bits = np.array(run["bits"])
        x = run["window"] * np.arange(1, len(bits) + 1) / 1000
        which = list(NAMES).index(run["model"])
        label = None if run["model"] in named else NAMES[run["model"]]
        named.add(run["model"])
        every = max(1, len(bits) // 8)
        ax.plot(
            x, bits, color=style.RUNS[which], marker=style.MARKERS[which], markevery=every, ms=3, lw=0.9, label=label
        )
    if min(min(run["bits"]) for run in runs) < 1:
        ax.set_yscale("log")
        ax.axhline(CONVERGED, color=style.NEUTRAL, lw=0.8, ls=":")
    chance = TASKS[task]().chance
    ax.axhline(chance, color=style.NEUTRAL, lw=0.8, ls="--")
    ax.annotate("guessing", (0.99, chance), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=7)
    ax.set(title=task, xlabel="thousand sequences", ylabel="bits per sequence")


if __name__ == "__main__":
    main()
