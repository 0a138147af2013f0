"""What the command line takes as the value of an option; a mistake is told in one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np


class CommandError(Exception):
    """What the user has to know, in one line."""


class Parser(argparse.ArgumentParser):
    """argparse, with one line for a mistake."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message} ({self.prog} --help shows the options)", file=sys.stderr)
        raise SystemExit(2)


def number(text: str, kind: type) -> Any:
    """A finite number of this kind."""
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not (kind is int or np.isfinite(value)):
        raise argparse.ArgumentTypeError(f"expected {'an integer' if kind is int else 'a number'}, got {text!r}")
    return value


def at_least(least: int) -> Callable[[str], int]:
    """A whole number that is not smaller."""

    def convert(text: str) -> int:
        value: int = number(text, int)
        if value < least:
            raise argparse.ArgumentTypeError(f"expected {least} or more, got {text}")
        return value

    return convert


def between(low: float, high: float) -> Callable[[str], float]:
    """A number from `low` to below `high`."""

    def convert(text: str) -> float:
        value: float = number(text, float)
        if not low <= value < high:
            raise argparse.ArgumentTypeError(f"expected {low:g} or more and less than {high:g}, got {text}")
        return value

    return convert


def positive(text: str) -> float:
    """A number above 0."""
    value: float = number(text, float)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"expected more than 0, got {text}")
    return value


def not_negative(text: str) -> float:
    """A number, 0 or more."""
    value: float = number(text, float)
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected 0 or more, got {text}")
    return value


def sizes(text: str) -> tuple[int, ...]:
    """Positive whole numbers with commas between them, or nothing."""
    return tuple(at_least(1)(part) for part in text.split(",")) if text else ()
