"""`backhand check FILE.py:Class`: the gradient doctor for a class, or a pair of functions, in somebody's own file."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from backhand.inspection import check_gradients
from backhand.inspection.shapes import raised_at
from backhand.layers import Parameter
from backhand.layers.parameter import Array

EXAMPLES = """examples:
  backhand check layers.py:Affine                    a class that needs no arguments
  backhand check "layers.py:Affine(3, 5)" --input 4,3
  backhand check layers.py:relu,relu_backward        f(x), and df(dout), df(dout, x) or df(dout, cache)
  backhand check layers.py:Embedding --input 6:10    six integers below 10"""
ABOUT = """Check the backward of a class with forward(x) and backward(dout), or of a pair of functions, against central
differences in float64, and say what is wrong. Exit status: 0 right, 1 wrong, 2 it could not be checked."""
# Tried one after the other when no --input is given; d is the size of some axis of a parameter.
SHAPES = ("4,3", "4,d", "2,3,d", "2,d,5", "2,d,6,6", "2,3,6,6", "5:3")


class CheckError(ValueError):
    """Why something could not be checked, in one line."""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The arguments of `backhand check`."""
    command.add_argument("what", metavar="FILE.py:CLASS", help="a class, its constructor call, or two functions: f,df")
    command.add_argument(
        "--input",
        action="append",
        metavar="SHAPE",
        help="the shape of an input, as in 4,3; or 4,3:10 for integers below 10; once for each input (guessed)",
    )
    command.add_argument("--seed", type=int, default=0, help="of the random input and dout (%(default)s)")


def check(options: argparse.Namespace) -> int:
    """Print the report; 0 when nothing is wrong, else 1. Raises CheckError where it does not come to a report."""
    file, _, name = options.what.partition(":")
    if not name:
        raise CheckError(f"expected FILE.py:CLASS, got {options.what!r}")
    with imported(file) as module:
        thing = built(module, name)
        inputs = drawn(options.input, options.seed) if options.input else guessed(thing, options.seed, name)
        try:
            report = check_gradients(thing, *inputs, rng=options.seed)
        except (Exception, SystemExit) as error:
            shapes = " and ".join(str(x.shape) for x in inputs)
            said = f"{_said(error)}{raised_at(error)}"
            if isinstance(error, SystemExit):
                raise CheckError(f"{name} ends the program: {said}") from error
            raise CheckError(f"{name} does not take an input of shape {shapes}: {said}") from error
    shapes = " and ".join(str(x.shape) for x in inputs)
    print(f"x of shape {shapes}{'' if options.input else ' (choose with --input)'}")
    print(report)
    return 0 if report else 1


@contextlib.contextmanager
def imported(file: str) -> Iterator[ModuleType]:
    """The file as a module, with its folder on the path while it is used; the error says why it does not import."""
    path = Path(file)
    if not path.is_file():
        raise CheckError(f"{file}: no such file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise CheckError(f"{file}: expected a Python file, FILE.py:CLASS")
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(path.stem)
    sys.path.insert(0, str(path.parent.resolve()))
    sys.modules[path.stem] = module
    try:
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            raise CheckError(f"{file} does not import: {_said(error)}") from error
        yield module
    finally:
        sys.path.remove(str(path.parent.resolve()))
        if before is None:
            sys.modules.pop(path.stem, None)
        else:
            sys.modules[path.stem] = before


def built(module: ModuleType, name: str) -> Any:
    """What `name` stands for: an object of the class, the result of a constructor call, or a pair of functions."""
    if "(" in name:
        _named(module, name.partition("(")[0])
        try:
            thing = eval(name, dict(vars(module)))  # the user's own file, and the user's own words
        except Exception as error:
            raise CheckError(f"{name} cannot be built: {_said(error)}") from error
    elif "," in name:
        pair = tuple(_named(module, part.strip()) for part in name.split(","))
        if len(pair) != 2 or not all(map(callable, pair)):
            raise CheckError(f"expected two functions, f,df, got {name}")
        return pair
    else:
        thing = _named(module, name)
        if isinstance(thing, type):
            try:
                thing = thing()
            except Exception as error:
                raise CheckError(
                    f'{name}() cannot be built: {_said(error)}; give its arguments, as in "FILE.py:{name}(3, 4)"'
                ) from error
    for method in ("forward", "backward"):
        if not callable(getattr(thing, method, None)) and not (method == "forward" and callable(thing)):
            raise CheckError(f"{name} has no {method}(); two functions are checked as FILE.py:f,df")
    return thing


def _named(module: ModuleType, name: str) -> Any:
    if not hasattr(module, name):
        there = [n for n, v in vars(module).items() if callable(v) and getattr(v, "__module__", "") == module.__name__]
        raise CheckError(f"{Path(str(module.__file__)).name} has no {name}; it has {', '.join(there) or 'no class'}")
    return getattr(module, name)


def drawn(shapes: list[str], seed: int) -> tuple[Array, ...]:
    """An array for each shape as it is typed: normal numbers away from 0, or integers below a number."""
    rng = np.random.default_rng(seed)
    return tuple(_array(text, rng) for text in shapes)


def _array(text: str, rng: np.random.Generator) -> Array:
    sizes, colon, below = text.partition(":")
    try:
        shape = tuple(int(n) for n in sizes.split(",") if n)
        if min(shape, default=1) < 1 or (colon and int(below) < 1):
            raise ValueError
    except ValueError as error:
        raise CheckError(f"expected --input like 4,3 or 4,3:10, got {text!r}") from error
    if colon:
        return rng.integers(0, int(below), shape)
    x = rng.standard_normal(shape)
    return np.asarray(x + np.sign(x) * 0.1)


def guessed(thing: Any, seed: int, name: str) -> tuple[Array, ...]:
    """The first of some usual inputs that forward takes."""
    error: Exception | None = None
    widths = sorted({n for array in _weights(thing) for n in array.shape}) or [3]
    for shape in SHAPES:
        for width in widths if "d" in shape else [0]:
            inputs = drawn([shape.replace("d", str(width))], seed)
            forward = thing[0] if isinstance(thing, tuple) else getattr(thing, "forward", thing)
            try:
                with np.errstate(all="ignore"):
                    forward(*(x.copy() for x in inputs))
            except Exception as raised:  # then another
                error = raised
                continue
            return inputs
    last = "" if error is None else f" (forward raises {_said(error)}{raised_at(error)})"
    raise CheckError(f"{name} takes none of the usual inputs{last}; say --input SHAPE, once for each input")


def _weights(thing: Any) -> list[Array]:
    owned = list(vars(thing).values()) if hasattr(thing, "__dict__") else []
    owned += [v for each in owned if isinstance(each, dict) for v in each.values()]
    arrays = [v.data if isinstance(v, Parameter) else v for v in owned]
    return [v for v in arrays if isinstance(v, np.ndarray) and v.size]


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
