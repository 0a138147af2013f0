"""What the Trainer takes for a pair of arrays, what for batches, and what it refuses because it can be either."""

import numpy as np
import pytest

from backhand.datasets import Data
from backhand.inspection import initial_loss
from backhand.layers import Linear
from backhand.losses import MSELoss
from backhand.training import SGD, AdversarialTrainer, Trainer, accuracy
from backhand.training.batches import as_batches

X, Y = [[0.0, 0.0], [1.0, 1.0]], [[5.0, 5.0], [6.0, 6.0]]
A, B = np.array(X), np.array(Y)

PAIRS = {
    "arrays": (A, B),
    "arrays in a list": [A, B],
    "lists": (X, Y),
    "an array and a list": (A, Y),
    "a list and an array": (X, B),
    "a list and an array in a list": [X, B],
    "an array and a list in a list": [A, Y],
    "Data": Data(A, B),
    "a list of arrays": (A, [B[0], B[1]]),
}
BATCHES = {
    "tuples in a list": [(A, B), (A, B)],
    "tuples in a tuple": ((A, B), (A, B)),
    "lists in a list": [[A, B], [A, B]],
    "tuples of lists in a list": [(X, Y), (X, Y)],
    "an array and a list each": [(A, Y), (A, Y)],
    "an iterator": iter([(A, B), (A, B)]),
    "Data in a list": [Data(A, B), Data(A, B)],
    "three": [(X, Y)] * 3,
}
EITHER = {
    "lists in a list": [X, Y],
    "lists of arrays in a tuple": ([A, B], [A, B]),
    "tuples of lists in a tuple": ((X, Y), (X, Y)),
    "a list and a tuple": (X, tuple(Y)),
    "a tuple of arrays and a list": [(A, B), Y],
    "rows as tuples": (((0.0, 0.0), (1.0, 1.0)), ((5.0, 5.0), (6.0, 6.0))),
}


def regression():
    model = Linear(2, 2, rng=0, dtype=np.float64)
    return Trainer(model, MSELoss(), SGD(model.parameters(), 0.1), progress=False)


@pytest.mark.parametrize("data", PAIRS.values(), ids=PAIRS)
def test_a_pair(data):
    ((inputs, target),) = as_batches("train", data).batches(9)
    np.testing.assert_array_equal(inputs[0], A)
    np.testing.assert_array_equal(target, B)
    one, other = regression(), regression()
    expected = ((one.model.forward(A) - B) ** 2).mean()
    one.model.zero_grad()
    assert one.evaluate(data) == other.evaluate((A, B)) == {"loss": pytest.approx(expected)}
    one.fit(data, data, epochs=2, batch_size=1)
    other.fit((A, B), (A, B), epochs=2, batch_size=1)
    np.testing.assert_equal(one.model.state_dict(), other.model.state_dict())


@pytest.mark.parametrize("data", BATCHES.values(), ids=BATCHES)
def test_batches(data):
    found = list(as_batches("train", data).batches(9))
    assert len(found) in (2, 3)
    for inputs, target in found:
        np.testing.assert_array_equal(inputs[0], A)
        np.testing.assert_array_equal(target, B)


@pytest.mark.parametrize("data", EITHER.values(), ids=EITHER)
@pytest.mark.parametrize("call", ["fit", "validation", "evaluate"])
def test_what_can_be_either_is_refused_and_nothing_is_changed(data, call):
    one = regression()
    before = one.model.state_dict()
    with pytest.raises(ValueError, match="can be either: give two arrays"):
        {
            "fit": lambda: one.fit(data, epochs=1),
            "validation": lambda: one.fit((A, B), data, epochs=1),
            "evaluate": lambda: one.evaluate(data),
        }[call]()
    np.testing.assert_equal(one.model.state_dict(), before)


def test_two_samples_of_one_number_each_are_no_batches():
    for data in (([[1.0], [2.0]], [0, 1]), [[[1.0], [2.0]], [0, 1]], ([1.0, 2.0], [0, 1])):
        ((inputs, target),) = as_batches("train", data).batches(9)
        assert len(inputs[0]) == 2 and target.tolist() == [0, 1]


def test_several_inputs_as_arrays_and_as_lists():
    for x in ((A, B), (X, Y), (A, Y)):
        for y in (np.array([0, 1]), [0, 1]):
            ((inputs, target),) = as_batches("train", (x, y)).batches(9)
            np.testing.assert_array_equal(inputs, (A, B))
            assert target.tolist() == [0, 1]


def masked(values):
    return np.ma.array(values, mask=np.arange(np.size(values)).reshape(np.shape(values)) == 0)


@pytest.mark.parametrize(
    "call",
    [
        lambda one: one.fit((masked(A), B), epochs=1),
        lambda one: one.fit((A, masked(B)), epochs=1),
        lambda one: one.fit(([masked(A[0]), masked(A[1])], B), epochs=1),
        lambda one: one.fit(((A, masked(A)), B), epochs=1),
        lambda one: one.fit([(masked(A), B)], epochs=1),
        lambda one: one.fit((A, B), (A, masked(B)), epochs=1),
        lambda one: one.evaluate((masked(A), B)),
        lambda one: one.evaluate([(A, masked(B))]),
        lambda one: one.predict(masked(A)),
        lambda one: initial_loss(one.model, one.loss, (masked(A), B)),
        lambda one: accuracy(A, masked([0, 1])),
    ],
)
def test_masked_arrays_are_refused_wherever_data_come_in(call):
    one = regression()
    before = one.model.state_dict()
    with pytest.raises(ValueError, match="masked one"):
        call(one)
    np.testing.assert_equal(one.model.state_dict(), before)


def test_a_gan_refuses_masked_pictures():
    networks = Linear(64, 2, rng=0), Linear(2, 1, rng=0)
    trainer = AdversarialTrainer(*networks, *(SGD(each.parameters()) for each in networks), progress=False)
    with pytest.raises(ValueError, match="masked one"):
        trainer.fit(masked(A), epochs=1)


class Sparse:
    """As much of SciPy's sparse matrices as is to be seen here."""

    shape = (2, 2)

    def toarray(self):
        return A


class NeedsGradient:
    """A tensor of torch that is part of a graph."""

    shape = (2, 2)

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad.")


def test_what_is_no_array_is_refused_in_words():
    one = regression()
    for data, words in (
        ((Sparse(), B), r"got Sparse .*; give its .toarray\(\)"),
        ((NeedsGradient(), B), "requires grad"),
        (([[1.0], [1.0, 2.0]], [0, 1]), "each input to be an array of numbers, got list"),
        ((A, ["a", "b"]), "target to be an array of numbers"),
        ((A, None), "got an array of shape .* and NoneType"),
        ((A, 3), "and int 3"),
        ([(1.0, B)], "each input of a batch to be an array of numbers with the samples on its first axis"),
    ):
        with pytest.raises(ValueError, match=words):
            one.evaluate(data)


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_a_matrix_is_an_array():
    assert regression().evaluate((np.asmatrix(A), np.asmatrix(B))) == regression().evaluate((A, B))


@pytest.mark.parity
def test_tensors_and_the_batches_of_a_data_loader(torch):
    expected = regression().evaluate((A, B))
    assert regression().evaluate((torch.tensor(X).double(), torch.tensor(Y).double())) == expected
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y)), batch_size=1)
    assert regression().evaluate(loader) == pytest.approx(expected)
    assert regression().evaluate(list(loader)) == pytest.approx(expected)
