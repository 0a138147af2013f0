"""A loss curve that grows while a model is trained."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from typing import Any

from backhand.inspection import style
from backhand.inspection.history_plot import plot_history


class LivePlot:
    """A callback that draws the history as it grows, in a notebook; elsewhere it prints one line each time.

        Trainer(model, loss, optimizer, after_epoch=LivePlot(), progress=False).fit(...)

    Call it with the record of an epoch (a dict with "epoch", "loss", "val_loss", ...).

    metrics : "loss", or several, a panel for each      every : seconds that pass at least between two pictures
    options : go to `plot_history`

    One picture is updated in place, and what else the cell printed stays. figure is what is drawn, a figure that pyplot
    does not know.
    """

    def __init__(self, metrics: str | list[str] = "loss", *, every: float = 0.3, **options: Any) -> None:
        self.metrics = [metrics] if isinstance(metrics, str) else list(metrics)
        self.every = every
        self.options = options
        self.records: list[dict[str, Any]] = []
        self.figure = style.new_figure(4.6 * len(self.metrics), 3.2)
        self.axes = self.figure.subplots(1, len(self.metrics), squeeze=False)[0]
        self._handle: Any = None
        self._last = -float("inf")

    def __call__(self, record: Mapping[str, Any]) -> None:
        self.records.append(dict(record))
        if not _in_notebook():
            shown = ("epoch", *(n for m in self.metrics for n in (m, f"val_{m}") if n in record))
            print("  ".join(f"{name} {record[name]:.4g}" for name in shown if name in record), flush=True)
            return
        if time.monotonic() - self._last >= self.every:
            self.draw()

    def draw(self) -> None:
        """Draw what has been recorded, now; the last picture of a run that ended within `every` needs this."""
        self._last = time.monotonic()
        for ax, metric in zip(self.axes, self.metrics, strict=True):
            ax.clear()
            if any(metric in record for record in self.records):
                plot_history(_Records(self.records), metrics=metric, ax=ax, **self.options)
        if not _in_notebook():
            return
        from IPython import display as notebook

        # as a PNG of our own making: a kernel shows a bare figure only where pyplot has been set up for it
        picture = io.BytesIO()
        self.figure.savefig(picture, format="png", dpi=100)
        image = notebook.Image(picture.getvalue())  # type: ignore[no-untyped-call]
        if self._handle is None:
            self._handle = notebook.display(image, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(image)


class _Records:
    def __init__(self, records: list[dict[str, Any]]) -> None:
        self.records = records


def _in_notebook() -> bool:
    """Whether there is somebody who can show pictures: a Jupyter kernel."""
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    shell = get_ipython()
    return shell is not None and "IPKernelApp" in getattr(shell, "config", {})
