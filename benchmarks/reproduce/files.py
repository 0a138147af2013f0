"""Where the scripts find their data, and what they say where there is none."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

SOURCES = {
    "tinyshakespeare.txt": "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
    "names.txt": "https://raw.githubusercontent.com/karpathy/makemore/master/names.txt",
}


def options(
    name: str, text: str | None, more: argparse.ArgumentParser | None = None, **extra: int
) -> argparse.Namespace:
    """The arguments of a script: --data-dir, --seed, --picture, and whole numbers with their defaults."""
    parents = [] if more is None else [more]
    parser = argparse.ArgumentParser(f"python -m benchmarks.reproduce.{name}", description=text, parents=parents)
    parser.add_argument("--data-dir", metavar="DIR", type=Path, default=Path("data"), help="where the file is (data)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", metavar="PNG", type=Path, help="where to leave a picture, if the script draws one")
    for key, value in extra.items():
        parser.add_argument(f"--{key}", type=int, default=value, help=f"({value})")
    return parser.parse_args()


def found(folder: Path, name: str) -> Path:
    """The file in the folder; where there is none, say what to do, and end with status 2."""
    path = folder / name
    if not path.is_file():
        print(f"{path} is not there: get {SOURCES[name]} and save it as {path}", file=sys.stderr)
        raise SystemExit(2)
    return path
