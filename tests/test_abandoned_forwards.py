"""Forwards that nobody undoes: where several wait, the older ones go with the gradients, or a warning comes.

What is wanted still must not go: programs that PyTorch runs, with gradients set to zero at odd moments.
"""

from __future__ import annotations

import copy
import pickle
import threading
import warnings

import numpy as np
import pytest

from backhand.layers import BatchNorm1d, GRUCell, Layer, LayerNorm, Linear, ReLU, Sigmoid
from backhand.layers.guard import SEVERAL, SEVERAL_OF_NOBODY
from backhand.losses import CrossEntropyLoss, MSELoss
from backhand.models import MLP, Residual, Sequential
from backhand.training import SGD
from tests.cases import families

CASES = families("CASES")


def saved(*layers):
    """How many entries wait on the stacks."""
    return sum(len(each._stack or ()) for layer in layers for each in layer.modules())


class OfTwo(Layer):
    """A composite as a user writes one."""

    def __init__(self):
        self.first, self.between, self.last = Linear(4, 8, rng=0), ReLU(), Linear(8, 3, rng=1)

    def forward(self, x):
        return self.last(self.between(self.first(x)))

    def backward(self, dout):
        return self.first.backward(self.between.backward(self.last.backward(dout)))


MODELS = {
    "MLP": lambda: MLP(4, 8, 3, rng=0),
    "Sequential": lambda: Sequential(Linear(4, 8, rng=0), Sigmoid(), Linear(8, 3, rng=1)),
    "Residual first": lambda: Sequential(Residual(Linear(4, 4, rng=0)), Linear(4, 3, rng=1)),
    "nothing saved first": lambda: Sequential(Sequential(), Linear(4, 3, rng=1)),
    "one layer": lambda: Linear(4, 3, rng=0),
    "a user's": OfTwo,
}


@pytest.mark.parametrize("order", ["zero forward", "forward zero"])
@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_a_loop_in_which_steps_fail_does_not_grow(build, order):
    model, loss = build(), CrossEntropyLoss()
    update = SGD(model.parameters(), lr=0.01)
    x, y = np.ones((2, 4), np.float32), np.array([0, 2])
    most = 0
    for step in range(240):
        if order == "zero forward":
            update.zero_grad()
        loss.forward(model.forward(x), y)
        most = max(most, saved(model, loss))
        if order == "forward zero":
            update.zero_grad()
        if step % 2 and step < 236:
            continue  # this step has failed before its backward
        model.backward(loss.backward())
        update.step()
    single = build()
    single.forward(x)
    once = saved(single)
    assert saved(model) <= (SEVERAL + 1) * once and saved(loss) <= SEVERAL_OF_NOBODY
    assert most <= (SEVERAL + 2) * once + SEVERAL_OF_NOBODY + 2


def test_layers_that_are_called_one_by_one_do_not_grow_either():
    first, between, last, loss = Linear(4, 8, rng=0), ReLU(), Linear(8, 3, rng=1), MSELoss()
    update = SGD([*first.parameters(), *last.parameters()], lr=0.01)
    for _ in range(200):
        update.zero_grad()
        loss(last(between(first(np.ones((2, 4))))), np.zeros((2, 3)))
    assert saved(first, last) <= 2 * (SEVERAL + 1) and saved(between, loss) <= 2 * (SEVERAL_OF_NOBODY + 1)


def test_what_was_abandoned_takes_no_part_in_the_gradient():
    for build in MODELS.values():
        model, fresh = build(), build()
        update = SGD(model.parameters(), lr=0.01)
        rng = np.random.default_rng(0)
        model(rng.standard_normal((5, 4)))
        update.zero_grad()
        update.zero_grad()
        x, dout = rng.standard_normal((2, 4)), rng.standard_normal((2, 3))
        for each in (model, fresh):
            each(x)
            each.backward(dout)
        for mine, its in zip(model.parameters(), fresh.parameters(), strict=True):
            np.testing.assert_array_equal(mine.grad, its.grad)


def test_weights_shared_over_time_and_gradients_set_to_zero_in_between():
    cell = GRUCell(3, 4, rng=0)
    update = SGD(cell.parameters(), lr=0.01)
    x = np.random.default_rng(0).standard_normal((40, 2, 3)).astype(np.float32)

    def gradients(zero_at):
        update.zero_grad()
        h = np.zeros((2, 4), np.float32)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for each in x:
                h = cell(each, h)
        if zero_at == "before the backwards":
            update.zero_grad()
        dh = np.ones_like(h)
        for _ in x:
            _, dh = cell.backward(dh)
        return [p.grad.copy() for p in cell.parameters()]

    for one, other in zip(gradients("at the start"), gradients("before the backwards"), strict=True):
        np.testing.assert_array_equal(one, other)
        assert np.abs(one).max() > 0


