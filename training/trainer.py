"""The Trainer: the loop, and all that should not have to be written again around it."""

from __future__ import annotations

import functools
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from backhand.layers.arguments import whole
from backhand.layers.base import Layer, LayerError
from backhand.layers.parameter import Array, Parameter
from backhand.training.batches import ArrayBatches, StreamBatches, as_batches, rows_of
from backhand.training.checkpoints import save_weights
from backhand.training.clipping import scale_to, total_norm
from backhand.training.errors import TrainingError, diagnosis
from backhand.training.history import History
from backhand.training.metrics import Metric, accuracy
from backhand.training.modes import Buffers, evaluating, modes_kept
from backhand.training.optimizers import Optimizer
from backhand.training.progress import Means, Progress
from backhand.training.schedules import LRScheduler, ReduceLROnPlateau


class Trainer:
    """Fit a model to data, batch by batch.

        for each batch:    L = loss(model(x), y);    backward;    clip;    the optimizer's step

    model, loss, optimizer : the optimizer holds parameters of the model. Where the model has several outputs, they
        are the first arguments of the loss
    schedule : a schedule of the same optimizer, stepped every "epoch" or every "batch" (schedule_every);
        ReduceLROnPlateau after every epoch by the value of `monitor`
    metrics : name -> metric(scores, target), or a list of functions; None: accuracy where the target holds labels.
        They and the loss are
        means over the batches, weighted with the number of samples; those of training are taken while the weights
        change, those of validation after the epoch
    clip_norm, clip_value : limits for the norm of the gradient, and for each of its entries (applied first)
    folder : where history.jsonl, model.safetensors (after each epoch) and best.safetensors are kept; files of
        these names from an earlier run are replaced. A step that is not finite is kept in failed_step.npz, for `replay`
    patience : stop after so many epochs in a row in which `monitor` has not become better
    monitor : "val_loss", "loss", or a metric, "val_accuracy"; without validation data and patience, "loss" replaces
        "val_loss". What ends in "loss" or "error" should fall, anything else rise
    restore_best : give the model the weights of the best epoch when fit ends (early or not)
    seed : of the order of the samples
    progress : a bar for each epoch where there is a terminal, else a line; False: nothing
    log_every : a record of the batch loss every so many steps; 0: none
    batch_axis : where the samples are in batches that come ready; 1 for sequences (T, N, ...)
    after_step : is called with nothing after each update (an average of the weights goes on, say)
    after_epoch : is called with the record of each epoch
    """

    def __init__(
        self,
        model: Layer,
        loss: Layer,
        optimizer: Optimizer,
        *,
        schedule: LRScheduler | None = None,
        schedule_every: str = "epoch",
        metrics: Mapping[str, Metric] | Iterable[Metric] | None = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        folder: str | os.PathLike[str] | None = None,
        patience: int | None = None,
        monitor: str = "val_loss",
        restore_best: bool = False,
        seed: int | np.random.Generator | None = 0,
        progress: bool = True,
        log_every: int = 50,
        batch_axis: int = 0,
        after_step: Callable[[], object] | None = None,
        after_epoch: Callable[[dict[str, Any]], object] | None = None,
    ) -> None:
        for name, value, kind in (("model", model, Layer), ("loss", loss, Layer), ("optimizer", optimizer, Optimizer)):
            if not isinstance(value, kind):
                hint = f"; did you mean {value.__name__}()?" if isinstance(value, type) else ""
                raise ValueError(f"Trainer: expected {name} to be a {kind.__name__}, got {value!r}{hint}")
        if getattr(loss, "reduction", "mean") == "none":
            raise ValueError("Trainer: expected a loss that gives one number, got reduction='none'")
        held = {p for group in optimizer.param_groups for p in group["params"]}
        own = {*model.parameters(), *loss.parameters()}
        if held.isdisjoint(own):
            raise ValueError("Trainer: expected an optimizer of this model's parameters, got one that has none of them")
        if schedule is not None and getattr(schedule, "optimizer", None) is not optimizer:
            raise ValueError("Trainer: expected a schedule of the same optimizer, got one of another")
        if schedule_every not in ("epoch", "batch"):
            raise ValueError(f"Trainer: expected schedule_every to be 'epoch' or 'batch', got {schedule_every!r}")
        if isinstance(schedule, ReduceLROnPlateau):
            mode = "min" if falls(monitor) else "max"
            if schedule_every != "epoch" or schedule.mode != mode:
                got = f"{schedule_every!r}, mode={schedule.mode!r}"
                raise ValueError(
                    f"Trainer: expected a ReduceLROnPlateau to be stepped every 'epoch', with mode={mode!r} for the "
                    f"monitor {monitor!r}, got {got}"
                )
        for name, limit in (("clip_norm", clip_norm), ("clip_value", clip_value)):
            if limit is not None and not limit > 0:
                raise ValueError(f"Trainer: expected {name} to be a positive number, got {limit!r}")
        if metrics is not None and not isinstance(metrics, Mapping):
            metrics = {getattr(metric, "__name__", repr(metric)): metric for metric in metrics}
        for name, metric in (metrics or {}).items():
            if not callable(metric) or name == "loss":
                raise ValueError(f"Trainer: expected metrics to be names (not 'loss') and functions, got {name!r}")
        self.model = model
        self.loss: Any = loss
        self.optimizer = optimizer
        self.schedule = schedule
        self.schedule_every = schedule_every
        self.metrics = None if metrics is None else dict(metrics)
        self.clip_norm = clip_norm
        self.clip_value = clip_value
        self.folder = None if folder is None else os.fspath(folder)
        self.patience = None if patience is None else whole(self, "patience", patience)
        self.monitor = monitor
        self.restore_best = restore_best
        self.progress = progress
        self.batch_axis = whole(self, "batch_axis", batch_axis, least=0)
        self.after_step = after_step
        self.after_epoch = after_epoch
        self.log_every = whole(self, "log_every", log_every, least=0)
        self.rng = np.random.default_rng(seed)
        self.history = History(None if self.folder is None else os.path.join(self.folder, "history.jsonl"))
        self.steps = 0
        self.epochs = 0
        self.best: float | None = None  # the best value of the monitor
        self.best_epoch = 0
        self._best_weights: dict[str, Array] = {}
        self._seconds = 0.0
        self._used_lr = self._lr()
        # gradients that the optimizer does not hold, and so does not set to zero
        self._others: list[Parameter] = [p for p in model.parameters() if p not in held]

    # ------------------------------------------------------------------ the three things it does

    def fit(
        self, train: Any, validation: Any = None, *, epochs: int, batch_size: int = 64, shuffle: bool = True
    ) -> History:
        """Train for so many epochs (more, when called again); returns the history.

        train : a pair of arrays (x, y), of which only one batch is read at a time (they may be memory-mapped), x a
            tuple of arrays where the model takes several inputs; or an iterable of batches (x, y) that can be gone
            through again and again, so not a generator unless epochs=1
        validation : the same, or None
        batch_size : of arrays. The last batch may be smaller, but a single sample left over (which BatchNorm cannot
            take) joins the batch before it
        shuffle : a new order of the samples (of arrays) in each epoch; each sample is used once in an epoch

        Raises TrainingError at the first loss or gradient that is not finite: parameters and buffers are then as
        they were before that step, and so written to model.safetensors.
        """
        epochs = whole(self, "epochs", epochs)
        batch_size = whole(self, "batch_size", batch_size)
        batches = as_batches("train", train)
        held_out = None if validation is None else as_batches("validation", validation)
        for each in (batches, held_out):
            if isinstance(each, StreamBatches) and each.once and epochs > 1:
                raise ValueError(
                    f"{each.name}: expected something that can be gone through {epochs} times, got an iterator "
                    f"({type(each.stream).__name__}), which is used up after one epoch; give a list, or an object "
                    "whose __iter__ begins anew"
                )
        # all that can be seen to be wrong is seen before anything is changed
        for each in (batches, held_out):
            if isinstance(each, ArrayBatches):
                self._try(each)
        monitor = self._checked_monitor(held_out is not None)
        self._prepare_folder()
        last = self.epochs + epochs
        waited = 0
        with modes_kept(self.model, self.loss), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            if not self.model.training:
                self.model.train()
            self.loss.train()
            self.model.input_requires_grad_(False)  # nobody trains the data
            for layer in self.model.modules():
                layer.forget()  # a forward that was abandoned before
            while self.epochs < last:
                since = time.perf_counter()
                with Progress(self.progress, self.epochs + 1, last, batches.count(batch_size, True)) as progress:
                    record = self._train_epoch(batches, batch_size, shuffle, progress)
                    if held_out is not None:
                        scores = self._evaluate(held_out, batch_size)
                        record.update((f"val_{name}", value) for name, value in scores.items())
                    record["lr"] = self._used_lr
                    took = time.perf_counter() - since
                    self._seconds += took
                    record["seconds"] = self._seconds
                    better = self._better(monitor, record)
                    if isinstance(self.schedule, ReduceLROnPlateau):
                        self.schedule.step(record[monitor])
                    elif self.schedule is not None and self.schedule_every == "epoch":
                        self.schedule.step()
                    waited = 0 if better else waited + 1
                    stops = self.patience is not None and waited >= self.patience
                    if stops:
                        record["early_stop"] = True
                    self._write_weights("model.safetensors")
                    if better:
                        self._write_weights("best.safetensors")
                    self.history.append(record)
                    progress.finish(record, took)
                if self.after_epoch is not None:
                    self.after_epoch(dict(record))
                if stops:
                    if self.progress:
                        best = f"best: {self.best:.4g} in epoch {self.best_epoch}"
                        if self.best is None:
                            best = (
                                f"it was never finite: is there a nan in the {held_out.name if held_out else 'data'}?"
                            )
                        print(f"stopped: {monitor} has not become better for {waited} epochs; {best}", flush=True)
                    break
        if self.restore_best and self._best_weights:
            self.model.load_state_dict(self._best_weights)
        return self.history

    def evaluate(self, data: Any, batch_size: int = 256) -> dict[str, float]:
        """The loss and the metrics over data (arrays or batches, as in `fit`) in eval mode: {"loss": ..., ...}."""
        return self._evaluate(as_batches("data", data), whole(self, "batch_size", batch_size))

    def predict(self, x: Any, batch_size: int = 256) -> Any:
        """The model's outputs for x (a tuple where it takes several inputs), in eval mode."""
        batch_size = whole(self, "batch_size", batch_size)
        batches = ArrayBatches("x", x if isinstance(x, tuple) else (x,))
        with evaluating(self.model):
            outputs = [self.model.forward(*inputs) for inputs, _ in batches.batches(batch_size)]
        if isinstance(outputs[0], tuple):
            return tuple(np.concatenate(parts) for parts in zip(*outputs, strict=True))
        return np.concatenate(outputs)

    # ------------------------------------------------------------------ the loop

    def _train_epoch(
        self, batches: ArrayBatches | StreamBatches, size: int, shuffle: bool, progress: Progress
    ) -> dict[str, Any]:
        """One pass over the data; returns the beginning of its record."""
        model, loss, optimizer = self.model, self.loss, self.optimizer
        schedule = self.schedule if self.schedule_every == "batch" else None
        order = self.rng.permutation(batches.samples) if shuffle and isinstance(batches, ArrayBatches) else None
        count = batches.count(size, True)
        buffers = Buffers(model)
        sums = Means(loss)
        since = time.perf_counter()
        n = 0
        spoiled = False  # whether the step that is being made has touched anything that must be put back
        try:
            for n, (inputs, target) in enumerate(batches.batches(size, order, merge=True), 1):
                optimizer.zero_grad()
                for p in self._others:
                    p.zero_grad()
                buffers.remember()
                spoiled = True
                value, outputs = self._forward(inputs, target)
                if not math.isfinite(value):
                    raise self._error(f"the loss is {value}", value, inputs, target, n, count)
                model.backward(loss.backward())
                gradients = optimizer.gradients()
                if not all(map(_finite, gradients)):
                    raise self._error("a gradient is not finite", value, inputs, target, n, count)
                if self.clip_value is not None:
                    for g in gradients:
                        np.clip(g, -self.clip_value, self.clip_value, out=g)
                if self.clip_norm is not None:
                    scale_to(gradients, self.clip_norm, total_norm(gradients))
                spoiled = False
                self._used_lr = self._lr()
                optimizer.step()
                self.steps += 1
                if self.after_step is not None:
                    self.after_step()
                sums.add(value, outputs, target, rows_of(inputs, self.batch_axis), self._metrics_for(outputs, target))
                if self.log_every and self.steps % self.log_every == 0:
                    epoch = self.epochs + (n / count if count else 0.0)
                    seconds = self._seconds + time.perf_counter() - since
                    self.history.append(
                        {
                            "step": self.steps,
                            "epoch": epoch,
                            "batch_loss": value,
                            "lr": self._used_lr,
                            "seconds": seconds,
                        }
                    )
                if schedule is not None:
                    schedule.step()
                progress.update(sums)
        except BaseException as error:
            if isinstance(error, LayerError):
                error.problem += f" (in batch {n} of epoch {self.epochs + 1})"
            if spoiled:
                buffers.restore()
            model.zero_grad()
            for layer in loss.modules():
                layer.forget()
            if isinstance(error, TrainingError):
                error.trace(model, loss, inputs, target, self.folder)
                record = {"batch_loss": error.loss, "lr": error.lr, "error": str(error)}
                self.history.append({"step": self.steps, "epoch": self.epochs + error.progress, **record})
                self._write_weights("model.safetensors")
            raise
        self.epochs += 1
        return {"step": self.steps, "epoch": float(self.epochs), **sums.means()}

    def _evaluate(self, batches: ArrayBatches | StreamBatches, size: int) -> dict[str, float]:
        sums = Means(self.loss)
        with evaluating(self.model, self.loss):
            for n, (inputs, target) in enumerate(batches.batches(size), 1):
                try:
                    value, outputs = self._forward(inputs, target)
                except LayerError as error:
                    error.problem += f" (in batch {n} of {batches.name})"
                    raise
                sums.add(value, outputs, target, rows_of(inputs, self.batch_axis), self._metrics_for(outputs, target))
        return sums.means()

    # ------------------------------------------------------------------ what stands around it

    def _forward(self, inputs: tuple[Any, ...], target: Any) -> tuple[float, tuple[Any, ...]]:
        scores = self.model.forward(*inputs)
        outputs = scores if type(scores) is tuple else (scores,)
        return float(self.loss.forward(*outputs, target)), outputs

    def _try(self, batches: ArrayBatches) -> None:
        """Raise what the model, the loss or a metric has against the data; changes nothing."""
        rows = batches.telling_rows()
        with evaluating(self.model, self.loss), np.errstate(all="ignore"):
            try:
                inputs, target = batches.of_rows(rows)
                _, outputs = self._forward(inputs, target)
            except LayerError:
                for row in rows:  # one at a time, to say which
                    try:
                        self._forward(*batches.of_rows([row]))
                    except LayerError as error:
                        error.problem += f" (sample {row} of {batches.name}, on its own)"
                        raise error from None
                raise
            Means(self.loss).add(0.0, outputs, target, 1, self._metrics_for(outputs, target))

    def _metrics_for(self, outputs: tuple[Any, ...], target: Any) -> dict[str, Metric]:
        if self.metrics is None:
            scores = outputs[0]
            labels = len(outputs) == 1 and target.dtype.kind in "iu" and scores.ndim == target.ndim + 1
            # the loss knows where the classes are, and which label does not count
            axis, ignored = getattr(self.loss, "class_axis", 1), getattr(self.loss, "ignore_index", -100)
            counted = functools.partial(accuracy, ignore_index=ignored, axis=axis)
            self.metrics = {"accuracy": counted} if labels else {}
        return self.metrics

    def _checked_monitor(self, validated: bool) -> str:
        if self.monitor == "val_loss" and not validated and self.patience is None:
            return "loss"
        name = self.monitor.removeprefix("val_")
        known = self.metrics is None or name == "loss" or name in self.metrics
        if not known or (name != self.monitor and not validated):
            without = "" if validated else " (there is no validation data)"
            raise ValueError(
                f"Trainer: expected monitor to be a number that will be known, got {self.monitor!r}{without}"
            )
        return self.monitor

    def _better(self, monitor: str, record: dict[str, Any]) -> bool:
        """Whether this epoch is the best so far."""
        if monitor not in record:
            raise ValueError(f"Trainer: expected monitor to be one of {', '.join(record)}, got {monitor!r}")
        value = record[monitor]
        if not math.isfinite(value) or (
            self.best is not None and not (value < self.best if falls(monitor) else value > self.best)
        ):
            return False
        self.best, self.best_epoch = value, self.epochs
        if self.restore_best:
            self._best_weights = self.model.state_dict()
        return True

    def _prepare_folder(self) -> None:
        if self.folder is None:
            return
        trial = os.path.join(self.folder, f".{os.getpid()}.part")
        try:
            os.makedirs(self.folder, exist_ok=True)
            with open(trial, "wb"):
                pass
            os.unlink(trial)
        except OSError as error:
            problem = f"Trainer: cannot write to the folder {self.folder!r}: {error.strerror}"
            raise type(error)(problem) from None

    def _write_weights(self, name: str) -> None:
        if self.folder is not None:
            save_weights(self.model, os.path.join(self.folder, name))

    def _lr(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def _error(
        self, what: str, value: float, inputs: tuple[Any, ...], target: Any, n: int, count: int | None
    ) -> TrainingError:
        """The error that says where, and what to try."""
        lr = self._lr()
        where, advice = diagnosis(self.model, inputs, target, lr)
        step = self.steps + 1
        written = "" if self.folder is None else f", and are in {os.path.join(self.folder, 'model.safetensors')}"
        message = (
            f"{what}{where} at step {step} (epoch {self.epochs + 1}, batch {n}{f' of {count}' if count else ''}; "
            f"loss {value:.6g}, learning rate {lr:.6g}). This step was not made: parameters and buffers are as they "
            f"were before it{written}. {advice}."
        )
        return TrainingError(message, step, self.epochs + 1, value, lr, (n - 1) / count if count else 0.0)


def falls(monitor: str) -> bool:
    """Whether a number of this name is better when it is smaller."""
    return monitor.endswith(("loss", "error"))


def _finite(gradient: Array) -> bool:
    # one product tells for sure when it is finite; squares that are too large for float32 are looked at again
    return math.isfinite(np.dot(gradient, gradient)) or bool(np.isfinite(gradient).all())
