"""Models of sequences: published counts, the state that is carried on, writing, and PyTorch beside them."""

import numpy as np
import pytest

from backhand.layers import GRU, LSTM, RNN, LayerError
from backhand.losses import CrossEntropyLoss, SequenceCrossEntropyLoss
from backhand.models import CaptionRNN, CharRNN, NameMLP, NameWaveNet, Seq2SeqTransformer, UnbiasedBatchNorm
from backhand.training.optimizers import Adam
from tests.cases import spread_parameters

rng = np.random.default_rng(0)


def count(model):
    return sum(p.size for p in model.parameters())


def gradients(model):
    return {name: p.grad.copy() for name, p in model.named_parameters()}


@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        (CharRNN(65), 240_321),
        (CharRNN(65, 100, 1, "rnn", one_bias=True), 23_165),
        (NameMLP(), 12_297),
        (NameWaveNet(), 76_579),
    ],
    ids=lambda value: type(value).__name__,
)
def test_published_counts(model, wanted):
    assert count(model) == wanted


# ---------------------------------------------------------------------- integers in the place of one-hot rows


@pytest.mark.parametrize("batch", [None, 1, 3])
@pytest.mark.parametrize("layer", [RNN(5, 4), LSTM(5, 4, 2, bidirectional=True), GRU(5, 4)], ids=repr)
def test_integers_do_what_one_hot_rows_do(layer, batch):
    layer.astype(np.float64)
    index = rng.integers(0, 5, (6,) if batch is None else (6, batch))
    lengths = None if batch is None else rng.integers(1, 7, batch)
    results = []
    for x, options in ((np.eye(5)[index], {}), (index, {"one_hot": True})):
        layer.zero_grad()
        y = layer.forward(x, lengths=lengths, **options)
        dx = layer.backward(np.cos(np.arange(y.size)).reshape(y.shape))
        results.append((y, gradients(layer), dx))
    (y, grads, _), (one_hot, own, nothing) = results
    assert nothing is None
    np.testing.assert_allclose(one_hot, y, rtol=1e-12)
    for name, grad in grads.items():
        np.testing.assert_allclose(own[name], grad, rtol=1e-12, atol=1e-14, err_msg=name)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((2, 3)), r"integers of shape \(T, N\) or \(T,\) with one_hot, got float64"),
        (np.zeros((2, 3, 4), int), "with one_hot, got int64 of shape"),
        (np.full((2, 3), 5), "integers from 0 to 4 with one_hot, got 5"),
        (np.full((2, 3), -1), "integers from 0 to 4 with one_hot, got -1"),
    ],
)
def test_integers_that_name_no_row(x, message):
    with pytest.raises(LayerError, match=message):
        RNN(5, 4).forward(x, one_hot=True)


# ---------------------------------------------------------------------- the loss over tokens


WEIGHTED = {"weight": [1.0, 2.0, 0.5, 3.0], "ignore_index": 1}


def test_the_loss_has_the_classes_last():
    scores, target = rng.standard_normal((2, 3, 4)), rng.integers(0, 4, (2, 3))
    target[1, 2] = 1
    for options in (
        {},
        {"ignore_index": 1},
        {"reduction": "sum"},
        {"reduction": "none"},
        {"label_smoothing": 0.1},
        WEIGHTED,
    ):
        ours, plain = SequenceCrossEntropyLoss(**options), CrossEntropyLoss(**options)
        np.testing.assert_allclose(ours(scores, target), plain(scores.swapaxes(1, 2), target), rtol=1e-12)
        np.testing.assert_allclose(ours.backward(), plain.backward().swapaxes(1, 2), rtol=1e-12)
    loss = SequenceCrossEntropyLoss(reduction="batchmean", ignore_index=1)
    plain = CrossEntropyLoss(reduction="sum", ignore_index=1)
    assert loss(scores, target) == pytest.approx(plain(scores.swapaxes(1, 2), target) / 2)
    assert (loss.backward()[target == 1] == 0).all()
    assert np.isnan(SequenceCrossEntropyLoss(ignore_index=1)(scores, np.ones((2, 3), int)))


@pytest.mark.parametrize(
    ("scores", "target", "message"),
    [
        (np.zeros((2, 3, 4)), np.zeros((2, 4), int), r"integer labels of shape \(2, 3\), got int64 of shape \(2, 4\)"),
        (np.zeros((2, 3, 4)), np.zeros((2, 3)), "integer labels of shape .*, got float64"),
        (np.zeros((2, 3, 4)), np.full((2, 3), 4), "labels from 0 to 3"),
    ],
)
def test_labels_that_do_not_fit(scores, target, message):
    loss = SequenceCrossEntropyLoss()
    with pytest.raises(LayerError, match=message):
        loss(scores, target)
    assert not loss._stack and not loss.inner._stack


