"""Containers: each is its own equation, and each is a Layer.

One rule makes them right without any graph: the backward visits the inner layers in exactly the reverse order of
the forward. It is this toolkit's whole answer to the topological sort, and with the stacks of the layers it also
covers a layer that is used many times.
"""

from __future__ import annotations

import functools
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from backhand.layers.arguments import whole
from backhand.layers.base import Layer
from backhand.layers.blocks import add
from backhand.layers.parameter import Array


class Container(Layer):
    """A layer made of layers; it prints as an indented constructor call."""

    def __repr__(self) -> str:
        inside = [repr(child) for child in self.children()] + self.options()
        return f"{type(self).__name__}(\n{textwrap.indent(_lines(inside), '    ')})"

    def options(self) -> list[str]:
        """The constructor arguments that are not layers, as they are written in the call."""
        return []


class Sequential(Container):
    """One layer after the other.

        y = f_n(... f_2(f_1(x)))
        dx = df_1(... df_n(dout)),    the chain rule: each layer's downstream is the next one's upstream

    x : what the first layer takes      y : what the last one gives

    Sequential(Linear(784, 10), Softmax(1)), or by name: Sequential({"fc": Linear(784, 10), ...}); names are then
    used in state_dict. A tuple that one layer returns is spread over the arguments of the next.
    Indexing, slicing, len() and iteration are those of a list; a slice keeps the names.
    """

    def __init__(self, *layers: Layer | Mapping[str, Layer]) -> None:
        named: Mapping[str, Any]
        if len(layers) == 1 and isinstance(layers[0], Mapping):
            named = layers[0]
        else:
            named = {str(i): layer for i, layer in enumerate(layers)}
        for name, layer in named.items():
            _check_layer(self, layer)
            if not isinstance(name, str) or not name or "." in name:
                raise ValueError(f"{type(self).__name__}: expected names without dots, got {name!r}")
        self.layers: dict[str, Layer] = dict(named)

    def named_children(self) -> Iterator[tuple[str, Layer]]:
        yield from self.layers.items()

    def forward(self, *x: Any) -> Any:
        layer: Layer = self
        try:
            for layer in self.layers.values():
                y = layer.forward(*x)
                x = y if type(y) is tuple else (y,)
        except TypeError:
            _check_number(layer, x)
            raise
        return x[0] if len(x) == 1 else x

    def backward(self, dout: Any) -> Any:
        order = reversed(self.layers.values())
        for layer in order:
            dout = layer.backward(dout)
            if dout is None and not layer.input_requires_grad:
                for before in order:  # they have no parameters, and nobody wants what they would hand on
                    if before.__dict__.get("_stack"):
                        before.saved()
        return dout

    def input_requires_grad_(self, requires_grad: bool = True) -> Sequential:
        super().input_requires_grad_(requires_grad)
        head = []
        for layer in self.layers.values():
            head.append(layer)
            if any(True for _ in layer.named_children()) or any(True for _ in layer.named_parameters()):
                break
        # a layer that is used again further on must hand its gradient on there
        names = [id(layer) for _, layer in self._walk()]
        if all(names.count(id(inner)) == 1 for layer in head for inner in layer.modules()):
            for layer in head:
                layer.input_requires_grad_(requires_grad)
        return self

    def append(self, layer: Layer) -> Sequential:
        """Put one more layer at the end, named by its position; returns the Sequential itself."""
        name = str(len(self.layers))
        if name in self.layers:
            raise ValueError(f"{type(self).__name__}: expected no layer of the name {name!r} yet, got one")
        self.layers[name] = _check_layer(self, layer)
        return self

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers.values())

    def __getitem__(self, index: int | slice | str) -> Layer:
        if isinstance(index, str):
            return self.layers[index]
        if isinstance(index, slice):
            return Sequential(dict(list(self.layers.items())[index]))
        return list(self.layers.values())[index]

    def __repr__(self) -> str:
        if list(self.layers) == [str(i) for i in range(len(self.layers))]:
            return super().__repr__()
        inside = _lines(f"{name!r}: {layer!r}" for name, layer in self.layers.items())
        return f"{type(self).__name__}({{\n{textwrap.indent(inside, '    ')}}})"


class Residual(Container):
    """A body, and a way around it.

        y = shortcut(x) + body(x)
        dx = dshortcut(dout) + dbody(dout),    the way around is why deep nets still get gradients

    x, y : whatever the body takes and gives; without a shortcut both have one shape
    He, Zhang, Ren & Sun 2015, arXiv:1512.03385, eq. 1 and 2
    """

    def __init__(self, body: Layer, shortcut: Layer | None = None) -> None:
        self.body = _check_layer(self, body)
        self.shortcut = None if shortcut is None else _check_layer(self, shortcut)

    def forward(self, x: ArrayLike) -> Array:
        x = self.array(x)
        y = _called(self.body, x)
        around = x if self.shortcut is None else _called(self.shortcut, x)
        _check_arrays(self, [y, around])
        if y.shape != around.shape:
            self.reject(f"a body that gives the shape of the shortcut, {around.shape}", y.shape)
        y = add(y, around)
        self.save(out=y)
        return y

    def backward(self, dout: Any) -> Any:
        dout = self.upstream(dout)
        self.saved()
        around = dout if self.shortcut is None else self.shortcut.backward(dout)
        return _add_all([self.body.backward(dout), around])


