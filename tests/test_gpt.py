"""GPT: counts and names, the cache of keys and values, drawing, GPT-2's file, and PyTorch beside it."""

import numpy as np
import pytest

from backhand.layers import LayerError
from backhand.losses import CrossEntropyLoss
from backhand.models import GPT, Sequential
from backhand.models.sampling import sampled

rng = np.random.default_rng(0)


def small(**options):
    return GPT(11, 8, 2, 2, 8, rng=0, **options)


def count(model):
    return sum(p.size for p in model.parameters())


def test_the_published_count():
    model = GPT(65, 64, 4, 4, 128, bias=False, rng=0)
    assert count(model) == 804_096 and count(model) - model.wpe.weight.size == 795_904
    keys = list(model.state_dict())
    assert keys[:3] == ["transformer.wte.weight", "transformer.wpe.weight", "transformer.h.0.ln_1.weight"]
    assert "transformer.h.3.mlp.c_proj.weight" in keys and keys[-1] == "lm_head.weight"
    loss = CrossEntropyLoss()(model(rng.integers(0, 65, (4, 64))).reshape(-1, 65), rng.integers(0, 65, 256))
    assert loss == pytest.approx(np.log(65), abs=0.1)


def test_gpt_2_has_its_count():
    layers, width = 12, 768
    block = 2 * 2 * width + 4 * width * width + 4 * width + 8 * width * width + 5 * width
    model = GPT(50, 20, 3, 2, 24, rng=0)
    assert count(model) == 50 * 24 + 20 * 24 + 2 * 24 + 3 * (4 * 24 + 4 * 24 * 24 + 4 * 24 + 8 * 24 * 24 + 5 * 24)
    assert 50257 * width + 1024 * width + 2 * width + layers * block == 124_439_808


def test_one_matrix_at_both_ends():
    model = small()
    assert model.lm_head.weight is model.wte.weight
    state = model.state_dict()
    np.testing.assert_array_equal(state["lm_head.weight"], state["transformer.wte.weight"])


def test_a_token_sees_nothing_that_comes_after_it():
    model = small().eval()
    tokens = rng.integers(0, 11, (2, 8))
    changed = tokens.copy()
    changed[:, 5:] = (changed[:, 5:] + 1) % 11
    np.testing.assert_array_equal(model(tokens)[:, :5], model(changed)[:, :5])


def test_the_cache_gives_what_the_whole_sequence_gives():
    model = small().astype(np.float64).eval()
    tokens = rng.integers(0, 11, (3, 7))
    whole = model(tokens)
    scores, cache = model.step(tokens[:, :3])
    parts = [scores]
    for i in range(3, 7):
        scores, cache = model.step(tokens[:, i : i + 1], cache)
        parts.append(scores)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, rtol=1e-10, atol=1e-12)


def test_generate():
    model = small(dropout=0.5)
    start = rng.integers(0, 11, (2, 3))
    one, other = (model.generate(start, 12, rng=3) for _ in range(2))
    assert one.shape == (2, 15) and (one == other).all() and (one[:, :3] == start).all()
    assert model.training and model.caching and not any(vars(each).get("_stack") for each in model.modules())
    greedy = model.generate(start, 8, temperature=0)
    exact = start
    model.eval()
    for _ in range(8):  # without a cache
        exact = np.concatenate([exact, model(exact[:, -8:])[:, -1].argmax(axis=1)[:, None]], axis=1)
    np.testing.assert_array_equal(greedy, exact)


def test_drawing():
    scores = np.log(np.tile([0.5, 0.25, 0.125, 0.125], (20_000, 1)))
    share = np.bincount(sampled(scores, 1.0, None, np.random.default_rng(0)), minlength=4) / 20_000
    np.testing.assert_allclose(share, [0.5, 0.25, 0.125, 0.125], atol=0.02)
    share = np.bincount(sampled(scores, 1.0, 2, np.random.default_rng(0)), minlength=4) / 20_000
    np.testing.assert_allclose(share, [2 / 3, 1 / 3, 0, 0], atol=0.02)
    sharp = np.bincount(sampled(scores, 0.5, None, np.random.default_rng(0)), minlength=4) / 20_000
    assert sharp[0] == pytest.approx(0.25 / (0.25 + 0.0625 + 2 * 0.015625), abs=0.02)
    with pytest.raises(ValueError, match="temperature"):
        sampled(scores, -1, None, rng)
    with pytest.raises(ValueError, match="top_k"):
        sampled(scores, 1, 0, rng)


