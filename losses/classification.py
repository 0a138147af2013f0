"""Losses over classes: a score for each class against the one class, or the probabilities, that it should be."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from backhand.layers.arguments import refuse, whole, within
from backhand.layers.broadcasting import along
from backhand.layers.memory import empty, zeros
from backhand.layers.parameter import Array
from backhand.layers.softmax import log_softmax, max_along
from backhand.losses.base import Loss, summed, weights


class OverClasses(Loss):
    """What losses over classes share: the class axis, the labels, and a weight for each class."""

    buffer_names = ("weight",)

    def __init__(self, weight: ArrayLike | None, reduction: str, ignore_index: int | None = None) -> None:
        super().__init__(reduction=reduction)
        self.weight = weights(self, "weight", weight)
        if self.weight is not None and self.weight.ndim != 1:
            refuse(self, "one weight for each class", self.weight.shape)
        if ignore_index is not None:
            self.ignore_index = whole(self, "ignore_index", ignore_index, least=-(2**63))

    def scores(self, x: ArrayLike) -> tuple[Array, int]:
        """x as a float array, and its class axis: the second one, or the only one."""
        x = self.input(x)
        if x.ndim == 0:
            self.reject("x of shape (C,) or (N, C, ...)", x.shape)
        axis = min(x.ndim - 1, 1)
        if self.weight is not None and self.weight.size != x.shape[axis]:
            self.reject(f"x with {self.weight.size} classes, one for each weight, along axis {axis}", x.shape)
        return x, axis

    def places(self, x: Array, target: Array) -> Array | None:
        """Where in a table x each row's label stands, as an index of all its numbers in one row.

        None unless it is the common case: x (N, C), float32 or float64, labels from 0 to C - 1, none of them ignored,
        no weights.
        """
        if x.ndim != 2 or target.ndim != 1 or self.weight is not None:
            return None
        n, classes = x.shape
        if len(target) != n or target.dtype.kind not in "iu" or x.dtype.itemsize < 4:
            return None
        if 0 <= self.ignore_index < classes:
            return None
        labels = target.astype(np.intp, copy=False)
        if np.maximum.reduce(labels.view(np.uintp)) >= classes:  # a negative number, read so, is a large one
            return None
        places: Array = _row_starts(n, classes) + labels
        return places

    def labels(self, x: Array, axis: int, target: Any, otherwise: str = "") -> tuple[tuple[Array, ...], Array, Array]:
        """What the labels say, once they are known to be labels of x.

        index : picks, at each position, the entry of x that belongs to the label
        valid : False where the label is ignore_index (index then picks class 0)
        importance : the weight of the label's class; 0 where it is ignored
        """
        target = self.anything("target", target)
        shape = x.shape[:axis] + x.shape[axis + 1 :]
        if target.shape != shape or target.dtype.kind not in "iu":
            self.reject(f"integer labels of shape {shape}{otherwise}", f"{target.dtype} of shape {target.shape}")
        ignored = getattr(self, "ignore_index", None)
        valid = np.ones(shape, np.bool_) if ignored is None else np.asarray(target != ignored)
        classes = x.shape[axis]
        wrong = valid & ((target < 0) | (target >= classes))
        if wrong.any():
            where = tuple(int(i) for i in np.argwhere(wrong)[0])
            apart = "" if ignored is None else f" (or ignore_index, {ignored})"
            self.reject(f"labels from 0 to {classes - 1}{apart}", f"{int(target[where])} at {list(where)}")
        labels = np.where(valid, target, 0).astype(np.intp)
        index = at(labels, axis)
        importance = valid.astype(x.dtype)
        if self.weight is not None:
            importance *= self.weight.astype(x.dtype)[labels]
        return index, valid, importance


class CrossEntropyLoss(OverClasses):
    """The surprise at the true class, when the scores are turned into probabilities by a softmax.

        l = -weight_t log p_t,    p = softmax(x),    t the label        dx = dl * weight_t * (p - onehot(t))

    and in general, for any target q with one number for each class:

        l = -sum_c a_c log p_c,    a = weight * q        dx = dl * (p * sum(a) - a)

    x : (C,) or (N, C) or (N, C, d1, ...)
    target : integer labels of shape () or (N,) or (N, d1, ...), or floats q of x's shape
    weight : (C,), one for each class; a buffer
    ignore_index : a label that says "none": there l and dx are 0, and "mean" does not count it
    label_smoothing : s mixes the target with the uniform one, q = (1 - s) onehot(t) + s / C

    Why softmax minus onehot: d log p_c / dx_k = [c = k] - p_k, so raising one score raises its own log-probability
    by 1 and lowers all of them by p_k. Summed with -a_c this is p_k sum(a) - a_k; the exp and the log have
    cancelled, and what is left is the error in the probabilities, between -1 and 1 at any logits.

    "mean" divides by the summed weight_t of the labels, for probabilities by their number. If that is 0 (all of
    them ignored), the mean is nan, as in torch: there is no loss to report. dx is 0 where a label is ignored.
    Label smoothing: Szegedy et al. 2016, arXiv:1512.00567, section 7
    """

    def __init__(
        self,
        weight: ArrayLike | None = None,
        *,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(weight, reduction, ignore_index)
        self.label_smoothing = within(self, "label_smoothing", label_smoothing, 0, 1)

    def forward(self, x: ArrayLike, target: ArrayLike) -> Any:
        x, axis = self.scores(x)
        target = self.anything("target", target)
        if target.shape == x.shape and target.dtype.kind == "f":
            return self._against_probabilities(x, axis, target)
        s = self.label_smoothing
        places = None if s else self.places(x, target)
        if places is not None:
            return self._against_labels(x, places)
        index, valid, importance = self.labels(x, axis, target, f", or probabilities as floats of shape {x.shape}")
        logp = log_softmax(x, axis)
        losses = (s - 1) * importance * np.where(valid, logp[index], 0)
        if s:
            losses = np.where(valid, losses - (logp * self._share(x, axis)).sum(axis), 0)
        losses = np.asarray(losses, x.dtype)
        count = summed(importance)
        self.save(logp, axis, (index, valid, importance), None, out=losses, count=count)
        return self.reduce(losses, count)

    def _against_labels(self, x: Array, places: Array) -> Any:
        """The common case, in one array: x less its largest, then their exp, whose gradient it becomes."""
        p = np.subtract(x, max_along(x, 1), out=empty(x.shape, x.dtype))
        own = p.reshape(-1)[places]
        np.exp(p, out=p)
        total = p.dot(_ones(x.shape[1], x.dtype))  # p / total are the probabilities
        losses = np.log(total)
        losses -= own
        self.save(p, 1, places, total, out=losses)
        return self.reduce(losses)

    def _against_probabilities(self, x: Array, axis: int, target: Array) -> Any:
        if self.ignore_index >= 0:
            self.reject("integer labels, the only ones that ignore_index can be compared with", "probabilities")
        a = target.astype(x.dtype) * (1 - self.label_smoothing)
        if self.weight is not None:
            a *= along(self.weight.astype(x.dtype), axis, x.ndim)
        a += self._share(x, axis)
        logp = log_softmax(x, axis)
        losses = np.asarray(-(a * logp).sum(axis), x.dtype)
        self.save(logp, axis, None, a, out=losses)
        return self.reduce(losses)

    def _share(self, x: Array, axis: int) -> Array:
        """What smoothing gives every class, s / C times its weight, so that it broadcasts against x."""
        weight = np.ones(x.shape[axis], x.dtype) if self.weight is None else self.weight.astype(x.dtype)
        return along(weight * x.dtype.type(self.label_smoothing / weight.size), axis, x.ndim)

    def backward(self, dout: Any = None) -> Array:
        dl = self.upstream(dout)
        logp, axis, labelled, a = self.saved()
        if type(labelled) is np.ndarray:
            dx, places, total = logp, labelled, a
            dx *= (dl / total)[:, None]
            dx.reshape(-1)[places] -= dl
            return dx
        dx = np.exp(logp)  # p
        if labelled is None:
            dx *= a.sum(axis, keepdims=True)
            dx -= a
            dx *= lifted(dl, axis)
            return dx
        # a = (1 - s) weight_t onehot + share, never formed: most of it is zeros
        index, valid, importance = labelled
        own = (1 - self.label_smoothing) * importance
        scale = np.where(valid, dl, 0)  # where all are ignored, dl is nan
        if self.label_smoothing:
            share = self._share(logp, axis)
            dx *= lifted(own + share.sum(), axis)
            dx -= share
            dx[index] -= own
            dx *= lifted(scale, axis)
        else:
            scale = own * scale
            dx *= lifted(scale, axis)
            dx[index] -= scale
        return dx


class NLLLoss(OverClasses):
    """The negative of the log-probability of the true class; after a LogSoftmax this is CrossEntropyLoss.

        l = -weight_t x_t        dx = -dl * weight_t onehot(t)

    x : log-probabilities, (C,) or (N, C) or (N, C, d1, ...)      target : labels, () or (N,) or (N, d1, ...)
    weight, ignore_index : as in CrossEntropyLoss; "mean" divides by the summed weight_t (nan where that is 0)
    torch.nn.NLLLoss
    """

    def __init__(self, weight: ArrayLike | None = None, *, ignore_index: int = -100, reduction: str = "mean") -> None:
        super().__init__(weight, reduction, ignore_index)

    def forward(self, x: ArrayLike, target: ArrayLike) -> Any:
        x, axis = self.scores(x)
        target = self.anything("target", target)
        places = self.places(x, target)
        if places is not None:
            losses = -x.reshape(-1)[places]
            self.save(x.shape, places, None, None, out=losses)
            return self.reduce(losses)
        index, valid, importance = self.labels(x, axis, target)
        losses = np.asarray(-importance * np.where(valid, x[index], 0), x.dtype)
        count = summed(importance)
        self.save(x.shape, index, valid, importance, out=losses, count=count)
        return self.reduce(losses, count)

    def backward(self, dout: Any = None) -> Array:
        dl = self.upstream(dout)
        shape, index, valid, importance = self.saved()
        dx = zeros(shape, dl.dtype)
        if valid is None:
            dx.reshape(-1)[index] = -dl
            return dx
        dx[index] = -importance * np.where(valid, dl, 0)  # where all are ignored, dl is nan
        return dx


# ---------------------------------------------------------------------- shared


@functools.lru_cache(maxsize=16)
def _ones(n: int, dtype: np.dtype[Any]) -> Array:
    """Ones that are made once: a product with them sums the rows of a table, and faster than a sum does."""
    ones = np.ones(n, dtype)
    ones.setflags(write=False)
    return ones


@functools.lru_cache(maxsize=4)
def _row_starts(n: int, classes: int) -> Array:
    """Where the rows of a table with so many classes begin, kept from batch to batch."""
    starts = np.arange(0, n * classes, classes)
    starts.setflags(write=False)
    return starts


def at(labels: Array, axis: int) -> tuple[Array, ...]:
    """The index that picks, at every position, the entry that `labels` names along `axis`."""
    ones = [(1,) * (labels.ndim - 1 - i) for i in range(labels.ndim)]
    index = [np.arange(n).reshape(-1, *after) for n, after in zip(labels.shape, ones, strict=True)]
    index.insert(axis, labels)
    return tuple(index)


def lifted(values: Array, axis: int) -> Array:
    """A view with an axis of length 1 put in at `axis`, as np.expand_dims does it, but for its overhead."""
    return values[(slice(None),) * axis + (None,)]
