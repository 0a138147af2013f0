"""What draws pictures, and what learns from them without labels."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from backhand import datasets, models
from backhand.inspection import plot_history, style
from backhand.layers import Layer, Linear
from backhand.layers.activations import sigmoid
from backhand.layers.parameter import Array
from backhand.losses import BCEWithLogitsLoss, CrossEntropyLoss, ELBOLoss, Mean, MSELoss, NTXentLoss
from backhand.training.adversarial import AdversarialTrainer
from backhand.training.metrics import mean_of
from backhand.training.modes import evaluating
from backhand.training.optimizers import Adam
from backhand.training.recipes.base import Plan, Recipe, draw_images, load_images, multiple, samples_of, shape_of
from backhand.training.trainer import Trainer

GRID = 64  # pictures in a grid, 8 by 8
SHOWN = 16  # pictures of which the reconstruction is shown
FEW = 50  # steps of a diffusion model that draws only to show how far it is


class Unlabelled(Recipe):
    """Pictures alone. The bundled digits are few, so they are gone through more often, in smaller batches."""

    def defaults_for(self, data: str) -> Mapping[str, Any]:
        epochs = {"digits": {"epochs": 60, "batch_size": 32}}
        return {**self.defaults, **epochs.get(data, {})}


class OfItself(Unlabelled):
    """Networks whose target is their input."""

    loss: Callable[[], Layer] = BCEWithLogitsLoss

    def example(self, options: argparse.Namespace) -> Any:
        return (options.batch_size, *shape_of(options))

    def plan(self, options: argparse.Namespace) -> Plan:
        model = self.build(options)
        splits = load_images(options)
        train, validation, test = (self.prepared(part.x) for part in splits[:3])
        plan = Plan(model, self.loss(), (train, train), samples_of(splits, options.data))
        plan.validation, plan.test = (validation, validation), (test, test)
        shown = test[:SHOWN]
        plan.after_epoch = lambda folder, model: self.draw(folder, model, shown, shape_of(options))
        return plan

    def prepared(self, x: Array) -> Array:
        """The pictures as the model takes them."""
        return x

    def draw(self, folder: Path, model: Any, x: Array, shape: tuple[int, ...]) -> None:
        """Pictures above, and below each what the model makes of it."""
        with evaluating(model):
            y = model.forward(x)
        again = sigmoid(y[0] if type(y) is tuple else y)
        half = len(x) // 2
        rows = [x[:half], again[:half], x[half:], again[half:]]
        images = np.concatenate([row.reshape(-1, *shape) for row in rows])
        draw_images(folder / "reconstructions.png", images, half, "test pictures, and below each what comes back")


class DenseAutoencoder(OfItself):
    """models.Autoencoder."""

    about = "fully connected layers to a code and back (--hidden: the sizes, the last that of the code)"
    defaults = {"lr": 1e-3, "batch_size": 128, "epochs": 20}
    takes = ("hidden",)

    def build(self, options: argparse.Namespace) -> Layer:
        size = int(np.prod(shape_of(options)))
        return models.Autoencoder(size, *(options.hidden or (256, 32)), rng=options.seed)

    def example(self, options: argparse.Namespace) -> Any:
        return (options.batch_size, int(np.prod(shape_of(options))))

    def plan(self, options: argparse.Namespace) -> Plan:
        plan = super().plan(options)
        plan.metrics = {"squared_error": _squared_error}
        plan.report = _error_report
        return plan

    def prepared(self, x: Array) -> Array:
        return x.reshape(len(x), -1)


class ConvolutionalAutoencoder(OfItself):
    """models.ConvAutoencoder."""

    about = "convolutions to a code and back"
    defaults = {"lr": 1e-3, "batch_size": 128, "epochs": 10}

    def build(self, options: argparse.Namespace) -> Layer:
        multiple(options, 4, "conv-autoencoder")
        return models.ConvAutoencoder(shape_of(options), rng=options.seed)

    def plan(self, options: argparse.Namespace) -> Plan:
        plan = super().plan(options)
        plan.metrics = {"squared_error": _squared_error}
        plan.report = _error_report
        return plan


class Variational(OfItself):
    """models.VAE as in pytorch/examples: Adam 1e-3, batches of 128, 10 epochs."""

    about = "a variational autoencoder (--hidden: the hidden size and that of the code, 400,20)"
    defaults = {"lr": 1e-3, "batch_size": 128, "epochs": 10, "schedule": "constant"}
    takes = ("hidden",)
    loss = ELBOLoss

    def build(self, options: argparse.Namespace) -> Layer:
        hidden, code = (*(options.hidden or (400,)), 20)[:2]
        return models.VAE(int(np.prod(shape_of(options))), hidden, code, rng=options.seed)

    def plan(self, options: argparse.Namespace) -> Plan:
        plan = super().plan(options)
        plan.metrics = {"kl": _kl}
        plan.report = lambda folder, model, scores: [
            f"test loss {scores['loss']:.2f} nats per image, {scores['kl']:.2f} of them for the code"
        ]
        return plan

    def draw(self, folder: Path, model: Any, x: Array, shape: tuple[int, ...]) -> None:
        super().draw(folder, model, x, shape)
        z = np.random.default_rng(0).standard_normal((GRID, model.code), np.float32)
        with evaluating(model):
            pictures = sigmoid(model.decode(z)).reshape(-1, *shape)
        draw_images(folder / "samples.png", pictures, 8, "decoded from random codes")


class Diffusion(Unlabelled):
    """models.DDPM with a small U-Net; an average of the weights draws."""

    about = "a denoising diffusion model with a small U-Net (--width)"
    defaults = {"lr": 1e-3, "batch_size": 64, "epochs": 15, "clip_norm": 1.0, "warmup": 0.02}
    takes = ("width",)

    def build(self, options: argparse.Namespace) -> Layer:
        multiple(options, 4, "ddpm")
        channels = shape_of(options)[0]
        return models.DiffusionUNet(channels, options.width or 16, (1, 2, 4), rng=options.seed)

    def example(self, options: argparse.Namespace) -> Any:
        return ((options.batch_size, *shape_of(options)), np.zeros(options.batch_size, np.int64))

    def plan(self, options: argparse.Namespace) -> Plan:
        model = self.build(options)
        splits = load_images(options)
        ddpm = models.DDPM()
        train, validation, test = (2 * part.x - 1 for part in splits[:3])
        plan = Plan(model, MSELoss(), ddpm.stream(train, options.batch_size, options.seed), "")
        plan.about = samples_of(splits, options.data)
        plan.validation = list(ddpm.stream(validation[:1000], 200, 1 + options.seed))
        plan.test = list(ddpm.stream(test[:2000], 200, 2 + options.seed))
        plan.average = 0.995
        plan.after_epoch = lambda folder, model: self.draw(folder, model, ddpm, shape_of(options), FEW)

        def report(folder: Path, model: Layer, scores: dict[str, float]) -> list[str]:
            if not options.quiet:
                print(f"{GRID} pictures out of noise, {ddpm.steps:,} steps ...", flush=True)
            self.draw(folder, model, ddpm, shape_of(options), None)
            return [f"test loss {scores['loss']:.4f}, the squared error of the guessed noise"]

        plan.report = report
        return plan

    def draw(self, folder: Path, model: Layer, ddpm: models.DDPM, shape: tuple[int, ...], few: int | None) -> None:
        """A grid of pictures out of noise; the same noise each time."""
        n = GRID if few is None else SHOWN
        pictures = ddpm.sample(model, (n, *shape), few=few, rng=0)
        title = f"out of noise in {few or ddpm.steps} steps"
        draw_images(folder / "samples.png", (pictures + 1) / 2, 8, title)


class Adversarial(Unlabelled):
    """models.Generator against models.Discriminator, as DCGAN was trained: Adam 2e-4 with betas 0.5 and 0.999."""

    about = "a generator against a discriminator (--width)"
    defaults = {"lr": 2e-4, "batch_size": 64, "epochs": 15}
    takes = ("width",)
    ignores = ("optimizer", "weight_decay", "momentum", "schedule", "warmup", "clip_norm", "patience")

    def build(self, options: argparse.Namespace) -> Layer:
        multiple(options, 4, "gan")
        return models.Generator(64, shape_of(options), options.width or 32, rng=options.seed)

    def example(self, options: argparse.Namespace) -> Any:
        return (max(2, options.batch_size), 64)  # BatchNorm takes no single sample

    def plan(self, options: argparse.Namespace) -> Plan:
        generator: Any = self.build(options)
        critic = models.Discriminator(shape_of(options), options.width or 32, rng=options.seed + 1)
        splits = load_images(options)
        x = 2 * splits.train.x - 1
        plan = Plan(generator, None, None, samples_of(splits, options.data))
        plan.networks = {"generator": generator, "discriminator": critic}

        def fit(folder: Path, progress: bool) -> Any:
            trainer = AdversarialTrainer(
                generator,
                critic,
                *(Adam(each.parameters(), options.lr, betas=(0.5, 0.999)) for each in (generator, critic)),
                latent=generator.latent,
                real_label=0.9,
                folder=folder,
                seed=options.seed,
                progress=progress,
                log_every=max(1, len(x) * options.epochs // options.batch_size // 400),
                after_epoch=lambda _: draw_images(
                    folder / "samples.png", (trainer.draw(GRID) + 1) / 2, 8, "what the generator draws"
                ),
            )
            try:
                trainer.fit(x, epochs=options.epochs, batch_size=options.batch_size)
            finally:
                if trainer.history.records:
                    figure = style.new_figure(6.0, 3.8)
                    names = ["discriminator_loss", "generator_loss"]
                    plot_history(trainer.history, metrics=names, best=None, ax=figure.subplots())
                    style.save_png(figure, folder / "loss_curve.png")
            last = trainer.history.records[-1]
            return [
                f"the discriminator takes real pictures for real with {last['real_score']:.2f}, "
                f"drawn ones with {last['fake_score']:.2f}"
            ]

        plan.fit = fit
        return plan


class Contrastive(Recipe):
    """models.SimCLR with a ConvNet; then a linear classifier on what the encoder has learned without labels."""

    about = "SimCLR: an encoder learns from two views of each picture, then a linear classifier is put on it"
    defaults = {"lr": 1e-3, "batch_size": 256, "epochs": 30, "warmup": 0.1}
    features = 128

    def build(self, options: argparse.Namespace) -> Layer:
        encoder = models.ConvNet(self.features, shape_of(options), rng=options.seed)
        return models.SimCLR(encoder, self.features, rng=options.seed + 1)

    def example(self, options: argparse.Namespace) -> Any:
        return ((options.batch_size, *shape_of(options)),) * 2

    def plan(self, options: argparse.Namespace) -> Plan:
        model = self.build(options)
        splits = load_images(options)

        def views(part: Any, seed: int) -> datasets.Augmented:
            return datasets.Augmented(part.x, part.y, options.batch_size, datasets.simclr_views, 2, seed)

        plan = Plan(model, NTXentLoss(0.5), views(splits.train, options.seed), samples_of(splits, options.data))
        plan.validation = list(views(splits.validation, 1 + options.seed))
        plan.test = list(views(splits.test, 2 + options.seed))

        def draw(folder: Path, model: Layer) -> None:
            x = splits.test.x[:SHOWN]
            rng = np.random.default_rng(0)
            pairs = np.concatenate([x, *(datasets.simclr_views(x, rng) for _ in range(2))])
            draw_images(folder / "views.png", pairs, SHOWN, "test pictures, and two views of each")

        plan.after_epoch = draw
        plan.report = lambda folder, model, scores: [
            f"test loss {scores['loss']:.4f}",
            f"a linear classifier on the encoder: {100 * linear_probe(model, splits, options.seed):.2f} % of the test "
            "set",
        ]
        return plan


def linear_probe(model: Any, splits: Any, seed: int = 0, epochs: int = 20) -> float:
    """The test accuracy of a linear classifier on what the encoder of a SimCLR gives; the encoder is not trained."""
    seen = []
    with evaluating(model):
        for part in (splits.train, splits.test):
            batches = [model.encoder.forward(part.x[i : i + 500]) for i in range(0, len(part.x), 500)]
            seen.append(np.concatenate(batches))
    mean, std = seen[0].mean(axis=0), seen[0].std(axis=0) + np.float32(1e-6)
    train, test = ((each - mean) / std for each in seen)
    classifier = Linear(train.shape[1], len(splits.classes), rng=seed)
    trainer = Trainer(classifier, CrossEntropyLoss(), Adam(classifier.parameters(), 3e-3), progress=False, seed=seed)
    trainer.fit((train, splits.train.y), epochs=epochs, batch_size=128)
    return trainer.evaluate((test, splits.test.y))["accuracy"]


def _squared_error(scores: Any, target: Any) -> Mean:
    return mean_of((sigmoid(scores) - target) ** 2)


def _error_report(folder: Path, model: Layer, scores: dict[str, float]) -> list[str]:
    return [f"test loss {scores['loss']:.4f}   squared error of a pixel {scores['squared_error']:.5f}"]


def _kl(scores: Any, target: Any) -> Mean:
    _, mu, logvar = scores
    return mean_of((mu * mu + np.expm1(logvar) - logvar).sum(axis=1) / 2)


RECIPES: dict[str, Recipe] = {
    "autoencoder": DenseAutoencoder(),
    "conv-autoencoder": ConvolutionalAutoencoder(),
    "vae": Variational(),
    "gan": Adversarial(),
    "ddpm": Diffusion(),
    "simclr": Contrastive(),
}
