"""RNN, LSTM, GRU and their cells."""

import numpy as np

from backhand.layers import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell
from tests.cases import Case, grid

STATE = [(2, 4), (2, 4)]
FAR = np.array([[[-1e4, 1e4, 3.0], [1e4, 1e4, -1e4]], [[0.0, -0.0, 1e-310], [1e4, -1.0, 2.0]]])  # (2, 2, 3)


def hx(cls, *shape, proj=0):
    """The specification of an initial state of that shape."""
    return [(*shape[:-1], proj or shape[-1]), shape] if cls is LSTM else shape


def stacks(cls, **choices):
    """Every combination of the choices, batched and not, with an initial state and without."""
    for case in grid(cls, [], 3, 4, **choices):
        k = case.kwargs
        scans, proj = k.get("num_layers", 1) * (2 if k.get("bidirectional") else 1), k.get("proj_size", 0)
        batched = (2, 5, 3) if k.get("batch_first") else (5, 2, 3)
        for inputs in (
            [batched],
            [batched, hx(cls, scans, 2, 4, proj=proj)],
            [(5, 3)],
            [(5, 3), hx(cls, scans, 4, proj=proj)],
        ):
            yield Case(cls, (3, 4), inputs, kwargs={**k, "return_state": True})
        yield Case(cls, (3, 4), [batched], kwargs=k, eval=True)


CASES = [
    Case(RNNCell, (3, 4), [(2, 3), (2, 4)]),
    Case(RNNCell, (3, 4), [(2, 3)], kwargs={"bias": False}),
    Case(RNNCell, (3, 4, True, "relu"), [(3,), (4,)]),
    Case(LSTMCell, (3, 4), [(2, 3), STATE]),
    Case(LSTMCell, (3, 4, False), [(3,)]),
    Case(GRUCell, (3, 4), [(2, 3), (2, 4)]),
    Case(GRUCell, (3, 4, False), [(3,)]),
    Case(RNN, (3, 4), [(5, 2, 3)]),
    Case(RNN, (3, 4, 2, "relu"), [(3, 2, 3), (4, 2, 4)], kwargs={"bidirectional": True, "return_state": True}),
    Case(LSTM, (3, 4), [(5, 2, 3)]),
    Case(LSTM, (3, 4, 2), [(2, 3, 3), hx(LSTM, 2, 2, 4)], kwargs={"batch_first": True, "return_state": True}),
    Case(LSTM, (3, 4), [(4, 3), hx(LSTM, 2, 4, proj=2)], kwargs={"bidirectional": True, "proj_size": 2}),
    Case(LSTM, (3, 4, 2), [(4, 2, 3)], kwargs={"dropout": 0.5}, torch=False),
    Case(GRU, (3, 4), [(5, 2, 3)]),
    Case(GRU, (3, 4, 2), [(3, 2, 3), (4, 2, 4)], kwargs={"bidirectional": True, "return_state": True}),
    Case(GRU, (3, 4), [(4, 3), (1, 4)], kwargs={"bias": False, "batch_first": True}),
]

GRID = [
    *(
        Case(cls, (3, 4), [(*n, 3), *state], kwargs={"bias": bias, **more})
        for cls, more in [(RNNCell, {"nonlinearity": "tanh"}), (RNNCell, {"nonlinearity": "relu"}), (GRUCell, {})]
        for bias in (True, False)
        for n in [(), (1,), (4,)]
        for state in ([], [(*n, 4)])
    ),
    *(
        Case(LSTMCell, (3, 4), [(*n, 3), *state], kwargs={"bias": bias})
        for bias in (True, False)
        for n in [(), (1,), (4,)]
        for state in ([], [[(*n, 4), (*n, 4)]])
    ),
    *stacks(
        RNN,
        num_layers=[1, 2, 3],
        nonlinearity=["tanh", "relu"],
        bias=[True, False],
        batch_first=[False, True],
        bidirectional=[False, True],
    ),
    *stacks(
        LSTM,
        num_layers=[1, 2, 3],
        bias=[True, False],
        batch_first=[False, True],
        bidirectional=[False, True],
        proj_size=[0, 1, 3],
    ),
    *stacks(GRU, num_layers=[1, 2, 3], bias=[True, False], batch_first=[False, True], bidirectional=[False, True]),
    # dropout: everything or nothing goes, and in eval it changes nothing
    *(
        Case(
            cls, (3, 4), [(5, 2, 3)], kwargs={"num_layers": layers, "dropout": p, "bidirectional": both}, eval=evaluate
        )
        for cls in (RNN, LSTM, GRU)
        for layers in (1, 2, 3)
        for both in (False, True)
        for p, evaluate in [(0, False), (1.0, False), (0.3, True), (1, True)]
    ),
    *(
        Case(cls, (3, 1), [shape], kwargs={"bidirectional": True, "num_layers": 2})
        for cls in (RNN, LSTM, GRU)
        for shape in [(1, 1, 3), (1, 3), (1, 4, 3), (7, 1, 3)]
    ),
    *(
        Case(cls, (3, 4, 2), [x], kwargs={"return_state": True})
        for cls in (RNN, LSTM, GRU)
        for x in (FAR, np.where(FAR > 1e3, np.inf, FAR))
    ),
    *(Case(cls, (3, 4), [FAR[0]]) for cls in (RNNCell, LSTMCell, GRUCell)),
]
