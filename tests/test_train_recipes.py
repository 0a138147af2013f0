"""backhand train with every recipe: what it prints, what it leaves, that it learns, and what is refused."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from backhand.datasets import CopyTask, DigitStrings, load_digits
from backhand.inspection import check_layer
from backhand.layers import AdaptiveAvgPool2d, Flatten, Identity, Linear
from backhand.losses import SequenceCrossEntropyLoss
from backhand.models import VAE, CaptionRNN, Seq2SeqTransformer, Sequential
from backhand.training import (
    Adam,
    History,
    RMSprop,
    Trainer,
    bits_per_sequence,
    intersection_over_union,
    whole_sequences,
    wrong_bits,
)
from backhand.training.command_line import main
from backhand.training.recipes import RECIPES, answering, generative, images, segmenting, tasks, writing
from tests.test_mnist import emnist


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
    monkeypatch.setattr(answering, "EPOCH", 40)
    monkeypatch.setattr(answering, "TESTED", 20)
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
    (["unet", "--width", "4"], ["segments.png"], "test intersection over union 0."),
    (["captioning", "--width", "16"], ["captions.png"], "% of the captions wholly right   perplexity"),
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


@pytest.mark.parametrize("data", ["reverse", "sort"])
def test_the_recipe_of_the_transformer(here, capsys, data):
    assert run("train", "--model", "transformer", "--data", data, "--epochs", "2", "--batch-size", "10") == 0
    printed = capsys.readouterr().out
    assert "40 of them an epoch" in printed and "% of 20 new strings wholly right" in printed
    folder = here / "runs" / f"{data}-transformer"
    assert {"model.safetensors", "loss_curve.png"} <= {path.name for path in folder.iterdir()}
    assert History.read(folder / "history.jsonl")["val_perplexity"][-1] > 1
    lines = (folder / "samples.txt").read_text().splitlines()
    assert lines[0] == "---------- epoch 1" and lines[12] == "---------- epoch 2" and len(lines) == 24
    for line in (*lines[1:11], *lines[13:23]):
        asked, _, answer = line.replace("no: ", "").partition(" -> ")
        wanted = asked[::-1] if data == "reverse" else "".join(sorted(asked))
        said = answer.split(" (")[0]
        assert answer == (said if said == wanted else f"{said} ({wanted})")


def test_a_new_run_begins_its_samples_anew(here):
    common = ["train", "--model", "transformer", "--epochs", "1", "--out", "run", "--quiet", "--overwrite"]
    for _ in range(2):
        assert run(*common) == 0
    assert (here / "run/samples.txt").read_text().count("epoch") == 1


def test_captions_are_spelled(here):
    tokens = answering.captions(np.arange(10))
    assert tokens.shape == (10, 7) and (tokens[:, 0] == answering.START).all()
    assert [answering.spelled(row[1:]) for row in tokens] == list(answering.NAMES)
    assert answering.spelled(np.array([answering.END, 5, 6])) == ""
    assert answering.spelled(np.array([3, answering.PAD])) == f"{answering.LETTERS[0]}?"


def test_captioning_learns_and_its_two_halves_have_their_gradients(here):
    assert run("train", "--model", "captioning", "--epochs", "4", "--quiet", "--out", "run") == 0
    history = History.read(here / "run/history.jsonl")
    assert history["val_right"][-1] > 0.5
    assert history["val_perplexity"][-1] == pytest.approx(np.exp(history["val_loss"][-1]))
    assert {name.split(".")[0] for name in load_file(here / "run/model.safetensors")} == {"encoder", "writer"}
    encoder = Sequential(Flatten(), Linear(4, 3, rng=0, dtype=np.float64))
    writer = CaptionRNN(5, 3, 2, 4, "lstm", rng=1, dtype=np.float64)
    x = np.random.default_rng(2).standard_normal((2, 1, 2, 2))
    check_layer(answering.Describer(encoder, writer), x, np.array([[1, 3, 0], [1, 4, 2]]))


def test_the_unet_is_better_than_a_threshold(here, capsys):
    assert run("train", "--model", "unet", "--epochs", "3", "--out", "run", "--quiet") == 0
    found = float(capsys.readouterr().out.split("union ")[1].split()[0])
    x = load_digits().test.x
    given = segmenting.noisy(x, np.random.default_rng(2), segmenting.NOISE["digits"])
    assert segmenting.NOISE["digits"] == pytest.approx((given - x).std(), rel=0.02)
    by_threshold = intersection_over_union(np.concatenate([0.5 - given, given - 0.5], axis=1), segmenting.stroke(x))
    assert 0.5 < by_threshold + 0.05 < found < 1
    assert History.read(here / "run/history.jsonl")["test_iou"][-1] == pytest.approx(found, abs=1e-4)


def test_the_metric_of_segments():
    wanted = np.array([[[1, 1], [0, 0]], [[0, 0], [0, 0]], [[0, 0], [0, 1]]])
    found = np.array([[[1, 0], [1, 0]], [[0, 0], [0, 0]], [[1, 0], [0, 0]]])
    scores = np.stack([-found, found], axis=1)
    assert intersection_over_union(scores, wanted) == pytest.approx((1 / 3 + 1 + 0) / 3)
    with pytest.raises(ValueError, match=r"expected \(N, 2, ...\) and \(N, ...\), got"):
        intersection_over_union(found, wanted)


def test_the_metric_of_whole_sequences_is_what_is_written():
    target = np.array([[1, 2, 0], [2, 2, 1], [3, 0, 0]])
    scores = np.eye(4)[[[1, 2, 3], [2, 1, 1], [3, 3, 3]]]
    assert whole_sequences(scores, target, ignore_index=0) == pytest.approx(2 / 3)
    assert whole_sequences(scores, target) == 0
    with pytest.raises(ValueError, match=r"expected \(N, T, V\) and \(N, T\), got"):
        whole_sequences(target, target)
    task = DigitStrings("sort", (1, 3))
    model = Seq2SeqTransformer(13, 13, 16, 2, 1, 1, 32, 0.0, padding_idx=0, rng=0)
    optimizer = Adam(model.parameters(), 1e-2)
    loss = SequenceCrossEntropyLoss(ignore_index=0)
    Trainer(model, loss, optimizer, progress=False).fit(task.stream(150, 32), epochs=1)
    (src, tgt), y = task.draw(1, 100)
    said = task.decode(model.generate(src, task.START, task.END, 4))
    right = np.mean([one == other for one, other in zip(said, task.decode(y), strict=True)])
    assert 0.1 < right < 1
    assert whole_sequences(model.eval().forward(src, tgt), y, ignore_index=0) == pytest.approx(right)


@pytest.mark.parametrize("model", ["makemore", "makemore-wavenet"])
def test_the_recipes_of_names(here, capsys, model):
    (here / "words.txt").write_text("\n".join(f"{a}{b}{a}" for a in "abcd" for b in "xyzuvw"))
    command = ["train", "--model", model, "--data", "words.txt", "--epochs", "8", "--hidden", "16", "--batch-size", "9"]
    assert run(*command, "--out", "run") == 0
    printed = capsys.readouterr().out
    assert "words.txt: the next of 11 characters, after " in printed and "76 to learn from" in printed
    config, history = json.loads((here / "run/config.json").read_text()), History.read(here / "run/history.jsonl")
    assert (config["optimizer"], config["momentum"], config["characters"]) == ("sgd", 0.0, ".abcduvwxyz")
    last = printed.split("nats a character: ")[1].split("\n")[0]
    assert f"validation {history['val_loss'][-1]:.4f}, test {history['test_loss'][-1]:.4f}" in last
    assert float(last.split()[1].rstrip(",")) < 1.8 < history["loss"][0] - 0.3
    assert f"perplexity {history['val_perplexity'][-1]:.3f}" in last
    blocks = (here / "run/samples.txt").read_text().split("---------- epoch ")[1:]
    assert [block.split("\n")[0] for block in blocks] == [*"12345678"]
    names = blocks[-1].rstrip("\n").split("\n")[1:]
    assert len(names) == 20 and set("".join(names)) <= set("abcduvwxyz")
    assert f"made up: {', '.join(names[:8])}" in printed
    # the momentum of the default is not an error beside another optimizer
    assert run(*command, "--optimizer", "adam", "--lr", "0.01", "--out", "other", "--quiet") == 0
    assert "made up" not in capsys.readouterr().out
    # nor is its rate that of another optimizer
    assert run(*command, "--optimizer", "adam", "--epochs", "1", "--out", "third", "--quiet") == 0
    assert json.loads((here / "third/config.json").read_text())["lr"] == 0.003


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


def test_emnist_in_the_place_of_mnist(here, capsys):
    emnist(here, "balanced")
    common = ["train", "--data", "mnist", "--data-dir", ".", "--epochs", "1", "--quiet"]
    # 200 images, and validation takes 5,000
    assert run(*common, "--model", "mlp") == 2 and "validation: expected 0 to 199" in capsys.readouterr().err
    many = here / "many"
    many.mkdir()
    emnist(many, "balanced", times=26)
    assert run(*common[:4], many, *common[5:], "--model", "mlp", "--hidden", "8", "--out", "run") == 0
    assert load_file(here / "run/model.safetensors")["fc2.weight"].shape == (47, 8)
    assert run(*common[:4], many, *common[5:], "--model", "captioning") == 2
    assert "captioning is for the ten digits, not for 47 classes" in capsys.readouterr().err


def test_weights_of_gpt_2_to_begin_with(here, capsys, monkeypatch):
    monkeypatch.setattr(writing.Transformer, "every", 1)
    (here / "text.txt").write_text("to be or not to be, that is the question\n" * 60)
    first = ["train", "--model", "gpt", "--data", "text.txt", "--width", "8", "--epochs", "1", "--lr", "1e-9"]
    assert run(*first, "--out", "one", "--quiet") == 0
    ours = load_file(here / "one/model.safetensors")
    theirs = {
        name.removeprefix("transformer."): np.ascontiguousarray(array.T) if "c_" in name else array
        for name, array in ours.items()
        if name != "lm_head.weight"
    }
    save_file(theirs | {"h.0.attn.bias": np.tril(np.ones((1, 1, 64, 64), np.float32))}, here / "gpt2.safetensors")
    capsys.readouterr()
    assert run(*first, "--seed", "3", "--weights", "gpt2.safetensors", "--out", "two") == 0
    printed = capsys.readouterr().out
    told = "not in the file, and not missing:\n  lm_head.weight: is transformer.wte.weight"
    assert f"gpt2.safetensors: {len(theirs)} arrays loaded\n1 {told}" in printed
    assert "missing, left" not in printed and "misshapen" not in printed and "unexpected" not in printed
    for name, array in load_file(here / "two/model.safetensors").items():
        np.testing.assert_allclose(array, ours[name], atol=1e-6, err_msg=name)
    theirs["h.1.attn.c_attn.weight"] = theirs["h.1.attn.c_attn.weight"].T.copy()
    save_file(theirs, here / "mixed.safetensors")
    assert run(*first, "--weights", "mixed.safetensors", "--out", "three") == 2
    assert capsys.readouterr().err.count("is stored as (in, out), as GPT-2's is, and transformer.h.") == 1
    assert not (here / "three").exists()


@pytest.mark.parametrize(
    ("arguments", "optimizer", "names"),
    [
        (["mlp"], Adam, ["model"]),
        (["char-gru", "--data", "rhyme.txt", "--batch-size", "4"], RMSprop, ["model"]),
        (["ddpm", "--width", "8"], Adam, ["model", "average"]),
        (["gan", "--width", "4"], Adam, ["generator", "discriminator"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_an_interrupt_in_the_first_epoch_keeps_the_weights(here, capsys, monkeypatch, arguments, optimizer, names):
    (here / "rhyme.txt").write_text("the cat sat on the mat and that was that\n" * 60)
    step, kept = optimizer.step, []

    def until_then(self, *values):
        step(self, *values)
        kept.append([p.data.copy() for group in self.param_groups for p in group["params"]])
        if len(kept) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(optimizer, "step", until_then)
    assert run("train", "--model", *arguments, "--out", "run") == 130
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"{names[0]}.safetensors" in error
    assert f"the weights of the {' and the '.join(names)} are those at the interrupt" in error
    assert {path.stem for path in (here / "run").glob("*.safetensors")} == set(names)
    on_disk = [array for array in load_file(here / f"run/{names[0]}.safetensors").values() if array.ndim > 1]
    last = {array.tobytes() for array in kept[-1]}
    assert on_disk and all(array.tobytes() in last for array in on_disk)
    assert (here / "run/config.json").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "ntm", "--data", "mnist"], "--data mnist is for --model mlp, lenet, "),
        (["--model", "mlp", "--data", "copy"], "--data copy is for --model ntm, lstm, not for mlp"),
        (["--model", "ntm", "--data", "nothing"], "--data: invalid choice: 'nothing' (choose from 'copy'"),
        (["--model", "resnet20", "--data", "digits"], "not for resnet20"),
        (["--model", "vgg16_bn", "--data", "digits"], "not for vgg16_bn (which takes cifar10)"),
        (["--model", "resnet18", "--dropout", "0.5"], "--dropout is for --model mlp, alexnet, "),
        (["--model", "vae", "--heads", "2"], "--heads is for --model ntm"),
        (["--model", "vae", "--no-augment"], "--no-augment is for --model alexnet-cifar"),
        (["--model", "gan", "--optimizer", "sgd"], "--optimizer is not for --model gan"),
        (["--model", "ntm", "--hidden", "4,5"], "--hidden of the ntm is one size"),
        (["--model", "lstm", "--hidden", "4,5"], "all the same"),
        (["--model", "ntm", "--data-dir", "x"], "--data-dir is for --data mnist or cifar10"),
        (["--model", "gpt"], "gpt learns from a text: give its file, --data FILE.txt"),
        (["--model", "gpt", "--data", "nowhere.txt"], "nowhere.txt: there is no such file"),
        (["--model", "char-lstm", "--hidden", "4,5", "--data", "nowhere.txt"], "nowhere.txt"),
        (["--model", "transformer", "--data", "copy"], "not for transformer (which takes reverse, sort)"),
        (["--model", "captioning", "--data", "cifar10"], "not for captioning (which takes digits, mnist)"),
        (["--model", "unet", "--hidden", "4"], "--hidden is for --model mlp, "),
        (["--model", "transformer", "--data-dir", "x"], "--data-dir is for --data mnist or cifar10"),
        (["--model", "makemore"], "learns from a list of words, one a line: give its file, --data FILE.txt"),
        (["--model", "makemore", "--data", "nowhere.txt"], "nowhere.txt: there is no such file"),
        (["--model", "makemore", "--hidden", "4,5", "--data", "words.txt"], "--hidden of makemore is one size"),
        (["--model", "makemore", "--data", "two.txt"], "two.txt: expected at least 10 names, one a line, got 2"),
        (["--model", "gpt", "--schedule", "constant"], "--schedule is not for --model gpt"),
        (["--model", "mlp", "--weights", "nowhere"], "nowhere: No such file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_does_not_go_together(here, capsys, arguments, words):
    (here / "two.txt").write_text("anna\notto\n")
    (here / "words.txt").write_text("anna\n" * 10)
    assert run("train", *arguments, "--epochs", "1") == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not list(here.rglob("*.json*"))


@pytest.fixture
def photographs(here, monkeypatch):
    """The folder of pictures that stand in for CIFAR-10: 6 to learn from, 2 to validate, 8 to test."""
    rng = np.random.default_rng(0)
    folder = here / "cifar"
    folder.mkdir()
    for name in ("data_batch_1.bin", "test_batch.bin"):
        records = rng.integers(0, 256, (8, 3073)).astype(np.uint8)
        records[:, 0] %= 10
        (folder / name).write_bytes(records.tobytes())
    monkeypatch.setattr("backhand.training.recipes.base.datasets.load_cifar10", small(folder))
    return folder


def test_augmented_and_standardized(here, photographs):
    """That --no-augment changes what resnet20 learns."""
    folder = photographs
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


# Models of which a smaller one is in the same test, or that take seconds to build.
LIKE_OTHERS = {"resnet32", "resnet56", "resnet34", "resnet50", "alexnet2012"}
LIKE_OTHERS |= {f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")}
# As published.
PARAMETERS = {
    "ntm": "16,096",
    "resnet20": "269,722",
    "alexnet-cifar": "2,472,266",
    "alexnet": "61,100,840",
    "resnet18": "11,689,512",
    "mobilenet_v2": "3,504,872",
}
OF_IMAGENET = [name for name, recipe in RECIPES.items() if isinstance(recipe, images.OfImageNet)]


def test_the_architectures_of_imagenet_are_all_there():
    vgg = [f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")]
    assert ["alexnet", "alexnet2012", *vgg, "resnet18", "resnet34", "resnet50", "mobilenet_v2"] == OF_IMAGENET
    made = {name: RECIPES[name].make for name in vgg}
    assert {f"vgg{each.args[0]}{'_bn' * each.keywords['batch_norm']}": each for each in made.values()} == made


@pytest.mark.parametrize("model", ["resnet18", "mobilenet_v2"])
def test_an_architecture_of_imagenet_trains(here, photographs, capsys, model):
    assert run("train", "--model", model, "--epochs", "1", "--batch-size", "3", "--data-dir", photographs) == 0
    printed = capsys.readouterr().out
    assert "cifar10: 6 samples to learn from, 2 to validate, 8 to test\n" in printed and "test accuracy" in printed
    weights = load_file(here / f"runs/cifar10-{model}/model.safetensors")
    assert {"resnet18": "layer4.1.bn2.weight", "mobilenet_v2": "features.18.1.weight"}[model] in weights
    assert weights[{"resnet18": "fc.bias", "mobilenet_v2": "classifier.1.bias"}[model]].shape == (10,)


@pytest.mark.parametrize("augment", [[], ["--no-augment"]], ids=str)
def test_pictures_are_enlarged_for_alexnet(here, photographs, capsys, monkeypatch, augment):
    """On a small network in its place, that keeps what it is shown."""
    shown = []

    class Seen(Identity):
        def forward(self, x):
            shown.append(x)
            return super().forward(x)

    def small_net(classes, dropout, rng):
        assert (classes, dropout) == (10, 0.25)
        return Sequential(Seen(), AdaptiveAvgPool2d(1), Flatten(), Linear(3, classes, rng=rng))

    monkeypatch.setattr(RECIPES["alexnet"], "make", small_net)
    command = ["train", "--model", "alexnet", "--epochs", "2", "--batch-size", "4", "--data-dir", photographs]
    assert run(*command, "--dropout", "0.25", "--out", "run", *augment) == 0
    config = json.loads((here / "run/config.json").read_text())
    assert (config["optimizer"], config["lr"], config["dropout"]) == ("adam", 1e-4, 0.25)
    assert "8 to test; every picture enlarged to 64x64" in capsys.readouterr().out
    assert [len(x) for x in shown] == [4, 2, 2] * 2 + [4, 4]  # training and validation twice, and the test
    assert all(x.shape[1:] == (3, 64, 64) for x in shown)
    for x in shown:
        np.testing.assert_array_equal(x[:, :, ::2, ::2], x[:, :, 1::2, 1::2])
    first, second = (np.concatenate(shown[i : i + 2]) for i in (0, 3))
    assert (first != second).any()
    same = np.sort(first.sum(axis=(1, 2, 3))) == pytest.approx(np.sort(second.sum(axis=(1, 2, 3))))
    assert same == bool(augment)


@pytest.mark.parametrize("model", sorted({*RECIPES} - LIKE_OTHERS))
def test_summary_of_every_model(capsys, model):
    assert run("summary", model) == 0
    printed = capsys.readouterr().out
    assert "parameters" in printed
    assert PARAMETERS.get(model, "") in printed
    assert model != "resnet18" or "(1, 64, 112, 112)" in printed


def test_summary_of_an_architecture_of_imagenet_for_other_data(capsys):
    assert run("summary", "resnet18", "--data", "cifar10") == 0
    printed = capsys.readouterr().out
    assert "11,181,642" in printed and "(2, 64, 16, 16)" in printed and "(2, 10)" in printed
