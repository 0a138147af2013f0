"""The command line: `backhand train`, `backhand summary`, `backhand plot`, `backhand check`."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from backhand import datasets, models
from backhand.inspection import plot_history, save_loss_curve, style, summary
from backhand.layers import Layer
from backhand.losses import CrossEntropyLoss
from backhand.training import check_command, optimizers, schedules
from backhand.training.batches import ArrayBatches
from backhand.training.errors import TrainingError
from backhand.training.history import History
from backhand.training.trainer import Trainer

Shape = tuple[int, ...]

DATA: dict[str, tuple[Shape, str]] = {
    "digits": ((1, 8, 8), "1,797 handwritten digits, bundled"),
    "mnist": ((1, 28, 28), "70,000 handwritten digits"),
    "cifar10": ((3, 32, 32), "colour photographs in ten classes"),
}
MODELS = {
    "mlp": "fully connected layers (--hidden, --dropout)",
    "lenet": "LeNet-5, for 28x28 or 32x32 images",
    "convnet": "three blocks of convolution, batch norm, ReLU and pooling",
}
RUN_FILES = ("config.json", "history.jsonl", "loss_curve.png", "model.safetensors", "best.safetensors")
OPTIMIZERS: dict[str, Callable[..., optimizers.Optimizer]] = {
    "adam": optimizers.Adam,
    "adamw": optimizers.AdamW,
    "sgd": optimizers.SGD,
    "rmsprop": optimizers.RMSprop,
    "adagrad": optimizers.Adagrad,
}


class CommandError(Exception):
    """What the user has to know, in one line."""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status (0 fine, 1 training or a check failed, 2 the call was wrong)."""
    options = _parser().parse_args(argv)
    try:
        status: int | None = options.run(options)
    except TrainingError as error:
        return _complain(options.command, error, 1)
    except BrokenPipeError:  # whoever read what we print has gone (`| head`): there is nobody left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return _complain(options.command, "interrupted; what the run folder holds so far is intact", 130)
    except OSError as error:
        about = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else error
        return _complain(options.command, about, 2)
    except (MemoryError, OverflowError) as error:
        return _complain(options.command, f"that is too large for this machine ({error})", 2)
    except (CommandError, ValueError) as error:
        return _complain(options.command, error, 2)
    return status or 0


def _complain(command: str, problem: object, status: int) -> int:
    line = " ".join(str(problem).split())
    print(f"backhand {command}: {line}", file=sys.stderr)
    return status


# ---------------------------------------------------------------------- backhand train


