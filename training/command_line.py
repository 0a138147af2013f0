"""The command line: `backhand train`, `backhand summary`, `backhand plot`, `backhand check`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from backhand.inspection import plot_history, save_loss_curve, style, summary
from backhand.training import check_command, train_command
from backhand.training.errors import TrainingError
from backhand.training.history import History
from backhand.training.option_types import CommandError, Parser, at_least, between
from backhand.training.recipes import RECIPES, build_model

__all__ = ["build_model", "main"]


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
    except KeyboardInterrupt as stop:
        return _complain(options.command, f"interrupted{f'; {stop}' if stop.args else ''}", 130)
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


# ---------------------------------------------------------------------- backhand summary, backhand plot


def show_summary(options: argparse.Namespace) -> None:
    """Print the layer table of a model."""
    recipe = RECIPES[options.model]
    options.seed, options.published = 0, options.data is None
    train_command.complete(options)
    print(summary(recipe.build(options), recipe.example(options), params=options.params))


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


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="backhand",
        description="Backprop by hand: train networks whose every gradient was derived by a person.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"backhand {train_command.version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)

    about = "train a network, by default on the bundled digits"
    train_command.add_arguments(
        _command(
            commands,
            "train",
            train_command.train,
            about,
            train_command.ABOUT,
            f"{train_command.EXAMPLES}\n\n{train_command.lists()}",
        )
    )

    command = _command(commands, "summary", show_summary, "print the layer table of a model", "", train_command.lists())
    train_command.model_options(command, positional=True)
    command.add_argument("--data", help="what it is for (the first of its data; ImageNet, where it was made for it)")
    command.add_argument("--batch-size", type=at_least(1), default=1, help="samples in the batch (%(default)s)")
    command.add_argument("--params", action="store_true", help="a row for each weight and bias too")

    command = _command(commands, "plot", plot, "draw the loss curves of runs together", "", "")
    command.add_argument("runs", nargs="+", metavar="RUN", help="the folder of a run, or a history.jsonl")
    command.add_argument("--out", default="loss_curves.png", help="the picture, a .png (%(default)s)")
    command.add_argument("--metric", help="draw one metric alone: loss, accuracy, lr, ...")
    command.add_argument("--smooth", type=between(0, 1), default=0.0, help="smoothing, 0 to below 1 (%(default)s)")
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
    """Wraps the description, keeps the examples, and the lists below them, as they are typed."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith("examples:") else super()._fill_text(text, width, indent)


if __name__ == "__main__":
    sys.exit(main())