def test_a_wrong_dout_costs_nothing():
    loss = SequenceCrossEntropyLoss(reduction="none")
    loss(rng.standard_normal((2, 3, 4)), np.zeros((2, 3), int))
    with pytest.raises(LayerError, match=r"dout of shape \(2, 3\), got \(3, 2\)"):
        loss.backward(np.ones((3, 2)))
    assert loss.backward(np.ones((2, 3))).shape == (2, 3, 4)


# ---------------------------------------------------------------------- CharRNN


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_stateful_model_goes_on_where_it_ended(cell, batch_first):
    model = CharRNN(7, 4, 2, cell, batch_first=batch_first, stateful=True, rng=0).astype(np.float64)
    tokens = rng.integers(0, 7, (2, 9) if batch_first else (9, 2))
    axis = 1 if batch_first else 0
    whole = model(tokens)
    model.reset()
    parts = np.split(tokens, [4], axis=axis)
    np.testing.assert_allclose(np.concatenate([model(part) for part in parts], axis=axis), whole, rtol=1e-12)
    model.zero_grad()
    model.reset()
    assert not np.allclose(model(parts[1]), whole[:, 4:] if batch_first else whole[4:])


def test_the_gradient_ends_at_the_border_of_the_batch():
    """What a stateful model learns from a batch is what another learns that is handed the state as numbers."""
    model = CharRNN(7, 4, stateful=True, rng=0).astype(np.float64)
    tokens = rng.integers(0, 7, (8, 2))
    model(tokens[:4])
    model.zero_grad()
    state = model.state
    scores = model(tokens[4:])
    dout = rng.standard_normal(scores.shape)
    assert model.backward(dout) is None
    wanted = gradients(model)
    other = CharRNN(7, 4, rng=0).astype(np.float64)
    np.testing.assert_array_equal(other(tokens[4:], state), scores)
    nothing, dstate = other.backward(dout)
    assert nothing is None and dstate[0].shape == state[0].shape
    for name, grad in gradients(other).items():
        np.testing.assert_array_equal(grad, wanted[name], err_msg=name)


def test_another_batch_size_begins_anew():
    model = CharRNN(7, 4, stateful=True)
    model(np.zeros((3, 2), int))
    with pytest.raises(LayerError, match=r"expected 2 sequences, as in the forward before, got 3 .*reset\(\)"):
        model(np.zeros((3, 3), int))
    model.reset()
    assert model(np.zeros((3,), int)).shape == (3, 7)


@pytest.mark.parametrize("options", [{}, {"batch_first": True}, {"cell": "gru", "embedding_dim": 3, "stateful": True}])
def test_writing(options):
    model = CharRNN(7, 8, 2, dropout=0.5, rng=0, **options)
    spread_parameters(model)
    axis = 1 if "batch_first" in options else 0
    start = rng.integers(0, 7, (2, 3) if axis else (3, 2))
    one, other = (model.generate(start, 12, rng=5) for _ in range(2))
    assert one.shape[axis] == 15 and (one == other).all() and (one.take(range(3), axis) == start).all()
    assert model.training and model.caching and model.state is None
    greedy = model.generate(start, 6, temperature=0)
    exact = start
    model.eval()
    for _ in range(6):
        model.reset()
        newest = model(exact).take(-1, axis).argmax(axis=-1)
        exact = np.concatenate([exact, np.expand_dims(newest, axis)], axis=axis)
    np.testing.assert_array_equal(greedy, exact)
    model.reset()
    _, state = model.step(start.take(range(2), axis))
    rest = model.generate(start.take([2], axis), 6, temperature=0, state=state)
    np.testing.assert_array_equal(rest, greedy.take(range(2, 9), axis))
    assert model.generate(np.array([1, 2]), 3).shape == (5,)
    assert model.generate(start, 0).shape == start.shape


def test_wrong_arguments():
    with pytest.raises(ValueError, match="one_bias with an lstm or rnn"):
        CharRNN(7, cell="gru", one_bias=True)
    with pytest.raises(ValueError, match="cell to be 'lstm', 'gru' or 'rnn'"):
        CharRNN(7, cell="LSTM")
    with pytest.raises(LayerError, match=r"integer tokens of shape \(T, N\) or \(T,\), got float64"):
        CharRNN(7)(np.zeros((2, 2)))
    with pytest.raises(LayerError, match="tokens from 0 to 6, got 7"):
        CharRNN(7)(np.full((2, 2), 7))


