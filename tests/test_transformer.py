"""What the table of cases cannot say of the Transformer: copies, dropout, custom parts, what is refused."""

import numpy as np
import pytest

from backhand.inspection import check_layer
from backhand.layers import (
    Identity,
    Layer,
    LayerError,
    LayerNorm,
    LeakyReLU,
    Tanh,
    Transformer,
    TransformerDecoder,
    TransformerDecoderLayer,
    TransformerEncoder,
    TransformerEncoderLayer,
)
from tests.conftest import need

x = np.random.default_rng(0).standard_normal((3, 2, 4))


def test_copies_start_alike_and_learn_apart():
    stack = TransformerEncoder(TransformerEncoderLayer(4, 2, 5, rng=0), 3)
    first, second, third = (layer.linear1.weight for layer in stack.layers)
    np.testing.assert_array_equal(first.data, third.data)
    assert len({id(w) for w in (first, second, third)}) == 3
    assert len(list(stack.parameters())) == 3 * len(list(stack.layers[0].parameters()))


def test_copies_do_not_drop_the_same_units():
    layer = TransformerEncoderLayer(4, 2, 50, 0.5, rng=0)
    stack = TransformerEncoder(layer, 2)
    assert len({id(each.dropout.rng) for each in stack.layers}) == 1
    stack(x)
    one, other = (each.dropout.__dict__["_stack"][-1][1][0] for each in stack.layers)
    assert (one != other).any()


def test_copies_have_the_activation_of_the_original():
    for stack in (Transformer(4, 2, 1, 1, 5, activation=Tanh).encoder, Transformer(4, 2, 1, 1, 5, 0.1, Tanh()).decoder):
        assert all(isinstance(layer.activation, Tanh) for layer in stack.layers)


@pytest.mark.parametrize("norm_first", [True, False])
def test_dropout_everywhere_is_differentiated(norm_first):
    check_layer(TransformerEncoderLayer(4, 2, 3, 0.4, LeakyReLU, norm_first=norm_first, rng=0), x)
    check_layer(TransformerDecoderLayer(4, 2, 3, 0.4, Tanh(), norm_first=norm_first, rng=0), x, x[:2])


def test_the_layers_leave_their_maps():
    layer = TransformerDecoderLayer(4, 2, 5, rng=0).eval()
    layer(x, x[:2])
    assert layer.self_attn.attention_map.shape == (2, 2, 3, 3)
    assert layer.multihead_attn.attention_map.shape == (2, 2, 3, 2)


def test_every_matrix_starts_from_xavier():
    model = Transformer(32, 4, 1, 1, 64, rng=0)
    for name, parameter in model.named_parameters():
        if parameter.data.ndim > 1:
            bound = np.sqrt(6 / sum(parameter.shape))
            assert 0.97 * bound < np.abs(parameter.data).max() <= bound, name
            assert abs(parameter.data.std() / (bound / np.sqrt(3)) - 1) < 0.05, name
    weights = [layer.linear1.weight.data for layer in Transformer(8, 2, 2, 2, 4, rng=0).encoder.layers]
    assert (weights[0] != weights[1]).any()


def test_the_mask_of_the_future():
    mask = Transformer.generate_square_subsequent_mask(3)
    assert mask.dtype == np.float32
    np.testing.assert_array_equal(mask, [[0, -np.inf, -np.inf], [0, 0, -np.inf], [0, 0, 0]])
    model = Transformer(4, 2, 1, 1, 5, rng=0).eval()
    y = model(x, x, tgt_mask=mask)
    later = x.copy()
    later[2] += 1
    np.testing.assert_array_equal(model(x, later, tgt_mask=mask)[:2], y[:2])
    assert (model(x, later)[:2] != model(x, x)[:2]).any()


class Pass(Layer):
    """A custom encoder: the mean over the sequence, everywhere; it takes what Transformer hands on."""

    def forward(self, src, mask=None, src_key_padding_mask=None, is_causal=None):
        self.seen = (mask, src_key_padding_mask, is_causal)
        self.save(len(src), out=src)
        return np.broadcast_to(src.mean(axis=0), src.shape)

    def backward(self, dout):
        dout = self.upstream(dout)
        (n,) = self.saved()
        return np.broadcast_to(dout.sum(axis=0) / n, dout.shape)


