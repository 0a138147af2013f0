"""The scripts of published figures: each says in one line what is missing, and runs on a little data."""

import importlib
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import benchmarks.reproduce
from backhand.datasets import Data, Splits
from benchmarks.reproduce import ntm, ntm_curves

ROOT = Path(__file__).parent.parent
HELPERS = {"architectures", "beside_torch", "files", "pictures"}
SCRIPTS = sorted({module.name for module in pkgutil.iter_modules(benchmarks.reproduce.__path__)} - HELPERS)
DATALESS = {"counts", "ntm", "ntm_curves", "seq2seq"}
PICTURES = ["cifar", "ddpm", "gan", "lenet", "simclr", "vae"]
# The option that says how long a script trains.
LENGTH = {
    **dict.fromkeys([*PICTURES, "char_lstm"], "--epochs"),
    **dict.fromkeys(["makemore", "min_char_rnn", "nanogpt", "seq2seq"], "--steps"),
    "ntm": "--sequences",
}


@pytest.mark.parametrize("name", sorted(set(SCRIPTS) - DATALESS))
def test_missing_data_is_one_line_and_status_2(tmp_path, monkeypatch, capsys, name):
    script = importlib.import_module(f"benchmarks.reproduce.{name}")
    monkeypatch.setattr(sys, "argv", [name, "--data-dir", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        script.main()
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and str(tmp_path) in error and "https://" in error


def test_damaged_data_is_one_line_and_status_2(tmp_path, monkeypatch, capsys):
    for name, file in (("cifar", "data_batch_1.bin"), ("makemore", "names.txt")):
        (tmp_path / file).write_bytes(b"")
        (tmp_path / "test_batch.bin").write_bytes(b"")
        script = importlib.import_module(f"benchmarks.reproduce.{name}")
        monkeypatch.setattr(sys, "argv", [name, "--data-dir", str(tmp_path)])
        with pytest.raises(SystemExit) as stop:
            script.main()
        error = capsys.readouterr().err
        assert stop.value.code == 2 and error.count("\n") == 1 and str(tmp_path / file) in error


@pytest.mark.parametrize("name", ["char_lstm", "min_char_rnn", "nanogpt"])
def test_a_text_too_short_for_one_batch_is_one_line_and_status_2(tmp_path, monkeypatch, capsys, name):
    path = tmp_path / "tinyshakespeare.txt"
    path.write_text("too short")
    script = importlib.import_module(f"benchmarks.reproduce.{name}")
    monkeypatch.setattr(sys, "argv", [name, "--data-dir", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        script.main()
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1
    assert error.startswith(f"{path}: tokens: expected at least ") and "for one batch" in error


def test_as_a_command(tmp_path):
    command = [sys.executable, "-m", "benchmarks.reproduce.vae", "--data-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and "mnist" in done.stderr


@pytest.mark.parametrize("name", LENGTH)
@pytest.mark.parametrize("wrong", [["--LENGTH", "0"], ["--seed", "-1"], ["--picture", "no/such/folder/a.png"]], ids=str)
def test_wrong_options_are_one_line_and_status_2_before_anything_runs(monkeypatch, capsys, name, wrong):
    script = importlib.import_module(f"benchmarks.reproduce.{name}")
    monkeypatch.setattr(sys, "argv", [name, *(LENGTH[name] if each == "--LENGTH" else each for each in wrong)])
    with pytest.raises(SystemExit) as stop:
        script.main()
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1 and wrong[1] in error


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("counts", ["--seed", "-1"]),
        ("ntm", ["--curve", "."]),
        ("ntm", ["--sequences", "1500"]),
        ("ntm", ["--lr", "0"]),
        ("ntm_curves", ["out.png", "no-such.json"]),
        ("ntm_curves", ["no/such/folder/a.png", "no-such.json"]),
        ("ntm_curves", ["out.png", "no-such.json", "--columns", "0"]),
    ],
    ids=str,
)
def test_other_wrong_options_too(monkeypatch, capsys, name, wrong):
    script = importlib.import_module(f"benchmarks.reproduce.{name}")
    monkeypatch.setattr(sys, "argv", [name, *wrong])
    with pytest.raises(SystemExit) as stop:
        script.main()
    assert stop.value.code == 2 and capsys.readouterr().err.count("\n") == 1


def test_the_ntm_and_its_curves(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ntm, "WINDOW", 4)
    monkeypatch.setattr(ntm, "LENGTHS", {"copy": (2,)})
    curves = []
    for i, (task, model) in enumerate([("copy", "feedforward"), ("copy", "baseline"), ("n-grams", "lstm")]):
        files = {kind: tmp_path / f"{i}.{kind}" for kind in ("curve", "weights", "picture")}
        curves.append(str(files["curve"]))
        options = [f"--{kind}={path}" for kind, path in files.items()]
        monkeypatch.setattr(sys, "argv", ["ntm", "--task", task, "--model", model, "--sequences", "8", *options])
        ntm.main()
        assert "seed 0: lowest" in capsys.readouterr().out
        assert all(path.stat().st_size for path in files.values())
        assert len(json.loads(files["curve"].read_text())["bits"]) == 2
    monkeypatch.setattr(sys, "argv", ["ntm_curves", str(tmp_path / "curves.png"), *curves])
    ntm_curves.main()
    assert (tmp_path / "curves.png").stat().st_size


@pytest.mark.parametrize(("name", "epochs"), [*((name, 1) for name in PICTURES), ("cifar", 2)])
def test_the_scripts_of_pictures_on_little_data(tmp_path, monkeypatch, capsys, name, epochs):
    rng = np.random.default_rng(0)
    shape = (3, 32, 32) if name in ("cifar", "simclr") else (1, 28, 28)

    def part(n):
        return Data(rng.random((n, *shape), np.float32), np.arange(n) % 10)

    def little(*_, **__):
        return Splits(part(20), part(10), part(10), tuple("0123456789"))

    script = importlib.import_module(f"benchmarks.reproduce.{name}")
    monkeypatch.setattr(script, "cifar10" if shape[0] == 3 else "mnist", little)
    picture = tmp_path / "out.png"
    arguments = ["--picture", str(picture), "--epochs", str(epochs), *(["--width", "8"] if name == "ddpm" else [])]
    if name == "ddpm":
        monkeypatch.setattr(script, "DDPM", lambda: script_ddpm(5))
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    script.main()
    assert "seed 0: " in capsys.readouterr().out
    assert picture.exists() == (name in ("vae", "gan", "ddpm"))


def script_ddpm(steps):
    from backhand.models import DDPM

    return DDPM(steps)
