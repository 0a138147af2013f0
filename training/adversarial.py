"""Training two networks against each other."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from backhand.layers.activations import sigmoid
from backhand.layers.arguments import whole, within
from backhand.layers.base import Layer
from backhand.layers.parameter import Array
from backhand.losses.base import Mean
from backhand.losses.binary import BCEWithLogitsLoss
from backhand.training.batches import ArrayBatches
from backhand.training.checkpoints import save_weights
from backhand.training.errors import TrainingError, remedies, unsound
from backhand.training.history import History
from backhand.training.interrupts import Uninterrupted
from backhand.training.modes import evaluating, modes_kept
from backhand.training.optimizers import Optimizer
from backhand.training.optimizers.blocks import finite
from backhand.training.progress import Means, Progress


class AdversarialTrainer:
    """A generator and a discriminator, in turn.

        discriminator: L_D = BCE(D(x), 1) + BCE(D(G(z)), 0)        generator: L_G = BCE(D(G(z)), 1),    z ~ N(0, 1)

    generator : a Layer from z (N, latent) to pictures      discriminator : a Layer from pictures to logits (N, 1)
    generator_optimizer, discriminator_optimizer : each holds the parameters of its own network alone
    real_label : 0.9 instead of 1 keeps the discriminator from being too sure ("one-sided label smoothing")
    folder : where history.jsonl, generator.safetensors and discriminator.safetensors are kept
    seed : of z and of the order of the samples
    progress, log_every, after_epoch : as in Trainer

    The history has generator_loss, discriminator_loss, and real_score and fake_score: the mean probabilities of "real"
    that the discriminator gave to real and to drawn pictures.
    Goodfellow et al. 2014, arXiv:1406.2661, algorithm 1, with the loss of section 3 that does not vanish at the start
    """

    def __init__(
        self,
        generator: Layer,
        discriminator: Layer,
        generator_optimizer: Optimizer,
        discriminator_optimizer: Optimizer,
        *,
        latent: int = 64,
        real_label: float = 1.0,
        folder: str | os.PathLike[str] | None = None,
        seed: int | np.random.Generator | None = 0,
        progress: bool = True,
        log_every: int = 50,
        after_epoch: Callable[[dict[str, Any]], object] | None = None,
    ) -> None:
        pairs = (
            ("generator", generator, generator_optimizer),
            ("discriminator", discriminator, discriminator_optimizer),
        )
        for name, network, optimizer in pairs:
            if not isinstance(network, Layer) or not isinstance(optimizer, Optimizer):
                raise ValueError(f"AdversarialTrainer: expected {name} as a Layer, with an Optimizer, got {network!r}")
            held = {p for group in optimizer.param_groups for p in group["params"]}
            if not held <= set(network.parameters()):
                raise ValueError(
                    f"AdversarialTrainer: expected {name}_optimizer to hold parameters of the {name} alone, got others"
                )
        self.generator, self.discriminator = generator, discriminator
        self.generator_optimizer, self.discriminator_optimizer = generator_optimizer, discriminator_optimizer
        self.latent = whole(self, "latent", latent)
        self.real_label = within(self, "real_label", real_label, 0, 1)
        self.folder = None if folder is None else os.fspath(folder)
        if self.folder is not None:
            os.makedirs(self.folder, exist_ok=True)
        self.rng = np.random.default_rng(seed)
        self.progress = progress
        self.log_every = whole(self, "log_every", log_every, least=0)
        self.after_epoch = after_epoch
        self.history = History(None if self.folder is None else os.path.join(self.folder, "history.jsonl"))
        self.loss = BCEWithLogitsLoss()
        self.steps = 0
        self.epochs = 0
        self._updated: dict[str, tuple[int, float]] = {}  # whose -> the step of its last update, and the rate
        self._seconds = 0.0

    def fit(self, x: Array, *, epochs: int, batch_size: int = 64) -> History:
        """Train for so many epochs over pictures x (N, ...), from -1 to 1; returns the history.

        Raises TrainingError at the first loss or gradient that is not finite, and at the end of an epoch where an
        update has left weights that are not; what is on disk is then still that of the epoch before.
        """
        last = self.epochs + whole(self, "epochs", epochs)
        batches = ArrayBatches("x", (x,))
        count = batches.count(whole(self, "batch_size", batch_size), merge=True)
        with modes_kept(self.generator, self.discriminator):
            self.generator.train().input_requires_grad_(False)  # nobody trains the noise
            self.discriminator.train()
            while self.epochs < last:
                since = time.perf_counter()
                sums = Means()
                order = self.rng.permutation(batches.samples)
                with Progress(self.progress, self.epochs + 1, last, count) as progress:
                    for n, ((real,), _) in enumerate(batches.batches(batch_size, order, merge=True), 1):
                        scores = self.step(real)
                        metrics: dict[str, Any] = {
                            name: (lambda *_, value=value: value) for name, value in scores.items()
                        }
                        sums.add(Mean(scores["discriminator_loss"], len(real)), (real,), None, len(real), metrics)
                        progress.update(sums)
                        if self.log_every and self.steps % self.log_every == 0:
                            epoch = self.epochs + (n / count if count else 0.0)
                            seconds = self._seconds + time.perf_counter() - since
                            batch = {f"batch_{name}": value for name, value in scores.items()}
                            self.history.append({"step": self.steps, "epoch": epoch, **batch, "seconds": seconds})
                    self._check_updates()
                    self.epochs += 1
                    took = time.perf_counter() - since
                    self._seconds += took
                    means = sums.means()
                    del means["loss"]
                    record = {"step": self.steps, "epoch": float(self.epochs), **means, "seconds": self._seconds}
                    self.history.append(record)
                    self._write()
                    progress.finish(record, took)
                if self.after_epoch is not None:
                    self.after_epoch(dict(record))
        return self.history

    def step(self, real: Array) -> dict[str, float]:
        """One step of each network with a batch of real pictures; returns what the history has of it."""
        n = len(real)
        z = self.rng.standard_normal((n, self.latent), np.float32)
        drawn = self.generator.forward(z)

        self.discriminator_optimizer.zero_grad()
        self.discriminator.input_requires_grad_(False)
        # one batch after the other: BatchNorm shall not mix the real with the drawn
        real_loss, real_score = self._judge(real, self.real_label)
        fake_loss, fake_score = self._judge(drawn, 0.0)
        self._update("discriminator", real_loss + fake_loss)

        self.discriminator.input_requires_grad_()
        self.generator_optimizer.zero_grad()
        scores = self.discriminator.forward(drawn)
        loss = float(self.loss.forward(scores, np.ones_like(scores)))
        self._finite("generator", "loss", loss, loss)
        # through the discriminator to the picture, and from there on; what it adds to the discriminator's own
        # gradients is thrown away at the next step
        self.generator.backward(self.discriminator.backward(self.loss.backward()))
        self._update("generator", loss)
        return {
            "generator_loss": loss,
            "discriminator_loss": real_loss + fake_loss,
            "real_score": real_score,
            "fake_score": fake_score,
        }

    def draw(self, n: int, rng: np.random.Generator | int | None = 0) -> Array:
        """So many pictures of the generator, in eval mode; the same seed gives the same noise."""
        z = np.random.default_rng(rng).standard_normal((whole(self, "n", n), self.latent), np.float32)
        with evaluating(self.generator):
            pictures: Array = self.generator.forward(z)
        return pictures

    def _judge(self, pictures: Array, label: float) -> tuple[float, float]:
        """The loss when all pictures should get this label, and their mean probability; adds to the gradients."""
        scores = self.discriminator.forward(pictures)
        value = float(self.loss.forward(scores, np.full_like(scores, label)))
        self.discriminator.backward(self.loss.backward())
        return value, float(sigmoid(scores).mean())

    def _update(self, whose: str, loss: float) -> None:
        """One step of one of the networks, if there is nothing but finite numbers to make it with."""
        self._finite(whose, "loss", loss, loss)
        optimizer = self._network(whose)[1]
        for gradient in optimizer.gradients():
            if not finite(gradient):
                worst = gradient[~np.isfinite(gradient)][0]
                self._finite(whose, "gradient", float(worst), loss)
        lr = float(optimizer.param_groups[0]["lr"])
        with np.errstate(all="ignore"), Uninterrupted():
            optimizer.step()
            self._updated[whose] = self.steps + 1, lr
            self.steps += whose == "generator"

    def _finite(self, whose: str, what: str, value: float, loss: float) -> None:
        if not math.isfinite(value):
            self._check_updates(f"; the {whose}'s {what} is {value} at step {self.steps + 1}")
            lr = float(self._network(whose)[1].param_groups[0]["lr"])
            at = f"at step {self.steps + 1} (epoch {self.epochs + 1})"
            self._stop(f"the {whose}'s {what} is {value} {at}; {remedies(lr)}.", self.steps + 1, loss, lr)

    def _check_updates(self, then: str = "") -> None:
        """Raise TrainingError where an update has left weights that nothing finite can be computed with.

        then : what came of it, where something has
        """
        for whose, (step, lr) in self._updated.items():
            found = unsound(self._network(whose)[0])
            if found and (found.infinite or then or not self._draws_finite()):
                last_good = "no weights of this run are on disk"
                if self.folder is not None and self.epochs:
                    last_good = f"{self.folder} holds those of the end of epoch {self.epochs}"
                self._stop(
                    f"the {whose}'s update of step {step} (epoch {self.epochs + 1}, learning rate {lr:.6g}) left "
                    f"{found}{then}. The parameters are as it left them; {last_good}. {remedies(lr)}.",
                    step,
                    math.nan,
                    lr,
                )

    def _draws_finite(self) -> bool:
        with evaluating(self.discriminator), np.errstate(all="ignore"):
            return bool(np.isfinite(self.discriminator.forward(self.draw(1))).all())

    def _stop(self, message: str, step: int, loss: float, lr: float) -> NoReturn:
        for network in (self.generator, self.discriminator):
            network.zero_grad()
        self.loss.forget()
        self.history.append({"step": self.steps, "epoch": float(self.epochs), "error": message})
        raise TrainingError(message, step, self.epochs + 1, loss, lr, 0.0)

    def _network(self, whose: str) -> tuple[Layer, Optimizer]:
        if whose == "generator":
            return self.generator, self.generator_optimizer
        return self.discriminator, self.discriminator_optimizer

    def _write(self) -> None:
        if self.folder is not None:
            save_weights(self.generator, os.path.join(self.folder, "generator.safetensors"))
            save_weights(self.discriminator, os.path.join(self.folder, "discriminator.safetensors"))
