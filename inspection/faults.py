"""What the doctor finds: faults with a name, words for them, and which comes first among those that explain as well."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from backhand.inspection.evidence import Target
from backhand.layers.parameter import Array

# Occam's order: of two explanations that fit, the one further up needs less to be believed.
ORDER = (
    "stochastic",
    "raises",
    "returned",
    "missing sum",
    "unbroadcast",
    "transposed",
    "missing",
    "shape",
    "nan",
    "redrawn",
    "zero",
    "sign",
    "upstream",
    "swapped",
    "factor 2",
    "batch",
    "time",
    "space",
    "elements",
    "constant",
    "rounding",
    "own value",
    "mask from dout",
    "fork",
    "shared weights",
    "wrong axis",
    "local",
    "transposed weight",
    "flipped",
    "parameter left out",
    "mean path",
    "variance path",
    "statistics",
    "coupling",
    "recurrent",
    "branch",
    "target",
    "last sample",
    "overlap",
    "one of several",
    "edge",
    "shifted",
    "stride",
    "elementwise",
    "axis",
    "factor",
    "blocks",
    "overwrites",
    "cache",
    "input changed",
    "dout changed",
    "output changed",
    "reused",
    "kink",
    "part",
    "unknown",
)


@dataclass
class Guess:
    """One hypothesis about one target that explains what backward gave.

    kind : the name of the fault, one of ORDER
    words : the fault as a sentence; {z} stands for the gradients that it is about
    left : the share of the disagreement that it leaves unexplained
    """

    kind: str
    target: str
    words: str
    left: float = 0.0


@dataclass
class Fault:
    """A fault that the doctor names.

    kind : its name, such as "batch", "transposed weight", "mask from dout"
    targets : the gradients that it is about
    words : what is wrong, and what to do about it
    second : whether it is another explanation of what a fault before it explains
    where : the layer inside the checked one that has the fault; "" is the checked one itself
    """

    kind: str
    targets: list[str]
    words: str
    where: str = ""
    second: bool = False  # another explanation of what an earlier fault explains

    def __str__(self) -> str:
        return f"in {self.where}: {self.words}" if self.where else self.words


def left_over(target: Target, predicted: list[Array], tolerance: float = 0.01) -> float:
    """The share of the disagreement between analytic and numeric that `predicted` leaves unexplained; nan entries of
    a prediction are not compared.
    """
    worst = 0.0
    for mine, numeric, guess in zip(target.analytic, target.numeric, predicted, strict=True):
        if guess.shape != mine.shape:
            return np.inf
        known = np.isfinite(guess) & np.isfinite(numeric)
        if known.sum() * 2 < np.isfinite(numeric).sum() or not known.any():
            return np.inf
        wrong = float(np.linalg.norm(mine[known] - numeric[known]))
        missed = float(np.linalg.norm(mine[known] - guess[known]))
        if missed > 1e-7 * (1e-12 + float(np.linalg.norm(numeric[known]))):
            worst = max(worst, missed / wrong if wrong else np.inf)
    return worst


EXPLAINS = 0.01  # a hypothesis may leave that share of the disagreement


_PLURAL = {"is": "are", "has": "have", "was": "were", "does": "do"}


def listed(names: list[str]) -> str:
    """The gradients with these names, in words."""
    inputs = [name for name in names if name.startswith("dx")]
    others = [name for name in names if not name.startswith("dx")]
    if len(others) > 3:
        others = [*others[:2], f"{len(others) - 2} more"]
    if others:
        joined = others[0] if len(others) == 1 else f"{', '.join(others[:-1])} and {others[-1]}"
        inputs.append(f"the gradient{'s' if len(others) > 1 else ''} of {joined}")
    return inputs[0] if len(inputs) == 1 else f"{', '.join(inputs[:-1])} and {inputs[-1]}"


def sentence(words: str, names: list[str]) -> str:
    """The words about these gradients: {z} becomes their names, and the verb after it agrees with their number."""
    if len(names) > 1:
        words = re.sub(r"\{z\} (\w+)", lambda m: "{z} " + _PLURAL.get(m[1], re.sub("(?<=[sx])es$|s$", "", m[1])), words)
    return words.replace("{z}", listed(names))
