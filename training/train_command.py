"""`backhand train`: any of the recipes, with one run folder for all it leaves behind."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from backhand.inspection import save_loss_curve
from backhand.training import optimizers, schedules
from backhand.training.averaging import ExponentialMovingAverage
from backhand.training.batches import as_batches
from backhand.training.checkpoints import load_weights, save_weights
from backhand.training.errors import unsound
from backhand.training.option_types import CommandError, at_least, between, not_negative, positive, sizes
from backhand.training.recipes import DEFAULTS, RECIPES, Plan
from backhand.training.recipes.answering import ANSWERS
from backhand.training.recipes.base import FILE, IMAGES, perplexity
from backhand.training.recipes.tasks import TASKS
from backhand.training.trainer import Trainer

DEFAULT_MODEL = "convnet"
RUN_FILES = (
    "config.json",
    "history.jsonl",
    "loss_curve.png",
    "model.safetensors",
    "best.safetensors",
    "average.safetensors",
    "generator.safetensors",
    "discriminator.safetensors",
    "samples.png",
    "reconstructions.png",
    "memory.png",
    "answer.png",
    "views.png",
    "segments.png",
    "captions.png",
    "samples.txt",
)
OPTIMIZERS: dict[str, Callable[..., optimizers.Optimizer]] = {
    "adam": optimizers.Adam,
    "adamw": optimizers.AdamW,
    "sgd": optimizers.SGD,
    "rmsprop": optimizers.RMSprop,
    "adagrad": optimizers.Adagrad,
    "graves": optimizers.GravesRMSprop,
}
RATES = {"sgd": 0.05, "graves": 1e-4}  # where another optimizer than the recipe's is asked for, and no rate
# Options that are for some models only.
OWN = ("hidden", "dropout", "controller", "heads", "width", "no_augment")

ABOUT = """Train a network and leave a run folder with config.json (all settings), history.jsonl (one line for each
measurement, written as training goes), loss_curve.png, model.safetensors (the weights at the end; torch reads them too)
and best.safetensors (the weights with the lowest validation loss); and what belongs to the model: samples.png,
reconstructions.png, views.png, segments.png, captions.png, memory.png or answer.png, samples.txt. The pictures are
drawn anew after each epoch."""
EXAMPLES = """examples:
  backhand train                                     the bundled digits, in seconds
  backhand train --model lenet --epochs 2            MNIST, fetched or in data/mnist (or --data-dir DIR)
  backhand train --model mlp --hidden 256,128 --dropout 0.2 --out runs/wide
  backhand train --model ntm --data copy             the Neural Turing Machine, in a minute or two
  backhand train --model transformer --data sort
  backhand train --model gpt --data shakespeare.txt
  backhand train --model makemore --data names.txt
  backhand train --model vae --data mnist --data-dir DIR
  backhand train --model resnet20 --data cifar10 --data-dir DIR"""


def complete(options: argparse.Namespace) -> None:
    """Fill in what the user left open; CommandError for what does not go together."""
    recipe = RECIPES[options.model]
    if options.data is None and recipe.data[0] != FILE:
        options.data = recipe.data[0]
    if options.data not in recipe.data and FILE not in recipe.data:
        takers = [model for model, each in RECIPES.items() if options.data in each.data]
        if takers:
            own = ", ".join(recipe.data)
            raise CommandError(
                f"--data {options.data} is for --model {', '.join(takers)}, not for {options.model} (which takes {own})"
            )
        known = ", ".join(map(repr, recipe.data))
        raise CommandError(f"argument --data: invalid choice: {options.data!r} (choose from {known})")
    for name in recipe.ignores:
        if getattr(options, name, None) is not None:
            raise CommandError(f"--{name.replace('_', '-')} is not for --model {options.model}")
    for name in OWN:
        takers = [model for model, each in RECIPES.items() if name in each.takes]
        if getattr(options, name, None) and options.model not in takers:
            raise CommandError(f"--{name.replace('_', '-')} is for --model {', '.join(takers)}")
        if not hasattr(options, name):
            setattr(options, name, None)
    if getattr(options, "data_dir", None) is not None and options.data not in ("mnist", "cifar10"):
        raise CommandError("--data-dir is for --data mnist or cifar10 (the digits are bundled)")
    defaults = {**DEFAULTS, **recipe.defaults_for(options.data)}
    chosen = getattr(options, "optimizer", None) not in (None, defaults["optimizer"])
    if chosen:
        for name in ("weight_decay", "momentum"):
            defaults.pop(name, None)
        defaults["lr"] = RATES.get(options.optimizer, DEFAULTS["lr"])  # the recipe's is for its own optimizer
    for name, value in defaults.items():
        if getattr(options, name, value) is None:
            setattr(options, name, value)
    if getattr(options, "momentum", None) is not None and options.optimizer != "sgd":
        raise CommandError("--momentum is for --optimizer sgd")


def train(options: argparse.Namespace) -> None:
    """Train a model on its data and leave a run folder behind."""
    complete(options)
    if options.data is None:
        what = RECIPES[options.model].file
        raise CommandError(f"the model {options.model} learns from {what}: give its file, --data FILE.txt")
    folder, created = _run_folder(options)
    report = None
    try:
        plan = RECIPES[options.model].plan(options)
        if options.weights is not None:
            report = load_weights(plan.model, options.weights, strict=False, misshapen=True)
            if not report.loaded_keys:
                raise CommandError(f"{options.weights}: nothing in it is for the model {options.model}")
    except BaseException:
        if created:
            folder.rmdir()
        raise
    config = {
        **{k: v for k, v in vars(options).items() if k not in ("run", "command", "quiet", "overwrite")},
        "out": str(folder),
        "parameters": sum(p.size for p in plan.model.parameters()),
        **plan.extra,
        "versions": {"backhand": version(), "numpy": np.__version__, "python": platform.python_version()},
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    say = (lambda *_: None) if options.quiet else print
    say(f"{options.model}: {config['parameters']:,} parameters")
    if report is not None:
        say(f"{options.weights}: {report}")
    say(plan.about)
    try:
        lines = plan.fit(folder, not options.quiet) if plan.fit else _fit(plan, options, folder)
    except KeyboardInterrupt:
        sound = {name: network for name, network in plan.networks.items() if not unsound(network)}
        for name, network in sound.items():
            save_weights(network, folder / f"{name}.safetensors")
        kept = f"the weights of the {' and the '.join(sound)} are those at the interrupt"
        if len(sound) < len(plan.networks):
            kept = "not all weights are finite at the interrupt, and those that are not were not saved"
        raise KeyboardInterrupt(f"{_holds(folder)}; {kept}") from None
    print("\n".join(lines))
    say(_holds(folder))


def _holds(folder: Path) -> str:
    return f"{folder}/ holds {', '.join(name for name in RUN_FILES if (folder / name).exists())}"


def _fit(plan: Plan, options: argparse.Namespace, folder: Path) -> list[str]:
    """The Trainer on a plan, and the lines that end the run."""
    in_an_epoch = as_batches("train", plan.train).count(options.batch_size, merge=True)
    steps = options.epochs * (in_an_epoch or 0)
    optimizer = OPTIMIZERS[options.optimizer](
        plan.model.parameters(),
        lr=options.lr,
        **({} if options.weight_decay is None else {"weight_decay": options.weight_decay}),
        **({"momentum": 0.9 if options.momentum is None else options.momentum} if options.optimizer == "sgd" else {}),
    )
    average = None
    if plan.average is not None:
        average = ExponentialMovingAverage(plan.model, plan.average, warm_up=True)
        plan.networks["average"] = average.module
    drawing = plan.model if average is None else average.module
    assert plan.loss is not None

    def after_epoch(record: dict[str, Any]) -> None:
        if plan.perplexity:
            value = perplexity(record["val_loss"])
            trainer.history.append({"step": record["step"], "epoch": record["epoch"], "val_perplexity": value})
        if plan.after_epoch is not None:
            plan.after_epoch(folder, drawing)

    trainer = Trainer(
        plan.model,
        plan.loss,
        optimizer,
        schedule=_schedule(options, optimizer, steps),
        schedule_every="batch",
        metrics=plan.metrics,
        clip_norm=options.clip_norm,
        patience=options.patience,
        folder=folder,
        seed=options.seed,
        progress=not options.quiet,
        log_every=max(1, steps // 400),  # a curve has room for no more
        batch_axis=plan.batch_axis,
        after_step=None if average is None else average.update,
        after_epoch=after_epoch,
    )
    history = trainer.history
    try:
        trainer.fit(plan.train, plan.validation, epochs=options.epochs, batch_size=options.batch_size)
        scores: dict[str, float] = {}
        if plan.test is not None:
            if average is None:
                scores = trainer.evaluate(plan.test)
            else:
                with average.swapped():
                    scores = trainer.evaluate(plan.test)
        tested = {f"test_{name}": value for name, value in scores.items()}
        history.append({"step": trainer.steps, "epoch": float(trainer.epochs), **tested})
    finally:
        if history.records:  # a run that breaks off has a curve too: it shows how
            save_loss_curve(history, folder / "loss_curve.png", classes=plan.classes)
    if average is not None:
        save_weights(average.module, folder / "average.safetensors")
    return plan.report(folder, drawing, scores) if plan.report else [f"test loss {scores['loss']:.4f}"]


def _schedule(options: argparse.Namespace, optimizer: optimizers.Optimizer, steps: int) -> Any:
    """The learning rate over the steps: an optional warm-up, then constant, or down to zero along a cosine."""
    warm = round(options.warmup * steps)
    after = schedules.CosineAnnealingLR(optimizer, max(1, steps - warm)) if options.schedule == "cosine" else None
    if not warm:
        return after
    start = schedules.LinearLR(optimizer, start_factor=1 / warm, total_iters=warm)
    return start if after is None else schedules.SequentialLR(optimizer, [start, after], [warm])


def _run_folder(options: argparse.Namespace) -> tuple[Path, bool]:
    """The folder of this run, made if it has to be, and whether it was made here."""
    if options.out is None:
        base = Path("runs") / f"{Path(options.data).stem}-{options.model}"
        folder, number = base, 1
        while folder.exists():
            number += 1
            folder = base.with_name(f"{base.name}-{number}")
    else:
        folder = Path(options.out)
        there = [name for name in RUN_FILES if (folder / name).exists()]
        if there and not options.overwrite:
            raise CommandError(f"{folder} holds {', '.join(there)} already; choose another --out, or --overwrite")
    created = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / ".writable"
    probe.touch()
    probe.unlink()
    return folder, created


def lists() -> str:
    """What --help says at its end: every model under the data that it takes, and what the data are."""
    lines = [f"models, under the data that they take, the first by default (--model; {DEFAULT_MODEL} by default):"]
    by_data: dict[tuple[str, ...], list[str]] = {}
    for name, recipe in RECIPES.items():
        by_data.setdefault(recipe.data, []).append(name)
    for data, names in by_data.items():
        lines.append(f"  {', '.join(f'{FILE}.txt' if each == FILE else each for each in data)}")
        lines += [f"    {name:<19}{RECIPES[name].about}" for name in names]
    lines += ["", "data (--data):"]
    about = (
        {k: v[1] for k, v in [*IMAGES.items(), *TASKS.items()]}
        | ANSWERS
        | {f"{FILE}.txt": "a text to learn to write from, or a list of names"}
    )
    return "\n".join([*lines, *(f"  {name:<21}{what}" for name, what in about.items())])


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The arguments of `backhand train`."""
    data = command.add_argument_group("data")
    data.add_argument("--data", metavar="DATA", help="what to learn from: see below, under the model")
    data.add_argument(
        "--data-dir", metavar="DIR", help="the folder of mnist's or cifar10's files, fetched if it has none (data/NAME)"
    )
    data.add_argument("--no-augment", action="store_true", help="leave the pictures as they are in every epoch")
    model_options(command)
    how = command.add_argument_group("training (the defaults are for the classifiers; other models have their own)")
    how.add_argument("--epochs", type=at_least(1), help=_default("passes over the training data", "epochs"))
    how.add_argument("--batch-size", type=at_least(1), help=_default("samples in each step", "batch_size"))
    how.add_argument("--optimizer", choices=OPTIMIZERS, help=_default(", ".join(OPTIMIZERS), "optimizer"))
    how.add_argument(
        "--lr",
        type=positive,
        help=_default("learning rate; of another optimizer than the model's own: sgd 0.05, graves 0.0001", "lr"),
    )
    how.add_argument("--momentum", type=between(0, 1), help="of sgd (0.9; makemore: 0)")
    how.add_argument("--weight-decay", type=not_negative, help="(0; 0.01 in adamw)")
    how.add_argument("--schedule", choices=("cosine", "constant"), help=_default("of the rate", "schedule"))
    how.add_argument(
        "--warmup", type=between(0, 1), help=_default("share of the steps in which the rate rises", "warmup")
    )
    how.add_argument("--clip-norm", type=positive, help="largest norm of the whole gradient (not clipped)")
    how.add_argument("--patience", type=at_least(1), help="stop after so many epochs without a better validation loss")
    how.add_argument("--seed", type=at_least(0), default=0, help="the same seed gives the same bits (%(default)s)")
    how.add_argument(
        "--weights",
        metavar="FILE",
        help="begin with these weights (safetensors; GPT-2's as Hugging Face stores them too), as far as they fit; "
        "says what did not",
    )
    out = command.add_argument_group("output")
    out.add_argument("--out", metavar="DIR", help="the run folder (runs/DATA-MODEL, numbered when it exists)")
    out.add_argument("--overwrite", action="store_true", help="replace the run that --out holds")
    out.add_argument("--quiet", action="store_true", help="print what the test set gave and nothing else")


