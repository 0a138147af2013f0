"""Lookup tables: row i of a matrix is the vector of symbol i.

A lookup is a product with one-hot vectors, y = onehot(x) W, so its derivative is the transposed product: the row
that was read gets the gradient, and a row that was read many times gets the sum. Neither product is ever formed:
forward gathers rows, backward scatters them back.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from backhand.layers.arguments import number, one_of, refuse, whole, within
from backhand.layers.base import Layer
from backhand.layers.guard import widened
from backhand.layers.parameter import Array, Parameter, float_dtype


class _Table(Layer):
    """What Embedding and EmbeddingBag share: the matrix, its checks, and the renormalisation of its rows."""

    num_embeddings: int
    embedding_dim: int
    padding_idx: int | None
    max_norm: float | None
    norm_type: float
    scale_grad_by_freq: bool
    weight: Parameter

    def build(
        self,
        shape: tuple[Any, Any],
        padding_idx: int | None,
        max_norm: float | None,
        norm_type: float,
        weight: ArrayLike | None,
        rng: np.random.Generator | int | None,
        dtype: DTypeLike,
    ) -> None:
        """Check the arguments that the tables share and make the matrix: N(0, 1), or a copy of `weight`."""
        self.num_embeddings = whole(self, "num_embeddings", shape[0])
        self.embedding_dim = whole(self, "embedding_dim", shape[1])
        self.padding_idx = None
        if padding_idx is not None:
            n = self.num_embeddings
            if whole(self, "padding_idx", padding_idx, -n) >= n:
                refuse(self, f"padding_idx in [-{n}, {n})", padding_idx)
            self.padding_idx = int(padding_idx) % n
        self.max_norm = None if max_norm is None else within(self, "max_norm", max_norm, 0, np.inf)
        self.norm_type = number(self, "norm_type", norm_type)
        if weight is None:
            rows = np.random.default_rng(rng).standard_normal((self.num_embeddings, self.embedding_dim))
            if self.padding_idx is not None:
                rows[self.padding_idx] = 0
            self.weight = Parameter(rows.astype(float_dtype(dtype)))
        else:
            self.weight = Parameter(weight)
            if self.weight.shape != (self.num_embeddings, self.embedding_dim):
                wanted = (self.num_embeddings, self.embedding_dim)
                refuse(self, f"_weight of shape {wanted}", self.weight.shape)

    def indices(self, x: ArrayLike) -> Array:
        """x as an array of row numbers, or the error that names the one that is none."""
        index = self.array(x)
        if index.dtype.kind not in "iu":
            self.reject("integers, the numbers of rows", f"dtype {index.dtype}")
        low, high = int(index.min()), int(index.max())
        if low < 0 or high >= self.num_embeddings:
            self.reject(f"row numbers in [0, {self.num_embeddings})", low if low < 0 else high)
        return index

    def renormalize(self, index: Array) -> None:
        """Shorten the rows about to be read to max_norm where they are longer, in place, as torch does."""
        if self.max_norm is None:
            return
        used = np.unique(index)
        rows = widened(self.weight.data[used])
        norms = np.linalg.norm(rows, ord=self.norm_type, axis=1)
        long = norms > self.max_norm
        rows = rows[long]
        rows *= (self.max_norm / (norms[long] + 1e-7)).astype(rows.dtype)[:, None]
        self.weight.data[used[long]] = rows

    def per_occurrence(self, index: Array) -> Array:
        """1 / (how often this row was read in the batch), for each reading."""
        _, inverse, counts = np.unique(index, return_inverse=True, return_counts=True)
        return (1 / counts[inverse.reshape(-1)]).astype(np.promote_types(self.weight.dtype, np.float32))


class Embedding(_Table):
    """Row x of a matrix, for every x.

        y = W[x]        dW[i] = sum of dout over the places where x = i

    x : integers in [0, num_embeddings), any shape; they have no gradient, so backward returns None
    y : (*x.shape, embedding_dim)      weight : (num_embeddings, embedding_dim), from N(0, 1)
    padding_idx : a row that starts at 0 and gets no gradient; negative counts from the end
    max_norm : the longest that a row may be, in the norm_type-norm: a longer one that is read is shortened in the
        weight itself, in forward, before it is read. No other layer changes a parameter in forward; the gradient
        is that by the shortened row.
    scale_grad_by_freq : divide the gradient of a row by how often it was read
    sparse : torch's argument; the gradient is the same numbers, always in a dense array, so it changes nothing
    _weight, _freeze : torch's: the matrix to copy, and whether to freeze it; `from_pretrained` says it better
    torch.nn.Embedding
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        _weight: ArrayLike | None = None,
        _freeze: bool = False,
        *,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.build((num_embeddings, embedding_dim), padding_idx, max_norm, norm_type, _weight, rng, dtype)
        self.scale_grad_by_freq = scale_grad_by_freq
        self.sparse = sparse
        self.weight.requires_grad = not _freeze

    @classmethod
    def from_pretrained(
        cls,
        embeddings: ArrayLike,
        freeze: bool = True,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ) -> Embedding:
        """An Embedding with a copy of this matrix, in its dtype; frozen unless freeze=False."""
        shape = matrix_shape(cls, embeddings)
        return cls(*shape, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse, embeddings, freeze)

    def forward(self, x: ArrayLike) -> Array:
        index = self.indices(x)
        self.renormalize(index)
        y = self.weight.data[index]
        self.save(index, out=y)
        return y

    def backward(self, dout: Any) -> None:
        dout = self.upstream(dout)
        (index,) = self.saved()
        index, rows = index.reshape(-1), widened(dout.reshape(-1, self.embedding_dim))
        if self.padding_idx is not None:
            learned = index != self.padding_idx
            index, rows = index[learned], rows[learned]
        if self.scale_grad_by_freq:
            rows = rows * self.per_occurrence(index)[:, None]
        scatter_add(self.weight.grad, index, rows)


