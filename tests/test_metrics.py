"""Metrics on what does not fit: one clear error, and labels that are ignored count for nothing."""

import numpy as np
import pytest

from backhand.training import (
    accuracy,
    binary_accuracy,
    bits_per_sequence,
    intersection_over_union,
    top_k_accuracy,
    whole_sequences,
    wrong_bits,
)
from tests.spoiling import bad_inputs

SCORES = np.array([[3.0, 2, 1, 0], [0, 1, 2, 3], [1, 0, 3, 2], [0, 3, 2, 1]])
LABELS = np.array([1, 3, 0, 2])
GOOD = {
    accuracy: (SCORES, LABELS),
    top_k_accuracy: (SCORES, LABELS),
    binary_accuracy: (SCORES, (SCORES > 1).astype(int)),
    intersection_over_union: (np.stack([SCORES, 1 - SCORES], axis=1)[..., None], (SCORES > 1).astype(int)[..., None]),
    whole_sequences: (np.stack([SCORES, SCORES]), np.stack([LABELS, LABELS])),
    bits_per_sequence: (SCORES[None], (SCORES > 1).astype(int)[None]),
    wrong_bits: (SCORES[None], (SCORES > 1).astype(int)[None]),
}


@pytest.mark.parametrize("metric", GOOD, ids=lambda m: m.__name__)
def test_what_does_not_fit_gets_one_clear_error(metric):
    problems = []
    good = GOOD[metric]
    value = metric(*good)
    for i in range(2):
        for name, bad in bad_inputs(good[i]):
            inputs = [bad if j == i else x for j, x in enumerate(good)]
            try:
                result = metric(*inputs)
            except Exception as error:
                clear = type(error) is ValueError and str(error).startswith(f"{metric.__name__}: expected ")
                if not clear or "got" not in str(error):
                    problems.append(f"{name}: {error!r}")
            else:
                if not isinstance(result, float):
                    problems.append(f"{name}: {result!r}")
    assert problems == []
    assert metric(*good) == value


def test_top_k_accuracy_leaves_out_labels_that_are_ignored():
    assert top_k_accuracy(SCORES, LABELS, k=1) == 0.25
    assert top_k_accuracy(SCORES, np.array([1, 3, -100, -100]), k=1) == 0.5
    assert top_k_accuracy(SCORES, np.array([1, 3, 0, 0]), k=1, ignore_index=0) == 0.5
    assert top_k_accuracy(SCORES, np.array([1, 3, 255, 255], np.uint8), k=2, ignore_index=255) == 1
    assert np.isnan(top_k_accuracy(SCORES, np.full(4, -100)))
    assert top_k_accuracy(SCORES, LABELS, k=4) == top_k_accuracy(SCORES, LABELS, k=99) == 1


def test_a_score_that_is_no_number_is_no_hit():
    scores = SCORES.copy()
    scores[0, 1] = np.nan  # the score of the right class
    assert top_k_accuracy(scores, LABELS, k=1) == 0.25
    scores[1, :3] = np.nan  # all the others
    assert top_k_accuracy(scores, LABELS, k=1) == 0


@pytest.mark.parametrize("k", [0, -1, 1.5, "2", None, True])
def test_k_is_a_positive_integer(k):
    with pytest.raises(ValueError, match="top_k_accuracy: expected k to be a positive integer"):
        top_k_accuracy(SCORES, LABELS, k=k)


@pytest.mark.parametrize("metric", [accuracy, top_k_accuracy])
@pytest.mark.parametrize("label", [-1, 4, 2**40])
def test_labels_that_are_no_classes_are_named(metric, label):
    labels = LABELS.copy()
    labels[2] = label
    problem = rf"{metric.__name__}: expected labels from 0 to 3 \(or ignore_index, -100\), got {label} at \[2\]"
    with pytest.raises(ValueError, match=problem):
        metric(SCORES, labels)
    assert metric(SCORES, labels, ignore_index=label) == metric(SCORES[[0, 1, 3]], labels[[0, 1, 3]])


def test_the_error_says_which_reshape_mends_it():
    with pytest.raises(ValueError, match=r"got \(4,\); target.reshape\(4, 1\) mends it"):
        binary_accuracy(np.ones((4, 1)), np.ones(4))
    with pytest.raises(ValueError, match=r"got \(4, 1\); target.reshape\(4\) mends it"):
        accuracy(SCORES, LABELS[:, None])
