"""An update is whole or not at all: interrupts wait, and what could fail is looked at before anything is moved."""

import contextlib
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from backhand.layers import Linear, Parameter, ReLU
from backhand.layers.threads import get_num_threads, in_parts, set_num_threads
from backhand.losses import CrossEntropyLoss
from backhand.models import Sequential
from backhand.training import (
    SGD,
    Adam,
    AdversarialTrainer,
    ChainedScheduler,
    ExponentialMovingAverage,
    LambdaLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
    Trainer,
)
from backhand.training.interrupts import NUMBERS, InFront, Uninterrupted
from tests.optimizing import CLASSES, parameters, run, values

MOVED = "training/optimizers"


@contextlib.contextmanager
def interrupted_at(line, where, number=signal.SIGINT):
    """Raise a signal when the so-manieth line of Python runs in files under `where`; gives the lines that ran."""
    count = [0]

    def trace(frame, event, argument):
        if where not in frame.f_code.co_filename.replace("\\", "/"):
            return None
        if event == "line":
            count[0] += 1
            if count[0] == line:
                signal.raise_signal(number)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield count
    finally:
        sys.settrace(before)


def handler_of(number):
    """Who gets a signal in the end."""
    handler = signal.getsignal(number)
    return handler.behind if isinstance(handler, InFront) else handler


def state_of(optimizer):
    return [{k: np.array(v) for k, v in own.items()} for own in optimizer.state_dict()["state"].values()]


def made(cls, threads=False):
    if threads:
        params = [Parameter(np.random.default_rng(i).standard_normal((800, 1500)).astype(np.float32)) for i in (0, 1)]
    else:
        params = parameters(cls)
    half = len(params) // 2
    optimizer = cls([{"params": params[:half]}, {"params": params[half:], "lr": 0.01}])
    run(optimizer, params, 1)
    for p in params:
        p.grad[...] = 0.1
    return optimizer, params


@pytest.mark.parametrize("cls", CLASSES)
def test_an_interrupt_at_any_line_of_an_update_leaves_all_or_nothing(cls):
    optimizer, params = made(cls)
    before = values(params), state_of(optimizer)
    optimizer.step()
    after = values(params), state_of(optimizer)
    with interrupted_at(-1, MOVED) as lines:
        optimizer.step()
    outcomes = set()
    handler = handler_of(signal.SIGINT)
    for line in range(1, lines[0] + 1):
        optimizer, params = made(cls)
        with pytest.raises(KeyboardInterrupt), interrupted_at(line, MOVED):
            optimizer.step()
        found = values(params), state_of(optimizer)
        moved = not np.array_equal(found[0][0], before[0][0])
        np.testing.assert_equal(found, after if moved else before)
        outcomes.add(moved)
        assert handler_of(signal.SIGINT) is handler
    assert outcomes == {True, False}


@pytest.mark.parametrize("cls", [SGD, Adam])
def test_with_threads_too(cls):
    before = get_num_threads()
    set_num_threads(2)
    try:
        optimizer, params = made(cls, threads=True)
        optimizer.step()
        after = values(params)
        optimizer, params = made(cls, threads=True)
        with pytest.raises(KeyboardInterrupt), interrupted_at(60, MOVED):
            optimizer.step()
        np.testing.assert_equal(values(params), after)
    finally:
        set_num_threads(before)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGALRM", "SIGHUP", "SIGUSR1"])
def test_other_signals_with_a_handler_wait_as_well(name):
    number = getattr(signal, name, None)
    if number is None:
        pytest.skip(f"no {name} here")

    def stop(*_):
        raise TimeoutError

    before = signal.signal(number, stop)
    try:
        optimizer, params = made(Adam)
        optimizer.step()
        after = values(params)
        optimizer, params = made(Adam)
        with pytest.raises(TimeoutError), interrupted_at(60, MOVED, number):
            optimizer.step()
        np.testing.assert_equal(values(params), after)
        assert handler_of(number) is stop
    finally:
        signal.signal(number, before)