def train(options: argparse.Namespace) -> None:
    """Train a model on a dataset and leave a run folder behind."""
    _refuse_what_would_be_ignored(options)
    shape, _ = DATA[options.data]
    model = build_model(options.model, shape, options.hidden, options.dropout, options.seed)
    folder, created = _run_folder(options)
    try:
        splits = _load(options)
    except BaseException:
        if created:
            folder.rmdir()
        raise
    in_an_epoch = ArrayBatches("train", (splits.train.x,)).count(options.batch_size, merge=True)
    steps = options.epochs * (in_an_epoch or 0)
    optimizer = OPTIMIZERS[options.optimizer](
        model.parameters(),
        lr=options.lr,
        **({} if options.weight_decay is None else {"weight_decay": options.weight_decay}),
        **({"momentum": 0.9 if options.momentum is None else options.momentum} if options.optimizer == "sgd" else {}),
    )
    config = {
        **{k: v for k, v in vars(options).items() if k not in ("run", "command", "quiet", "overwrite")},
        "out": str(folder),
        "parameters": sum(p.size for p in model.parameters()),
        "versions": {"backhand": _version(), "numpy": np.__version__, "python": platform.python_version()},
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    say = (lambda *_: None) if options.quiet else print
    train, validation, test = (f"{len(part.x):,}" for part in splits[:3])
    say(f"{options.model}: {config['parameters']:,} parameters")
    say(f"{options.data}: {train} samples to learn from, {validation} to validate, {test} to test")
    trainer = Trainer(
        model,
        CrossEntropyLoss(),
        optimizer,
        schedule=_schedule(options, optimizer, steps),
        schedule_every="batch",
        clip_norm=options.clip_norm,
        patience=options.patience,
        folder=folder,
        seed=options.seed,
        progress=not options.quiet,
        log_every=max(1, steps // 400),  # a curve has room for no more
    )
    history = trainer.history
    try:
        trainer.fit(splits.train, splits.validation, epochs=options.epochs, batch_size=options.batch_size)
        scores = trainer.evaluate(splits.test)
        tested = {f"test_{name}": value for name, value in scores.items()}
        history.append({"step": trainer.steps, "epoch": float(trainer.epochs), **tested})
    finally:
        if history.records:  # a run that breaks off has a curve too: it shows how
            save_loss_curve(history, folder / "loss_curve.png", classes=len(splits.classes))
    print(f"test accuracy {100 * scores['accuracy']:.2f} %   test loss {scores['loss']:.4f}")
    say(f"{folder}/ holds {', '.join(name for name in RUN_FILES if (folder / name).exists())}")


def _refuse_what_would_be_ignored(options: argparse.Namespace) -> None:
    for name, belongs, means in (
        ("hidden", options.model == "mlp", "--model mlp"),
        ("dropout", options.model == "mlp", "--model mlp"),
        ("momentum", getattr(options, "optimizer", "sgd") == "sgd", "--optimizer sgd"),
        ("data_dir", options.data != "digits", "--data mnist or cifar10 (the digits are bundled)"),
    ):
        if getattr(options, name, None) is not None and not belongs:
            raise CommandError(f"--{name.replace('_', '-')} is for {means}")


def build_model(
    name: str, shape: Shape, hidden: tuple[int, ...] | None, dropout: float | None, seed: int, classes: int = 10
) -> Layer:
    """The model that the command line calls `name`, for images of `shape` (C, H, W)."""
    if name == "mlp":
        return models.MLP(int(np.prod(shape)), *(hidden or (128,)), classes, dropout=dropout or 0.0, rng=seed)
    if name == "lenet":
        if shape[1:] not in ((28, 28), (32, 32)):
            raise CommandError(
                f"the model lenet takes images of 28x28 or 32x32 and these are {shape[1]}x{shape[2]}; "
                "use --model mlp or convnet"
            )
        return models.LeNet5(classes, shape[0], shape[1], rng=seed)
    return models.ConvNet(classes, (shape[0], shape[1], shape[2]), rng=seed)


def _load(options: argparse.Namespace) -> Any:
    if options.data == "digits":
        return datasets.load_digits()
    load = {"mnist": datasets.load_mnist, "cifar10": datasets.load_cifar10}[options.data]
    return load(options.data_dir or Path("data") / options.data)


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
        base = Path("runs") / f"{options.data}-{options.model}"
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


# ---------------------------------------------------------------------- backhand summary, backhand plot


def show_summary(options: argparse.Namespace) -> None:
    """Print the layer table of a model."""
    _refuse_what_would_be_ignored(argparse.Namespace(**{**vars(options), "data": options.data or "mnist"}))
    shape, _ = DATA[options.data or ("mnist" if options.model == "lenet" else "digits")]
    model = build_model(options.model, shape, options.hidden, options.dropout, seed=0)
    print(summary(model, (options.batch_size, *shape), params=options.params))


def plot(options: argparse.Namespace) -> None:
    """Draw the loss curves of one or several runs into one picture."""
    histories, names = [], []
    for run in map(Path, options.runs):
        path = run / "history.jsonl" if run.is_dir() else run
        if not path.exists():
            raise CommandError(f"{run}: no history.jsonl there; give the folder of a run")
        histories.append(History.read(path))
        if not histories[-1].records:
            raise CommandError(f"{path}: holds no record of a run")
        names.append(run.name if run.is_dir() else run.parent.name)
    if len(set(names)) < len(names):
        names = [str(run) for run in options.runs]
    out = Path(options.out)
    if out.suffix.lower() != ".png":
        raise CommandError(f"expected --out to end in .png, got {out.name!r}")
    known = {key for history in histories for record in history.records for key in record} - {"step", "epoch"}
    if options.metric is not None and options.metric not in known:
        raise CommandError(f"expected --metric to be one of {', '.join(sorted(known))}, got {options.metric!r}")
    how = {"labels": names, "smooth": options.smooth, "log": options.log}
    if options.metric is None:
        save_loss_curve(histories, out, **how)
    else:
        figure = style.new_figure(6.0, 3.8)
        plot_history(histories, metrics=options.metric, ax=figure.subplots(), **how)
        style.save_png(figure, out)
    print(f"drew {len(histories)} {'run' if len(histories) == 1 else 'runs'} into {out}")


# ---------------------------------------------------------------------- the options


class _Parser(argparse.ArgumentParser):
    """argparse, with one line for a mistake."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message} ({self.prog} --help shows the options)", file=sys.stderr)
        raise SystemExit(2)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="backhand",
        description="Backprop by hand: train networks whose every gradient was derived by a person.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"backhand {_version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

    command = _command(
        commands,
        "train",
        train,
        "train a network, by default on the bundled digits",
        """Train a network and leave a run folder with config.json (all settings), history.jsonl (one line for each
        measurement, written as training goes), loss_curve.png, model.safetensors (the weights at the end; torch reads
        them too) and best.safetensors (the weights with the lowest validation loss).""",
        """examples:
  backhand train                                     the bundled digits, in seconds
  backhand train --data mnist --data-dir DIR --model lenet --epochs 2
  backhand train --model mlp --hidden 256,128 --dropout 0.2 --out runs/wide""",
    )
    data = command.add_argument_group("data")
    data.add_argument("--data", choices=DATA, default="digits", help=_choices({k: v[1] for k, v in DATA.items()}))
    data.add_argument(
        "--data-dir", metavar="DIR", help="the folder of mnist's or cifar10's files, fetched if it has none (data/NAME)"
    )
    _model_options(command)
    how = command.add_argument_group("training")
    how.add_argument("--epochs", type=_at_least(1), default=15, help="passes over the training data (%(default)s)")
    how.add_argument("--batch-size", type=_at_least(1), default=64, help="samples in each step (%(default)s)")
    how.add_argument("--optimizer", choices=OPTIMIZERS, default="adam", help=f"{', '.join(OPTIMIZERS)} (%(default)s)")
    how.add_argument("--lr", type=_positive, default=3e-3, help="learning rate (%(default)s)")
    how.add_argument("--momentum", type=_between(0, 1), help="of sgd (0.9)")
    how.add_argument("--weight-decay", type=_not_negative, help="(0; 0.01 in adamw)")
    how.add_argument("--schedule", choices=("cosine", "constant"), default="cosine", help="of the rate (%(default)s)")
    how.add_argument(
        "--warmup", type=_between(0, 1), default=0.0, help="share of the steps in which the rate rises (%(default)s)"
    )
    how.add_argument("--clip-norm", type=_positive, help="largest norm of the whole gradient (not clipped)")
    how.add_argument("--patience", type=_at_least(1), help="stop after so many epochs without a better validation loss")
    how.add_argument("--seed", type=_at_least(0), default=0, help="the same seed gives the same bits (%(default)s)")
    out = command.add_argument_group("output")
    out.add_argument("--out", metavar="DIR", help="the run folder (runs/DATA-MODEL, numbered when it exists)")
    out.add_argument("--overwrite", action="store_true", help="replace the run that --out holds")
    out.add_argument("--quiet", action="store_true", help="print the test accuracy and nothing else")

    command = _command(commands, "summary", show_summary, "print the layer table of a model", "", "")
    _model_options(command, positional=True)
    command.add_argument("--data", choices=DATA, default=None, help="whose images it is for (digits; lenet: mnist)")
    command.add_argument("--batch-size", type=_at_least(1), default=1, help="samples in the batch (%(default)s)")
    command.add_argument("--params", action="store_true", help="a row for each weight and bias too")

    command = _command(commands, "plot", plot, "draw the loss curves of runs together", "", "")
    command.add_argument("runs", nargs="+", metavar="RUN", help="the folder of a run, or a history.jsonl")
    command.add_argument("--out", default="loss_curves.png", help="the picture, a .png (%(default)s)")
    command.add_argument("--metric", help="draw one metric alone: loss, accuracy, lr, ...")
    command.add_argument("--smooth", type=_between(0, 1), default=0.0, help="smoothing, 0 to below 1 (%(default)s)")
    command.add_argument("--log", action="store_true", help="a logarithmic axis")

    about = "check the gradients of your own layer, and say what is wrong"
    check_command.add_arguments(
        _command(commands, "check", check_command.check, about, check_command.ABOUT, check_command.EXAMPLES)
    )
    return parser


def _command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int | None], about: str, text: str, examples: str
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=about,
        description=" ".join(text.split()) or about.capitalize() + ".",
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter if not text else _Formatter,
        allow_abbrev=False,
    )
    command.set_defaults(run=run)
    return command


class _Formatter(argparse.HelpFormatter):
    """Wraps the description, keeps the examples as they are typed."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith("examples:") else super()._fill_text(text, width, indent)


def _model_options(command: argparse.ArgumentParser, positional: bool = False) -> None:
    group = command.add_argument_group("model")
    if positional:
        group.add_argument("model", choices=MODELS, metavar="MODEL", help=_choices(MODELS))
    else:
        group.add_argument("--model", choices=MODELS, default="convnet", help=_choices(MODELS))
    group.add_argument("--hidden", type=_sizes, metavar="SIZES", help="hidden sizes of mlp, as in 256,128 (128)")
    group.add_argument("--dropout", type=_between(0, 1), help="share dropped in mlp (0)")


def _choices(what: dict[str, str]) -> str:
    return "; ".join(f"{name}: {about}" for name, about in what.items())


def _version() -> str:
    return importlib.metadata.version("backhand")


def _number(text: str, kind: type) -> Any:
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not (kind is int or np.isfinite(value)):
        raise argparse.ArgumentTypeError(f"expected {'an integer' if kind is int else 'a number'}, got {text!r}")
    return value


def _at_least(least: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        value: int = _number(text, int)
        if value < least:
            raise argparse.ArgumentTypeError(f"expected {least} or more, got {text}")
        return value

    return convert


def _between(low: float, high: float) -> Callable[[str], float]:
    def convert(text: str) -> float:
        value: float = _number(text, float)
        if not low <= value < high:
            raise argparse.ArgumentTypeError(f"expected {low:g} or more and less than {high:g}, got {text}")
        return value

    return convert


def _positive(text: str) -> float:
    value: float = _number(text, float)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"expected more than 0, got {text}")
    return value


def _not_negative(text: str) -> float:
    value: float = _number(text, float)
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected 0 or more, got {text}")
    return value


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(_at_least(1)(part) for part in text.split(",")) if text else ()


if __name__ == "__main__":
    sys.exit(main())
