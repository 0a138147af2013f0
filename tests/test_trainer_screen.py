"""What the Trainer shows: lines, bars, hooks, and where bad data stands."""

import functools
import io
import subprocess
import sys

import pytest
import tqdm

from backhand.layers import LayerError
from backhand.training import (
    SGD,
    StepLR,
    Trainer,
    accuracy,
    top_k_accuracy,
)
from tests.toys import CrossEntropy, blobs, net, trainer

# ---------------------------------------------------------------------- what is on the screen


def test_one_line_for_each_epoch_without_a_terminal(capsys):
    one = trainer(progress=True, patience=1, monitor="val_accuracy")
    one.fit(blobs(), blobs(), epochs=30)
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert err == "" and lines[0].startswith("epoch 1/30  loss ") and lines[-1].startswith("stopped: val_accuracy")
    words = lines[0].split()
    assert words[2::2] == ["loss", "accuracy", "val_loss", "val_accuracy", lines[0].split()[-1]]
    assert words[-1].endswith("s")
    trainer(progress=False, patience=1).fit(blobs(), blobs(), epochs=2)
    assert capsys.readouterr() == ("", "")


def test_a_bar_on_a_terminal(monkeypatch, capsys):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    trainer(progress=True).fit(blobs(), blobs(), epochs=2, batch_size=16)
    shown = sys.stderr.getvalue()
    assert "epoch 1/2:" in shown and "epoch 2/2:" in shown and "0/8" in shown
    # the bar goes when the epoch is over, and the line that everybody gets takes its place
    assert shown.rstrip(" ").endswith("\r")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["1/2", "2/2"]
    assert "val_accuracy" in lines[0]


def test_the_bar_shows_loss_and_accuracy(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr("tqdm.tqdm", functools.partial(tqdm.tqdm, mininterval=0))
    trainer(progress=True).fit(blobs(), epochs=1, batch_size=16)
    shown = sys.stderr.getvalue()
    assert "loss=" in shown and "accuracy=" in shown


def test_a_list_of_metrics_is_named_after_the_functions():
    history = trainer(metrics=[accuracy, top_k_accuracy]).fit(blobs(), epochs=1)
    assert {"accuracy", "top_k_accuracy"} <= set(history.names())


def test_hooks_after_each_step_and_epoch():
    steps, epochs = [], []
    made = trainer(after_step=lambda: steps.append(1), after_epoch=epochs.append)
    history = made.fit(blobs(), epochs=2, batch_size=16)
    assert len(steps) == made.steps == 16
    assert epochs == [record for record in history if "loss" in record]


def test_the_place_of_bad_data_is_named():
    x, y = blobs()
    wrong = y.copy()
    wrong[77] = 9
    with pytest.raises(LayerError, match=r"sample 77 of train, on its own"):
        trainer().fit((x, wrong), epochs=1)
    with pytest.raises(LayerError, match=r"sample 77 of validation, on its own"):
        trainer().fit((x, y), (x, wrong), epochs=1)
    batches = [(x[i : i + 10], wrong[i : i + 10]) for i in range(0, 100, 10)]
    with pytest.raises(LayerError, match=r"\(in batch 8 of epoch 1\)"):
        trainer().fit(batches, epochs=1)
    with pytest.raises(LayerError, match=r"\(in batch 8 of data\)"):
        trainer().evaluate(batches)


def test_parts_of_a_data_set_are_not_a_pair():
    class Splits(tuple):
        train = validation = test = None

    with pytest.raises(ValueError, match=r"train: expected a pair of arrays \(x, y\), got several; give its \.train"):
        trainer().fit(Splits((1, 2, 3)), epochs=1)


def test_a_forward_from_before_is_forgotten():
    made = trainer()
    made.model(blobs()[0])
    made.fit(blobs(), epochs=1)
    assert all(not vars(layer).get("_stack") for layer in made.model.modules())


def test_the_rate_that_is_recorded_is_the_one_that_was_used():
    model = net()
    optimizer = SGD(model.parameters(), lr=1.0)
    made = Trainer(
        model,
        CrossEntropy(),
        optimizer,
        schedule=StepLR(optimizer, 1, 0.5),
        schedule_every="batch",
        progress=False,
        log_every=1,
    )
    rates = [record["lr"] for record in made.fit(blobs(), epochs=1, batch_size=60)]
    assert rates == [1.0, 0.5, 0.5]


def test_importing_costs_little():
    code = (
        "import backhand.training, sys; print([m for m in ('tqdm', 'matplotlib', 'safetensors') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