def test_two_forwards_with_gradients_set_to_zero_between_them_are_both_undone():
    for build in MODELS.values():
        model, fresh = build(), build()
        update, loss = SGD(model.parameters(), lr=0.01), MSELoss()
        rng = np.random.default_rng(0)
        pairs = [(rng.standard_normal((n, 4)), rng.standard_normal((n, 3))) for n in (2, 5)]
        loss(model(pairs[0][0]), pairs[0][1])
        update.zero_grad()
        loss(model(pairs[1][0]), pairs[1][1])
        for _ in pairs:
            model.backward(loss.backward())
        for x, y in pairs:
            loss(fresh(x), y)
            fresh.backward(loss.backward())
        for mine, its in zip(model.parameters(), fresh.parameters(), strict=True):
            np.testing.assert_allclose(mine.grad, its.grad, rtol=1e-5, atol=1e-6)


def test_the_gradients_of_another_model_do_not_count():
    generator, critic = MLP(3, 5, 4, rng=0), MLP(4, 5, 1, rng=1)
    updates = SGD(generator.parameters(), lr=0.1), SGD(critic.parameters(), lr=0.1)
    rng = np.random.default_rng(0)
    z = rng.standard_normal((2, 2, 3)).astype(np.float32)
    updates[0].zero_grad()
    first = generator(z[0])
    updates[1].zero_grad()  # of the critic: both forwards of the generator are still wanted
    updates[1].zero_grad()
    second = generator(z[1])
    critic(second)
    dsecond = critic.backward(np.ones((2, 1), np.float32))
    critic(first)
    dfirst = critic.backward(np.ones((2, 1), np.float32))
    generator.backward(dsecond)
    generator.backward(dfirst)
    assert saved(generator, critic) == 0


def test_zero_grad_of_the_model_drops_at_once():
    model = MODELS["MLP"]()
    model(np.ones((2, 4)))
    model.zero_grad()
    assert saved(model) == 0


def test_one_warning_where_many_forwards_hold_much(monkeypatch):
    from backhand.layers import guard

    monkeypatch.setattr(guard, "MUCH", 100_000)
    model = MLP(100, 100, 10, rng=0)
    with pytest.warns(
        RuntimeWarning, match=r"Sequential|MLP: 16 forwards .* not been undone .* MB.* eval\(\)"
    ) as caught:
        for _ in range(200):
            model(np.ones((10, 100), np.float32))
    assert len(caught) == 1
    held = saved(model)
    model.eval()
    for _ in range(200):
        model(np.ones((10, 100), np.float32))
    assert saved(model) == held


def test_thirty_forwards_in_training_mode_that_hold_200_mb_are_told():
    model = Sequential(Linear(1000, 1000, rng=0), Sigmoid(), Linear(1000, 10, rng=1))
    with pytest.warns(RuntimeWarning, match="16 forwards in training mode"):
        for _ in range(30):
            model(np.ones((1000, 1000), np.float32))


def test_few_or_small_ones_are_nobodys_business():
    model = MODELS["MLP"]()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(500):
            model(np.ones((2, 4)))
        for _ in range(500):
            model.backward(np.ones((2, 3)))
    assert saved(model) == 0


def test_a_forward_that_fails_leaves_nothing_in_a_users_composite():
    model = OfTwo()
    model(np.ones((2, 4)))
    model.last = Linear(7, 3, rng=0)
    with pytest.raises(ValueError, match="at 'last'"):
        model.forward(np.ones((2, 4)))
    assert saved(model) == 2  # of the forward before it


def test_copies_and_pickles_know_nothing_of_it():
    model = MODELS["MLP"]()
    update = SGD(model.parameters(), lr=0.1)
    model(np.ones((2, 4)))
    update.zero_grad()
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert saved(other) == 0
        other(np.ones((2, 4)))
        other(np.ones((2, 4)))  # not dropped because of a zero_grad that was not its own
        other.backward(np.ones((2, 3)))
        other.backward(np.ones((2, 3)))


