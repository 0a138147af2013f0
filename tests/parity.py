"""One layer of ours beside the same one of torch.nn: the same numbers to 1e-9 in float64."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import torch

from backhand.layers import Layer
from backhand.losses import Loss
from tests.cases import Case

TOLERANCE = 1e-9
COUNTS: Counter[str] = Counter()  # how many cases agreed, by class; the run prints it at its end


def twin(case: Case) -> Any:
    """The torch.nn module of the same name and arguments, in float64."""
    arguments = [_to_torch(a) for a in (case.args() if callable(case.args) else case.args)]
    kwargs = {name: _to_torch(value) for name, value in case.kwargs.items() if name not in ("rng", "dtype")}
    return getattr(torch.nn, case.cls.__name__)(*arguments, **kwargs).double()


def _to_torch(value: Any) -> Any:
    """An argument for torch: arrays as tensors, our layers as their twins."""
    if isinstance(value, Layer):
        plain = {k: getattr(value, k) for k in ("in_features", "out_features") if hasattr(value, k)}
        return getattr(torch.nn, type(value).__name__)(**plain)
    return torch.from_numpy(np.array(value)) if isinstance(value, np.ndarray) else value


def agree(case: Case, tolerance: float = TOLERANCE) -> None:
    """Assert the same forward, dx, parameter gradients, buffers and state_dict as torch, after two passes."""
    ours, theirs = case.build(), twin(case)
    # strict loading is the test of keys and shapes
    theirs.load_state_dict({name: torch.from_numpy(array) for name, array in ours.state_dict().items()})
    if list(theirs.state_dict()) != list(ours.state_dict()):
        raise AssertionError(f"keys {list(ours.state_dict())}, torch {list(theirs.state_dict())}")
    if case.eval:
        theirs.eval()
    rng = np.random.default_rng(3)
    for turn in range(2):
        inputs = case.arrays(seed=1 + turn)
        tensors = [
            torch.from_numpy(x.copy()).requires_grad_(x.dtype.kind == "f" and not (isinstance(ours, Loss) and i))
            for i, x in enumerate(inputs)
        ]
        y, t = ours.forward(*inputs), theirs(*tensors)
        same("forward", y, t, tolerance)
        many = isinstance(t, tuple)
        douts = [rng.standard_normal(tuple(each.shape)) for each in (t if many else (t,))]
        dout: Any = tuple(douts) if many else douts[0]
        flows = [(a, b) for a, b in zip(t if many else (t,), douts, strict=True) if a.requires_grad]
        if flows:
            torch.autograd.backward([a for a, _ in flows], [torch.from_numpy(np.asarray(b)) for _, b in flows])
        dx = ours.backward(dout)
        for i, (got, tensor) in enumerate(zip(dx if isinstance(dx, tuple) else (dx,), tensors, strict=False)):
            if tensor.requires_grad:
                wanted = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
                same(f"dx[{i}]", got, wanted, tolerance)
    theirs_parameters = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        same(f"gradient of {name}", parameter.grad, theirs_parameters[name].grad, tolerance)
    for name, array in ours.state_dict().items():
        same(f"state {name}", array, theirs.state_dict()[name], tolerance)
    COUNTS[case.cls.__name__] += 1


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
