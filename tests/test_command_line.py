"""The command line, as a person uses it: what it prints, what it leaves, and one clear line for every mistake."""

import json
import signal
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

from backhand.training import History
from backhand.training.command_line import build_model, main
from backhand.training.recipes import RECIPES
from backhand.training.recipes.tasks import TASKS

COMMAND = [sys.executable, "-m", "backhand.training.command_line"]
FAST = ["train", "--model", "mlp", "--hidden", "16", "--epochs", "2", "--batch-size", "128"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments):
    """Exit status of the command, argparse's own exits included."""
    try:
        return main([str(a) for a in arguments])
    except SystemExit as stop:
        return stop.code


def test_train_leaves_a_run_folder(here, capsys):
    assert run(*FAST) == 0
    folder = here / "runs" / "digits-mlp"
    names = {path.name for path in folder.iterdir()}
    assert {"history.jsonl", "loss_curve.png", "model.safetensors", "config.json"} <= names
    config = json.loads((folder / "config.json").read_text())
    assert (config["data"], config["model"], config["epochs"], config["hidden"]) == ("digits", "mlp", 2, [16])
    records = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert [r["epoch"] for r in records if "val_loss" in r] == [1.0, 2.0]
    assert (folder / "loss_curve.png").read_bytes().startswith(b"\x89PNG")
    model = build_model("mlp", (1, 8, 8), (16,), 0.0, seed=0)
    model.load_state_dict(load_file(folder / "model.safetensors"))
    printed = capsys.readouterr().out
    assert f"test accuracy {100 * records[-1]['test_accuracy']:.2f} %" in printed
    assert "epoch 2/2" in printed


def test_the_same_seed_gives_the_same_bits(here):
    for out, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert run(*FAST, "--dropout", 0.2, "--seed", seed, "--out", out, "--quiet") == 0
    a, b, c = ((here / out / "model.safetensors").read_bytes() for out in "abc")
    assert a == b != c
    curves = [History.read(here / out / "history.jsonl").records for out in "ab"]
    without_time = [[{k: v for k, v in record.items() if k != "seconds"} for record in curve] for curve in curves]
    assert without_time[0] == without_time[1]


def test_runs_are_numbered_and_never_overwritten_by_accident(here, capsys):
    assert run(*FAST, "--quiet") == run(*FAST, "--quiet") == 0
    assert sorted(p.name for p in (here / "runs").iterdir()) == ["digits-mlp", "digits-mlp-2"]
    before = (here / "runs/digits-mlp/model.safetensors").read_bytes()
    assert run(*FAST, "--seed", 5, "--out", "runs/digits-mlp") == 2
    assert "history.jsonl, loss_curve.png, model.safetensors, best.safetensors already" in capsys.readouterr().err
    assert (here / "runs/digits-mlp/model.safetensors").read_bytes() == before
    assert run(*FAST, "--seed", 5, "--out", "runs/digits-mlp", "--overwrite", "--quiet") == 0
    assert (here / "runs/digits-mlp/model.safetensors").read_bytes() != before


@pytest.mark.parametrize(
    "extra",
    [
        ["--optimizer", "sgd", "--momentum", "0.5"],
        ["--optimizer", "adamw", "--weight-decay", "0.01"],
        ["--optimizer", "rmsprop", "--schedule", "constant"],
        ["--optimizer", "adagrad", "--warmup", "0.2"],
        ["--schedule", "constant", "--warmup", "0.5", "--clip-norm", "1", "--patience", "1"],
    ],
    ids=" ".join,
)
def test_options(here, extra):
    assert run(*FAST, *extra, "--quiet", "--out", "run") == 0


def weights_of(here, name, *options):
    assert run(*FAST, *options, "--quiet", "--out", name) == 0
    return load_file(here / name / "model.safetensors")["fc1.weight"], History.read(here / name / "history.jsonl")