@pytest.mark.parity
@pytest.mark.parametrize(("cell", "name"), [("lstm", "LSTM"), ("gru", "GRU"), ("rnn", "RNN")])
@pytest.mark.parametrize("embedding", [None, 3])
def test_char_rnn_beside_torch(torch, cell, name, embedding):
    ours = CharRNN(7, 4, 2, cell, embedding_dim=embedding, return_state=True, rng=0).astype(np.float64)
    nn = torch.nn
    modules = {"rnn": getattr(nn, name)(embedding or 7, 4, 2), "decoder": nn.Linear(4, 7)}
    if embedding:
        modules["embedding"] = nn.Embedding(7, 3)
    theirs = nn.ModuleDict(modules).double()
    theirs.load_state_dict({key: torch.from_numpy(value) for key, value in ours.state_dict().items()})
    tokens = rng.integers(0, 7, (5, 3))
    x = torch.from_numpy(tokens)
    x = theirs["embedding"](x) if embedding else torch.eye(7, dtype=torch.double)[x]
    y, state = theirs["rnn"](x)
    scores = theirs["decoder"](y)
    mine, own_state = ours(tokens)
    np.testing.assert_allclose(mine, scores.detach().numpy(), rtol=1e-9, atol=1e-12)
    dout = rng.standard_normal(mine.shape)
    last = state if cell == "lstm" else (state,)
    (scores * torch.from_numpy(dout)).sum().add(sum(s.sum() for s in last)).backward()
    ours.backward((dout, tuple(map(np.ones_like, own_state)) if cell == "lstm" else np.ones_like(own_state)))
    compare(ours, theirs)


def compare(ours, theirs):
    for name, parameter in theirs.named_parameters():
        grad = dict(ours.named_parameters())[name].grad
        np.testing.assert_allclose(grad, parameter.grad.numpy(), rtol=1e-8, atol=1e-11, err_msg=name)


# ---------------------------------------------------------------------- makemore