class EmbeddingBag(_Table):
    """The sum, mean or largest of the rows in each bag: Embedding and a reduction in one.

        sum     y_b = sum_j w_j W[x_j]            dW[x_j] += w_j dout_b,    dw_j = dout_b . W[x_j]
        mean    y_b = 1/n_b sum_j W[x_j]          dW[x_j] += dout_b / n_b
        max     y_b = max_j W[x_j] by column      dW[x_j] += dout_b in the columns where j is the (first) largest

    j runs over the places of bag b, n_b is their number; an empty bag gives 0.
    x : integers, (B, n) for B bags of one size, or (n,) with offsets; no gradient (None)
    offsets : (B,), where in x each bag starts, from 0 and never decreasing; the last bag ends where x does
    per_sample_weights : w, of the shape of x, for mode="sum"; 1 where it is not given
    y : (B, embedding_dim)      weight : (num_embeddings, embedding_dim), from N(0, 1)
    include_last_offset : offsets are (B + 1,): its last entry says where the last bag ends
    padding_idx : a row that starts at 0, is left out of every bag, and gets no gradient
    max_norm, norm_type, scale_grad_by_freq, sparse, _weight : as in Embedding

    backward returns one gradient for each input that was given: None, (None, None), (None, None, dw), or for x and w
    alone (None, dw). With scale_grad_by_freq PyTorch on a CPU divides by the count of another row where rows repeat;
    here the count is the row's own, as its documentation says.
    torch.nn.EmbeddingBag
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        _weight: ArrayLike | None = None,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        *,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.mode = one_of(self, "mode", mode, ("sum", "mean", "max"))
        if mode == "max" and (scale_grad_by_freq or sparse):
            refuse(self, "mode 'sum' or 'mean' with scale_grad_by_freq or sparse", mode)
        self.build((num_embeddings, embedding_dim), padding_idx, max_norm, norm_type, _weight, rng, dtype)
        self.scale_grad_by_freq = scale_grad_by_freq
        self.sparse = sparse
        self.include_last_offset = include_last_offset

    @classmethod
    def from_pretrained(
        cls,
        embeddings: ArrayLike,
        freeze: bool = True,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
    ) -> EmbeddingBag:
        """An EmbeddingBag with a copy of this matrix, in its dtype; frozen unless freeze=False."""
        rows, columns = matrix_shape(cls, embeddings)
        options = (max_norm, norm_type, scale_grad_by_freq, mode, sparse, embeddings, include_last_offset, padding_idx)
        bag = cls(rows, columns, *options)
        bag.weight.requires_grad = not freeze
        return bag

    def forward(
        self, x: ArrayLike, offsets: ArrayLike | None = None, per_sample_weights: ArrayLike | None = None
    ) -> Array:
        index = self.indices(x)
        edges = self._edges(index, offsets)
        weights = None if per_sample_weights is None else self._weights(index, per_sample_weights)
        self.renormalize(index)
        table = self.input(self.weight.data)
        bags = len(edges) - 1
        # every place on its own: which row, which bag, which weight; places past the last edge are in no bag
        place = np.arange(int(edges[-1]))
        bag = np.repeat(np.arange(bags), np.diff(edges))
        rows = index.reshape(-1)[: len(place)]
        if self.padding_idx is not None:
            counted = rows != self.padding_idx
            place, bag, rows = place[counted], bag[counted], rows[counted]
        factors = None if weights is None else weights.reshape(-1)[place]
        if self.mode == "mean":
            sizes = np.bincount(bag, minlength=bags)
            factors = (1 / np.maximum(sizes, 1)).astype(table.dtype)[bag]
        y = np.zeros((bags, self.embedding_dim), table.dtype)
        if self.mode == "max":
            kept: tuple[Any, ...] = self._largest(y, bag, rows)
        else:
            vectors = table[rows]
            if factors is not None:
                vectors *= factors[:, None]
            scatter_add(y, bag, vectors)
            kept = (bag, rows, factors, place)
        self.save(kept, index.shape, offsets is not None, weights is not None, out=y)
        return y

    def backward(self, dout: Any) -> Any:
        dout = self.upstream(dout)
        kept, shape, with_offsets, with_weights = self.saved()
        gradients: list[Array | None] = [None] * (1 + with_offsets)
        if self.mode == "max":
            filled, winners = kept
            total = np.zeros(self.weight.shape, dout.dtype)
            np.add.at(total, (winners, np.arange(self.embedding_dim)), dout[filled])
            self.weight.grad += total
        else:
            bag, rows, factors, place = kept
            vectors = dout[bag]
            if with_weights:
                dw = np.zeros(int(np.prod(shape)), dout.dtype)
                dw[place] = np.einsum("ij,ij->i", vectors, self.weight.data[rows])
                gradients.append(dw.reshape(shape))
            if factors is not None:
                vectors *= factors[:, None]
            if self.scale_grad_by_freq:
                vectors *= self.per_occurrence(rows)[:, None]
            scatter_add(self.weight.grad, rows, vectors)
        return tuple(gradients) if len(gradients) > 1 else None

    def _largest(self, y: Array, bag: Array, rows: Array) -> tuple[Array, Array]:
        """Fill in the largest entries; which bags have any, and which row each of their entries came from."""
        starts = segment_starts(bag)
        filled = bag[starts]
        if not len(starts):
            return filled, np.zeros((0, self.embedding_dim), np.intp)
        vectors = self.weight.data[rows]
        y[filled] = np.maximum.reduceat(vectors, starts, axis=0)
        largest = (vectors == y[bag]) | np.isnan(vectors)
        first = np.minimum.reduceat(np.where(largest, np.arange(len(bag))[:, None], len(bag)), starts, axis=0)
        return filled, rows[first]

    def _edges(self, index: Array, offsets: ArrayLike | None) -> Array:
        """Where the bags begin, and where the last one ends."""
        if index.ndim == 2:
            if offsets is not None:
                self.reject("no offsets with x of two axes, each row of which is a bag", "offsets")
            return np.arange(len(index) + 1) * index.shape[1]
        if index.ndim != 1:
            self.reject("x of shape (B, n), or (n,) with offsets", index.shape)
        if offsets is None:
            self.reject("offsets with x of one axis", "none")
        edges = self.array(offsets)
        if edges.ndim != 1 or edges.dtype.kind not in "iu":
            self.reject("offsets as a vector of integers", f"shape {edges.shape} of {edges.dtype}")
        edges = edges.astype(np.intp)
        if not self.include_last_offset:
            edges = np.append(edges, len(index))
        if len(edges) < 2 or edges[0] != 0 or edges[-1] > len(index) or (np.diff(edges) < 0).any():
            self.reject(f"offsets from 0, never decreasing, up to {len(index)}", np.asarray(offsets).tolist())
        return edges

    def _weights(self, index: Array, per_sample_weights: ArrayLike) -> Array:
        if self.mode != "sum":
            self.reject("per_sample_weights with mode='sum' only", f"mode={self.mode!r}")
        weights = self.input(per_sample_weights, self.weight.dtype)
        if weights.shape != index.shape:
            self.reject(f"per_sample_weights of the shape of x, {index.shape}", weights.shape)
        return weights


# ---------------------------------------------------------------------- what both need


def scatter_add(target: Array, index: Array, rows: Array) -> None:
    """target[index[i]] += rows[i] for all i, repeated indices included, in place."""
    order = np.argsort(index, kind="stable")
    index = index[order]
    starts = segment_starts(index)
    if len(starts):
        target[index[starts]] += np.add.reduceat(rows[order], starts, axis=0)


def segment_starts(sorted_index: Array) -> Array:
    """Where each run of equal numbers begins."""
    return np.flatnonzero(np.diff(sorted_index, prepend=-1))


def matrix_shape(cls: type[Layer], embeddings: ArrayLike) -> tuple[int, int]:
    """The shape of a matrix, or the error that says it is none."""
    shape = np.shape(embeddings)
    if len(shape) != 2:
        raise ValueError(f"{cls.__name__}: expected embeddings of shape (num_embeddings, embedding_dim), got {shape}")
    return shape
