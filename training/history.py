"""What happened while training, as plain data: a list of dicts, and one line of JSON for each on disk."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from backhand.datasets.file_kinds import JSON, kind_of
from backhand.layers.parameter import Array
from backhand.losses.base import Mean


class History:
    """The records of a run, in the order in which they were made.

    records : dicts. Each has "step", the number of updates so far, and "epoch", the passes over the data so far
        (2.5 is in the middle of the third); and some of
        batch_loss, lr - of one step, every now and then
        loss, accuracy, val_loss, val_accuracy, lr - at the end of an epoch (whose "epoch" is a whole number)
        skipped - the batches of an epoch in which nothing counted (every label ignored), where there were any
        seconds - since training began
        error - why training was broken off
        early_stop - True where training ended because nothing had become better
    path : where each record is also written, at once, as a line of strict JSON (a number that is not finite becomes
        null). The first record replaces a file that is there.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.records: list[dict[str, Any]] = []
        self.path = None if path is None else os.fspath(path)
        self._begun = False

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a record, and write it to the file."""
        plain = {str(name): _plain(value) for name, value in record.items()}
        _check(plain)
        if self.path is not None:
            line = json.dumps({name: _strict(value) for name, value in plain.items()}, allow_nan=False)
            # opened for each line: then nothing is ever left in a buffer, or open
            with open(self.path, "a" if self._begun else "w", encoding="ascii", newline="\n") as file:
                file.write(line + "\n")
            self._begun = True
        self.records.append(plain)

    def series(self, name: str) -> tuple[Array, Array]:
        """(epochs, values) of the records that have `name`; nan where the value was not finite."""
        found = [record for record in self.records if name in record]
        if not found:
            raise KeyError(f"{name!r} is in no record; there are: {', '.join(self.names()) or 'no records'}")
        values = [math.nan if record[name] is None else record[name] for record in found]
        return np.array([record["epoch"] for record in found], dtype=float), np.array(values)

    def names(self) -> list[str]:
        """Every name that some record has, in the order of first use."""
        return list(dict.fromkeys(name for record in self.records for name in record))

    def __getitem__(self, name: str) -> Array:
        return self.series(name)[1]

    def __contains__(self, name: object) -> bool:
        return any(name in record for record in self.records)

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.records)

    def __repr__(self) -> str:
        return f"History({len(self.records)} records: {', '.join(self.names())})"

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> History:
        """The history that a run left in a file; it is not connected to the file.

        A last line that was cut short, as by a killed run, is passed over. Raises ValueError that names the file
        and the line for any other that is not a record.
        """
        history = cls()
        with open(path, encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    record = json.loads(line)
                    _check(record)
                except ValueError as error:
                    kind = None
                    if number == 1:
                        with open(path, "rb") as whole:
                            kind = kind_of(whole.read(4096))
                    if not line.endswith("\n") and kind is None:  # only the last line can lack it
                        break
                    why = error if kind in (None, JSON) else f"it is {kind}"
                    raise ValueError(f"{os.fspath(path)}, line {number}: not a record of a run ({why})") from None
                history.records.append(record)
        return history


def _check(record: Any) -> None:
    if not isinstance(record, dict):
        raise ValueError(f"expected a dict, got {type(record).__name__}")
    step, epoch = record.get("step"), record.get("epoch")
    if type(step) is not int or type(epoch) not in (int, float):
        raise ValueError(f"expected a 'step' (int) and an 'epoch' (float), got {step!r} and {epoch!r}")


def _plain(value: Any) -> Any:
    if isinstance(value, Mean):
        return float(value)
    return value.item() if isinstance(value, (np.generic, np.ndarray)) and value.size == 1 else value


def _strict(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