@pytest.mark.parity
def test_unbiased_batch_norm_beside_torch(torch):
    layer = UnbiasedBatchNorm(3).astype(np.float64)
    spread_parameters(layer)
    x, dout = rng.standard_normal((5, 3)), rng.standard_normal((5, 3))
    weight, bias, t = (torch.tensor(each, requires_grad=True) for each in (layer.weight.data, layer.bias.data, x))
    y = weight * (t - t.mean(0)) / torch.sqrt(t.var(0, correction=1) + 1e-5) + bias
    y.backward(torch.from_numpy(dout))
    np.testing.assert_allclose(layer(x), y.detach().numpy(), rtol=1e-10)
    np.testing.assert_allclose(layer.backward(dout), t.grad.numpy(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(layer.weight.grad, weight.grad.numpy(), rtol=1e-9)
    np.testing.assert_allclose(layer.bias.grad, bias.grad.numpy(), rtol=1e-9)


def test_unbiased_batch_norm_keeps_statistics():
    layer = UnbiasedBatchNorm(3).astype(np.float64)
    x = rng.standard_normal((5, 3))
    layer(x)
    np.testing.assert_allclose(layer.running_mean, 0.1 * x.mean(axis=0))
    np.testing.assert_allclose(layer.running_var, 0.9 + 0.1 * x.var(axis=0, ddof=1))
    with pytest.raises(LayerError, match="at least two rows"):
        layer(x[:1])
    layer.eval()
    np.testing.assert_allclose(layer(x[:1]), (x[:1] - layer.running_mean) / np.sqrt(layer.running_var + 1e-5))


@pytest.mark.parametrize(
    "model", [NameMLP(6, 4, 3, 5, rng=0), NameWaveNet(6, 4, 3, 5, rng=0)], ids=lambda m: type(m).__name__
)
def test_names(model):
    x = rng.integers(0, 6, (50, 4))
    model.calibrate(x)
    assert model.training
    trained = model(x)  # the whole set as one batch has its own statistics
    model.zero_grad()
    np.testing.assert_allclose(model.eval()(x), trained, rtol=1e-3, atol=1e-4)
    names = model.generate(20, longest=9, rng=1)
    assert names == model.generate(20, longest=9, rng=1) and len(names) == 20
    assert all(len(name) <= 9 and 0 not in name for name in names) and any(names)


@pytest.mark.parity
def test_wavenet_joins_neighbours(torch):
    model = NameWaveNet(6, 4, 3, 5, rng=0).astype(np.float64)
    w = {name: torch.from_numpy(value) for name, value in model.state_dict().items()}
    tokens = rng.integers(0, 6, (7, 4))
    x = w["embedding.weight"][torch.from_numpy(tokens)]
    for i in (1, 2):
        x = x.reshape(7, x.shape[1] // 2, -1) @ w[f"linear{i}.weight"].T
        axes = (0, 1)
        x = (x - x.mean(axes)) / torch.sqrt(x.var(axes, correction=1) + 1e-5)
        x = torch.tanh(x * w[f"norm{i}.weight"] + w[f"norm{i}.bias"])
    scores = x[:, 0] @ w["out.weight"].T + w["out.bias"]
    np.testing.assert_allclose(model(tokens), scores.numpy(), rtol=1e-9)


# ---------------------------------------------------------------------- captions


@pytest.mark.parity
@pytest.mark.parametrize("cell", ["rnn", "lstm", "attention"])
def test_captions_beside_torch(torch, cell):
    nn = torch.nn
    ours = CaptionRNN(6, 5, 3, 4, cell, rng=0).astype(np.float64)
    spread_parameters(ours)
    kind = {"rnn": nn.RNN, "lstm": nn.LSTM}.get(cell)
    rnn = nn.LSTMCell(3 + 4, 4) if kind is None else kind(3, 4, batch_first=True)
    theirs = nn.ModuleDict(
        {"proj": nn.Linear(5, 4), "embed": nn.Embedding(6, 3), "rnn": rnn, "vocab": nn.Linear(4, 6)}
    ).double()
    theirs.load_state_dict({key: torch.from_numpy(value) for key, value in ours.state_dict().items()})
    features = rng.standard_normal((2, 3, 5) if cell == "attention" else (2, 5))
    words = rng.integers(0, 6, (2, 4))
    f = torch.from_numpy(features).requires_grad_()
    a, x = theirs["proj"](f), theirs["embed"](torch.from_numpy(words))
    if cell == "attention":
        h = c = a.mean(1)
        outputs = []
        for t in range(4):
            look = torch.softmax((a @ h[:, :, None])[:, :, 0] / 2, dim=1)
            h, c = rnn(torch.cat([x[:, t], (look[:, None] @ a)[:, 0]], 1), (h, c))
            outputs.append(h)
        y = torch.stack(outputs, 1)
    else:
        y, _ = rnn(x, (a[None], torch.zeros_like(a[None])) if cell == "lstm" else a[None])
    scores = theirs["vocab"](y)
    dout = rng.standard_normal(scores.shape)
    scores.backward(torch.from_numpy(dout))
    np.testing.assert_allclose(ours(features, words), scores.detach().numpy(), rtol=1e-9, atol=1e-12)
    dfeatures, nothing = ours.backward(dout)
    assert nothing is None
    np.testing.assert_allclose(dfeatures, f.grad.numpy(), rtol=1e-9, atol=1e-12)
    compare(ours, theirs)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "attention"])
def test_captions_are_learned_by_heart(cell):
    start, end, nothing = 0, 1, 2
    captions = rng.integers(3, 9, (6, 5))
    captions[:, 0] = start
    for row, length in zip(captions, [4, 3, 4, 2, 4, 3], strict=True):
        row[length], row[length + 1 :] = end, nothing
    features = rng.standard_normal((6, 4, 8) if cell == "attention" else (6, 8)).astype(np.float32)
    model = CaptionRNN(9, 8, 6, 16, cell, rng=0)
    loss = SequenceCrossEntropyLoss(ignore_index=nothing, reduction="batchmean")
    optimizer = Adam(model.parameters(), lr=0.02)
    for _ in range(120):
        optimizer.zero_grad()
        value = loss(model(features, captions[:, :-1]), captions[:, 1:])
        model.backward(loss.backward())
        optimizer.step()
    assert value < 0.1
    written = model.generate(features, start, 4)
    for row, caption in zip(written, captions[:, 1:], strict=True):
        said = caption != nothing
        np.testing.assert_array_equal(row[said], caption[said])
    if cell == "attention":
        assert model.attention_map.shape == (6, 4, 4)
        np.testing.assert_allclose(model.attention_map.sum(axis=-1), 1, rtol=1e-5)


def test_wrong_captions():
    model = CaptionRNN(6, 5, 3, 4)
    with pytest.raises(LayerError, match=r"features of shape \(N, 5\), got \(2, 3, 5\)"):
        model(np.zeros((2, 3, 5)), np.zeros((2, 4), int))
    with pytest.raises(LayerError, match="as many captions as images, got 3 and 2"):
        model(np.zeros((2, 5)), np.zeros((3, 4), int))
    with pytest.raises(LayerError, match=r"row numbers in \[0, 6\)"):
        model(np.zeros((2, 5)), np.full((2, 4), 6))
    assert not any(vars(each).get("_stack") for each in model.modules())


# ---------------------------------------------------------------------- encoder and decoder


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("norm_first", [False, True])
def test_seq2seq_beside_torch(torch, norm_first):
    nn = torch.nn
    ours = Seq2SeqTransformer(7, 6, 8, 2, 2, 2, 5, 0.0, norm_first, 0, rng=0).astype(np.float64)
    spread_parameters(ours)
    theirs = nn.ModuleDict(
        {
            "src_embed": nn.Embedding(7, 8, 0),
            "tgt_embed": nn.Embedding(6, 8, 0),
            "transformer": nn.Transformer(8, 2, 2, 2, 5, 0.0, batch_first=True, norm_first=norm_first),
            "generator": nn.Linear(8, 6),
        }
    ).double()
    theirs.load_state_dict({key: torch.from_numpy(value) for key, value in ours.state_dict().items()})
    src, tgt = np.array([[1, 5, 6, 2], [3, 2, 0, 0]]), np.array([[1, 2, 5], [1, 4, 0]])
    angle = np.arange(4)[:, None] * 10000.0 ** (-np.arange(0, 8, 2) / 8)
    places = torch.from_numpy(np.stack([np.sin(angle), np.cos(angle)], -1).reshape(4, 8))

    def embedded(name, tokens):
        return theirs[name](torch.from_numpy(tokens)) * 8**0.5 + places[: tokens.shape[1]]

    mask = torch.triu(torch.ones(3, 3, dtype=torch.bool), 1)
    padded = torch.from_numpy(src == 0)
    scores = theirs["generator"](
        theirs["transformer"](
            embedded("src_embed", src),
            embedded("tgt_embed", tgt),
            tgt_mask=mask,
            src_key_padding_mask=padded,
            tgt_key_padding_mask=torch.from_numpy(tgt == 0),
            memory_key_padding_mask=padded,
        )
    )
    dout = rng.standard_normal(scores.shape)
    scores.backward(torch.from_numpy(dout))
    np.testing.assert_allclose(ours(src, tgt), scores.detach().numpy(), rtol=1e-9, atol=1e-11)
    assert ours.backward(dout) == (None, None)
    compare(ours, theirs)


def test_padding_changes_nothing():
    model = Seq2SeqTransformer(7, 6, 8, 2, padding_idx=0, rng=0).astype(np.float64).eval()
    src, tgt = rng.integers(1, 7, (2, 4)), rng.integers(1, 6, (2, 3))
    more = np.pad(src, ((0, 0), (0, 2)))
    np.testing.assert_allclose(model(more, np.pad(tgt, ((0, 0), (0, 1))))[:, :3], model(src, tgt), rtol=1e-9)


def test_answers_are_what_the_whole_model_would_say():
    model = Seq2SeqTransformer(7, 6, 8, 2, padding_idx=0, rng=3).astype(np.float64)
    spread_parameters(model)
    src = rng.integers(1, 7, (5, 4))
    answer = model.generate(src, 1, 2, 6)
    assert model.training
    model.eval()
    tgt = np.ones((5, 1), int)
    for t in range(answer.shape[1]):
        likeliest = model(src, tgt)[:, -1].argmax(axis=1)
        going = ~(tgt[:, 1:] == 2).any(axis=1)
        np.testing.assert_array_equal(answer[going, t], likeliest[going])
        assert (answer[~going, t] == 2).all()
        tgt = np.concatenate([tgt, answer[:, t : t + 1]], axis=1)


def test_nothing_is_said_after_the_end():
    model = Seq2SeqTransformer(7, 6, 8, 2, rng=3)
    answer = model.generate(rng.integers(1, 7, (50, 4)), 1, 2, 12, temperature=10, rng=0)
    assert answer.shape == (50, 12) and 0 < (answer == 2).any(axis=1).mean() < 1
    for row in answer:
        assert (row[(row == 2).argmax() :] == 2).all() or not (row == 2).any()


def test_wrong_questions():
    model = Seq2SeqTransformer(7, 6, 8, 2)
    with pytest.raises(LayerError, match=r"src as integer tokens \(N, S\), got float64"):
        model(np.zeros((2, 3)), np.zeros((2, 3), int))
    with pytest.raises(LayerError, match="as many answers as questions, got 1 and 2"):
        model(np.zeros((2, 3), int), np.zeros((1, 3), int))
