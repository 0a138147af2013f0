"""What every optimizer is: groups of parameters, their options and states."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from backhand.layers.base import Layer
from backhand.layers.parameter import Array, Parameter, zero_grads
from backhand.training.interrupts import Uninterrupted, stay_for, waiting
from backhand.training.optimizers.blocks import Block, finite, remembered_in

NOT_NEGATIVE = (
    "lr",
    "eps",
    "weight_decay",
    "momentum",
    "alpha",
    "lr_decay",
    "initial_accumulator_value",
    "momentum_decay",
)


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
        self._checked: list[dict[str, Any]] = []  # the groups, as their options were when they were last looked at
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
        stay_for(self)

    def update(self, group: dict[str, Any], block: Block) -> None:
        """Change block.data by block.grad."""
        raise NotImplementedError(f"{type(self).__name__} has no update()")

    def check(self, group: dict[str, Any]) -> None:
        """Raise ValueError where an option of a group makes no sense."""
        for name in NOT_NEGATIVE:
            if name in group:
                value = group[name]
                if not is_number(value) or not 0 <= value < np.inf:
                    self._fail(f"expected {name} to be a number, 0 or more, got {value!r}")
        if "betas" in group:
            betas = group["betas"]
            if not are_numbers(betas, 2) or not all(0 <= beta < 1 for beta in betas):
                self._fail(f"expected betas to be two numbers in [0, 1), got {betas!r}")

    def _check_options(self) -> None:
        """Raise ValueError for an option that was changed into one that `update` could not take."""
        checked, self._checked = self._checked, []
        checked += [{} for _ in self.param_groups[len(checked) :]]
        for known, group in zip(checked, self.param_groups, strict=True):
            lr: Any = group.get("lr")
            if "lr" in known:
                known["lr"] = lr  # a schedule changes nothing else
            if known != group or not (is_number(lr) and math.isfinite(lr)):
                # a rate just below 0, as rounding makes it at the end of a schedule, does no harm
                self.check({**group, "lr": abs(lr)} if is_number(lr) else group)
                known.clear()
                known.update(group)
        self._checked = checked

    def scalar(self, name: str, array: Array) -> Any:
        """A state of one number, from a state_dict."""
        return float(array)

    # ------------------------------------------------------------------ what is called while training

    def step(self) -> None:
        """Update every trainable parameter by its gradient: all of them, or none where that raises an error.

        What could raise one is looked at before anything is changed; an interrupt (Ctrl-C) waits for the end of it.
        """
        self._settle()
        if self._checked != self.param_groups:
            self._check_options()
        for _, block in self._blocks:
            block.collect()
        if waiting():  # somebody has opened an Uninterrupted around it, who ignores the errors of arithmetic too
            self._update_all()
        else:
            with Uninterrupted(), np.errstate(all="ignore"):
                self._update_all()

    def _update_all(self) -> None:
        for group, block in self._blocks:
            self.update(group, block)

    def zero_grad(self) -> None:
        """Set every gradient to zero, the frozen parameters' too.

        What forwards have saved that no backward has undone when this is called for the second time, goes at the next
        forward of that model.
        """
        for group in self.param_groups:
            zero_grads(group["params"])

    def gradients(self) -> list[Array]:
        """The flat vectors that hold the gradients of all trainable parameters: themselves, not copies."""
        self._settle()
        for _, block in self._blocks:
            block.collect()
        return [block.grad for _, block in self._blocks]

    def finite(self) -> bool:
        """Whether all trainable parameters hold nothing but finite numbers, as far as they are laid out here."""
        for _, block in self._blocks:  # noqa: SIM110  (as in `Block.intact`)
            if not finite(block.data):
                return False
        return True

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

    def _adopt(self, states: Mapping[Parameter, dict[str, Any]] | None = None) -> None:
        """Lay the trainable parameters of each group out on flat vectors, with the state that they bring along.

        states : other than their own. Where it cannot be done (no memory is left), they keep their own.
        """
        if states is None:
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
        with Uninterrupted():
            apart = {p: copy.deepcopy(states[p]) for p in frozen if p in states}
            self._blocks = [(group, Block(parameters, states)) for group, parameters in bins]
            self._apart, self._frozen = apart, frozen
            self._sizes = [len(group["params"]) for group in self.param_groups]

    def __getstate__(self) -> dict[str, Any]:
        # a copied view owns its numbers: a copy of the optimizer starts from the state and lays out afresh
        return {**self.__dict__, "_apart": self.state, "_blocks": [], "_frozen": [], "_sizes": [], "_checked": []}

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
                own[name] = (
                    self.scalar(name, array)
                    if name in self.scalar_names
                    else np.array(array, remembered_in(owners[i].dtype))
                )
        with Uninterrupted():
            self._adopt(states)
            for current, group in zip(self.param_groups, groups, strict=True):
                current.update(group)

    def __repr__(self) -> str:
        lines = []
        for group in self.param_groups:
            options = ", ".join(f"{name}={value!r}" for name, value in group.items() if name != "params")
            lines.append(f"{len(group['params'])} parameters, {options}")
        return f"{type(self).__name__}({'; '.join(lines)})"


def is_number(value: Any) -> bool:
    """Whether an option is one number."""
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def are_numbers(values: Any, n: int) -> bool:
    """Whether an option is n of them."""
    return isinstance(values, (tuple, list)) and len(values) == n and all(map(is_number, values))
