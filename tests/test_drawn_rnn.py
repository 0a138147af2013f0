"""Recurrent layers with drawn shapes and arguments: where torch takes them we agree, where it refuses so do we."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backhand.layers import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell
from tests.cases import Case
from tests.conftest import need
from tests.test_recurrent import normal, packed, start

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore::UserWarning")]  # those are torch's
small = st.integers(1, 4)
rounds = settings(max_examples=120, deadline=None, derandomize=True)


@st.composite
def stacks(draw, cls):
    """(constructor arguments, number of scans)."""
    arguments = {
        "input_size": draw(small),
        "hidden_size": draw(small),
        "num_layers": draw(st.integers(1, 3)),
        "bias": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
        "dropout": draw(st.sampled_from([0, 0.0, 1.0])),
        "bidirectional": draw(st.booleans()),
    }
    if cls is RNN:
        arguments["nonlinearity"] = draw(st.sampled_from(["tanh", "relu"]))
    if cls is LSTM:
        arguments["proj_size"] = draw(st.integers(0, arguments["hidden_size"] - 1))
    return arguments, arguments["num_layers"] * (1 + arguments["bidirectional"])


def states(cls, arguments, *leading):
    c = (*leading, arguments["hidden_size"])
    return [(*leading, arguments.get("proj_size") or c[-1]), c] if cls is LSTM else c


@pytest.mark.parametrize("cls", [RNN, LSTM, GRU])
@rounds
@given(data=st.data())
def test_any_sequence(cls, data):
    need("torch")
    from tests import parity

    arguments, scans = data.draw(stacks(cls))
    steps, batch = data.draw(st.integers(1, 6)), data.draw(st.lists(small, max_size=1))
    shape = [*batch, steps] if arguments["batch_first"] else [steps, *batch]
    inputs = [(*shape, arguments["input_size"])]
    if data.draw(st.booleans()):
        inputs.append(states(cls, arguments, scans, *batch))
    more = {"return_state": data.draw(st.booleans())}
    parity.drawn(Case(cls, (), inputs, eval=data.draw(st.booleans()), kwargs=arguments | more))


@pytest.mark.parametrize("cls", [RNN, LSTM, GRU])
@rounds
@given(data=st.data())
def test_any_lengths(cls, data):
    need("torch")
    from tests import parity

    arguments, scans = data.draw(stacks(cls))
    lengths = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=5))
    steps, batch = max(lengths) + data.draw(st.integers(0, 2)), len(lengths)
    x = normal(*((batch, steps) if arguments["batch_first"] else (steps, batch)), arguments["input_size"])
    layer = cls(**arguments, return_state=True, rng=0, dtype=np.float64)
    inputs = (x, start(layer, scans, (batch,))) if data.draw(st.booleans()) else (x,)
    parity.compare(layer, packed(cls)(**arguments).double(), [(inputs, {"lengths": np.array(lengths)})])
    parity.DRAWN[cls.__name__] += 1


@pytest.mark.parametrize("cls", [RNNCell, LSTMCell, GRUCell])
@settings(rounds, max_examples=60)
@given(data=st.data())
def test_any_cell(cls, data):
    need("torch")
    from tests import parity

    sizes, batch, bias = (data.draw(small), data.draw(small)), data.draw(st.lists(small, max_size=1)), st.booleans()
    more = {"nonlinearity": data.draw(st.sampled_from(["tanh", "relu"]))} if cls is RNNCell else {}
    state = (*batch, sizes[1])
    inputs = [(*batch, sizes[0]), *([[state, state] if cls is LSTMCell else state] if data.draw(bias) else [])]
    parity.drawn(Case(cls, (*sizes, data.draw(bias)), inputs, kwargs=more))


def bent(draw, shape):
    """The shape, or one like it: an axis longer, shorter, lost, or one more."""
    shape = list(shape)
    k = draw(st.integers(0, max(len(shape) - 1, 0)))
    bend = draw(st.sampled_from(["as it is"] * 4 + ["another size", "lost", "one more"]))
    if bend == "another size":
        shape[k] = draw(small)
    elif bend != "as it is":
        shape[k : k + (bend == "lost")] = [] if bend == "lost" else [draw(small)]
    return tuple(shape)


@pytest.mark.parametrize("cls", [RNN, LSTM, GRU, RNNCell, LSTMCell, GRUCell])
@settings(rounds, max_examples=100)
@given(data=st.data())
def test_we_take_what_torch_takes(cls, data):
    torch, draw = need("torch"), data.draw
    from tests import parity

    cell = cls in (RNNCell, LSTMCell, GRUCell)
    arguments = {"input_size": draw(st.integers(0, 4)), "hidden_size": draw(st.integers(0, 4))}
    if not cell:
        arguments |= {"num_layers": draw(st.integers(0, 3)), "dropout": draw(st.sampled_from([0, 0, 0.5, -1, 2]))}
    if cls is LSTM:
        arguments["proj_size"] = draw(st.sampled_from([-1, 0, 0, 0, 1, 2]))
    batch = draw(st.lists(small, max_size=1))
    x = bent(draw, (*([] if cell else [3]), *batch, arguments["input_size"]))
    h, c = (
        bent(draw, (*([] if cell else [arguments["num_layers"]]), *batch, size))
        for size in (max(arguments.get("proj_size", 0), 0) or arguments["hidden_size"], arguments["hidden_size"])
    )
    hx = (normal(*h), normal(*c)) if cls in (LSTM, LSTMCell) else normal(*h)
    hx = hx if draw(st.booleans()) else None

    def ours():
        cls(**arguments, dtype=np.float64)(normal(*x), hx)

    try:
        theirs = getattr(torch.nn, cls.__name__)(**arguments).double()
        theirs(parity.tensor_of(normal(*x), False), parity.tensor_of(hx, False))
    except (ValueError, TypeError, RuntimeError, IndexError):
        with pytest.raises((ValueError, TypeError), match=cls.__name__):
            ours()
    else:
        try:
            ours()
        except ValueError as error:
            # torch's cells also take sizes of 0, and an unbatched x with a state that has an axis too many
            quirk = "_size to be a positive integer, got 0" in str(error) or (len(x) == 1 and len(h) == 2)
            assert cell, error
            assert quirk, error