def gpt_2(generator=7, prefix="", n_layer=2, n_embd=8, head=False):
    """Weights as Hugging Face stores GPT-2: Conv1D's (in, out), masks beside them, the head left out."""
    draw = np.random.default_rng(generator).standard_normal
    state = {"wte.weight": draw((11, n_embd)), "wpe.weight": draw((8, n_embd))}
    for i in range(n_layer):
        for name, columns in (("attn.c_attn", 3), ("attn.c_proj", 1), ("mlp.c_fc", 4), ("mlp.c_proj", 0.25)):
            rows = n_embd if columns >= 1 else 4 * n_embd
            state[f"h.{i}.{name}.weight"] = 0.3 * draw((rows, int(rows * columns)))
            state[f"h.{i}.{name}.bias"] = draw(int(rows * columns))
        for name in (f"h.{i}.ln_1", f"h.{i}.ln_2"):
            state |= {f"{name}.weight": draw(n_embd), f"{name}.bias": draw(n_embd)}
        state |= {f"h.{i}.attn.bias": np.tril(np.ones((1, 1, 8, 8))), f"h.{i}.attn.masked_bias": np.array(-1e4)}
    state |= {"ln_f.weight": draw(n_embd), "ln_f.bias": draw(n_embd)}
    state = {prefix + name: array for name, array in state.items()}
    return state | ({"lm_head.weight": state[f"{prefix}wte.weight"]} if head else {})


def gpt_2_scores(w, tokens, heads=2):
    """What GPT-2 computes from such weights, in plain NumPy."""

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]

    def conv1d(x, name):
        return x @ w[f"{name}.weight"] + w[f"{name}.bias"]

    n, t = tokens.shape
    x = w["wte.weight"][tokens] + w["wpe.weight"][:t]
    for i in range(2):
        qkv = conv1d(norm(x, f"h.{i}.ln_1"), f"h.{i}.attn.c_attn").reshape(n, t, 3, heads, -1)
        q, k, v = qkv.transpose(2, 0, 3, 1, 4)
        weights = np.exp(q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])) * w[f"h.{i}.attn.bias"][..., :t, :t]
        y = (weights / weights.sum(-1, keepdims=True)) @ v
        x = x + conv1d(y.swapaxes(1, 2).reshape(n, t, -1), f"h.{i}.attn.c_proj")
        z = conv1d(norm(x, f"h.{i}.ln_2"), f"h.{i}.mlp.c_fc")
        x = x + conv1d(z / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3))), f"h.{i}.mlp.c_proj")
    return norm(x, "ln_f") @ w["wte.weight"].T


@pytest.mark.parametrize("prefix", ["", "transformer."])
@pytest.mark.parametrize("head", [True, False])
def test_gpt_2_as_hugging_face_stores_it(prefix, head):
    tokens = rng.integers(0, 11, (3, 7))
    wanted = gpt_2_scores(gpt_2(), tokens)
    for load in (GPT.load_gpt2, GPT.load_state_dict):
        model = small(approximate="tanh").astype(np.float64)
        load(model, gpt_2(prefix=prefix, head=head))
        np.testing.assert_allclose(model(tokens), wanted, rtol=1e-9, atol=1e-11)
    inside = Sequential({"model": small(approximate="tanh").astype(np.float64)})
    inside.load_state_dict({f"model.{name}": array for name, array in gpt_2(prefix=prefix, head=head).items()})
    np.testing.assert_allclose(inside(tokens), wanted, rtol=1e-9, atol=1e-11)
    state = gpt_2(prefix=prefix, head=head)
    del state[f"{prefix}h.1.ln_2.bias"]
    with pytest.raises(LayerError, match=r"missing: transformer\.h\.1\.ln_2\.bias$"):
        small().load_state_dict(state)


