"""One table of every layer, gate, container and loss: what drives check_layer, parity and the completeness test.

A new layer is three edits: the class, its export, and one row in the file of its family here.
"""

from __future__ import annotations

import importlib
import inspect
import itertools
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backhand.layers import Layer


def off_kink(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Normal numbers with |x| > 0.1, so that no central difference steps over a kink at 0."""
    x = rng.standard_normal(shape)
    return np.where(x < 0, x - 0.1, x + 0.1)


def labels(classes: int, *shape: int, seed: int = 0) -> np.ndarray:
    """Integer class labels in [0, classes)."""
    return np.random.default_rng(seed).integers(0, classes, shape)


def uniform(*shape: int, low: float = 0.05, high: float = 0.95, seed: int = 0) -> np.ndarray:
    """Numbers in (low, high): probabilities, say."""
    return np.random.default_rng(seed).uniform(low, high, shape)


@dataclass
class Case:
    """One way to build a layer and what to feed it.

    cls : the class; the row covers it for the completeness test
    args : the positional arguments, or a function that makes them (for containers: fresh layers each time)
    inputs : for each input a shape (filled with numbers off the kinks), an array, or a list of those (a tuple input)
    eval : run in eval mode (with caches)
    torch : whether torch.nn has the same class with the same meaning; None means: if it has one of that name
    kwargs : the keyword arguments
    checked : a subclass that check_layer runs instead, where the gradient is by something else than the input
    options : keyword arguments of forward, for parity (masks, say); check_layer runs without them
    """

    cls: type[Layer]
    args: Any = ()
    inputs: Any = ()
    eval: bool = False
    torch: bool | None = None
    kwargs: dict[str, Any] = field(default_factory=dict)
    checked: type[Layer] | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def build(self, dtype: Any = np.float64, cls: type[Layer] | None = None) -> Layer:
        arguments = self.args() if callable(self.args) else self.args
        extra = dict(self.kwargs)
        accepted = inspect.signature(self.cls).parameters
        if "rng" in accepted:
            extra.setdefault("rng", 0)
        layer = (cls or self.cls)(*arguments, **extra).astype(dtype)
        spread_parameters(layer)
        return layer.eval(caching=True) if self.eval else layer

    def arrays(self, seed: int = 1) -> tuple[Any, ...]:
        rng = np.random.default_rng(seed)
        return tuple(_fill(rng, spec) for spec in self.inputs)

    def __str__(self) -> str:
        arguments = [] if callable(self.args) else [_brief(a) for a in self.args]
        arguments += [f"{k}={_brief(v)}" for k, v in self.kwargs.items()]
        shapes = ",".join(_brief(spec) for spec in self.inputs)
        shapes += "".join(f",{k}={_brief(v)}" for k, v in self.options.items())
        return f"{self.cls.__name__}({','.join(arguments)})-{shapes}{'-eval' if self.eval else ''}".replace(" ", "")


def spread_parameters(layer: Layer) -> None:
    """Move parameters and float buffers away from 0 and 1, which hide a backward that forgets them."""
    rng = np.random.default_rng(7)
    for array in [p.data for p in layer.parameters()] + [b for _, b in layer.named_buffers()]:
        if array.dtype.kind == "f" and np.ptp(array) == 0:
            array += rng.uniform(0.1, 0.5, array.shape)


def grid(cls: type[Layer], inputs: Any, *args: Any, **choices: list[Any]) -> Iterator[Case]:
    """A Case for every combination of the keyword choices."""
    for values in itertools.product(*choices.values()):
        yield Case(cls, args, inputs, kwargs=dict(zip(choices, values, strict=True)))


def families(name: str) -> list[Case]:
    """The rows that the files of this folder hold under `name` (CASES, or GRID: for parity only)."""
    rows: list[Case] = []
    for module in pkgutil.iter_modules(__path__):
        rows += getattr(importlib.import_module(f"{__name__}.{module.name}"), name, [])
    return rows


def _fill(rng: np.random.Generator, spec: Any) -> Any:
    if isinstance(spec, list):
        return tuple(_fill(rng, item) for item in spec)
    return off_kink(rng, spec) if isinstance(spec, tuple) else np.array(spec)


def _brief(value: Any) -> str:
    if isinstance(value, type):
        return value.__name__
    return f"array{value.shape}" if isinstance(value, np.ndarray) else str(value)
