"""Every class that the toolkit promises is there, is checked, is compared with torch, and explains itself."""

import inspect

import numpy as np
import pytest

import backhand.layers
import backhand.losses
import backhand.models
from tests.cases import families
from tests.conftest import need

LAYERS = [
    "Linear",
    "Bilinear",
    "Identity",
    "Embedding",
    "EmbeddingBag",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "Unfold",
    "Fold",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "LPPool1d",
    "LPPool2d",
    "LPPool3d",
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
    "MaxUnpool1d",
    "MaxUnpool2d",
    "MaxUnpool3d",
    "ZeroPad1d",
    "ZeroPad2d",
    "ZeroPad3d",
    "ConstantPad1d",
    "ConstantPad2d",
    "ConstantPad3d",
    "ReflectionPad1d",
    "ReflectionPad2d",
    "ReflectionPad3d",
    "ReplicationPad1d",
    "ReplicationPad2d",
    "ReplicationPad3d",
    "CircularPad1d",
    "CircularPad2d",
    "CircularPad3d",
    "Upsample",
    "PixelShuffle",
    "PixelUnshuffle",
    "ChannelShuffle",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "LayerNorm",
    "RMSNorm",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LocalResponseNorm",
    "ReLU",
    "ReLU6",
    "LeakyReLU",
    "PReLU",
    "RReLU",
    "ELU",
    "SELU",
    "CELU",
    "GELU",
    "SiLU",
    "Mish",
    "Sigmoid",
    "LogSigmoid",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "Hardshrink",
    "Softshrink",
    "Tanh",
    "Tanhshrink",
    "Softplus",
    "Softsign",
    "Threshold",
    "GLU",
    "Softmax",
    "Softmin",
    "LogSoftmax",
    "Softmax2d",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "AlphaDropout",
    "FeatureAlphaDropout",
    "RNN",
    "LSTM",
    "GRU",
    "RNNCell",
    "LSTMCell",
    "GRUCell",
    "MultiheadAttention",
    "TransformerEncoderLayer",
    "TransformerDecoderLayer",
    "TransformerEncoder",
    "TransformerDecoder",
    "Transformer",
    "SinusoidalPositionalEncoding",
    "RotaryPositionalEncoding",
    "Flatten",
    "Unflatten",
    "Reshape",
    "Permute",
    "CosineSimilarity",
    "PairwiseDistance",
]

GATES = ["Add", "Copy", "Multiply", "Max", "Exp", "Reciprocal", "Negate", "AddConstant", "MultiplyConstant"]

LOSSES = [
    "L1Loss",
    "MSELoss",
    "SmoothL1Loss",
    "HuberLoss",
    "CrossEntropyLoss",
    "NLLLoss",
    "KLDivLoss",
    "BCELoss",
    "BCEWithLogitsLoss",
    "PoissonNLLLoss",
    "GaussianNLLLoss",
    "HingeEmbeddingLoss",
    "MarginRankingLoss",
    "MultiMarginLoss",
    "MultiLabelMarginLoss",
    "SoftMarginLoss",
    "MultiLabelSoftMarginLoss",
    "CosineEmbeddingLoss",
    "TripletMarginLoss",
    "CTCLoss",
    "InfoNCELoss",
    "NTXentLoss",
]

CONTAINERS = ["Sequential", "Residual", "Sum", "Concat", "Parallel", "Repeat", "Unroll"]

PLACES = {
    **dict.fromkeys(LAYERS + GATES, backhand.layers),
    **dict.fromkeys(LOSSES, backhand.losses),
    **dict.fromkeys(CONTAINERS, backhand.models),
}
CHECKED = {case.cls.__name__ for case in families("CASES")}
COMPARED = CHECKED | {case.cls.__name__ for case in families("GRID")}

# Classes without a twin of the same name and meaning in torch.nn; InfoNCELoss and NTXentLoss are compared with
# compositions of torch's functions in test_drawn_loss.py.
OURS_ALONE = {
    *GATES,
    *CONTAINERS,
    "InfoNCELoss",
    "NTXentLoss",
    "Permute",
    "Reshape",
    "RotaryPositionalEncoding",
    "SinusoidalPositionalEncoding",
}


def missing(names):
    """What of the promised is not exported, or has no row for check_layer."""
    return sorted(name for name in names if not hasattr(PLACES[name], name) or name not in CHECKED)


def test_nothing_that_is_promised_is_missing_or_unchecked():
    assert missing(PLACES) == []


@pytest.mark.parametrize("name", sorted(PLACES))
def test_the_table_notices_what_is_missing(name, monkeypatch):
    monkeypatch.delattr(PLACES[name], name)
    assert name in missing(PLACES)


@pytest.mark.parity
def test_everything_that_torch_has_is_compared_with_it():
    torch = need("torch")
    promised = {name for name in PLACES if name not in OURS_ALONE}
    assert sorted(name for name in promised if not hasattr(torch.nn, name)) == []
    assert sorted(promised - COMPARED) == []
    assert sorted(name for name in OURS_ALONE - {"Sequential"} if hasattr(torch.nn, name)) == []


@pytest.mark.parity
@pytest.mark.parametrize("name", sorted(name for name in PLACES if name not in OURS_ALONE))
def test_constructor_arguments_are_those_of_torch(name):
    """The same names in the same order; torch's deprecated ones and its device and dtype do not exist here."""
    torch = need("torch")
    gone = ("device", "dtype", "size_average", "reduce", "args", "kwargs", "min_value", "max_value")
    ours = inspect.signature(getattr(PLACES[name], name)).parameters
    theirs = [p for p in inspect.signature(getattr(torch.nn, name)).parameters if p not in gone]
    if not theirs or name in ("RNN", "LSTM", "GRU"):  # torch writes *args there; test_recurrent.py has the names
        return
    positional = [p for p, kind in ours.items() if kind.kind is kind.POSITIONAL_OR_KEYWORD]
    # of the losses only the first ones are positional, since torch's deprecated ones stand between
    assert theirs[: len(positional)] == positional
    assert set(theirs) <= set(ours)
    for argument in theirs:
        wanted = inspect.signature(getattr(torch.nn, name)).parameters[argument].default
        got = ours[argument].default
        if wanted is not inspect.Parameter.empty and not callable(wanted):
            assert got == wanted or np.isclose(got, wanted), f"{argument}={got!r}, torch {wanted!r}"


@pytest.mark.parametrize("name", sorted(PLACES))
def test_help_is_enough_to_use_it(name):
    """One sentence, an equation (indented, with an equals sign or an arrow), and the shapes."""
    text = inspect.getdoc(getattr(PLACES[name], name))
    first, *rest = text.split("\n")
    assert first.endswith("."), first
    assert any(line.startswith("    ") and "=" in line for line in rest), "no equation"
    body = "\n".join(rest)
    assert any(
        word in body for word in ("x :", "x, y", "x_i :", "x1", "y :", "query", "input", "target", "anchor", "shape :")
    ), "no shapes"