def test_two_models_in_two_threads():
    def train(model, problems):
        update = SGD(model.parameters(), lr=0.01)
        try:
            for step in range(300):
                update.zero_grad()
                model(np.ones((2, 4), np.float32))
                if step % 3:
                    model.backward(np.ones((2, 3), np.float32))
        except Exception as error:  # to be raised in the main thread
            problems.append(error)

    problems = []
    models = [MODELS["MLP"](), OfTwo()]
    threads = [threading.Thread(target=train, args=(model, problems)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    for model in models:  # now alone: nothing has got stuck
        SGD(model.parameters(), lr=0.01).zero_grad()
        model(np.ones((2, 4), np.float32))
        model.backward(np.ones((2, 3), np.float32))
        assert saved(model) <= (SEVERAL + 1) * 3


@pytest.mark.parametrize("case", [case for case in CASES if not case.eval], ids=str)
def test_abandoned_forwards_of_any_layer_go(case):
    layer, other = copy.deepcopy(case.build(np.float64)), SGD(Linear(1, 1).parameters(), lr=0.1)
    layer.forward(*case.arrays(), **case.options)
    once = saved(layer)
    least = SEVERAL if any(True for _ in layer.parameters()) else SEVERAL_OF_NOBODY
    for _ in range(least + 8):
        for p in layer.parameters():
            p.zero_grad()
        other.zero_grad()  # whatever a layer without parameters is trained with
        layer.forward(*case.arrays(), **case.options)
    assert saved(layer) <= (least + 1) * once


# ---------------------------------------------------------------------- programs that PyTorch runs


def test_one_loss_for_two_models_whose_gradients_are_set_to_zero_in_between():
    one, other, loss = MLP(3, 4, 1, rng=0), MLP(3, 4, 1, rng=1), MSELoss()
    updates = [SGD(model.parameters(), lr=0.1) for model in (one, other)]
    x, y = np.ones((2, 3)), np.zeros((2, 1))
    for _ in range(20):
        loss(one(x), y)
        for update in updates:
            update.zero_grad()
        loss(other(x), y)
        updates[0].zero_grad()
        for model in (other, one):
            model.backward(loss.backward())
        for update in updates:
            update.step()
    assert saved(one, other, loss) == 0


def test_one_activation_in_a_loop_over_time_in_which_another_net_is_trained():
    cell, act, aux = Linear(3, 3, rng=0), ReLU(), Linear(3, 1, rng=1)
    updates = [SGD(each.parameters(), lr=0.1) for each in (cell, aux)]
    for _ in range(3):
        updates[0].zero_grad()
        h = np.ones((2, 3), np.float32)
        for _ in range(20):
            h = act(cell(h))
            updates[1].zero_grad()
            aux(h)
            aux.backward(np.ones((2, 1), np.float32))
            updates[1].step()
        dh = np.ones_like(h)
        for _ in range(20):
            dh = cell.backward(act.backward(dh))
        updates[0].step()
    assert saved(cell, act, aux) == 0


def test_gradients_set_to_zero_one_parameter_after_the_other():
    model, loss = MLP(4, 8, 3, rng=0), MSELoss()
    for _ in range(20):
        loss(model(np.ones((2, 4))), np.zeros((2, 3)))
        for p in model.parameters():
            p.zero_grad()
        loss(model(np.ones((2, 4))), np.zeros((2, 3)))
        for _ in range(2):
            model.backward(loss.backward())
    assert saved(model, loss) == 0


def test_two_optimizers_that_share_a_trunk():
    trunk = Linear(3, 4, rng=0)
    actor, critic = Sequential(trunk, Linear(4, 2, rng=1)), Sequential(trunk, Linear(4, 1, rng=2))
    updates = [SGD(model.parameters(), lr=0.1) for model in (actor, critic)]
    for _ in range(20):
        actor(np.ones((2, 3)))
        for update in updates:
            update.zero_grad()
        critic(np.ones((2, 3)))
        critic.backward(np.ones((2, 1)))
        actor.backward(np.ones((2, 2)))
    assert saved(actor, critic) == 0


def test_steps_of_an_attack_between_a_forward_and_its_backward():
    model, loss = MLP(4, 8, 3, rng=0), MSELoss()
    update = SGD(model.parameters(), lr=0.1)
    x, y = np.ones((2, 4), np.float32), np.zeros((2, 3), np.float32)
    for _ in range(3):
        loss(model(x), y)
        for _ in range(10):
            update.zero_grad()
            loss(model(x), y)
            x = x + 0.1 * np.sign(model.backward(loss.backward()))
        update.zero_grad()
        model.backward(loss.backward())
        update.step()
    assert saved(model, loss) == 0


def test_a_frozen_network_that_nobody_undoes_does_not_grow_for_ever():
    frozen, head = MLP(4, 8, 3, rng=0).requires_grad_(False), Linear(3, 2, rng=1)
    update, loss = SGD(head.parameters(), lr=0.1), CrossEntropyLoss()
    for _ in range(300):
        update.zero_grad()
        loss(head(frozen(np.ones((2, 4)))), np.array([0, 1]))
        head.backward(loss.backward())
        update.step()
    assert saved(frozen) <= 4 * (SEVERAL_OF_NOBODY + 1)


def test_a_forward_that_fails_inside_of_one_that_goes_on_leaves_no_trace_in_float32():
    class Either(Layer):
        def __init__(self):
            self.norm = LayerNorm(3)

        def forward(self, x):
            try:
                return self.norm(x)
            except ValueError:
                return x + 0

    layer = Either()
    layer(np.ones((2, 4), np.float16))
    layer.norm.astype(np.float16)
    layer(np.ones((2, 4)))
    layer.norm.astype(np.float32)
    assert layer.norm(np.ones((2, 3), np.float32)).dtype == np.float32


def test_a_failed_forward_is_taken_back_while_another_thread_is_in_a_forward():
    entered, leave = threading.Event(), threading.Event()

    class Waits(Layer):
        def forward(self, x):
            entered.set()
            assert leave.wait(20)
            return x

    thread = threading.Thread(target=Waits(), args=(np.ones(2),))
    thread.start()
    assert entered.wait(20)
    model = Sequential(BatchNorm1d(3), Linear(7, 2, rng=0))
    try:
        with pytest.raises(ValueError, match="at '1'"):
            model(np.arange(12.0).reshape(4, 3))
        assert saved(model) == 0 and model[0].num_batches_tracked == 0
        np.testing.assert_array_equal(model[0].running_mean, 0)
    finally:
        leave.set()
        thread.join()
