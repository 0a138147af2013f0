"""Connectionist temporal classification: labels for a sequence when nobody says which label stands where."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from backhand.layers.arguments import whole
from backhand.layers.parameter import Array
from backhand.losses.base import Loss


class CTCLoss(Loss):
    """The surprise at a string of labels, summed over all ways to spread it over the time steps.

        l = -log p(target),    p(target) = sum over paths of prod_t exp(x[t, path_t])
        dx[t, c] = dl * (exp(x[t, c]) - sum over s with e_s = c of gamma_t(s))

    A path has one symbol at each step; strike out repetitions, then blanks, and what is left must be the target.
    So let e be the target with a blank before, between and after its labels (2 L + 1 symbols); a path walks
    through e, each step staying, going on by one, or by two where that passes over a blank between two different
    labels. Forward and backward sums over all walks (in logarithms):

        alpha_t(s) = x[t, e_s] + log(exp alpha_t-1(s) + exp alpha_t-1(s-1) + [may skip] exp alpha_t-1(s-2))
        beta the same from the other end,    gamma_t(s) = exp(alpha_t(s) + beta_t(s) - x[t, e_s]) / p(target)

    gamma_t(s) is the share of the walks that are at s at time t; the walk ends at the last label or the last blank.

    x : (T, N, C) or (T, C), log-probabilities: the output of a LogSoftmax over the last axis
    targets : labels, none of them the blank: (N, S), each row filled up with anything; or all of them in one row of
        sum(target_lengths); for x (T, C) one row
    input_lengths, target_lengths : N integers each (for x (T, C) one): the steps and the labels that count
    blank : which class is the blank
    reduction : "mean" divides each l by its target's length (at least 1), then takes the mean over the batch
    zero_infinity : where no path is long enough for the target, l is inf and dx nan; with this, both are 0

    About dx: the derivative of l by x alone, each x[t, c] being free to move, is -gamma. As in torch, dx is
    exp(x) - gamma, the derivative by *scores whose log-softmax is x*. A LogSoftmax in front hands it on unchanged,
    and makes exp(x) - gamma out of -gamma too, so the network gets the same gradient; but a gradient check has to
    include the LogSoftmax. Where x is -inf (a symbol that is impossible), torch's dx is nan, and ours is 0.

        loss = CTCLoss().forward(log_probabilities, targets, input_lengths, target_lengths)

    Graves et al. 2006, "Connectionist Temporal Classification", section 4; torch.nn.CTCLoss
    """

    def __init__(self, blank: int = 0, reduction: str = "mean", zero_infinity: bool = False) -> None:
        super().__init__(reduction=reduction)
        self.blank = whole(self, "blank", blank, least=0)
        self.zero_infinity = zero_infinity

    def forward(self, x: ArrayLike, targets: ArrayLike, input_lengths: ArrayLike, target_lengths: ArrayLike) -> Any:
        x = self.input(x)
        if x.ndim not in (2, 3):
            self.reject("x of shape (T, N, C) or (T, C)", x.shape)
        shape = x.shape
        x = x.reshape(shape[0], -1, shape[-1])
        if self.blank >= shape[-1]:
            self.reject(f"x with the class {self.blank}, the blank", f"shape {shape}")
        steps = self._lengths("input_lengths", input_lengths, x.shape[1], shape[0])
        lengths = self._lengths("target_lengths", target_lengths, x.shape[1])
        extended = self._extended(targets, lengths, x.shape[1:], len(shape) == 2)
        sizes = 2 * lengths + 1

        emitted = self._emitted(x, extended, sizes)
        alpha, ahead = self._walks(emitted, extended), np.maximum(steps - 1, 0)
        each = np.arange(len(steps))
        last = alpha[ahead, each] + emitted[ahead, each]
        ends = np.stack([last[each, sizes - 1], np.where(lengths > 0, last[each, sizes - 2], -np.inf)])
        nll = -np.logaddexp(ends[0], ends[1])
        nll = np.where(steps == 0, np.where(lengths == 0, 0, np.inf), nll)  # no steps: only the empty target
        losses = nll.astype(x.dtype)
        if self.zero_infinity:
            losses = np.where(np.isinf(losses), 0, losses).astype(x.dtype)
        divisors = np.maximum(lengths, 1) if self.reduction == "mean" else np.ones_like(lengths)
        losses = losses.reshape(shape[1:-1])
        self.save(x, extended, steps, sizes, alpha, nll, divisors, shape, out=losses)
        return self.reduce(losses / divisors.reshape(losses.shape) if self.reduction == "mean" else losses)

    def backward(self, dout: Any = None) -> Array:
        dl = self.upstream(dout)
        x, extended, steps, sizes, alpha, nll, divisors, shape = self.saved()
        # seen from the other end, the backward sum is a forward sum: turn each sample round, in time and in e
        each = np.arange(len(steps))
        times = np.arange(len(x))[:, None]
        symbols = np.arange(extended.shape[1])
        later = np.clip(steps - 1 - times, 0, None)
        mirror = np.clip(sizes[:, None] - 1 - symbols, 0, None)
        emitted = self._emitted(x, extended, sizes)
        turned = np.where(symbols < sizes[:, None], extended[each[:, None], mirror], self.blank)
        beta = self._walks(self._emitted(x[later, each], turned, sizes), turned)
        beta = beta[later[:, :, None], each[:, None], mirror]
        none = np.isinf(nll)  # no path
        gamma = np.exp(alpha + emitted + beta + np.where(none, np.nan, nll)[:, None])
        gamma[:, symbols >= sizes[:, None]] = 0
        dx = np.exp(x)
        dx[:, :, self.blank] -= gamma[:, :, ::2].sum(2)
        for s in range(1, len(symbols), 2):
            dx[:, each, extended[:, s]] -= gamma[:, :, s]  # one symbol for each sample: none is hit twice
        dx *= (dl.reshape(-1) / divisors).astype(x.dtype)[:, None]
        dx[:, none] = 0 if self.zero_infinity else np.nan
        dx[times >= steps] = 0
        return dx.reshape(shape)

    def _emitted(self, x: Array, extended: Array, sizes: Array) -> Array:
        """x[t, n, e_s], and -inf for the s that sample n does not have: (T, N, 2 L + 1)."""
        emitted = np.take_along_axis(x, extended[None], 2)
        emitted[:, np.arange(extended.shape[1]) >= sizes[:, None]] = -np.inf
        return emitted

    def _walks(self, emitted: Array, extended: Array) -> Array:
        """alpha_t(s) - x[t, e_s] for all t: the logarithm of all walks that come to s at t, but for its last factor."""
        skip = np.full(extended.shape, -np.inf, emitted.dtype)
        skip[:, 3::2] = np.where(extended[:, 3::2] != extended[:, 1:-2:2], 0, -np.inf)
        arrived = np.full_like(emitted, -np.inf)
        arrived[0, :, :2] = 0
        for t in range(1, len(emitted)):
            alpha = arrived[t - 1] + emitted[t - 1]
            most = alpha.copy()
            np.maximum(most[:, 1:], alpha[:, :-1], out=most[:, 1:])
            np.maximum(most[:, 2:], alpha[:, :-2] + skip[:, 2:], out=most[:, 2:])
            most[most == -np.inf] = 0
            ways = np.exp(alpha - most)
            ways[:, 1:] += np.exp(alpha[:, :-1] - most[:, 1:])
            ways[:, 2:] += np.exp(alpha[:, :-2] + skip[:, 2:] - most[:, 2:])
            with np.errstate(divide="ignore"):
                arrived[t] = np.log(ways) + most
        return arrived

    def _lengths(self, name: str, lengths: ArrayLike, samples: int, most: int | None = None) -> Array:
        array = self.array(lengths)
        if array.dtype.kind not in "iu" or array.size != samples or array.ndim > 1:
            self.reject(f"{name} as {samples} integers", f"{array.dtype} of shape {array.shape}")
        if array.min() < 0 or array.max() > (np.iinfo(np.intp).max if most is None else most):
            upto = "0 or more" if most is None else f"0 to {most}"
            self.reject(f"{name} of {upto}", f"{array.min()} to {array.max()}")
        return array.reshape(-1).astype(np.intp)

    def _extended(self, targets: ArrayLike, lengths: Array, shape: tuple[int, ...], single: bool) -> Array:
        """e of every sample, with blanks after its end: (N, 2 L + 1), L the longest target."""
        samples, classes = shape
        labels = self.anything("targets", targets)
        if labels.dtype.kind not in "iuf":
            self.reject("targets of integers", f"dtype {labels.dtype}")
        longest = int(lengths.max())
        if labels.ndim == 1 and labels.size != lengths.sum():
            self.reject(f"{lengths.sum()} targets in one row, as target_lengths say", labels.size)
        if labels.ndim not in (1, 2) or (labels.ndim == 2 and (len(labels) != samples or labels.shape[1] < longest)):
            wanted = f"({samples}, {longest}) or longer" + (" or one row" if single else ", or one row of all")
            self.reject(f"targets of shape {wanted}", labels.shape)
        counts = np.arange(longest) < lengths[:, None]
        used = labels if labels.ndim == 1 else labels[:, :longest][counts]
        if not ((used >= 0) & (used < classes) & (used % 1 == 0)).all():  # nan neither
            self.reject(f"integer targets from 0 to {classes - 1}", f"{used.min()} to {used.max()}")
        if (used == self.blank).any():
            hint = "a label needs a class of its own, and what fills up a row lies beyond the target's length"
            self.reject(f"targets other than the blank, {self.blank}", self.blank, hint)
        extended = np.full((samples, 2 * longest + 1), self.blank, np.intp)
        extended[:, 1::2][counts] = used
        return extended
