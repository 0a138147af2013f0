"""The first nan or inf is named: layer, direction and sample; and the step that failed can be made again."""

import json

import numpy as np
import pytest

from backhand.inspection import find_nonfinite
from backhand.layers import (
    BatchNorm1d,
    Dropout,
    Exp,
    Flatten,
    Layer,
    LayerError,
    Linear,
    MultiplyConstant,
    Reciprocal,
    ReLU,
    Sigmoid,
    Tanh,
)
from backhand.losses import BCEWithLogitsLoss, CrossEntropyLoss, MSELoss
from backhand.models import Repeat, Residual, Sequential
from backhand.training import SGD, FailedStep, Trainer, TrainingError, replay
from tests.cases import families
from tests.looking import state, untouched, used


class Root(Layer):
    """y = sqrt(x), whose derivative is infinite at 0."""

    def forward(self, x):
        y = np.sqrt(x)
        self.save(y, out=y)
        return y

    def backward(self, dout):
        dout = self.upstream(dout)
        (y,) = self.saved()
        return dout / (2 * y)


def inputs(n=6, features=4):
    return np.random.default_rng(0).standard_normal((n, features)).astype(np.float32)


# ---------------------------------------------------------------------- where it comes from


def test_forward_names_the_layer_and_the_sample():
    model = Sequential(Linear(4, 4, rng=0), Residual(Sequential(ReLU(), Exp())), Linear(4, 3, rng=1), Tanh())
    x = inputs()
    x[3] *= 1e4
    with np.errstate(all="ignore"):
        model = used(model, x)
    with untouched(model):
        found = find_nonfinite(model, x, loss=CrossEntropyLoss(), target=np.zeros(6, int))
    assert (found.direction, found.name, found.kind, found.what) == ("forward", "1.body.1", "Exp", "output")
    assert (found.sample, found.samples, found.value) == (3, 1, np.inf) and found.index[0] == 3
    assert found.low == 0 and found.high > 1000
    assert str(found).startswith("forward: '1.body.1' (Exp) gave inf for sample 3 (index [3, ")
    assert find_nonfinite(model, inputs()) is None


def test_backward_names_the_layer_that_was_handed_good_numbers():
    x = np.abs(inputs()) + 1
    x[2, 1] = 0
    found = find_nonfinite(Sequential(MultiplyConstant(2), Root(), Linear(4, 2, rng=0)), x)
    assert (found.direction, found.name, found.what, found.sample) == ("backward", "1", "dx", 2)
    assert "backward: '1' (Root) handed down" in str(found) and "from a finite upstream between" in str(found)


def test_a_weight_gradient_that_is_too_large():
    model = Sequential(Linear(4, 3, rng=0), Linear(3, 2, rng=1))
    x = inputs()
    x *= 1e25
    dout = np.ones((6, 2), np.float32)
    dout[4] = 1e20
    found = find_nonfinite(model, x, dout=dout)
    assert (found.direction, found.name, found.what) == ("backward", "1", "weight")
    assert found.sample == 4 and "the largest upstream is that of sample 4" in str(found)


def test_a_loss_that_is_too_large():
    x = inputs()
    x[5] *= 1e30
    found = find_nonfinite(Flatten(), x, loss=MSELoss(), target=np.zeros((6, 4)))
    assert (found.direction, found.name, found.kind, found.sample) == ("forward", "loss", "MSELoss", 5)
    assert find_nonfinite(Flatten(), x, loss=BCEWithLogitsLoss(), target=np.zeros((6, 4))) is None


def test_data_and_parameters_come_first():
    model = Sequential(Linear(4, 2, rng=0))
    x = inputs()
    target = np.zeros((6, 2), np.float32)
    target[1, 1] = np.nan
    found = find_nonfinite(model, x, loss=MSELoss(), target=target)
    assert str(found) == "data: the target holds nan in sample 1 (index [1, 1]; in 1 sample)"
    x[2:4, 0] = np.inf
    found = find_nonfinite(model, x, loss=MSELoss(), target=target)
    assert str(found) == "data: the input holds inf in sample 2 (index [2, 0]; in 2 samples)"
    model[0].bias.data[1] = np.nan
    found = find_nonfinite(model, inputs())
    assert str(found) == "parameters: '0.bias' holds nan before anything is computed (index [1])"


def test_a_layer_that_is_called_again_and_rows_that_hold_several_steps():
    model = Repeat(Sequential(MultiplyConstant(1e15)), 3)
    found = find_nonfinite(model, np.ones((2, 3), np.float32))
    assert found.name == "body.0" and found.high == pytest.approx(1e30, rel=1e-5)
    x = np.ones((3, 5, 2), np.float32)
    x[1, 4] = 1e3
    found = find_nonfinite(Sequential(Flatten(0, 1), Exp()), x)
    assert found.index == (9, 0) and found.sample == 1


def test_a_container_that_spoils_what_it_hands_to_its_layers():
    class Scaled(Sequential):
        def forward(self, x):
            return super().forward(x * np.float32(1e30) * np.float32(1e30))

    found = find_nonfinite(Sequential(Scaled(Flatten(), ReLU())), inputs())
    assert (found.name, found.kind) == ("0", "Scaled")


@pytest.mark.parametrize("case", families("CASES"), ids=str)
def test_nothing_is_found_where_there_is_nothing(case):
    arrays = case.arrays()
    model = used(case.build(), *arrays)
    with untouched(model):
        assert find_nonfinite(model, arrays) is None


# ---------------------------------------------------------------------- the Trainer


