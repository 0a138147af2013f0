"""Metrics: what is reported beside the loss. Each is `metric(scores, target) -> float`.

These here return a `Mean`, which knows over how many samples, labels or bits it is one, and so come out the same
whatever the batches are. What is a plain float counts as a mean over the samples of its batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from backhand.datasets.arrays import as_numbers
from backhand.layers.broadcasting import reshape_hint
from backhand.layers.parameter import Array
from backhand.losses.base import Mean

Metric = Callable[[Any, Any], float]


def accuracy(scores: ArrayLike, target: ArrayLike, ignore_index: int = -100, axis: int = 1) -> Mean:
    """The share of samples whose highest score is that of the right class.

    scores : (N, C, ...), or (C,) for one sample
    axis : where the classes are; -1 for scores of tokens, (N, T, C)
    target : labels (N, ...), of which `ignore_index` does not count; or probabilities in the shape of scores
    """
    scores, labels = _arrays("accuracy", scores, target)
    axis = min(axis, scores.ndim - 1)
    if not -scores.ndim <= axis < scores.ndim:
        raise ValueError(f"accuracy: expected scores with the classes on axis {axis}, got {scores.shape}")
    best = np.asarray(scores.argmax(axis))
    if labels.shape not in (best.shape, scores.shape):
        hint = reshape_hint("target", labels.shape, best.shape)
        raise ValueError(f"accuracy: expected target of shape {best.shape} or {scores.shape}, got {labels.shape}{hint}")
    if labels.shape == scores.shape:
        labels = np.asarray(labels.argmax(axis))
    return mean_of(best == labels, _counting("accuracy", labels, scores.shape[axis], ignore_index))


def top_k_accuracy(scores: ArrayLike, target: ArrayLike, k: int = 5, ignore_index: int = -100) -> Mean:
    """The share of samples whose right class is among the k highest scores.

    scores : (N, C)      target : labels (N,), of which `ignore_index` does not count      k : 1 or more
    """
    scores, labels = _arrays("top_k_accuracy", scores, target)
    if scores.ndim != 2 or labels.shape != scores.shape[:1]:
        raise ValueError(f"top_k_accuracy: expected (N, C) and (N,), got {scores.shape} and {labels.shape}")
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise ValueError(f"top_k_accuracy: expected k to be a positive integer, got {k!r}")
    counts = _counting("top_k_accuracy", labels, scores.shape[1], ignore_index)
    right = np.take_along_axis(scores, np.where(counts, labels, 0).astype(np.intp)[:, None], axis=1)
    higher = ~(scores <= right)  # nan is no low score
    return mean_of(higher.sum(axis=1) < k, counts)


def binary_accuracy(scores: ArrayLike, target: ArrayLike) -> Mean:
    """The share of scores that are on the right side of 0, where the target is 0 or 1.

    scores, target : one shape, any; the scores are logits, as BCEWithLogitsLoss takes them
    """
    x, wanted = _arrays("binary_accuracy", scores, target)
    if x.shape != wanted.shape:
        hint = reshape_hint("target", wanted.shape, x.shape)
        raise ValueError(f"binary_accuracy: expected target of shape {x.shape}, got {wanted.shape}{hint}")
    return mean_of((x > 0) == (wanted > 0.5))


def intersection_over_union(scores: ArrayLike, target: ArrayLike, ignore_index: int = -100) -> Mean:
    """How well the pixels found cover those wanted: the pixels in both, divided by those in either.

    scores : (N, 2, ...), of nothing and of something
    target : (N, ...), 1 where there is something; where it is `ignore_index`, the pixel does not count

    A mean over the samples; 1 for a sample in which nothing is wanted and nothing found.
    """
    scores, labels = _arrays("intersection_over_union", scores, target)
    fits = scores.ndim >= 3 and labels.shape == (len(scores), *scores.shape[2:]) and scores.shape[1] == 2
    if not fits:
        raise ValueError(
            f"intersection_over_union: expected (N, 2, ...) and (N, ...), got {scores.shape} and {labels.shape}"
        )
    counts: Array = np.asarray(labels != ignore_index)
    wanted, found = (labels == 1) & counts, (scores[:, 1] > scores[:, 0]) & counts
    places = tuple(range(1, wanted.ndim))
    both, either = (found & wanted).sum(axis=places), (found | wanted).sum(axis=places)
    return mean_of(np.where(either, both / np.maximum(either, 1), 1.0), np.asarray(counts.any(axis=places)))


def whole_sequences(scores: ArrayLike, target: ArrayLike, ignore_index: int = -100) -> Mean:
    """The share of sequences without a mistake: at every place that counts, the right token has the highest score.

    scores : (N, T, V)
    target : tokens (N, T), of which `ignore_index` does not count; nor does a sequence of nothing else

    With scores that were given for the right tokens before each place, it is also the share of the sequences that the
    model writes without a mistake when it always takes the likeliest token: up to the first mistake both are the same.
    """
    scores, labels = _arrays("whole_sequences", scores, target)
    if scores.ndim != 3 or labels.shape != scores.shape[:2]:
        raise ValueError(f"whole_sequences: expected (N, T, V) and (N, T), got {scores.shape} and {labels.shape}")
    counts = _counting("whole_sequences", labels, scores.shape[2], ignore_index)
    right = (scores.argmax(axis=2) == labels) | ~counts
    return mean_of(right.all(axis=1), np.asarray(counts.any(axis=1)))


def bits_per_sequence(scores: ArrayLike, target: ArrayLike) -> Mean:
    """What a sequence of bits costs, in bits: the binary cross-entropy, summed over it, divided by ln 2.

    scores : (T, B, C) logits      target : (L, B, C), wanted at the last L steps, as in SequenceBCELoss
    """
    last, wanted = _last_steps("bits_per_sequence", scores, target)
    nats = np.logaddexp(0, last) - wanted * last
    return mean_of(nats.sum(axis=(0, 2)) / np.log(2))


def wrong_bits(scores: ArrayLike, target: ArrayLike) -> Mean:
    """The share of bits that are wrong when the logits are rounded; the shapes as in `bits_per_sequence`."""
    last, wanted = _last_steps("wrong_bits", scores, target)
    return mean_of((last > 0) != (wanted > 0.5))


def mean_of(values: Array, counts: Array | None = None) -> Mean:
    """The mean of values, or of those of them that count; nan where none does."""
    count = values.size if counts is None else int(np.count_nonzero(counts))
    if values.dtype.kind == "b":
        total = float(np.count_nonzero(values if counts is None else values & counts))
    else:
        total = float((values if counts is None else values[counts]).sum(dtype=np.float64))
    return Mean(total / count if count else math.nan, count)


def _arrays(name: str, scores: ArrayLike, target: ArrayLike) -> tuple[Array, Array]:
    """Scores and target as arrays of numbers, or the error that says what they are."""
    arrays = []
    for what, value in (("scores", scores), ("target", target)):
        array = np.asarray(as_numbers(f"{name}: expected {what}", value, axes=0))
        if array.size == 0:
            raise ValueError(f"{name}: expected at least one sample, got {what} of shape {array.shape}")
        arrays.append(array)
    return arrays[0], arrays[1]


def _counting(name: str, labels: Array, classes: int, ignore_index: int) -> Array:
    """Where a label counts, once all that count are known to be labels."""
    counts = np.asarray(labels != ignore_index)
    if labels.dtype.kind in "iu" and labels.min() >= 0 and labels.max() < classes:
        return counts
    wrong = counts & ~((labels >= 0) & (labels < classes) & (labels % 1 == 0))  # nan neither
    if wrong.any():
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        apart = f"(or ignore_index, {ignore_index})"
        raise ValueError(
            f"{name}: expected labels from 0 to {classes - 1} {apart}, got {labels[where]} at {list(where)}"
        )
    return counts


def _last_steps(name: str, scores: ArrayLike, target: ArrayLike) -> tuple[Array, Array]:
    x, y = _arrays(name, scores, target)
    if x.ndim != 3 or y.ndim != 3 or x.shape[1:] != y.shape[1:] or len(y) > len(x):
        raise ValueError(f"{name}: expected (T, B, C) and (L, B, C), got {x.shape} and {y.shape}")
    return x[len(x) - len(y) :].astype(np.float64), y
