"""One layer of ours beside the same one of torch.nn: the same numbers to 1e-9 in float64."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import torch

import backhand.layers
from backhand.layers import Layer
from backhand.losses import Loss
from tests.cases import Case

TOLERANCE = 1e-9
OURS = ("rng", "dtype", "return_state")  # arguments that torch does not have
# Classes whose torch backward rounds a constant of its own to float32 even in float64: 1/6, and 1/alpha.
ROUNDED_BY_TORCH = {"Hardsigmoid": 1e-7, "CELU": 1e-7}
TRIED: Counter[str] = Counter()  # how many cases were compared, by class
COUNTS: Counter[str] = Counter()  # how many cases agreed, by class; the run prints it at its end
DRAWN: Counter[str] = Counter()  # those of them that hypothesis drew


def twin(case: Case) -> Any:
    """The torch.nn module of the same name and arguments, in float64."""
    arguments = [_to_torch(a) for a in (case.args() if callable(case.args) else case.args)]
    kwargs = {name: _to_torch(value) for name, value in case.kwargs.items() if name not in OURS}
    return getattr(torch.nn, case.cls.__name__)(*arguments, **kwargs).double()


def _to_torch(value: Any) -> Any:
    """An argument for torch: arrays as tensors, our layers as their twins."""
    if isinstance(value, Layer):
        return _counterpart(value, torch.nn)
    if isinstance(value, type):  # a class of activations
        return getattr(torch.nn, value.__name__)()
    return torch.from_numpy(np.array(value)) if isinstance(value, np.ndarray) else value


def _counterpart(layer: Any, package: Any) -> Any:
    """The layer of the same class and arguments in the other package: both have torch's attributes."""
    cls = getattr(package, type(layer).__name__)
    if hasattr(layer, "norm_first"):
        activation = layer.activation
        if isinstance(activation, (Layer, torch.nn.Module)):
            activation = _counterpart(activation, package)
        sizes = (layer.linear1.in_features, layer.self_attn.num_heads, layer.linear1.out_features, layer.dropout.p)
        flags = (layer.self_attn.batch_first, layer.norm_first, layer.linear1.bias is not None)
        return cls(*sizes, activation, layer.norm1.eps, *flags)
    names = ("in_features", "out_features", "normalized_shape", "eps")
    return cls(**{name: getattr(layer, name) for name in names if hasattr(layer, name)})


def agree(case: Case, tolerance: float = TOLERANCE) -> None:
    """Assert that a case agrees with its twin after two passes."""
    ours, theirs = case.build(), twin(case)
    if case.eval:
        theirs.eval()
    rounds: list[Any] = [(case.arrays(seed=1 + turn), case.options) for turn in range(2)]
    finite = all(np.isfinite(x).all() for inputs, _ in rounds for x in leaves(inputs))
    with np.errstate(all=None if finite else "ignore"):  # of inf - inf NumPy warns, and rightly
        compare(ours, theirs, rounds, max(tolerance, ROUNDED_BY_TORCH.get(case.cls.__name__, 0)))


def drawn(case: Case, tolerance: float = TOLERANCE) -> None:
    """The same for a case that hypothesis drew; these are counted apart too."""
    agree(case, tolerance)
    DRAWN[case.cls.__name__] += 1