class Fragile(Layer):
    """Exp of what is left when some of it was dropped: it fails for some masks only."""

    def forward(self, x):
        y = np.exp(np.where(x > 3.9, 1000, 0)).astype(x.dtype)
        self.save(out=y)
        return y

    def backward(self, dout):
        self.upstream(dout)
        self.saved()
        return np.zeros_like(dout)


def fragile(seed):
    return Sequential({"norm": BatchNorm1d(4), "drop": Dropout(0.5, rng=seed), "odd": Fragile(), "out": Linear(4, 2)})


def stopped(model, x, y, folder, seed=0, **options):
    one = Trainer(model, CrossEntropyLoss(), SGD(model.parameters(), 0.1), folder=folder, progress=False, **options)
    with np.errstate(all="ignore"), pytest.raises(TrainingError) as caught:
        one.fit((x, y), epochs=50, batch_size=5)
    return caught.value


def test_a_run_that_fails_by_chance_can_be_replayed(tmp_path):
    rng = np.random.default_rng(1)
    x, y = 0.9 * rng.standard_normal((200, 4)).astype(np.float32), rng.integers(0, 2, 200)
    model = fragile(seed=0)
    error = stopped(model, x, y, tmp_path)
    assert error.step > 1 and error.found.name == "odd" and error.found.direction == "forward"
    message = str(error)
    assert f"First of all, {error.found}." in message
    assert f"print(replay({str(tmp_path / 'failed_step.npz')!r}, model, loss))" in message
    assert json.loads((tmp_path / "history.jsonl").read_text().splitlines()[-1])["error"] == message
    other, loss = fragile(seed=9), CrossEntropyLoss()
    found = replay(tmp_path, other, loss)
    assert found == error.found
    step = FailedStep.load(tmp_path / "failed_step.npz")
    assert step.words["step"] == error.step and len(step.inputs[0]) == len(step.target) == 5
    # model and file hold what was there before the step, generators included
    assert state(other)[1] == state(model)[1]
    np.testing.assert_equal(other.state_dict(), model.state_dict())
    with np.errstate(all="ignore"):
        assert not np.isfinite(model["odd"](model["drop"](model["norm"](step.inputs[0])))).all()


def test_without_a_folder_the_message_says_it_all():
    x = inputs(20)
    model = Sequential(Linear(4, 3, rng=0), Reciprocal(), Linear(3, 2, rng=0))
    for parameter in model[0].parameters():
        parameter.data[1] = 0
    error = stopped(model, x, np.zeros(20, int), None)
    assert "First of all, forward: '1' (Reciprocal) gave inf for sample 0 " in str(error) and "replay" not in str(error)


def test_a_step_that_is_finite_the_second_time_and_a_trace_that_fails(tmp_path):
    class Once(Sigmoid):
        calls = [0]

        def forward(self, x):
            self.calls[0] += 1
            return super().forward(x) * (np.nan if self.calls[0] == 5 else 1)

    x, y = inputs(20), np.zeros(20, int)
    error = stopped(Sequential(Linear(4, 2, rng=0), Once()), x, y, tmp_path)
    assert error.found is None and "computed once more, this step was finite" in str(error)

    class NotCopied(Sigmoid):
        def __deepcopy__(self, memo):
            raise TypeError("not me")

        def forward(self, x):
            return super().forward(x) * np.nan

    error = stopped(Sequential(Linear(4, 2, rng=0), NotCopied()), x, y, tmp_path)
    assert "the loss is nan" in str(error) and "not traced (TypeError: not me)" in str(error)


def test_files_that_are_something_else(tmp_path):
    np.savez(tmp_path / "other.npz", a=1)
    with pytest.raises(ValueError, match=r"other.npz: expected a step that a Trainer has saved, got arrays \['a'\]"):
        FailedStep.load(tmp_path / "other.npz")
    with pytest.raises(FileNotFoundError):
        replay(tmp_path, Flatten(), MSELoss())
    model, loss = Sequential(Dropout(rng=0), Linear(4, 2)), MSELoss()
    FailedStep.of(model, loss, (inputs(),), np.zeros((6, 2)), {}).save(tmp_path / "failed_step.npz")
    with pytest.raises(LayerError, match="expected 1 generators in model and loss, got 0"):
        replay(tmp_path, Sequential(Flatten(), Linear(4, 2)), loss)
    with pytest.raises(LayerError, match="state_dict does not fit"):
        replay(tmp_path, Sequential(Dropout(rng=0), Linear(4, 3)), loss)
    mersenne = Dropout(rng=np.random.Generator(np.random.MT19937(3)))
    FailedStep.of(mersenne, loss, (inputs(),), np.zeros((6, 4)), {}).save(tmp_path / "failed_step.npz")
    other = Dropout(rng=np.random.Generator(np.random.MT19937(5)))
    replay(tmp_path, other, loss)
    assert state(other)[1] == state(mersenne)[1]


class Stop(Layer):
    def forward(self, x):
        if self.training and self.caching and hasattr(self, "armed"):
            raise KeyboardInterrupt
        self.save(out=x)
        return x

    def backward(self, dout):
        self.saved()
        return dout


def test_an_interrupted_step_gives_the_generators_back():
    model = Sequential(Dropout(rng=0), Linear(4, 2, rng=0), Stop())
    one = Trainer(model, CrossEntropyLoss(), SGD(model.parameters(), 0.1), progress=False)
    one.fit((inputs(), np.zeros(6, int)), epochs=1)
    before = state(model)[1]
    model(inputs())
    assert state(model)[1] != before
    before = state(model)[1]
    model[2].armed = True
    with pytest.raises(KeyboardInterrupt):
        one.fit((inputs(), np.zeros(6, int)), epochs=1)
    assert state(model)[1] == before