@pytest.mark.parametrize(
    ("base", "extra"),
    [
        ([], ["--optimizer", "adamw"]),
        ([], ["--weight-decay", "0.1"]),
        ([], ["--schedule", "constant"]),
        ([], ["--warmup", "0.5"]),
        ([], ["--clip-norm", "0.01"]),
        ([], ["--dropout", "0.5"]),
        ([], ["--lr", "0.01"]),
        ([], ["--batch-size", "100"]),
        ([], ["--seed", "1"]),
        (["--optimizer", "sgd"], ["--momentum", "0.1"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_every_option_changes_what_is_learned(here, base, extra):
    (one, _), (other, _) = weights_of(here, "one", *base), weights_of(here, "other", *base, *extra)
    assert (one != other).any()


def test_the_cosine_ends_at_zero_and_the_warm_up_starts_low(here):
    # 1,257 samples in batches of 157: the last one alone joins the batch before it
    _, history = weights_of(here, "run", "--batch-size", "157", "--warmup", "0.25", "--lr", "0.1")
    rates = [record["lr"] for record in history if "batch_loss" in record]
    assert len(rates) == 16
    assert rates[0] == pytest.approx(0.1 / 4)
    assert max(rates) == pytest.approx(0.1)
    assert rates[-1] < 0.003


def test_patience_ends_it_early(here):
    _, history = weights_of(here, "run", "--epochs", "40", "--lr", "3", "--patience", "2")
    assert max(record["epoch"] for record in history) < 40


def test_the_default_model_is_the_convnet(here, capsys):
    assert run("train", "--epochs", "1", "--batch-size", "256") == 0
    assert "convnet: 94,186 parameters" in capsys.readouterr().out


def test_a_reader_that_goes_away_ends_it_quietly(here):
    command = subprocess.Popen([*COMMAND, *FAST, "--epochs", "40"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while b"epoch 1/" not in command.stdout.readline():
        pass
    command.stdout.close()
    assert command.stderr.read() == b""
    command.stderr.close()
    assert command.wait(timeout=300) == 1
    assert (here / "runs/digits-mlp/history.jsonl").exists()


def test_an_interrupt_keeps_the_run(here):
    command = subprocess.Popen([*COMMAND, *FAST, "--epochs", "5000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while b"epoch 2/" not in command.stdout.readline():
        pass
    command.send_signal(signal.SIGINT)
    _, error = command.communicate(timeout=300)
    assert command.returncode == 130
    assert error.count(b"\n") == 1 and b"interrupted; runs/digits-mlp/ holds config.json, history.jsonl" in error
    kept = {path.name for path in (here / "runs/digits-mlp").iterdir()}
    assert {"history.jsonl", "model.safetensors", "loss_curve.png"} <= kept


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--what"], "unrecognized arguments: --what"),
        (["train", "--epochs", "0"], "--epochs: expected 1 or more, got 0"),
        (["train", "--epochs", "ten"], "--epochs: expected an integer, got 'ten'"),
        (["train", "--lr", "-1"], "--lr: expected more than 0, got -1"),
        (["train", "--lr", "nan"], "--lr: expected a number, got 'nan'"),
        (["train", "--dropout", "1.5"], "--dropout: expected 0 or more and less than 1, got 1.5"),
        (["train", "--hidden", "12,x"], "--hidden: expected an integer, got 'x'"),
        (["train", "--hidden", "12,0"], "--hidden: expected 1 or more, got 0"),
        (["train", "--model", "mlp", "--hidden", "9" * 14], "too large for this machine"),
        (["train", "--hidden", "64"], "--hidden is for --model mlp"),
        (["train", "--model", "lenet", "--data", "mnist", "--dropout", "0.1"], "--dropout is for --model mlp"),
        (["train", "--momentum", "0.5"], "--momentum is for --optimizer sgd"),
        (["train", "--data-dir", "run"], "--data-dir is for --data mnist or cifar10"),
        (["summary", "lenet", "--hidden", "64"], "--hidden is for --model mlp"),
        (["train", "--data", "imagenet"], "--data: invalid choice: 'imagenet'"),
        (["train", "--model", "lenet", "--data", "digits"], "not for lenet (which takes mnist, cifar10)"),
        (["train", "--model", "lenet", "--data-dir", "broken"], "broken"),
        (["train", "--out", "file"], "file"),
        (["train", "--out", "file/run"], "file/run"),
        (["train", "--out", "/proc/nothing/here"], "/proc/nothing"),
        (["train", "--data", "mnist", "--data-dir", "broken"], "broken"),
        (["summary"], "MODEL"),
        (["summary", "resnet"], "invalid choice: 'resnet'"),
        (["plot"], "RUN"),
        (["plot", "nowhere"], "nowhere: no history.jsonl there"),
        (["plot", "broken"], "no history.jsonl there"),
        (["plot", "file"], "file: holds no record of a run"),
        (["plot", "run", "--out", "curve.xyz"], "expected --out to end in .png, got 'curve.xyz'"),
        (["plot", "run", "--metric", "f1"], "expected --metric to be one of loss, got 'f1'"),
        ([], "COMMAND"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_mistakes_get_one_line_and_status_2(here, capsys, arguments, words):
    (here / "file").write_text("not a folder")
    (here / "broken").mkdir()
    for name in (
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    ):
        (here / "broken" / name).write_bytes(b"\x00\x00\x08\x03\x00\x00")
    (here / "run").mkdir()
    (here / "run" / "history.jsonl").write_text('{"step": 1, "epoch": 1.0, "loss": 2.0}\n')
    before = sorted(here.rglob("*"))
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.err.count("\n") == 1
    assert "Traceback" not in captured.err
    assert sorted(path for path in here.rglob("*") if path.name != "runs") == before


def test_a_loss_that_explodes_ends_with_status_1_and_weights_on_disk(here, capsys):
    with np.errstate(all="ignore"):
        assert run(*FAST, "--optimizer", "sgd", "--lr", "1e30", "--schedule", "constant", "--out", "run") == 1
    error = capsys.readouterr().err
    assert "step" in error
    assert error.count("\n") == 1
    assert (here / "run" / "loss_curve.png").exists()
    weights = load_file(here / "run" / "model.safetensors")
    assert all(np.isfinite(array).all() for array in weights.values())


def test_summary(here, capsys):
    assert run("summary", "lenet") == 0
    printed = capsys.readouterr().out
    assert "61,706" in printed
    assert "(1, 6, 28, 28)" in printed
    assert run("summary", "mlp", "--hidden", "256,128", "--data", "mnist", "--params") == 0
    assert "235,146" in capsys.readouterr().out


def test_plot_draws_runs_together(here, capsys):
    for out in ("one", "two"):
        assert run(*FAST, "--quiet", "--out", out) == 0
    assert run("plot", "one", "two", "--log", "--smooth", "0.5") == 0
    assert "drew 2 runs into loss_curves.png" in capsys.readouterr().out
    assert (here / "loss_curves.png").read_bytes().startswith(b"\x89PNG")
    for name, place in (("one", "a"), ("two", "b")):
        (here / place).mkdir()
        (here / name).rename(here / place / "run")
    assert run("plot", "a/run", "b/run", "--out", "same_names.png") == 0
    assert run("plot", "a/run/history.jsonl", "--metric", "accuracy", "--out", "accuracy.png") == 0
    assert (here / "accuracy.png").stat().st_size > 5000


def test_the_installed_command(here):
    done = subprocess.run([*COMMAND, "train", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    for word in (
        "--data",
        "--model",
        "--epochs",
        "--batch-size",
        "--lr",
        "--seed",
        "--out",
        "examples:",
        *RECIPES,
        *TASKS,
    ):
        assert word in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 120
