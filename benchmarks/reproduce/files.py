"""Where the scripts find their data, and what they say where there is none."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from backhand.datasets import DataError
from backhand.training.option_types import Parser, at_least

SOURCES = {
    "tinyshakespeare.txt": "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
    "names.txt": "https://raw.githubusercontent.com/karpathy/makemore/master/names.txt",
}


def options(
    name: str, text: str | None, more: argparse.ArgumentParser | None = None, **extra: int
) -> argparse.Namespace:
    """The arguments of a script: --data-dir, --seed, --picture, and whole numbers with their defaults.

    A number whose default is 0 may be 0, the others are at least 1.
    """
    parents = [] if more is None else [more]
    parser = Parser(f"python -m benchmarks.reproduce.{name}", description=text, parents=parents)
    parser.add_argument("--data-dir", metavar="DIR", type=Path, default=Path("data"), help="where the file is (data)")
    parser.add_argument("--seed", type=at_least(0), default=0)
    parser.add_argument("--picture", metavar="PNG", type=Path, help="where to leave a picture, if the script draws one")
    for key, value in extra.items():
        parser.add_argument(f"--{key}", type=at_least(min(value, 1)), default=value, help=f"({value})")
    asked = parser.parse_args()
    for key, value in vars(asked).items():
        if isinstance(value, Path) and key != "data_dir":
            writable(parser, f"--{key}", value)
    return asked


def writable(parser: argparse.ArgumentParser, name: str, path: Path) -> None:
    """Refuse a file that cannot be written, before anything runs."""
    if not path.parent.is_dir():
        parser.error(f"{name} {path}: there is no folder {path.parent}")
    if path.is_dir():
        parser.error(f"{name} {path}: this is a folder")


def stop(problem: object) -> NoReturn:
    """Say what is wrong, in one line, and end with status 2."""
    print(problem, file=sys.stderr)
    raise SystemExit(2)


def found(folder: Path, name: str) -> Path:
    """The file in the folder; where there is none, say what to do, and end with status 2."""
    path = folder / name
    if not path.is_file():
        stop(f"{path} is not there: get {SOURCES[name]} and save it as {path}")
    return path


def loaded(load: Callable[..., Any], folder: Path, name: str, *arguments: Any, **options: Any) -> Any:
    """What `load` makes of the file in the folder; where it cannot, say why, and end with status 2."""
    path = found(folder, name)
    try:
        return load(path, *arguments, **options)
    except DataError as problem:
        stop(problem if str(path) in str(problem) else f"{path}: {problem}")
