"""Runs of text models: their parts, and what a run leaves behind; and the scripts that meet published figures."""

import importlib
import math
import sys

import numpy as np
import pytest

from backhand.datasets import load_text
from backhand.training import History
from backhand.training.checkpoints import load_weights
from backhand.training.text_runs import TEXT_RUNS, char_lstm, gpt, warm_cosine

SMALL = {
    "gpt": {"block_size": 8, "n_layer": 1, "n_head": 2, "n_embd": 16, "batch_size": 8, "steps": 60, "every": 20},
    "char-lstm": {"hidden_size": 16, "num_layers": 1, "block_size": 8, "batch_size": 4, "epochs": 3},
}


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("the cat sat on the mat\nthe dog sat on the log\n" * 40)
    return load_text(path)


@pytest.mark.parametrize("name", TEXT_RUNS)
def test_a_run(name, text, tmp_path):
    run = TEXT_RUNS[name](text, **SMALL[name])
    trainer = run.fit(tmp_path / "run", progress=False)
    history = History.read(tmp_path / "run" / "history.jsonl")
    assert trainer.epochs == 3
    np.testing.assert_allclose(history["val_perplexity"], np.exp(history["val_loss"]))
    assert history["val_loss"][-1] < history["val_loss"][0] and 0 < history["val_accuracy"][-1] <= 1
    samples = (tmp_path / "run" / "samples.txt").read_text()
    assert samples.count("----------") == 3
    assert f"epoch 3, step {trainer.steps}: validation perplexity {history['val_perplexity'][-1]:.3f}" in samples
    other = TEXT_RUNS[name](text, **SMALL[name], seed=1)
    load_weights(other.model, tmp_path / "run" / "model.safetensors")
    assert run.sample(40) == other.sample(40) and len(other.sample(40)) == 40
    assert set(other.sample(200)) <= set(text.characters)


@pytest.mark.parametrize("name", TEXT_RUNS)
def test_a_seed_gives_the_same_run(name, text):
    runs = [TEXT_RUNS[name](text, **SMALL[name], seed=seed).fit(progress=False) for seed in (3, 3, 4)]
    losses = [run.history["loss"].tolist() for run in runs]
    assert losses[0] == losses[1] != losses[2]


def test_gpt_decays_matrices_alone_and_follows_the_published_rate(text):
    run = gpt(text, **SMALL["gpt"])
    decayed, others = run.optimizer.param_groups
    assert {p.data.ndim for p in decayed["params"]} == {2} and {p.data.ndim for p in others["params"]} == {1}
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert sum(len(group["params"]) for group in (decayed, others)) == len(list(run.model.parameters()))
    factor = warm_cosine(100, 2000, 0.1)
    assert factor(0) == pytest.approx(1 / 101) and factor(100) == 1 and factor(2000) == pytest.approx(0.1)
    assert factor(1050) == pytest.approx(0.1 + 0.9 * 0.5) and factor(5000) == pytest.approx(0.1)


def test_the_rate_of_the_lstm_falls_after_ten_epochs(text):
    run = char_lstm(text, **SMALL["char-lstm"])
    rates = []
    for _ in range(13):
        rates.append(run.optimizer.param_groups[0]["lr"])
        run.schedule.step()
    np.testing.assert_allclose(rates, [2e-3] * 10 + [2e-3 * 0.97**k for k in (1, 2, 3)])


# ---------------------------------------------------------------------- the scripts


def call(monkeypatch, name, *arguments):
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    importlib.import_module(f"benchmarks.reproduce.{name}").main()


@pytest.mark.parametrize("name", ["makemore", "nanogpt", "char_lstm", "min_char_rnn"])
def test_a_missing_file_is_one_line(name, monkeypatch, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, name, "--data-dir", tmp_path)
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.count("\n") == 1
    assert said.startswith(str(tmp_path)) and "is not there: get https://" in said


def test_names_are_made(monkeypatch, tmp_path, capsys):
    names = ["emma", "olivia", "ava", "isabella", "sophia", "mia", "ada", "noa", "eve", "ida"] * 5
    (tmp_path / "names.txt").write_text("\n".join(names))
    for part in (4, 5):
        call(monkeypatch, "makemore", "--data-dir", tmp_path, "--steps", 200, "--part", part)
        said = capsys.readouterr().out
        assert float(said.split("train ")[1].split(",")[0]) < math.log(12)