def model_options(command: argparse.ArgumentParser, positional: bool = False) -> None:
    """Which model, and what is for some of them only."""
    group = command.add_argument_group("model")
    if positional:
        group.add_argument("model", choices=RECIPES, metavar="MODEL", help="see below")
    else:
        help_ = "what is trained: see below (%(default)s)"
        group.add_argument("--model", choices=RECIPES, default=DEFAULT_MODEL, metavar="MODEL", help=help_)
    group.add_argument("--hidden", type=sizes, metavar="SIZES", help="hidden sizes, as in 256,128 (mlp: 128)")
    group.add_argument(
        "--dropout", type=between(0, 1), help="share that is dropped (0; in alexnet, vgg and mobilenet_v2 as published)"
    )
    group.add_argument("--controller", choices=("feedforward", "lstm"), help="of the ntm (feedforward)")
    group.add_argument("--heads", type=at_least(1), help="of the ntm, to read and as many to write (1)")
    group.add_argument(
        "--width",
        type=at_least(1),
        help="of the first maps of ddpm, unet (16) and gan (32), of gpt and captioning (128)",
    )


def version() -> str:
    """Of the installed package."""
    return importlib.metadata.version("backhand")


def _default(about: str, name: str) -> str:
    return f"{about} ({DEFAULTS[name]})"