def test_custom_parts():
    encoder = Pass()
    model = Transformer(4, 2, 1, 1, 5, 0.0, Tanh, custom_encoder=encoder, rng=0)
    check_layer(model, x, x)
    model(x, x, src_mask=np.zeros((3, 3)), src_is_causal=True)
    assert encoder.seen[0].shape == (3, 3)
    assert encoder.seen[2] is True
    decoder = TransformerDecoder(TransformerDecoderLayer(4, 2, 5, 0.0, rng=0), 1)
    model = Transformer(4, custom_encoder=Identity(), custom_decoder=decoder, rng=0)
    assert model.decoder is decoder


def test_a_layer_that_fails_inside_leaves_nothing_saved():
    model = Transformer(4, 2, 1, 2, 5, rng=0)
    with pytest.raises(LayerError, match=r"decoder\.layers\.0\.multihead_attn.*expected attn_mask of shape"):
        model.forward(x, x, memory_mask=np.zeros((2, 2)))
    assert not any(vars(layer).get("_stack") for layer in model.modules())


@pytest.mark.parametrize(
    ("src", "tgt"),
    [((3, 2, 5), (3, 2, 4)), ((3, 2, 4), (3, 2, 5)), ((3, 2, 4), (3, 1, 4)), ((3, 4), (3, 2, 4)), ((4,), (4,))],
    ids=str,
)
def test_sequences_that_do_not_fit(src, tgt):
    with pytest.raises(LayerError, match=r"expected src and tgt of shapes \(S, N, 4\) and \(T, N, 4\)"):
        Transformer(4, 2, 1, 1, 5)(np.ones(src), np.ones(tgt))


@pytest.mark.parametrize("cls", [TransformerEncoderLayer, TransformerDecoderLayer])
def test_arguments_of_the_layers(cls):
    for activation in ("tanh", 3, np.tanh, lambda: 3):
        with pytest.raises((ValueError, TypeError)):
            cls(4, 2, activation=activation)
    with pytest.raises(ValueError, match="multiple of num_heads"):
        cls(4, 3)
    with pytest.raises(ValueError, match="expected out_features"):
        cls(4, 2, 0)


def test_arguments_of_the_stacks():
    for stack, layer in ((TransformerEncoder, TransformerEncoderLayer), (TransformerDecoder, TransformerDecoderLayer)):
        with pytest.raises(ValueError, match="num_layers"):
            stack(layer(4, 2, 5), 0)
        with pytest.raises(TypeError, match="expected a Layer"):
            stack(layer, 1)
        with pytest.raises(TypeError, match="expected a Layer"):
            stack(layer(4, 2, 5), 1, LayerNorm)


def test_what_they_print():
    layer = TransformerEncoderLayer(4, 2, 5, 0.0, Tanh, norm_first=True, bias=False)
    text = (
        "TransformerEncoderLayer(4, 2, dim_feedforward=5, dropout=0.0, activation=Tanh(), norm_first=True, bias=False)"
    )
    assert repr(layer) == text
    assert repr(TransformerDecoderLayer(4, 2)) == "TransformerDecoderLayer(4, 2)"
    assert repr(TransformerEncoder(layer, 2, LayerNorm(4))) == f"TransformerEncoder({text}, 2, LayerNorm((4,)))"
    model = Transformer(4, 2, 1, 2, 5)
    assert (
        repr(model) == "Transformer(d_model=4, nhead=2, num_encoder_layers=1, num_decoder_layers=2, dim_feedforward=5)"
    )


@pytest.mark.parity
@pytest.mark.parametrize("name", ["relu", "gelu"])
def test_the_functions_of_torch_count_as_their_names(name):
    torch = need("torch")
    layer = TransformerEncoderLayer(4, 2, 5, activation=getattr(torch.nn.functional, name))
    assert type(layer.activation).__name__ == {"relu": "ReLU", "gelu": "GELU"}[name]