def test_every_handler_is_back_whatever_happens():
    seen = []

    def note(number, frame):
        seen.append(number)

    def stop(number, frame):
        raise KeyError(number)

    kept = {number: signal.getsignal(number) for number in NUMBERS}
    try:
        signal.signal(signal.SIGINT, note)
        signal.signal(signal.SIGTERM, stop)
        with Uninterrupted(), Uninterrupted():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            assert seen == []
        assert seen == [signal.SIGINT]
        with pytest.raises(KeyError), Uninterrupted():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(ZeroDivisionError), Uninterrupted():
            raise ZeroDivisionError
        assert handler_of(signal.SIGINT) is note and handler_of(signal.SIGTERM) is stop
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with Uninterrupted():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def test_handlers_are_as_they_were_when_the_last_optimizer_is_gone():
    program = """
import gc, signal, numpy as np
from backhand.layers import Linear
from backhand.training import SGD, Trainer
from backhand.losses import MSELoss
usual = signal.getsignal(signal.SIGINT)
model = Linear(2, 1, rng=0)
first, second = SGD(model.parameters(), 0.1), SGD(model.parameters(), 0.1)
for optimizer in (first, second):
    optimizer.step()
    assert signal.getsignal(signal.SIGINT).behind is usual
seen = []
before = signal.signal(signal.SIGINT, lambda *_: seen.append(1))  # somebody else's, for a while
first.step()
signal.raise_signal(signal.SIGINT)
assert seen == [1]
signal.signal(signal.SIGINT, before)
first.step()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    seen.append(2)
assert seen == [1, 2]
del first, optimizer
gc.collect()
assert signal.getsignal(signal.SIGINT).behind is usual
del second
gc.collect()
assert signal.getsignal(signal.SIGINT) is usual
trainer = Trainer(model, MSELoss(), SGD(model.parameters(), 0.1), progress=False)
trainer.fit((np.ones((4, 2)), np.ones((4, 1))), epochs=1)
del trainer
gc.collect()
assert signal.getsignal(signal.SIGINT) is usual
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_state_is_not_lost_where_no_memory_is_left_to_lay_it_out(monkeypatch):
    def none_left(*_):
        raise MemoryError

    optimizer, params = made(Adam)
    params[0].requires_grad = False
    optimizer.step()
    before = state_of(optimizer)
    saved = optimizer.state_dict()
    params[0].requires_grad = True
    with monkeypatch.context() as patched:
        patched.setattr("backhand.training.optimizers.base.Block", none_left)
        for change in (optimizer.step, lambda: optimizer.load_state_dict(saved)):
            with pytest.raises(MemoryError):
                change()
            np.testing.assert_equal(state_of(optimizer), before)
    optimizer.step()
    assert len(state_of(optimizer)) == len(before)


def test_in_another_thread_an_update_is_made_as_well():
    optimizer, params = made(Adam)
    optimizer.step()
    after = values(params)
    optimizer, params = made(Adam)
    thread = threading.Thread(target=optimizer.step)
    thread.start()
    thread.join()
    np.testing.assert_equal(values(params), after)


# ---------------------------------------------------------------------- errors


@pytest.mark.parametrize("cls", CLASSES)
def test_a_strict_error_state_of_numpy_does_not_break_an_update(cls):
    optimizer, params = made(cls)
    for p in params:
        p.grad[...] = 1e-300  # squares underflow
        p.grad.reshape(-1)[0] = 1e300  # and overflow
    with np.errstate(all="raise"):
        optimizer.step()
    other, expected = made(cls)
    for p, q in zip(params, expected, strict=True):
        assert p.data.shape == q.data.shape
        q.grad[...] = 1e-300
        q.grad.reshape(-1)[0] = 1e300
    with np.errstate(all="ignore"):
        other.step()
    np.testing.assert_equal(values(params), values(expected))


BAD = {"lr": [None, "fast", np.nan, np.inf], "betas": [None, (0.9, 1.0), (0.9, None)], "eps": ["small"]}
BAD |= {"weight_decay": ["none", np.nan], "momentum": [[0.9]], "rho": [None], "alpha": [1j], "etas": [(0.5,)]}


@pytest.mark.parametrize(
    ("cls", "name", "value"),
    [(cls, name, value) for cls in CLASSES for name, bad in BAD.items() for value in bad],
    ids=str,
)
def test_an_option_that_was_changed_into_nonsense_is_found_before_the_first_group_moves(cls, name, value):
    optimizer, params = made(cls)
    if name not in optimizer.param_groups[1]:
        assert name not in optimizer.defaults
        return
    before, state = values(params), state_of(optimizer)
    optimizer.param_groups[1][name] = value
    for _ in range(2):
        with pytest.raises(ValueError, match=f"{cls.__name__}: expected {name}"):
            optimizer.step()
        np.testing.assert_equal((values(params), state_of(optimizer)), (before, state))
    optimizer.param_groups[1][name] = optimizer.param_groups[0][name]
    optimizer.step()


def test_a_rate_that_rounding_has_taken_below_zero_is_taken():
    optimizer, params = made(Adam)
    optimizer.param_groups[0]["lr"] = -1e-20
    optimizer.step()
    assert all(np.isfinite(p.data).all() for p in params)


def test_where_no_thread_can_be_started_the_parts_are_worked_on_here(monkeypatch):
    class Full:
        def submit(self, *_):
            raise RuntimeError("can't start new thread")

    before = get_num_threads()
    set_num_threads(2)
    try:
        monkeypatch.setattr("backhand.layers.threads._pool", lambda workers: Full())
        assert in_parts(lambda part: (part.start, part.stop), 10) == [(0, 5), (5, 10)]
    finally:
        set_num_threads(before)


# ---------------------------------------------------------------------- what goes with it


def network():
    return Sequential(Linear(4, 8, rng=0), ReLU(), Linear(8, 3, rng=1))


def test_an_average_is_whole_too():
    def average():
        model = network()
        one = ExponentialMovingAverage(model, 0.5)
        one.update()
        for p in model.parameters():
            p.data += 1
        return one

    one = average()
    before = one.state_dict()
    one.update()
    after = one.state_dict()
    outcomes = set()
    for line in range(1, 60):
        one = average()
        with contextlib.suppress(KeyboardInterrupt), interrupted_at(line, "training/averaging"):
            one.update()
        moved = one.n_averaged == 2
        np.testing.assert_equal(one.state_dict(), after if moved else before)
        outcomes.add(moved)
    assert outcomes == {True, False}


SCHEDULES = {
    "StepLR": lambda o: StepLR(o, 1, 0.5),
    "LambdaLR": lambda o: LambdaLR(o, lambda t: 1 / (1 + t)),
    "OneCycleLR": lambda o: OneCycleLR(o, 0.1, 20, cycle_momentum=False),
    "SequentialLR": lambda o: SequentialLR(o, [StepLR(o, 1, 0.5), StepLR(o, 1, 0.9)], [1]),
    "ChainedScheduler": lambda o: ChainedScheduler([StepLR(o, 1, 0.5), StepLR(o, 1, 0.9)]),
    "ReduceLROnPlateau": lambda o: ReduceLROnPlateau(o, patience=0, factor=0.5),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_and_the_rates_of_all_groups_agree(name):
    def schedule():
        optimizer, _ = made(SGD)
        one = SCHEDULES[name](optimizer)
        if name == "ReduceLROnPlateau":
            one.step(1.0)
        return one, optimizer

    def states(one, optimizer):
        own = {k: v for k, v in one.state_dict().items() if k != "lr_lambdas"}
        return [str(own), [group["lr"] for group in optimizer.param_groups]]

    arguments = (2.0,) if name == "ReduceLROnPlateau" else ()
    one = schedule()
    before = states(*one)
    one[0].step(*arguments)
    after = states(*one)
    assert before != after
    for line in range(1, 80):
        one = schedule()
        with contextlib.suppress(KeyboardInterrupt), interrupted_at(line, "training/schedules"):
            one[0].step(*arguments)
        assert states(*one) in (before, after)


def test_the_trainers_count_agrees_with_the_weights_the_average_and_the_schedule():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((12, 4)).astype(np.float32), rng.integers(0, 3, 12)

    def stopped(line):
        model = network()
        optimizer = Adam(model.parameters(), 0.01)
        schedule = StepLR(optimizer, 1, 0.5)
        average = ExponentialMovingAverage(model, 0.5)
        one = Trainer(
            model, CrossEntropyLoss(), optimizer, schedule=schedule, schedule_every="batch", progress=False,
            after_step=average.update, log_every=1,
        )  # fmt: skip
        with contextlib.suppress(KeyboardInterrupt), interrupted_at(line, "training/"):
            one.fit((x, y), epochs=1, batch_size=4)
        return one, model.state_dict(), average, schedule

    wanted = {}  # the number of steps -> the weights
    for line in range(300, 2000, 7):
        one, weights, average, schedule = stopped(line)
        assert average.n_averaged == schedule.last_epoch == one.steps
        np.testing.assert_equal(weights, wanted.setdefault(one.steps, weights))
        steps = {float(own["step"]) for own in one.optimizer.state_dict()["state"].values()}
        assert steps == ({float(one.steps)} if one.steps else set())
    assert {0, 1, 2, 3} <= set(wanted)


def test_a_gans_count_agrees_with_its_generator():
    generator, critic = Linear(64, 2, rng=0), Linear(2, 1, rng=1)
    real = np.random.default_rng(0).standard_normal((4, 2)).astype(np.float32)
    for line in range(200, 900, 9):
        optimizers = [Adam(each.parameters(), 0.01) for each in (generator, critic)]
        one = AdversarialTrainer(generator, critic, *optimizers, progress=False)
        with contextlib.suppress(KeyboardInterrupt), interrupted_at(line, "training/"):
            one.fit(real, epochs=3, batch_size=4)
        steps = {float(own["step"]) for own in optimizers[0].state_dict()["state"].values()}
        assert steps == ({float(one.steps)} if one.steps else set())


# ---------------------------------------------------------------------- byte order


@pytest.mark.parametrize("cls", CLASSES)
def test_states_and_parameters_of_another_byte_order_come_in_as_those_of_this_machine(cls):
    optimizer, params = made(cls)
    state = optimizer.state_dict()
    for own in state["state"].values():
        for name, value in own.items():
            own[name] = np.asarray(value).astype(np.asarray(value).dtype.newbyteorder(">"))
    other_params = [Parameter(p.data.astype(">f8")) for p in params]
    half = len(params) // 2
    other = cls([{"params": other_params[:half]}, {"params": other_params[half:]}])
    other.load_state_dict(state)
    for own in other.state.values():
        assert all(np.asarray(value).dtype.isnative for value in own.values())
    for p, q in zip(params, other_params, strict=True):
        assert q.data.dtype.isnative and q.grad.dtype.isnative
        q.grad[...] = p.grad
    optimizer.step()
    other.step()
    np.testing.assert_equal(values(params), values(other_params))


def test_a_dtype_of_another_byte_order_makes_native_weights():
    assert Parameter(np.ones(2, ">f4")).data.dtype.isnative and Parameter(np.ones(2, ">f8")).dtype == np.float64
    layer = Linear(2, 3, rng=0, dtype=">f4")
    assert layer.weight.data.dtype == np.float32 and layer.weight.data.dtype.isnative
