"""Metrics: what is reported beside the loss. Each is `metric(scores, target) -> float`, a mean over the samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

Metric = Callable[[Any, Any], float]


def accuracy(scores: ArrayLike, target: ArrayLike, ignore_index: int = -100, axis: int = 1) -> float:
    """The share of samples whose highest score is that of the right class.

    scores : (N, C, ...), or (C,) for one sample
    axis : where the classes are; -1 for scores of tokens, (N, T, C)
    target : labels (N, ...), of which `ignore_index` does not count; or probabilities in the shape of scores
    """
    scores, labels = np.asarray(scores), np.asarray(target)
    axis = min(axis, scores.ndim - 1)
    if labels.shape == scores.shape:
        labels = np.asarray(labels.argmax(axis))
    best = np.asarray(scores.argmax(axis))
    if best.shape != labels.shape:
        raise ValueError(f"accuracy: expected target of shape {best.shape} or {scores.shape}, got {labels.shape}")
    hits, counts = best == labels, labels != ignore_index
    counted = np.count_nonzero(counts)
    return np.count_nonzero(hits & counts) / counted if counted else float("nan")


def top_k_accuracy(scores: ArrayLike, target: ArrayLike, k: int = 5) -> float:
    """The share of samples whose right class is among the k highest scores.

    scores : (N, C)      target : labels (N,)
    """
    scores, target = np.asarray(scores), np.asarray(target)
    if scores.ndim != 2 or target.shape != scores.shape[:1]:
        raise ValueError(f"top_k_accuracy: expected (N, C) and (N,), got {scores.shape} and {target.shape}")
    right = np.take_along_axis(scores, target[:, None].astype(np.intp), axis=1)
    return float(np.mean((scores > right).sum(axis=1) < k))


def binary_accuracy(scores: ArrayLike, target: ArrayLike) -> float:
    """The share of scores that are on the right side of 0, where the target is 0 or 1.

    scores, target : one shape, any; the scores are logits, as BCEWithLogitsLoss takes them
    """
    scores, target = np.asarray(scores), np.asarray(target)
    if scores.shape != target.shape:
        raise ValueError(f"binary_accuracy: expected target of shape {scores.shape}, got {target.shape}")
    return float(np.mean((scores > 0) == (target > 0.5)))


def intersection_over_union(scores: ArrayLike, target: ArrayLike) -> float:
    """How well the pixels found cover those wanted: the pixels in both, divided by those in either.

    scores : (N, 2, ...), of nothing and of something      target : (N, ...), 1 where there is something

    A mean over the samples; 1 for a sample in which nothing is wanted and nothing found.
    """
    scores, wanted = np.asarray(scores), np.asarray(target) == 1
    if scores.ndim < 3 or scores.shape[:2] != (len(wanted), 2) or scores.shape[2:] != wanted.shape[1:]:
        raise ValueError(
            f"intersection_over_union: expected (N, 2, ...) and (N, ...), got {scores.shape} and {wanted.shape}"
        )
    found, places = scores[:, 1] > scores[:, 0], tuple(range(1, wanted.ndim))
    both, either = (found & wanted).sum(axis=places), (found | wanted).sum(axis=places)
    return float(np.mean(np.where(either, both / np.maximum(either, 1), 1.0)))


def whole_sequences(scores: ArrayLike, target: ArrayLike, ignore_index: int = -100) -> float:
    """The share of sequences without a mistake: at every place that counts, the right token has the highest score.

    scores : (N, T, V)      target : tokens (N, T), of which `ignore_index` does not count

    With scores that were given for the right tokens before each place, it is also the share of the sequences that the
    model writes without a mistake when it always takes the likeliest token: up to the first mistake both are the same.
    """
    scores, labels = np.asarray(scores), np.asarray(target)
    if scores.ndim != 3 or labels.shape != scores.shape[:2]:
        raise ValueError(f"whole_sequences: expected (N, T, V) and (N, T), got {scores.shape} and {labels.shape}")
    return float(np.mean(((scores.argmax(axis=2) == labels) | (labels == ignore_index)).all(axis=1)))


def bits_per_sequence(scores: ArrayLike, target: ArrayLike) -> float:
    """What a sequence of bits costs, in bits: the binary cross-entropy, summed over it, divided by ln 2.

    scores : (T, B, C) logits      target : (L, B, C), wanted at the last L steps, as in SequenceBCELoss
    """
    last, wanted = _last_steps("bits_per_sequence", scores, target)
    nats = np.logaddexp(0, last) - wanted * last
    return float(nats.sum() / nats.shape[1] / np.log(2))


def wrong_bits(scores: ArrayLike, target: ArrayLike) -> float:
    """The share of bits that are wrong when the logits are rounded; the shapes as in `bits_per_sequence`."""
    last, wanted = _last_steps("wrong_bits", scores, target)
    return float(np.mean((last > 0) != (wanted > 0.5)))


def _last_steps(name: str, scores: ArrayLike, target: ArrayLike) -> tuple[Any, Any]:
    x, y = np.asarray(scores), np.asarray(target)
    if x.ndim != 3 or y.ndim != 3 or x.shape[1:] != y.shape[1:] or len(y) > len(x):
        raise ValueError(f"{name}: expected (T, B, C) and (L, B, C), got {x.shape} and {y.shape}")
    return x[len(x) - len(y) :].astype(np.float64), y