def compare(ours: Layer, theirs: Any, rounds: list[tuple[Any, dict[str, Any]]], tolerance: float = TOLERANCE) -> None:
    """Assert the same forward, dx, parameter gradients, buffers and state_dict as torch.

    rounds : (positional inputs, keyword inputs) of each pass, as arrays or nested tuples of them; None stays None
    Where torch returns more than we do (LSTM's state, an attention map), what we return is compared with its first.
    """
    TRIED[type(ours).__name__] += 1
    # strict loading is the test of keys and shapes
    theirs.load_state_dict({name: torch.from_numpy(array) for name, array in ours.state_dict().items()})
    if list(theirs.state_dict()) != list(ours.state_dict()):
        raise AssertionError(f"keys {list(ours.state_dict())}, torch {list(theirs.state_dict())}")
    rng = np.random.default_rng(3)
    for inputs, options in rounds:
        y = ours.forward(*inputs, **options)
        douts = [rng.standard_normal(np.shape(each)) for each in leaves(y)]
        dx = ours.backward(nest(y, douts))
        dx = dx if isinstance(dx, tuple) else (dx,)
        if not isinstance(ours, Loss) and len(dx) != len([x for x in inputs if x is not None]):
            raise AssertionError(f"backward gave {len(dx)} gradients for {len(inputs)} inputs")

        # a loss gives no gradient by its target, and torch need not either
        data = [i > 0 and isinstance(ours, Loss) and (i >= len(dx) or dx[i] is None) for i in range(len(inputs))]
        tensors = [tensor_of(x, i < len(dx) and not data[i]) for i, x in enumerate(inputs)]
        t = theirs(*tensors, **{name: tensor_of(value, False) for name, value in options.items()})
        if isinstance(t, tuple) and not isinstance(y, tuple):
            t = t[0]
        same("forward", y, t, tolerance)
        flows = [(a, torch.from_numpy(np.asarray(b))) for a, b in zip(leaves(t), douts, strict=True) if a.requires_grad]
        if flows:
            torch.autograd.backward([a for a, _ in flows], [b for _, b in flows])
        for i, (got, tensor) in enumerate(zip(dx, [t for t in tensors if t is not None], strict=False)):
            if got is None and isinstance(tensor, tuple):
                got = (None,) * len(tensor)
            for each, one in zip(leaves(got), leaves(tensor), strict=True):
                if one.requires_grad:
                    same(f"dx[{i}]", each, torch.zeros_like(one) if one.grad is None else one.grad, tolerance)
    theirs_parameters = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        wanted = theirs_parameters[name].grad
        wanted = torch.zeros_like(theirs_parameters[name]) if wanted is None else wanted
        same(f"gradient of {name}", parameter.grad, wanted, tolerance)
    for name, array in ours.state_dict().items():
        same(f"state {name}", array, theirs.state_dict()[name], tolerance)
    COUNTS[type(ours).__name__] += 1


def tensor_of(x: Any, differentiate: bool) -> Any:
    """An input for torch: arrays as tensors, in the same nesting."""
    if isinstance(x, tuple):
        return tuple(tensor_of(each, differentiate) for each in x)
    if isinstance(x, (np.ndarray, np.generic)):
        return torch.from_numpy(np.array(x)).requires_grad_(differentiate and x.dtype.kind == "f")
    return x


def array_of(x: Any) -> Any:
    """The other way round; a torch dtype or device is none of our arguments."""
    if isinstance(x, torch.nn.Module):
        return _counterpart(x, backhand.layers)
    if isinstance(x, (tuple, list)):
        return type(x)(array_of(each) for each in x)
    return x.detach().numpy() if isinstance(x, torch.Tensor) else x


def leaves(tree: Any) -> list[Any]:
    """The arrays in nested tuples, from left to right."""
    return [leaf for each in tree for leaf in leaves(each)] if isinstance(tree, tuple) else [tree]


def nest(like: Any, flat: list[Any]) -> Any:
    """The items of a flat list in the nesting of `like`; the list is used up."""
    if isinstance(like, tuple):
        rest = list(flat)
        parts = []
        for each in like:
            size = len(leaves(each))
            parts.append(nest(each, rest[:size]))
            rest = rest[size:]
        return tuple(parts)
    return flat[0]


def same(what: str, got: Any, wanted: Any, tolerance: float) -> None:
    """Assert that two outputs (or tuples of them) have one shape and agree relative to their size."""
    if isinstance(wanted, tuple):
        for i, (a, b) in enumerate(zip(got, wanted, strict=True)):
            same(f"{what}[{i}]", a, b, tolerance)
        return
    a, b = np.asarray(got), wanted.detach().numpy()
    if a.shape != b.shape:
        raise AssertionError(f"{what}: shape {a.shape}, torch {b.shape}")
    if not np.allclose(
        a, b, rtol=tolerance, atol=tolerance * max(1.0, np.abs(b[np.isfinite(b)]).max(initial=0)), equal_nan=True
    ):
        raise AssertionError(f"{what}: differs from torch by {np.nanmax(np.abs(a - b)):.3g}\nours {a}\ntorch {b}")