def test_a_square_matrix_is_never_loaded_the_wrong_way_round():
    block = "h.0.attn.c_proj.weight"
    theirs = gpt_2()
    for part in ("attn.c_attn", "mlp.c_fc", "mlp.c_proj"):  # any one of them tells, in any block
        model = small()
        given = {block: theirs[block], f"h.1.{part}.weight": theirs[f"h.1.{part}.weight"]}
        assert len(model.load_state_dict(given, strict=False).missing_keys) > 20
        np.testing.assert_array_equal(model.h[0].attn.c_proj.weight.data, theirs[block].T.astype(np.float32))
    model = small()
    before = model.state_dict()
    with pytest.raises(LayerError, match=r"no shape tells whether transformer.h.0.attn.c_proj.weight is stored as"):
        model.load_state_dict({block: theirs[block]}, strict=False)
    both = theirs | {"h.1.mlp.c_fc.weight": theirs["h.1.mlp.c_fc.weight"].T}
    for strict in (True, False):
        with pytest.raises(LayerError, match=r"c_attn.weight is stored as \(in, out\).* and .*h.1.mlp.c_fc.weight as"):
            model.load_state_dict(both, strict)
    np.testing.assert_equal(model.state_dict(), before)
    for prefix, layer in (("h.0.", model.h[0]), ("h.0.attn.", model.h[0].attn)):  # a part alone
        part = {name.removeprefix(prefix): array for name, array in theirs.items() if name.startswith(prefix)}
        assert layer.load_state_dict(part) == ([], [])
        np.testing.assert_array_equal(model.h[0].attn.c_proj.weight.data, theirs[block].T.astype(np.float32))


def test_nanogpts_own_layout_stays_as_it_is():
    state = {name: array + 1 for name, array in small().state_dict().items()}
    masks = {f"transformer.h.{i}.attn.bias": np.tril(np.ones((1, 1, 8, 8))) for i in range(2)}
    model = small()
    assert model.load_state_dict(state | masks) == ([], [])
    np.testing.assert_equal(model.state_dict(), state)
    bare = {name.removeprefix("transformer."): array + 1 for name, array in state.items() if name != "lm_head.weight"}
    assert model.load_state_dict(bare) == ([], [])
    np.testing.assert_equal(model.state_dict(), {name: array + 1 for name, array in state.items()})
    alone = {"transformer.h.0.attn.c_proj.weight": state["transformer.h.0.attn.c_proj.weight"]}
    model.load_state_dict(alone, strict=False)
    np.testing.assert_array_equal(model.h[0].attn.c_proj.weight.data, *alone.values())


def test_wrong_tokens():
    model = small()
    with pytest.raises(LayerError, match="at most block_size=8 tokens, got 9"):
        model(np.zeros((1, 9), int))
    with pytest.raises(LayerError, match=r"integer tokens of shape \(N, T\), got float64"):
        model(np.zeros((1, 4)))
    with pytest.raises(LayerError, match=r"row numbers in \[0, 11\), got 11"):
        model(np.full((1, 4), 11))


@pytest.mark.parity
@pytest.mark.parametrize(("bias", "approximate"), [(True, "tanh"), (False, "none")])
def test_beside_torch(torch, bias, approximate):
    nn, f = torch.nn, torch.nn.functional
    ours = small(bias=bias, approximate=approximate).astype(np.float64)
    for p in ours.parameters():
        p.data += 0.1 * rng.standard_normal(p.shape)
    w = {name: nn.Parameter(torch.from_numpy(value)) for name, value in ours.state_dict().items()}
    w["lm_head.weight"] = w["transformer.wte.weight"]

    def linear(x, name):
        return f.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))

    def norm(x, name):
        return f.layer_norm(x, (8,), w[f"{name}.weight"], w.get(f"{name}.bias"))

    tokens = torch.from_numpy(rng.integers(0, 11, (3, 7)))
    x = w["transformer.wte.weight"][tokens] + w["transformer.wpe.weight"][:7]
    for i in range(2):
        name = f"transformer.h.{i}"
        q, k, v = linear(norm(x, f"{name}.ln_1"), f"{name}.attn.c_attn").reshape(3, 7, 3, 2, 4).permute(2, 0, 3, 1, 4)
        y = f.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(3, 7, 8)
        x = x + linear(y, f"{name}.attn.c_proj")
        h = f.gelu(linear(norm(x, f"{name}.ln_2"), f"{name}.mlp.c_fc"), approximate=approximate)
        x = x + linear(h, f"{name}.mlp.c_proj")
    scores = linear(norm(x, "transformer.ln_f"), "lm_head")
    dout = rng.standard_normal(scores.shape)
    scores.backward(torch.from_numpy(dout))
    np.testing.assert_allclose(ours(tokens.numpy()), scores.detach().numpy(), rtol=1e-9, atol=1e-11)
    ours.backward(dout)
    for name, p in ours.named_parameters():
        np.testing.assert_allclose(p.grad, w[name].grad.numpy(), rtol=1e-8, atol=1e-10, err_msg=name)
