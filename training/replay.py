"""The step that failed, kept in a file: what it was computed from, to be computed again."""

from __future__ import annotations

import io
import json
import os
import zipfile
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from backhand.datasets.file_kinds import NPZ, kind_of
from backhand.inspection.gradient_check import generators_of
from backhand.inspection.nonfinite import NonFinite, find_nonfinite
from backhand.layers.base import Layer, LayerError
from backhand.layers.parameter import Array
from backhand.training.checkpoints import write_atomically

NAME = "failed_step.npz"


@dataclass
class FailedStep:
    """All that one step of training depends on: the weights and generators of before, and the batch.

    weights, loss_weights : the state_dicts of the model and of its loss
    inputs, target : the batch
    generators : the states of the generators in model and loss, in the order in which they are found
    words : "message", "step", "epoch", "lr"
    """

    weights: dict[str, Array]
    loss_weights: dict[str, Array]
    inputs: tuple[Array, ...]
    target: Array
    generators: list[dict[str, Any]]
    words: dict[str, Any]

    @classmethod
    def of(cls, model: Layer, loss: Layer, inputs: tuple[Any, ...], target: Any, words: dict[str, Any]) -> FailedStep:
        """What the step depends on as it is now."""
        states = [dict(g.bit_generator.state) for layer in (model, loss) for g in generators_of(layer)]
        batch = tuple(np.asarray(x) for x in inputs)
        return cls(model.state_dict(), loss.state_dict(), batch, np.asarray(target), states, words)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as .npz: arrays and JSON, nothing that could be executed."""
        arrays = {f"model/{name}": array for name, array in self.weights.items()}
        arrays |= {f"loss/{name}": array for name, array in self.loss_weights.items()}
        arrays |= {f"input/{i}": x for i, x in enumerate(self.inputs)}
        words = json.dumps({"generators": self.generators, "words": self.words}, default=_plain)
        content = io.BytesIO()
        np.savez(content, target=self.target, words=np.array(words), **arrays)  # type: ignore[arg-type]
        write_atomically(path, content.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FailedStep:
        """Read what `save` wrote: the file, or the run's folder that it is in."""
        name = os.fspath(path)
        if os.path.isdir(name):
            name = os.path.join(name, NAME)
        with open(name, "rb") as file:
            content = file.read()
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as stored:
                arrays = {key: stored[key] for key in stored.files}
            arrays = {key: a.astype(a.dtype.newbyteorder("="), copy=False) for key, a in arrays.items()}
        except (ValueError, TypeError, AttributeError, EOFError, OSError, zipfile.BadZipFile, zlib.error):
            kind = kind_of(content) or f"a file that begins with {content[:8]!r}"
            cut = " that is cut short" if kind == NPZ else ""
            raise ValueError(f"{name}: expected a step that a Trainer has saved, got {kind}{cut}") from None
        if not {"words", "target", "input/0"} <= arrays.keys():
            raise ValueError(f"{name}: expected a step that a Trainer has saved, got arrays {sorted(arrays)[:5]}")
        words = json.loads(str(arrays["words"]))
        inputs = [arrays[f"input/{i}"] for i in range(sum(key.startswith("input/") for key in arrays))]
        model, loss = ({k[len(p) :]: a for k, a in arrays.items() if k.startswith(p)} for p in ("model/", "loss/"))
        return cls(model, loss, tuple(inputs), arrays["target"], words["generators"], words["words"])

    def restore(self, model: Layer, loss: Layer) -> None:
        """Put a model and a loss that are built as they were then into the state of before the step, to train."""
        generators = [g for layer in (model, loss) for g in generators_of(layer)]
        kinds = [state["bit_generator"] for state in self.generators]
        if [g.bit_generator.state["bit_generator"] for g in generators] != kinds:
            raise LayerError(model, f"expected {len(kinds)} generators in model and loss, got {len(generators)}")
        model.load_state_dict(self.weights)
        loss.load_state_dict(self.loss_weights)
        for generator, state in zip(generators, self.generators, strict=True):
            generator.bit_generator.state = state
        for layer in (model, loss):
            layer.train()
            layer.zero_grad()


def replay(path: str | os.PathLike[str], model: Layer, loss: Layer) -> NonFinite | None:
    """Compute the step again that stopped a run, and say where its first non-finite number came from.

    path : the run's folder, or the failed_step.npz in it
    model, loss : built as they were for the run; they are given the weights and generators of before the step, and
        stay so: FailedStep.load(path) has the batch, for `record` or anything else
    """
    step = FailedStep.load(path)
    step.restore(model, loss)
    return find_nonfinite(model, step.inputs, loss=loss, target=step.target)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else str(value)
