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
from backhand.losses.base import Mean
from backhand.training.batches import ArrayBatches, StreamBatches, as_batches, rows_of
from backhand.training.checkpoints import save_weights
from backhand.training.clipping import clip_to, scale_to, total_norm
from backhand.training.errors import TrainingError, diagnosis, remedies, unsound
from backhand.training.history import History
from backhand.training.interrupts import Uninterrupted
from backhand.training.metrics import Metric, accuracy
from backhand.training.modes import Buffers, evaluating, modes_kept
from backhand.training.optimizers import Optimizer
from backhand.training.optimizers.blocks import finite
from backhand.training.progress import Means, Progress, mean_loss
from backhand.training.schedules import LRScheduler, ReduceLROnPlateau

_Batch = tuple[tuple[Any, ...], Any, Mean]  # the inputs, the target, the loss before the step

SMALL = 1 << 16  # numbers


class Trainer:
    """Fit a model to data, batch by batch.

        for each batch:    L = loss(model(x), y);    backward;    clip;    the optimizer's step

    model, loss, optimizer : the optimizer holds parameters of the model. Where the model has several outputs, they
        are the first arguments of the loss
    schedule : a schedule of the same optimizer, stepped every "epoch" or every "batch" (schedule_every);
        ReduceLROnPlateau after every epoch by the value of `monitor`
    metrics : name -> metric(scores, target), or a list of functions; None: accuracy where the target holds labels.
        They and the loss are means over all that counts (see `Mean`), however it is cut into batches; what does not
        say of how much it is a mean, is one over the samples. Those of training are taken while the weights change,
        those of validation after the epoch
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
        self._sound: int | None = None  # the step after which the weights were last seen to be finite
        self._looks = False  # whether they are looked at after every step
        self._written = 0  # the epoch whose weights are in model.safetensors
        # gradients that the optimizer does not hold, and so does not set to zero
        self._others: list[Parameter] = [p for p in model.parameters() if p not in held]

    # ------------------------------------------------------------------ the three things it does

    def fit(
        self, train: Any, validation: Any = None, *, epochs: int, batch_size: int = 64, shuffle: bool = True
    ) -> History:
        """Train for so many epochs (more, when called again); returns the history.

        train : a pair of arrays (x, y), of which only one batch is read at a time (they may be memory-mapped), x a
            tuple of arrays where the model takes several inputs; or an iterable of batches (x, y) that can be gone
            through again and again, so not a generator unless epochs=1. A tuple (x, y) of lists of numbers is a pair
            too, a list of tuples [(x, y), (x, y)] is batches, and what can be either is refused
        validation : the same, or None
        batch_size : of arrays. The last batch may be smaller, but a single sample left over (which BatchNorm cannot
            take) joins the batch before it
        shuffle : a new order of the samples (of arrays) in each epoch; each sample is used once in an epoch

        A batch in which nothing counts (every label is ignored, or has the weight 0) is passed over, as if it were not
        there: no step, neither of the optimizer nor of a schedule, and buffers as they were. The record of the epoch
        says how many were "skipped".

        Raises TrainingError at the first loss or gradient that is not finite: parameters and buffers are then as
        they were before that step, and so written to model.safetensors. Where an update itself leaves weights that are
        not finite, which is seen at the next step or the end of the epoch, they stay so, and model.safetensors stays
        as it was at the end of the epoch before.
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
        self._sound = None if self._infinite() else self.steps
        # few weights are looked at after every step, for a hundredth of its time; many at the end of an epoch
        held = {p for group in self.optimizer.param_groups for p in group["params"]}
        self._looks = held <= {*self.model.parameters(), *self.loss.parameters()} and sum(p.size for p in held) <= SMALL
        self._looks &= self._sound is not None
        with modes_kept(self.model, self.loss), np.errstate(all="ignore"):
            if not self.model.training:
                self.model.train()
            self.loss.train()
            self.model.input_requires_grad_(False)  # nobody trains the data
            for layer in self.model.modules():
                layer.forget()  # a forward that was abandoned before
            while self.epochs < last:
                since = time.perf_counter()
                with Progress(self.progress, self.epochs + 1, last, batches.count(batch_size, True)) as progress:
                    record, last_batch = self._train_epoch(batches, batch_size, shuffle, progress)
                    if held_out is not None:
                        scores = self._evaluate(held_out, batch_size)
                        if not math.isfinite(scores["loss"]):
                            self._check_update(last_batch, self.epochs, 0.0, again=True)
                        record.update((f"val_{name}", value) for name, value in scores.items())
                    record["lr"] = self._used_lr
                    took = time.perf_counter() - since
                    self._seconds += took
                    record["seconds"] = self._seconds
                    better = self._better(monitor, record)
                    if isinstance(self.schedule, ReduceLROnPlateau):
                        self.schedule.step(record[monitor])
                    waited = 0 if better else waited + 1
                    stops = self.patience is not None and waited >= self.patience
                    if stops:
                        record["early_stop"] = True
                    self._write_weights("model.safetensors")
                    self._written = self.epochs
                    if better:
                        self._write_weights("best.safetensors")
                    self.history.append(record)
                    progress.finish(record, took)
                if self.after_epoch is not None:
                    self.after_epoch(dict(record))
                if stops:
                    if self.progress:
                        data = held_out.name if held_out else "data"
                        best = f"it was never finite: is there a nan in the {data}, or no label that counts?"
                        if self.best is not None:
                            best = f"best: {self.best:.4g} in epoch {self.best_epoch}"
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
    ) -> tuple[dict[str, Any], _Batch]:
        """One pass over the data; returns the beginning of its record, and the last batch of which a step was made."""
        model, loss, optimizer = self.model, self.loss, self.optimizer
        schedule = self.schedule if self.schedule_every == "batch" else None
        epochly = None if schedule is self.schedule or isinstance(self.schedule, ReduceLROnPlateau) else self.schedule
        order = self.rng.permutation(batches.samples) if shuffle and isinstance(batches, ArrayBatches) else None
        count = batches.count(size, True)
        buffers = Buffers(model)
        sums = Means()
        since = time.perf_counter()
        n = skipped = 0
        last: _Batch | None = None
        spoiled = False  # whether the step that is being made has touched anything that must be put back
        try:
            for n, (inputs, target) in enumerate(batches.batches(size, order, merge=True), 1):
                optimizer.zero_grad()
                for p in self._others:
                    p.zero_grad()
                buffers.remember()
                spoiled = True
                value, outputs = self._forward(inputs, target)
                rows, metrics = rows_of(inputs, self.batch_axis), self._metrics_for(outputs, target)
                if not value.count:
                    sums.add(value, outputs, target, rows, metrics)
                    buffers.restore()
                    self._forget()
                    spoiled = False
                    skipped += 1
                    progress.update(sums)
                    continue
                if not math.isfinite(value):
                    raise self._error(f"the loss is {value}", value, inputs, target, n, count, last is None)
                model.backward(loss.backward())
                gradients = optimizer.gradients()
                if not all(map(finite, gradients)):
                    raise self._error("a gradient is not finite", value, inputs, target, n, count, last is None)
                if self.clip_value is not None:
                    for g in gradients:
                        clip_to(g, self.clip_value)
                if self.clip_norm is not None:
                    scale_to(gradients, self.clip_norm, total_norm(gradients))
                rate = self._lr()
                with Uninterrupted():  # the weights, their number and all that goes with them agree at any interrupt
                    optimizer.step()
                    spoiled = False
                    self._used_lr = rate
                    self.steps += 1
                    last = inputs, target, value
                    if self._looks and not optimizer.finite():
                        self._sound = self.steps - 1
                        break
                    if self.after_step is not None:
                        self.after_step()
                    if schedule is not None:
                        schedule.step()
                sums.add(value, outputs, target, rows, metrics)
                if self.log_every and self.steps % self.log_every == 0:
                    epoch = self.epochs + (n / count if count else 0.0)
                    seconds = self._seconds + time.perf_counter() - since
                    self.history.append(
                        {
                            "step": self.steps,
                            "epoch": epoch,
                            "batch_loss": float(value),
                            "lr": self._used_lr,
                            "seconds": seconds,
                        }
                    )
                progress.update(sums)
            if last is None:
                raise ValueError(
                    f"{batches.name}: expected something to learn from, got {n} batches in which nothing counts: every "
                    "label is ignored, or has the weight 0"
                )
        except BaseException as error:
            if isinstance(error, LayerError):
                error.problem += f" (in batch {n} of epoch {self.epochs + 1})"
            if spoiled:
                buffers.restore()
            self._forget()
            if isinstance(error, TrainingError):
                self._give_up(error, inputs, target)
            raise
        self._check_update(last, self.epochs + 1, n / count if count else 1.0)
        with Uninterrupted():
            self.epochs += 1
            if epochly is not None:
                epochly.step()
        record = {"step": self.steps, "epoch": float(self.epochs), **sums.means()}
        return (record | {"skipped": skipped} if skipped else record), last

    def _forget(self) -> None:
        """Drop the forward and the gradients of a step that is not made."""
        self.model.zero_grad()
        for layer in self.loss.modules():
            layer.forget()

    def _evaluate(self, batches: ArrayBatches | StreamBatches, size: int) -> dict[str, float]:
        sums = Means()
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

    def _forward(self, inputs: tuple[Any, ...], target: Any) -> tuple[Mean, tuple[Any, ...]]:
        scores = self.model.forward(*inputs)
        outputs = scores if type(scores) is tuple else (scores,)
        value = self.loss.forward(*outputs, target)
        if type(value) is not Mean:
            value = mean_loss(self.loss, value, rows_of(inputs, self.batch_axis))
        return value, outputs

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
            Means().add(Mean(0.0, 1), outputs, target, 1, self._metrics_for(outputs, target))

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
        self,
        what: str,
        value: float,
        inputs: tuple[Any, ...],
        target: Any,
        n: int,
        count: int | None,
        first: bool,
    ) -> TrainingError:
        """The error that says where, and what to try.

        first : whether no step was made in this epoch before
        """
        lr = self._lr()
        where, advice, in_data = diagnosis(self.model, inputs, target, lr)
        step, progress = self.steps + 1, (n - 1) / count if count else 0.0
        at = f"at step {step} (epoch {self.epochs + 1}, batch {n}{f' of {count}' if count else ''}"
        found = unsound(self.model, self.loss)
        moved = self._sound is not None and self.steps > self._sound
        if moved and found and (found.infinite or not in_data):
            since = self._since() if found.infinite else ""
            problem = f"{found}{since}; with them, {what}{where} {at}), which was not made"
            return self._broken(problem, value, self.epochs + (not first), progress)
        kept = self.folder is not None and not (found and found.infinite)
        written = f", and are in {os.path.join(self.folder or '', 'model.safetensors')}" if kept else ""
        message = (
            f"{what}{where} {at}; "
            f"loss {value:.6g}, learning rate {lr:.6g}). This step was not made: parameters and buffers are as they "
            f"were before it{written}. {advice}."
        )
        return TrainingError(message, step, self.epochs + 1, float(value), lr, progress)

    def _check_update(self, last: _Batch, epoch: int, progress: float, again: bool = False) -> None:
        """Raise TrainingError where the last update has left weights that are not finite, or that nothing finite
        can be computed with.

        again : look at the loss of the same samples once more, however large the weights are
        """
        if self._sound is None:
            return
        inputs, target, value = last
        found = unsound(self.model, self.loss)
        problem = None if found is None else str(found)
        if again or (found and not found.infinite):
            buffers = Buffers(self.model)
            buffers.remember()
            after, _ = self._forward(inputs, target)
            buffers.restore()
            self._forget()
            size = "" if found is None else f", {found.size}"
            problem = None if math.isfinite(after) else f"weights{size}, with which the loss of its batch is {after}"
        if problem:
            if found and found.infinite:
                problem += self._since()
            error = self._broken(problem, value, epoch, progress)
            self._give_up(error, inputs, target)
            raise error
        self._sound = self.steps

    def _since(self) -> str:
        """What is known of when the weights were finite, where that was not just before the last update."""
        return "" if self.steps - 1 == self._sound else f" (after step {self._sound} they still were)"

    def _broken(self, problem: str, value: float, epoch: int, progress: float) -> TrainingError:
        """The error for an update that has left such weights."""
        last_good = "no weights of this run are on disk"
        if self.folder is not None:
            path = os.path.join(self.folder, "model.safetensors")
            if self._written:
                last_good = f"{path} holds those of the end of epoch {self._written}"
            elif not self._infinite():
                last_good = f"{path} holds them, as no epoch had ended"
        message = (
            f"the update of step {self.steps} (epoch {epoch}, learning rate {self._used_lr:.6g}) left {problem}. "
            f"The parameters are as it left them; {last_good}. {remedies(self._used_lr)}."
        )
        return TrainingError(message, self.steps, epoch, float(value), self._used_lr, progress)

    def _give_up(self, error: TrainingError, inputs: tuple[Any, ...], target: Any) -> None:
        """Leave behind what a run that cannot go on has to tell; weights only if they are good for something."""
        error.trace(self.model, self.loss, inputs, target, self.folder)
        record = {"batch_loss": error.loss, "lr": error.lr, "error": str(error)}
        self.history.append({"step": self.steps, "epoch": self.epochs + error.progress, **record})
        good = error.step > self.steps or not self._written
        if good and not self._infinite():
            self._write_weights("model.safetensors")

    def _infinite(self) -> bool:
        found = unsound(self.model, self.loss)
        return found is not None and found.infinite


def falls(monitor: str) -> bool:
    """Whether a number of this name is better when it is smaller."""
    return monitor.endswith(("loss", "error"))
