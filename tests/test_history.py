"""The history: plain records, lines of JSON that survive whatever happens, and series to draw."""

import json
import math

import numpy as np
import pytest

from backhand.training import History


def test_records_series_and_names():
    history = History()
    history.append({"step": 1, "epoch": 0.5, "batch_loss": np.float32(2.0), "lr": 0.1})
    history.append({"step": 2, "epoch": 1.0, "loss": 1.5, "val_loss": np.float64(1.25)})
    history.append({"step": np.int64(4), "epoch": 2.0, "loss": math.nan, "val_loss": 1.0})
    epochs, values = history.series("val_loss")
    assert epochs.tolist() == [1, 2] and values.tolist() == [1.25, 1.0]
    assert history["val_loss"].tolist() == [1.25, 1.0]
    assert np.isnan(history["loss"][1])
    assert history.names() == ["step", "epoch", "batch_loss", "lr", "loss", "val_loss"]
    assert "val_loss" in history and "accuracy" not in history
    assert len(history) == 3 and list(history) == history.records
    assert type(history.records[0]["batch_loss"]) is float and type(history.records[2]["step"]) is int
    assert repr(history) == "History(3 records: step, epoch, batch_loss, lr, loss, val_loss)"
    with pytest.raises(KeyError, match="'accuracy' is in no record; there are: step, epoch"):
        history.series("accuracy")


def test_each_record_is_on_disk_at_once_as_strict_json(tmp_path):
    path = tmp_path / "history.jsonl"
    history = History(path)
    assert not path.exists()
    numbers = [1.0, math.nan, math.inf, -math.inf]
    for i, number in enumerate(numbers, 1):
        history.append({"step": i, "epoch": i / 2, "batch_loss": number, "error": "über"})
        lines = path.read_text().splitlines()
        assert len(lines) == i

    def refuse(word):
        raise AssertionError(word)

    written = [json.loads(line, parse_constant=refuse)["batch_loss"] for line in path.read_text().splitlines()]
    assert written == [1.0, None, None, None]
    again = History.read(path)
    assert [record["step"] for record in again] == [1, 2, 3, 4]
    assert np.isnan(again["batch_loss"][1:]).all() and again["batch_loss"].dtype == float
    assert again.records[0]["error"] == "über"


def test_a_new_history_replaces_an_old_file(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_text("old\n")
    history = History(path)
    assert path.read_text() == "old\n"
    for step in (1, 2):
        history.append({"step": step, "epoch": 1.0})
    assert path.read_text().count("\n") == 2 and "old" not in path.read_text()


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_last_line_that_was_cut_short_is_passed_over(tmp_path, cut):
    path = tmp_path / "history.jsonl"
    history = History(path)
    for step in (1, 2, 3):
        history.append({"step": step, "epoch": float(step), "loss": 0.25})
    whole = path.read_bytes()
    last = whole.rindex(b'{"step": 3')
    path.write_bytes(whole[: last + cut])
    assert History.read(path).records == history.records[:2]
    path.write_bytes(whole[:-1])  # only the end of the line is missing
    assert History.read(path).records == history.records


@pytest.mark.parametrize(
    "line", ["nonsense", '{"step": 1', "[1, 2]", '{"loss": 1.0}', '{"step": "1", "epoch": 1}', "\x00\x80"]
)
def test_another_bad_line_names_file_and_line(tmp_path, line):
    path = tmp_path / "run.jsonl"
    good = '{"step": 1, "epoch": 1.0}'
    path.write_text(f"{good}\n{line}\n{good}\n", encoding="latin-1")
    with pytest.raises(ValueError, match=r"run\.jsonl, line 2: not a record"):
        History.read(path)
    path.write_text(f"{good}\n{line}\n", encoding="latin-1")
    with pytest.raises(ValueError, match=r"run\.jsonl, line 2: not a record"):
        History.read(path)


def test_no_file_and_no_lines(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.jsonl"):
        History.read(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("")
    assert len(History.read(tmp_path / "empty.jsonl")) == 0


@pytest.mark.parametrize(
    "record", [{}, {"step": 1}, {"epoch": 1.0}, {"step": 1.5, "epoch": 1.0}, {"step": True, "epoch": 1}]
)
def test_a_record_without_step_and_epoch(tmp_path, record):
    history = History(tmp_path / "h.jsonl")
    with pytest.raises(ValueError, match="expected a 'step'"):
        history.append(record)
    assert len(history) == 0 and not (tmp_path / "h.jsonl").exists()
