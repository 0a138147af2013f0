"""Optimizers: what is done with the gradients.

The names, arguments, defaults and arithmetic are those of torch.optim. What differs is the storage: an optimizer
moves the parameters of a group onto one flat vector (their `data` and `grad` become views of it), so an update is
a few whole-vector operations however many layers there are.

In the equations g is the gradient, w a parameter, t the number of the step. Every optimizer takes

    maximize : g = -g first        weight_decay : then g = g + weight_decay w, the gradient of an L2 penalty
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from backhand.layers.base import Array, Layer, Parameter

# Numbers per piece of an update: the handful of vectors that it touches then stay in the cache.
PIECE = 1 << 15

_NOT_NEGATIVE = ("lr", "eps", "weight_decay", "momentum", "alpha", "lr_decay", "initial_accumulator_value")


class Block:
    """Parameters that are updated as one vector: of one group and dtype, and with the same steps behind them.

    data, grad : (n,) flat; the parameters' `data` and `grad` are views of them
    arrays : name -> (n,), what the optimizer remembers for each number
    scalars : name -> float, what it remembers for all of them (the number of steps)
    """

    def __init__(self, parameters: list[Parameter], states: Mapping[Parameter, Mapping[str, Any]]) -> None:
        dtype = parameters[0].dtype
        first = states.get(parameters[0], {})
        n = sum(p.size for p in parameters)
        self.data, self.grad = np.empty(n, dtype), np.empty(n, dtype)
        self.arrays = {name: np.empty(n, dtype) for name, value in first.items() if isinstance(value, np.ndarray)}
        self.scalars = {name: value for name, value in first.items() if not isinstance(value, np.ndarray)}
        self.places: dict[Parameter, slice] = {}
        self.members: list[tuple[Parameter, Array, Array]] = []
        start = 0
        for p in parameters:
            place = self.places[p] = slice(start, start + p.size)
            start += p.size
            self.data[place] = p.data.reshape(-1)
            self.grad[place] = p.grad.reshape(-1)
            for name, flat in self.arrays.items():
                flat[place] = states[p][name].reshape(-1)
            p.data, p.grad = self.data[place].reshape(p.shape), self.grad[place].reshape(p.shape)
            self.members.append((p, p.data, p.grad))
        self._work = np.empty((2, min(n, PIECE)), dtype)
        self._cut: dict[tuple[str, ...], list[tuple[Array, ...]]] = {}

    def intact(self) -> bool:
        """Whether every parameter still lives here, and is still to be trained."""
        for p, data, grad in self.members:
            if p.data is not data or p.grad is not grad or not p.requires_grad:
                return False
        return True

    def state(self) -> Iterator[tuple[Parameter, dict[str, Any]]]:
        """(parameter, what is remembered for it), arrays as views."""
        for p, place in self.places.items():
            yield p, {**self.scalars, **{name: flat[place].reshape(p.shape) for name, flat in self.arrays.items()}}

    def count(self) -> int:
        """The number of this step, from 1."""
        self.scalars["step"] = self.scalars.get("step", 0.0) + 1
        return int(self.scalars["step"])

    def pieces(self, *names: str, start: float = 0.0) -> list[tuple[Array, ...]]:
        """(w, g, the arrays called `names`, two buffers) for each piece; arrays that are missing begin at `start`."""
        cut = self._cut.get(names)
        if cut is None:
            for name in names:
                if name not in self.arrays:
                    self.arrays[name] = np.full_like(self.data, start)
            flats = [self.data, self.grad, *(self.arrays[name] for name in names)]
            cut = self._cut[names] = []
            for a in range(0, len(self.data), PIECE):
                vectors = [flat[a : a + PIECE] for flat in flats]
                cut.append((*vectors, *(buffer[: len(vectors[0])] for buffer in self._work)))
        return cut


class Optimizer:
    """What every optimizer is: groups of parameters, their options, and an update.

    params : Parameters (`model.parameters()`), or dicts {"params": [...], "lr": ...} whose options differ
    defaults : the options of a group that does not say otherwise

    A subclass writes `update(group, block)`. Parameters with requires_grad=False are left alone, and may be frozen
    and thawed at any time. Whatever else rebinds a parameter's arrays (`astype`, another optimizer) is noticed at
    the next step: they are taken in again, with their state. An array taken from `parameter.data` before the
    optimizer was made is no longer the parameter's: ask the parameter again.
    """

    scalar_names: tuple[str, ...] = ("step",)  # the state that is one number for a whole parameter

    def __init__(self, params: Iterable[Parameter] | Iterable[dict[str, Any]], **defaults: Any) -> None:
        self.defaults = defaults
        self.param_groups: list[dict[str, Any]] = []
        self._blocks: list[tuple[dict[str, Any], Block]] = []
        self._frozen: list[Parameter] = []
        self._apart: dict[Parameter, dict[str, Any]] = {}  # state of parameters that are in no block
        self._sizes: list[int] = []
        if isinstance(params, (Layer, Parameter)) or not isinstance(params, Iterable):
            hint = "; pass model.parameters()" if isinstance(params, Layer) else ""
            self._fail(f"expected an iterable of Parameters or of dicts, got {type(params).__name__}{hint}")
        items = list(params)
        if not items:
            self._fail("expected at least one Parameter, got none (an iterator that was used up?)")
        groups = items if isinstance(items[0], dict) else [{"params": items}]
        taken: set[Parameter] = set()
        for group in groups:
            self.param_groups.append(self._checked_group(group, taken))
        self._adopt()

    def update(self, group: dict[str, Any], block: Block) -> None:
        """Change block.data by block.grad."""
        raise NotImplementedError(f"{type(self).__name__} has no update()")

    def check(self, group: dict[str, Any]) -> None:
        """Raise ValueError where an option of a group makes no sense."""
        for name in _NOT_NEGATIVE:
            if name in group:
                value = group[name]
                if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 <= value < np.inf:
                    self._fail(f"expected {name} to be a number, 0 or more, got {value!r}")
        if "betas" in group:
            betas = group["betas"]
            if not isinstance(betas, (tuple, list)) or len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
                self._fail(f"expected betas to be two numbers in [0, 1), got {betas!r}")

    # ------------------------------------------------------------------ what is called while training

    def step(self) -> None:
        """Update every trainable parameter by its gradient."""
        self._settle()
        for group, block in self._blocks:
            self.update(group, block)

    def zero_grad(self) -> None:
        """Set every gradient to zero, the frozen parameters' too."""
        self._settle()
        for _, block in self._blocks:
            block.grad.fill(0)
        for p in self._frozen:
            p.grad.fill(0)

    def gradients(self) -> list[Array]:
        """The flat vectors that hold the gradients of all trainable parameters: themselves, not copies."""
        self._settle()
        return [block.grad for _, block in self._blocks]

    # ------------------------------------------------------------------ groups

    def add_param_group(self, group: dict[str, Any]) -> None:
        """Take in more parameters, with options of their own."""
        taken = {p for other in self.param_groups for p in other["params"]}
        self.param_groups.append(self._checked_group(group, taken))
        self._adopt()

    def _checked_group(self, group: Any, taken: set[Parameter]) -> dict[str, Any]:
        if not isinstance(group, dict) or "params" not in group:
            self._fail(f"expected all groups to be dicts with 'params', got {type(group).__name__}")
        params = group["params"]
        params = [params] if isinstance(params, Parameter) else list(params)
        for i, p in enumerate(params):
            if not isinstance(p, Parameter):
                self._fail(f"expected Parameters, got {type(p).__name__} at position {i}")
            if p in taken:
                self._fail(f"expected every Parameter once, got one of shape {p.shape} twice (position {i})")
            taken.add(p)
        full = {**self.defaults, **group, "params": params}
        self.check(full)
        return full

    def _fail(self, problem: str) -> Any:
        raise ValueError(f"{type(self).__name__}: {problem}")

    # ------------------------------------------------------------------ where the numbers live

    @property
    def state(self) -> dict[Parameter, dict[str, Any]]:
        """What is remembered for each parameter: floats, and views of the flat arrays."""
        state = dict(self._apart)
        for _, block in self._blocks:
            state.update((p, own) for p, own in block.state() if own)
        return state

    def _settle(self) -> None:
        """Take the parameters in again where something has moved."""
        for size, group in zip(self._sizes, self.param_groups, strict=True):
            if size != len(group["params"]):
                return self._adopt()
        for _, block in self._blocks:
            if not block.intact():
                return self._adopt()
        for p in self._frozen:
            if p.requires_grad:
                return self._adopt()

    def _adopt(self) -> None:
        """Lay the trainable parameters of each group out on flat vectors, with the state that they bring along."""
        states = self.state
        bins: list[tuple[dict[str, Any], list[Parameter]]] = []
        frozen = []
        for group in self.param_groups:
            alike: dict[Any, list[Parameter]] = {}
            for p in group["params"]:
                if p.grad is None or p.grad.shape != p.shape:
                    self._fail(f"expected a gradient of shape {p.shape}, got {getattr(p.grad, 'shape', p.grad)}")
                if not p.requires_grad:
                    frozen.append(p)
                    continue
                state = states.get(p, {})
                scalars = tuple((k, v) for k, v in sorted(state.items()) if not isinstance(v, np.ndarray))
                alike.setdefault((p.dtype, scalars, tuple(sorted(state))), []).append(p)
            bins += ((group, parameters) for parameters in alike.values())
        self._apart = {p: copy.deepcopy(states[p]) for p in frozen if p in states}
        self._blocks = [(group, Block(parameters, states)) for group, parameters in bins]
        self._frozen = frozen
        self._sizes = [len(group["params"]) for group in self.param_groups]

    def __getstate__(self) -> dict[str, Any]:
        # a copied view owns its numbers: a copy of the optimizer starts from the state and lays out afresh
        return {**self.__dict__, "_apart": self.state, "_blocks": [], "_frozen": [], "_sizes": []}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._sizes = [-1] * len(self.param_groups)

    # ------------------------------------------------------------------ state_dict

    def state_dict(self) -> dict[str, Any]:
        """Copies of all that is needed to go on, in torch's layout: parameters are numbered in order.

        {"state": {index: {name: array}}, "param_groups": [{"lr": ..., "params": [index, ...]}]}
        """
        numbers: dict[Parameter, int] = {}
        groups = []
        for group in self.param_groups:
            for p in group["params"]:
                numbers[p] = len(numbers)
            options = {name: copy.deepcopy(value) for name, value in group.items() if name != "params"}
            groups.append({**options, "params": [numbers[p] for p in group["params"]]})
        states = {numbers[p]: own for p, own in self.state.items()}
        return {
            "state": {i: {k: np.array(v) for k, v in states[i].items()} for i in sorted(states)},
            "param_groups": groups,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a `state_dict()`, of this class or of torch's of the same name.

        Raises ValueError where it does not fit; then nothing has been changed.
        """
        saved = state_dict["param_groups"]
        sizes = [len(group["params"]) for group in self.param_groups]
        if [len(group["params"]) for group in saved] != sizes:
            got = [len(group["params"]) for group in saved]
            self._fail(f"expected a state for groups of {sizes} parameters, got {got}")
        groups = [
            {**own, **copy.deepcopy({k: v for k, v in new.items() if k != "params"})}
            for own, new in zip(self.param_groups, saved, strict=True)
        ]
        for group in groups:
            self.check(group)
        pairs = zip(saved, groups, strict=True)
        owners = {i: p for new, group in pairs for i, p in zip(new["params"], group["params"], strict=True)}
        states: dict[Parameter, dict[str, Any]] = {}
        for i, values in state_dict["state"].items():
            if i not in owners:
                self._fail(f"expected the state of parameters {list(owners)}, got one of {i!r}")
            own = states[owners[i]] = {}
            for name, value in values.items():
                if value is None:  # torch's way to say: not yet
                    continue
                array = np.asarray(value)
                wanted = () if name in self.scalar_names else owners[i].shape
                if array.shape != wanted:
                    self._fail(f"expected {name} of parameter {i} to have shape {wanted}, got {array.shape}")
                own[name] = float(array) if name in self.scalar_names else np.array(array, owners[i].dtype)
        for current, group in zip(self.param_groups, groups, strict=True):
            current.update(group)
        self._blocks, self._apart = [], states
        self._adopt()

    def __repr__(self) -> str:
        lines = []
        for group in self.param_groups:
            options = ", ".join(f"{name}={value!r}" for name, value in group.items() if name != "params")
            lines.append(f"{len(group['params'])} parameters, {options}")
        return f"{type(self).__name__}({'; '.join(lines)})"


def _descent(group: dict[str, Any], w: Array, g: Array, buffer: Array) -> Array:
    """The gradient that the update goes down: with maximize and weight decay; g itself is never written to."""
    decay = float(group["weight_decay"])
    if decay:
        np.multiply(w, decay, out=buffer)
        return np.subtract(buffer, g, out=buffer) if group["maximize"] else np.add(buffer, g, out=buffer)
    return np.negative(g, out=buffer) if group["maximize"] else g


def _lerp(average: Array, x: Array, weight: float, buffer: Array) -> None:
    """average = (1 - weight) average + weight x"""
    np.subtract(x, average, out=buffer)
    buffer *= weight
    average += buffer


def _add_square(average: Array, keep: float, g: Array, weight: float, buffer: Array) -> None:
    """average = keep average + weight g^2"""
    average *= keep
    np.multiply(g, g, out=buffer)
    buffer *= weight
    average += buffer


class SGD(Optimizer):
    """Step down the gradient, with or without momentum.

        b_t = momentum b_{t-1} + (1 - dampening) g_t,    b_1 = g_1
        w = w - lr b_t,    or with nesterov   w = w - lr (g_t + momentum b_t)

    Sutskever, Martens, Dahl & Hinton 2013, "On the importance of initialization and momentum in deep learning",
    in torch's form: the learning rate stands outside of the momentum.
    """

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            momentum=momentum,
            dampening=dampening,
            weight_decay=weight_decay,
            nesterov=nesterov,
            maximize=maximize,
        )

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        if group["nesterov"] and (group["momentum"] == 0 or group["dampening"] != 0):
            self._fail("expected a momentum and no dampening together with nesterov=True")

    def update(self, group: dict[str, Any], block: Block) -> None:
        lr, momentum, dampening = float(group["lr"]), float(group["momentum"]), float(group["dampening"])
        if momentum == 0:
            for w, g, a, b in block.pieces():
                np.multiply(_descent(group, w, g, b), lr, out=a)
                w -= a
            return
        first = "momentum_buffer" not in block.arrays
        for w, g, velocity, a, b in block.pieces("momentum_buffer"):
            g = _descent(group, w, g, b)
            if first:
                velocity[...] = g
            else:
                velocity *= momentum
                velocity += np.multiply(g, 1 - dampening, out=a) if dampening else g
            if group["nesterov"]:
                np.multiply(velocity, momentum, out=a)
                a += g
                a *= lr
            else:
                np.multiply(velocity, lr, out=a)
            w -= a


class Adam(Optimizer):
    """Momentum, with a step for each number that follows the size of its own gradients.

        m_t = beta1 m_{t-1} + (1 - beta1) g        v_t = beta2 v_{t-1} + (1 - beta2) g^2
        w = w - lr (m_t / (1 - beta1^t)) / (sqrt(v_t / (1 - beta2^t)) + eps)

    The divisions by 1 - beta^t undo the bias of averages that began at 0.
    amsgrad : the largest v_t so far stands in the place of v_t (Reddi, Kale & Kumar 2018, arXiv:1904.09237)
    decoupled_weight_decay : w = (1 - lr weight_decay) w instead of a term in g; that is AdamW
    Kingma & Ba 2014, arXiv:1412.6980, algorithm 1
    """

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        decoupled_weight_decay: bool = False,
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            amsgrad=amsgrad,
            maximize=maximize,
            decoupled_weight_decay=decoupled_weight_decay,
        )

    def update(self, group: dict[str, Any], block: Block) -> None:
        lr, (beta1, beta2) = float(group["lr"]), map(float, group["betas"])
        t = block.count()
        # sqrt(v)/c + eps = (sqrt(v) + eps c)/c: with c in the step size, one pass over the vector is saved
        c = math.sqrt(1 - beta2**t)
        eps = float(group["eps"]) * c
        size = lr / (1 - beta1**t) * c
        amsgrad, decoupled = group["amsgrad"], group["decoupled_weight_decay"]
        shrink = 1 - lr * float(group["weight_decay"])
        options = {**group, "weight_decay": 0} if decoupled else group
        names = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq") if amsgrad else ("exp_avg", "exp_avg_sq")
        for w, g, m, v, *largest, a, b in block.pieces(*names):
            if decoupled:
                w *= shrink
            g = _descent(options, w, g, b)
            _lerp(m, g, 1 - beta1, a)
            _add_square(v, beta2, g, 1 - beta2, a)
            if amsgrad:
                v = np.maximum(largest[0], v, out=largest[0])
            np.sqrt(v, out=a)
            a += eps
            np.divide(m, a, out=a)
            a *= size
            w -= a


class AdamW(Adam):
    """Adam whose weight decay shrinks the weights themselves, and is not scaled by the size of the gradients.

        w = (1 - lr weight_decay) w,    then Adam's step without weight decay

    Loshchilov & Hutter 2017, arXiv:1711.05101, algorithm 2
    """

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize, decoupled_weight_decay=True)


class RMSprop(Optimizer):
    """Divide by a running root mean square of the gradient.

        v_t = alpha v_{t-1} + (1 - alpha) g^2
        w = w - lr g / (sqrt(v_t) + eps),    or with momentum   b_t = momentum b_{t-1} + g / (...),   w = w - lr b_t

    centered : v_t - (running mean of g)^2, the variance, stands in the place of v_t (Graves 2013, arXiv:1308.0850)
    Tieleman & Hinton 2012, COURSERA: Neural Networks for Machine Learning, lecture 6.5
    """

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            alpha=alpha,
            eps=eps,
            weight_decay=weight_decay,
            momentum=momentum,
            centered=centered,
            maximize=maximize,
        )

    def update(self, group: dict[str, Any], block: Block) -> None:
        lr, alpha, eps = float(group["lr"]), float(group["alpha"]), float(group["eps"])
        momentum, centered = float(group["momentum"]), group["centered"]
        block.count()
        names = ("square_avg", *["momentum_buffer"] * (momentum > 0), *["grad_avg"] * centered)
        for w, g, v, *more, a, b in block.pieces(*names):
            g = _descent(group, w, g, b)
            _add_square(v, alpha, g, 1 - alpha, a)
            if centered:
                mean = more[-1]
                _lerp(mean, g, 1 - alpha, a)
                np.multiply(mean, mean, out=a)
                np.subtract(v, a, out=a)
                np.maximum(a, 0, out=a)  # a variance of 0 may come out below it by rounding
                np.sqrt(a, out=a)
            else:
                np.sqrt(v, out=a)
            a += eps
            np.divide(g, a, out=a)
            if momentum > 0:
                velocity = more[0]
                velocity *= momentum
                velocity += a
                np.multiply(velocity, lr, out=a)
            else:
                a *= lr
            w -= a


class Adagrad(Optimizer):
    """Divide by the root of the sum of all squared gradients so far: what moved a lot, moves less.

        s_t = s_{t-1} + g^2,    s_0 = initial_accumulator_value
        w = w - lr / (1 + (t - 1) lr_decay) * g / (sqrt(s_t) + eps)

    Duchi, Hazan & Singer 2011, "Adaptive Subgradient Methods for Online Learning and Stochastic Optimization"
    """

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            lr_decay=lr_decay,
            weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value,
            eps=eps,
            maximize=maximize,
        )

    def update(self, group: dict[str, Any], block: Block) -> None:
        t = block.count()
        lr = float(group["lr"]) / (1 + (t - 1) * float(group["lr_decay"]))
        eps = float(group["eps"])
        for w, g, total, a, b in block.pieces("sum", start=float(group["initial_accumulator_value"])):
            g = _descent(group, w, g, b)
            np.multiply(g, g, out=a)
            total += a
            np.sqrt(total, out=a)
            a += eps
            np.divide(g, a, out=a)
            a *= lr
            w -= a
