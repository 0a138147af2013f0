"""Text as integers, the batches of it, names, and strings of digits."""

import numpy as np
import pytest

from backhand.datasets import (
    ContiguousBlocks,
    DataError,
    DigitStrings,
    MissingDataError,
    RandomBlocks,
    load_names,
    load_text,
)
from backhand.losses import SequenceCrossEntropyLoss
from backhand.models import CharRNN, Seq2SeqTransformer
from backhand.training import Adam, Trainer

TEXT = "to be, or not to be:\r\nthat is the question é𝛿\n" * 20


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(TEXT.encode())
    return path


def test_a_text(file):
    text = load_text(file)
    plain = TEXT.replace("\r\n", "\n")
    assert text.characters == "".join(sorted(set(plain)))
    assert len(text.train) == int(len(plain) * 0.9)
    assert text.decode(np.concatenate([text.train, text.validation])) == plain
    np.testing.assert_array_equal(text.encode(plain[:50]), text.train[:50])
    assert text.encode("").dtype == text.encode("be").dtype == np.int64
    assert repr(text) == f"Text({len(text.train):,} and {len(text.validation):,} of {len(text.characters)} characters)"
    assert len(load_text(file, 0).validation) == 0


def test_texts_that_cannot_be_read(file, tmp_path):
    with pytest.raises(MissingDataError, match=r"nowhere\.txt: there is no such file"):
        load_text(tmp_path / "nowhere.txt")
    with pytest.raises(DataError, match="validation: expected a share"):
        load_text(file, 1.0)
    with pytest.raises(DataError, match="characters that the data has, got 'X', 'Z'"):
        load_text(file).encode("XZ be")
    (tmp_path / "latin").write_bytes(b"caf\xe9 " * 3)
    with pytest.raises(DataError, match="expected UTF-8, got byte 0xe9 at 3"):
        load_text(tmp_path / "latin")
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(DataError, match="the file is empty"):
        load_text(tmp_path / "empty")


def test_random_blocks():
    tokens = np.arange(11, dtype=np.uint16)
    blocks = RandomBlocks(tokens, 4, 50, 20, rng=0)
    seen = list(blocks)
    assert len(seen) == len(blocks) == 20 and not (seen[0][0] == next(iter(blocks))[0]).all()
    for x, y in seen:
        assert x.shape == y.shape == (50, 4) and x.dtype == np.int64
        np.testing.assert_array_equal(y, x + 1)
        np.testing.assert_array_equal(x, x[:, :1] + np.arange(4))
    assert {int(x.min()) for x, _ in seen} == {0} and {int(y.max()) for _, y in seen} == {10}
    with pytest.raises(DataError, match="tokens: expected at least 12, for one batch, got 11"):
        RandomBlocks(tokens, 11, 1, 1)


def test_contiguous_blocks():
    begun = []
    blocks = ContiguousBlocks(np.arange(28), 3, 4, begin=lambda: begun.append(1))
    for _ in range(2):
        batches = list(blocks)
        assert len(batches) == len(blocks) == 2
        rows = np.concatenate([x for x, _ in batches], axis=1)
        np.testing.assert_array_equal(rows, np.arange(24).reshape(4, 6))
        np.testing.assert_array_equal(np.concatenate([y for _, y in batches], axis=1), rows + 1)
    assert len(begun) == 2
    assert len(ContiguousBlocks(np.arange(25), 3, 4)) == 2 and len(ContiguousBlocks(np.arange(24), 3, 4)) == 1
    with pytest.raises(DataError, match="at least 13"):
        ContiguousBlocks(np.arange(12), 3, 4)
    with pytest.raises(DataError, match=r"integers of shape \(n,\), got float64"):
        ContiguousBlocks(np.zeros(30), 3, 4)


@pytest.mark.parametrize("context", [1, 3])
def test_names(tmp_path, context):
    path = tmp_path / "names.txt"
    names = ["ava", "b", "zed", "mia", "noa", "eve", "ida", "bo", "al", "cy"]
    path.write_text("\n".join(names) + "\n\n")
    parts = load_names(path, context)
    assert parts.classes == (".", *"abcdeilmnovyz")
    found = []
    for x, y in parts[:3]:
        assert x.shape == (len(y), context) and x.dtype == y.dtype == np.int64
        name = ""
        for window, guess in zip(x, y, strict=True):
            assert "".join(parts.classes[i] for i in window) == ("." * context + name)[-context:]
            name += parts.classes[guess]
            if guess == 0:
                found.append(name[:-1])
                name = ""
    assert sorted(found) == sorted(names) and found != names
    assert [int((part.y == 0).sum()) for part in parts[:3]] == [8, 1, 1]
    assert [len(part.x) for part in load_names(path, context, seed=1)[:3]] != [len(part.x) for part in parts[:3]]


