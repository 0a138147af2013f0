"""backhand train with every recipe: what it prints, what it leaves, that it learns, and what is refused."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from backhand.datasets import CopyTask
from backhand.models import VAE
from backhand.training import History, bits_per_sequence, wrong_bits
from backhand.training.command_line import main
from backhand.training.recipes import RECIPES, generative, tasks, writing


def run(*arguments):
    try:
        return main([str(a) for a in arguments])
    except SystemExit as stop:
        return stop.code


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder of its own, and short epochs, small test sets and few pictures."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tasks, "EPOCH", 20)
    monkeypatch.setattr(tasks, "TESTED", 20)
    monkeypatch.setattr(generative, "GRID", 4)
    monkeypatch.setattr(generative, "SHOWN", 4)
    monkeypatch.setattr(generative, "FEW", 3)
    return tmp_path


RUNS = [
    (["vae", "--hidden", "40,4"], ["samples.png", "reconstructions.png"], "nats per image"),
    (["autoencoder", "--hidden", "32,8"], ["reconstructions.png"], "squared error of a pixel"),
    (["conv-autoencoder"], ["reconstructions.png"], "squared error of a pixel"),
    (["gan", "--width", "4"], ["samples.png", "generator.safetensors"], "real pictures for real with"),
    (["ddpm", "--width", "8", "--batch-size", "256"], ["samples.png", "average.safetensors"], "guessed noise"),
    (["simclr"], ["views.png"], "a linear classifier on the encoder"),
    (["vit", "--batch-size", "256"], [], "test accuracy"),
]


@pytest.mark.parametrize(("arguments", "files", "words"), RUNS, ids=[row[0][0] for row in RUNS])
def test_the_recipes_of_pictures(here, capsys, arguments, files, words):
    assert run("train", "--model", *arguments, "--epochs", "1", "--out", "run") == 0
    printed = capsys.readouterr().out
    assert words in printed
    assert "1,257 samples to learn from, 180 to validate, 360 to test" in printed
    names = {path.name for path in (here / "run").iterdir()}
    assert {"config.json", "history.jsonl", "loss_curve.png", *files} <= names
    assert all(name in printed for name in files)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in (here / "run").glob("*.png"))
    assert json.loads((here / "run/config.json").read_text())["model"] == arguments[0]


@pytest.mark.parametrize("data", ["copy", "repeat-copy", "associative-recall", "n-grams", "priority-sort"])
def test_the_recipes_of_tasks(here, capsys, data):
    few = ["--epochs", "1", "--batch-size", "10", "--hidden", "8"]
    assert run("train", "--model", "ntm", "--data", data, *few) == 0
    printed = capsys.readouterr().out
    assert "bits per sequence" in printed and f"{data}: " in printed
    folder = here / "runs" / f"{data}-ntm"
    assert (folder / "memory.png").stat().st_size > 5000
    last = History.read(folder / "history.jsonl").records[-1]
    assert last["test_loss"] / np.log(2) == pytest.approx(last["test_bits"], rel=1e-3)
    config = json.loads((folder / "config.json").read_text())
    assert (config["optimizer"], config["lr"], config["clip_norm"]) == ("graves", 1e-4, 10.0)


def test_the_baseline_and_the_other_controller(here, capsys):
    few = ["--epochs", "1", "--batch-size", "10", "--quiet"]
    assert run("train", "--model", "lstm", "--hidden", "6,6", *few) == 0
    assert run("train", "--model", "ntm", "--controller", "lstm", "--heads", "2", "--hidden", "6", *few) == 0
    lines = capsys.readouterr().out.strip().split("\n")
    assert len(lines) == 4 and all(line.startswith(("test ", "wrong bits by length: ")) for line in lines)
    weights = load_file(here / "runs/copy-ntm/model.safetensors")
    assert (here / "runs/copy-lstm/answer.png").exists() and not (here / "runs/copy-lstm/memory.png").exists()
    assert weights["weights"].shape == (4, 128) and weights["controller.weight_hh"].shape == (24, 6)


@pytest.mark.parametrize(
    "arguments",
    [["gpt", "--width", "16"], ["char-lstm", "--hidden", "8,8"], ["char-gru", "--hidden", "8"], ["char-rnn"]],
)
def test_the_recipes_of_text(here, capsys, monkeypatch, arguments):
    monkeypatch.setattr(writing.Transformer, "every", 5)
    (here / "rhyme.txt").write_text("the cat sat on the mat and that was that\n" * 60)
    assert run("train", "--model", *arguments, "--data", "rhyme.txt", "--epochs", "2", "--batch-size", "4") == 0
    printed = capsys.readouterr().out
    assert "nats a character" in printed and "perplexity" in printed and "rhyme.txt: " in printed
    folder = here / "runs" / f"rhyme-{arguments[0]}"
    assert {"samples.txt", "loss_curve.png", "model.safetensors"} <= {path.name for path in folder.iterdir()}
    config = json.loads((folder / "config.json").read_text())
    assert config["characters"] == "\n acdehmnostw" and config["epochs"] == 2
    assert History.read(folder / "history.jsonl")["val_perplexity"][-1] < 14


def test_the_metrics_of_sequences():
    _, y = CopyTask(2).draw(0, 3, 4)
    scores = np.where(y > 0.5, 3.0, -3.0)
    assert wrong_bits(scores, y) == 0
    assert bits_per_sequence(np.zeros_like(y), y) == pytest.approx(8)
    scores[0, 0, 0] *= -1
    whole = np.concatenate([np.full((5, 3, 2), 99.0), scores])
    assert wrong_bits(whole, y) == pytest.approx(1 / 24)
    assert bits_per_sequence(whole, y) == pytest.approx(
        (23 * np.log1p(np.exp(-3)) + np.log1p(np.exp(3))) / 3 / np.log(2)
    )
    with pytest.raises(ValueError, match=r"expected \(T, B, C\) and \(L, B, C\)"):
        wrong_bits(y, whole)


def test_a_vae_learns_from_the_digits(here):
    assert run("train", "--model", "vae", "--epochs", "12", "--hidden", "100,8", "--quiet", "--out", "run") == 0
    losses = History.read(here / "run/history.jsonl")["val_loss"]
    assert losses[-1] < 27 < 40 < losses[0] + 10
    model = VAE(64, 100, 8)
    model.load_state_dict(load_file(here / "run/model.safetensors"))


def test_weights_to_begin_with(here, capsys):
    first = ["train", "--model", "mlp", "--hidden", "16", "--epochs", "2"]
    assert run(*first, "--out", "one", "--quiet") == 0
    weights = load_file(here / "one/model.safetensors")
    del weights["fc2.bias"]
    weights["more"] = np.zeros(3, np.float32)
    save_file(weights, here / "part.safetensors")
    capsys.readouterr()
    command = [*first[:-1], "1", "--lr", "1e-9", "--weights", "part.safetensors"]
    assert run(*command, "--out", "two") == 0
    printed = capsys.readouterr().out
    assert "part.safetensors: 3 arrays loaded" in printed
    assert "1 missing, left as they were:\n  fc2.bias" in printed and "1 unexpected, not used:\n  more" in printed
    np.testing.assert_allclose(
        load_file(here / "two/model.safetensors")["fc1.weight"], weights["fc1.weight"], atol=1e-6
    )
    save_file({"other": np.zeros(3, np.float32)}, here / "other.safetensors")
    assert run(*first, "--weights", "other.safetensors", "--out", "three") == 2
    assert "nothing in it is for the model mlp" in capsys.readouterr().err
    assert not (here / "three").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "ntm", "--data", "mnist"], "--data mnist is for --model mlp, lenet, "),
        (["--model", "mlp", "--data", "copy"], "--data copy is for --model ntm, lstm, not for mlp"),
        (["--model", "ntm", "--data", "nothing"], "--data: invalid choice: 'nothing' (choose from 'copy'"),
        (["--model", "resnet20", "--data", "digits"], "not for resnet20"),
        (["--model", "vae", "--heads", "2"], "--heads is for --model ntm"),
        (["--model", "vae", "--no-augment"], "--no-augment is for --model alexnet-cifar"),
        (["--model", "gan", "--optimizer", "sgd"], "--optimizer is not for --model gan"),
        (["--model", "ntm", "--hidden", "4,5"], "--hidden of the ntm is one size"),
        (["--model", "lstm", "--hidden", "4,5"], "all the same"),
        (["--model", "ntm", "--data-dir", "x"], "--data-dir is for --data mnist or cifar10"),
        (["--model", "gpt"], "gpt learns from a text: give its file, --data FILE.txt"),
        (["--model", "gpt", "--data", "nowhere.txt"], "nowhere.txt: there is no such file"),
        (["--model", "char-lstm", "--hidden", "4,5", "--data", "nowhere.txt"], "nowhere.txt"),
        (["--model", "gpt", "--schedule", "constant"], "--schedule is not for --model gpt"),
        (["--model", "mlp", "--weights", "nowhere"], "nowhere: No such file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_does_not_go_together(here, capsys, arguments, words):
    assert run("train", *arguments, "--epochs", "1") == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not list(here.rglob("*.json*"))


def test_augmented_and_standardized(here, monkeypatch):
    """resnet20 on pictures that stand in for CIFAR-10, and that --no-augment changes what is learned."""
    rng = np.random.default_rng(0)
    folder = here / "cifar"
    folder.mkdir()
    for name in ("data_batch_1.bin", "test_batch.bin"):
        records = rng.integers(0, 256, (8, 3073)).astype(np.uint8)
        records[:, 0] %= 10
        (folder / name).write_bytes(records.tobytes())
    monkeypatch.setattr("backhand.training.recipes.base.datasets.load_cifar10", small(folder))
    common = ["train", "--model", "resnet20", "--epochs", "1", "--batch-size", "4", "--quiet", "--data-dir", folder]
    assert run(*common, "--out", "a") == run(*common, "--out", "b", "--no-augment") == 0
    assert run(*common, "--out", "c") == 0
    a, b, c = (load_file(here / name / "model.safetensors")["conv1.weight"] for name in "abc")
    assert (a == c).all() and (a != b).any()
    config = json.loads((here / "a/config.json").read_text())
    assert len(config["mean"]) == len(config["std"]) == 3 and config["optimizer"] == "sgd"
    assert config["weight_decay"] == 5e-4


def small(folder):
    from backhand.datasets import load_cifar10

    return lambda where: load_cifar10(where, 2, download=False)


@pytest.mark.parametrize("model", sorted(set(RECIPES) - {"resnet32", "resnet56"}))
def test_summary_of_every_model(capsys, model):
    assert run("summary", model) == 0
    printed = capsys.readouterr().out
    assert "parameters" in printed
    assert {"ntm": "16,096", "resnet20": "269,722", "alexnet-cifar": "2,472,266"}.get(model, "") in printed