class _Branches(Container):
    """What Sum, Concat and Parallel share: `branches`, side by side, named by their position."""

    least = 1

    def __init__(self, *branches: Layer) -> None:
        if len(branches) < self.least:
            least = "one branch" if self.least == 1 else "two branches"
            raise ValueError(f"{type(self).__name__}: expected at least {least}, got {len(branches)}")
        self.branches = tuple(_check_layer(self, branch) for branch in branches)

    def named_children(self) -> Iterator[tuple[str, Layer]]:
        yield from ((str(i), branch) for i, branch in enumerate(self.branches))


class Sum(_Branches):
    """Every branch sees the whole input, and their outputs add.

        y = f_1(x) + ... + f_n(x)        dx = df_1(dout) + ... + df_n(dout)

    x, y : every branch takes x and gives the same shape
    """

    def forward(self, *x: Any) -> Array:
        outputs = [_called(branch, *x) for branch in self.branches]
        _check_arrays(self, outputs)
        shapes = {y.shape for y in outputs}
        if len(shapes) > 1:
            self.reject("branches that give one shape", " and ".join(str(y.shape) for y in outputs))
        total = functools.reduce(add, outputs) if len(outputs) > 1 else outputs[0].copy()
        self.save(out=total)
        return total

    def backward(self, dout: Any) -> Any:
        dout = self.upstream(dout)
        self.saved()
        return _add_all([branch.backward(dout) for branch in reversed(self.branches)])


class Concat(_Branches):
    """Every branch sees the whole input, and their outputs stand side by side.

        y = [f_1(x), ..., f_n(x)] along `axis`        dx = df_1(its part of dout) + ... + df_n(its part)

    x : every branch takes it
    y : (N, C_1 + ... + C_n, ...) for axis=1
    """

    def __init__(self, *branches: Layer, axis: int = 1) -> None:
        super().__init__(*branches)
        self.axis = axis

    def options(self) -> list[str]:
        return [] if self.axis == 1 else [f"axis={self.axis}"]

    def forward(self, *x: Any) -> Array:
        outputs = [_called(branch, *x) for branch in self.branches]
        _check_arrays(self, outputs)
        try:
            y = np.concatenate(outputs, axis=self.axis)
        except ValueError:
            shapes = " and ".join(str(each.shape) for each in outputs)
            self.reject(f"branches that give shapes which differ along axis {self.axis} only", shapes)
        self.save(np.cumsum([each.shape[self.axis] for each in outputs])[:-1], out=y)
        return y

    def backward(self, dout: Any) -> Any:
        dout = self.upstream(dout)
        (cuts,) = self.saved()
        parts = np.split(dout, cuts, axis=self.axis)
        pairs = reversed(list(zip(self.branches, parts, strict=True)))
        return _add_all([branch.backward(part) for branch, part in pairs])


class Parallel(_Branches):
    """One branch for each input: a tuple in, a tuple out.

        y_i = f_i(x_i)        dx_i = df_i(dout_i)

    x_i : what branch i takes; a tuple is spread over its arguments, and its gradients come back as a tuple
    """

    least = 2  # one branch would make a tuple of one, which is no different from what is in it

    def forward(self, *x: Any) -> tuple[Any, ...]:
        if len(x) != len(self.branches):
            hint = "what belongs to one branch is one tuple" if len(x) > len(self.branches) else ""
            self.reject(f"{len(self.branches)} inputs, one for each branch", len(x), hint)
        y = tuple(
            _called(branch, *each) if type(each) is tuple else _called(branch, each)
            for branch, each in zip(self.branches, x, strict=True)
        )
        self.save(out=y)
        return y

    def backward(self, dout: Any) -> tuple[Any, ...]:
        dout = self.upstream(dout)
        self.saved()
        pairs = list(zip(self.branches, dout, strict=True))
        return tuple(branch.backward(each) for branch, each in reversed(pairs))[::-1]