def test_names_that_are_none(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("a\nb\n")
    with pytest.raises(DataError, match="at least 10 names, one a line, got 2"):
        load_names(path)
    path.write_text("a.b\n" * 10)
    with pytest.raises(DataError, match=r"names without '.', .* got a.b"):
        load_names(path)


# ---------------------------------------------------------------------- strings of digits


@pytest.mark.parametrize("answer", ["reverse", "sort"])
def test_digit_strings(answer):
    task = DigitStrings(answer, (2, 5))
    (src, tgt), y = task.draw(0, 200)
    again = task.draw(0, 200)
    np.testing.assert_array_equal(src, again.x[0])
    assert src.shape == (200, 5) and tgt.shape == y.shape == (200, 6)
    assert (tgt[:, 0] == task.START).all() and {len(text) for text in task.decode(src)} == {2, 3, 4, 5}
    for question, said in zip(task.decode(src), task.decode(y), strict=True):
        assert said == (question[::-1] if answer == "reverse" else "".join(sorted(question)))
    for row, target in zip(tgt, y, strict=True):
        n = int((target == task.END).argmax())
        np.testing.assert_array_equal(row[1 : n + 1], target[:n])
        assert (row[n + 1 :] == task.PAD).all() and (target[n + 1 :] == task.PAD).all()
    with pytest.raises(DataError, match="'reverse' or 'sort', got 'add'"):
        DigitStrings("add")


def test_a_transformer_learns_to_answer():
    task = DigitStrings("sort", (1, 3))
    model = Seq2SeqTransformer(13, 13, 32, 2, 1, 1, 64, 0.0, padding_idx=task.PAD, rng=0)
    loss = SequenceCrossEntropyLoss(ignore_index=task.PAD)
    trainer = Trainer(model, loss, Adam(model.parameters(), 5e-3), progress=False)
    trainer.fit(task.stream(250, 64), epochs=1)
    (src, _), y = task.draw(1, 100)
    written = task.decode(model.generate(src, task.START, task.END, 5))
    assert np.mean([one == other for one, other in zip(written, task.decode(y), strict=True)]) > 0.9
    assert trainer.evaluate([task.draw(2, 100)])["accuracy"] > 0.9


# ---------------------------------------------------------------------- with the Trainer


def test_a_stateful_model_begins_each_epoch_anew(file):
    text = load_text(file)
    model = CharRNN(len(text.characters), 16, 1, batch_first=True, stateful=True, rng=0)
    states = []
    blocks = ContiguousBlocks(text.train, 5, 4, begin=model.reset)
    validation = ContiguousBlocks(text.validation, 5, 2, begin=model.reset)
    forward = model.forward

    def watched(tokens):
        states.append(None if model.state is None else len(tokens))
        return forward(tokens)

    model.forward = watched
    trainer = Trainer(model, SequenceCrossEntropyLoss(), Adam(model.parameters(), 1e-2), progress=False)
    history = trainer.fit(blocks, validation, epochs=4)
    assert states.count(None) == 8 and len(states) == 4 * (len(blocks) + len(validation))
    assert history["val_loss"][-1] < history["val_loss"][0] < np.log(len(text.characters))
    assert history["accuracy"][-1] > 0.2


def test_accuracy_of_tokens_knows_where_the_classes_are_and_what_is_ignored():
    model = CharRNN(5, 4, batch_first=True, rng=0)
    loss = SequenceCrossEntropyLoss(ignore_index=0)
    trainer = Trainer(model, loss, Adam(model.parameters()), progress=False)
    x, y = np.random.default_rng(0).integers(0, 5, (2, 3, 5))  # as many places as classes
    best = model(x).argmax(axis=-1)
    assert trainer.evaluate([(x, y)])["accuracy"] == pytest.approx((best == y)[y != 0].mean())