class Repeat(Container):
    """One layer, with one set of weights, applied again and again.

        y = f(f(... f(x)))        dx = df(... df(dout));    the gradients of all the uses add up in the weights

    x, y : the shape that the body takes and gives
    """

    def __init__(self, body: Layer, times: int) -> None:
        self.body = _check_layer(self, body)
        self.times = whole(self, "times", times)

    def options(self) -> list[str]:
        return [str(self.times)]

    def forward(self, *x: Any) -> Any:
        for _ in range(self.times):
            y = _called(self.body, *x)
            x = y if type(y) is tuple else (y,)
        return x[0] if len(x) == 1 else x

    def backward(self, dout: Any) -> Any:
        for _ in range(self.times):
            dout = self.body.backward(dout)
        return dout


class Unroll(Container):
    """A cell over time: the readable form of every recurrent layer.

        s_t = cell(x_t, s_{t-1})        y_t = s_t, or its first part where the state is a tuple (h, c)
        ds_t = dy_t + (ds_t from step t+1),    (dx_t, ds_{t-1}) = dcell(ds_t):    backpropagation through time

    x : (T, N, ...), or (N, T, ...) with batch_first
    state : what the cell takes beside x_t; None: at the first step it is called with x_t alone
    y : the outputs of all the steps, time on the same axis as in x; with return_state: (y, last state)
    The gradient comes back as (dx, dstate), or dx alone when no state was given.
    Werbos 1990, "Backpropagation Through Time: What It Does and How to Do It"
    """

    def __init__(self, cell: Layer, *, batch_first: bool = False, return_state: bool = False) -> None:
        self.cell = _check_layer(self, cell)
        self.batch_first = batch_first
        self.return_state = return_state

    def options(self) -> list[str]:
        return [f"{name}=True" for name in ("batch_first", "return_state") if getattr(self, name)]

    def forward(self, x: ArrayLike, state: Any = None) -> Any:
        x = self.array(x)  # integers are for the cell to understand
        axis = int(self.batch_first)
        if x.ndim <= axis:
            self.reject(f"x with time on axis {axis}", x.shape)
        given = state is not None
        outputs = []
        for x_t in np.moveaxis(x, axis, 0):
            state = _called(self.cell, x_t) if state is None else _called(self.cell, x_t, state)
            outputs.append(state[0] if type(state) is tuple else state)
        y = np.stack(outputs, axis=axis)
        out = (y, state) if self.return_state else y
        self.save(given, len(state) if type(state) is tuple else 0, out=out)
        return out

    def backward(self, dout: Any) -> Any:
        dout = self.upstream(dout)
        dy, dstate = dout if self.return_state else (dout, None)
        given, parts = self.saved()
        axis = int(self.batch_first)
        dxs = []
        for dy_t in np.moveaxis(dy, axis, 0)[::-1]:
            # a state reaches the loss twice: through this step's output, and through the next step
            if parts:
                dh, *others = dstate if dstate is not None else (None,) * parts
                dstate = (dy_t if dh is None else dy_t + dh, *others)
            else:
                dstate = dy_t if dstate is None else dy_t + dstate
            back = self.cell.backward(dstate)
            dx_t, dstate = back if type(back) is tuple else (back, None)
            dxs.append(dx_t)
        dx = None if dxs[0] is None else np.stack(dxs[::-1], axis=axis)
        return (dx, dstate) if given else dx


def _add_all(gradients: list[Any]) -> Any:
    """The sum over the branches of a fork: tuples add member by member, None (by an integer input) adds nothing."""
    some = [gradient for gradient in gradients if gradient is not None]
    if not some:
        return None
    if isinstance(some[0], tuple):
        return tuple(_add_all(list(each)) for each in zip(*some, strict=True))
    return functools.reduce(add, some)


def _check_arrays(container: Layer, outputs: list[Any]) -> None:
    for i, y in enumerate(outputs):
        if type(y) is tuple:
            container.reject("one output from each branch", f"a tuple of {len(y)} from branch {i}")


def _check_layer(container: Layer, layer: Any) -> Layer:
    if not isinstance(layer, Layer):
        hint = f"; did you mean {layer.__name__}()?" if isinstance(layer, type) else ""
        if isinstance(layer, (list, tuple)):
            hint = f"; unpack it: {type(container).__name__}(*layers)"
        raise TypeError(f"{type(container).__name__}: expected a Layer, got {layer!r}{hint}")
    return layer


def _called(layer: Layer, *x: Any) -> Any:
    """What the layer makes of these inputs, or its error where it takes more or fewer of them."""
    try:
        return layer.forward(*x)
    except TypeError:
        _check_number(layer, x)
        raise


def _check_number(layer: Layer, x: tuple[Any, ...]) -> None:
    signature = inspect.signature(layer.forward)
    try:
        signature.bind(*x)
    except TypeError:
        names = ", ".join(str(each.replace(annotation=each.empty)) for each in signature.parameters.values())
        layer.reject(f"inputs ({names})", f"{len(x)} of them", "a tuple is spread over the arguments")


def _lines(items: Any) -> str:
    return "".join(f"{item},\n" for item in items)
