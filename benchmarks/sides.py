"""The sides of a comparison: each runs the same training step in its own way.

A side lives in a process of its own (benchmarks.worker), so its peak of memory is its own, and no library's threads
or allocator are in another's way. Libraries are imported where a side needs them.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from backhand.layers.parameter import Array
from benchmarks.workloads import WORKLOADS, Model

State = dict[str, Array]
SEED = 0


class Side:
    """One library at one workload.

    parts : name -> what is timed under this name, in order; `before` is what comes first, untimed
    """

    parts: dict[str, Callable[[], None]]

    def __init__(self, name: str, threads: int) -> None:
        self.workload = WORKLOADS[name]
        self.is_model = isinstance(self.workload, Model)
        self.prepare(threads)
        self.limits = threadpool_limits(threads)  # what is already loaded; torch has its own word for it
        self.before_all = resident("VmRSS")
        rng = np.random.default_rng(SEED + 1)
        if isinstance(self.workload, Model):
            self.batch: tuple[Array, ...] = self.workload.batch(rng)
            self.parts = {"step": self.step}
        else:
            self.batch = tuple(
                rng.standard_normal(self.workload.shape, np.float32) for _ in range(self.workload.inputs)
            )
            self.parts = {"forward": self.forward, "backward": self.backward}
        self.build()

    # ------------------------------------------------------------------ what each library writes

    def prepare(self, threads: int) -> None:
        """Import the library, and hold it to so many threads."""

    def build(self) -> None:
        """Make the model, its loss and its optimizer."""
        raise NotImplementedError

    def state(self) -> State:
        """The state_dict."""
        raise NotImplementedError

    def load(self, state: State) -> None:
        """Take a state_dict over."""
        raise NotImplementedError

    def differentiate(self) -> float:
        """Zero the gradients, forward, loss, backward; returns the loss."""
        raise NotImplementedError

    def update(self) -> None:
        """The optimizer's step."""
        raise NotImplementedError

    def gradients(self) -> State:
        """name -> gradient; a layer's output and downstream gradients too."""
        raise NotImplementedError

    def before(self) -> None:
        """Empty the gradients of a single layer."""

    def forward(self) -> None:
        """The forward of a single layer."""
        raise NotImplementedError

    def backward(self) -> None:
        """The backward of a single layer."""
        raise NotImplementedError

    @contextmanager
    def still(self) -> Iterator[None]:
        """Without dropout, for as long as results are compared."""
        yield

    # ------------------------------------------------------------------ what all share

    def step(self) -> None:
        """One training step."""
        self.differentiate()
        self.update()

    def first(self, steps: int) -> tuple[list[float], State]:
        """The losses of the first steps, and the gradients of the very first one."""
        with self.still():
            if not self.is_model:
                self.before()
                self.forward()
                self.backward()
                return [], self.gradients()
            losses = [self.differentiate()]
            gradients = self.gradients()
            for _ in range(steps - 1):
                self.update()
                losses.append(self.differentiate())
        return losses, gradients

    def run(self, times: int) -> dict[str, list[float]]:
        """The seconds that each part took, each time."""
        seconds: dict[str, list[float]] = {part: [] for part in self.parts}
        for _ in range(times):
            self.before()
            for name, part in self.parts.items():
                start = time.perf_counter()
                part()
                seconds[name].append(time.perf_counter() - start)
        return seconds

    def forget_peak(self) -> None:
        """Let the peak of memory begin here."""
        try:
            with open("/proc/self/clear_refs", "w") as file:
                file.write("5")
        except OSError:
            pass  # then loading the weights counts too

    def peak(self) -> float:
        """The most bytes that were resident, above those of the imported libraries."""
        return resident("VmHWM") - self.before_all


class Machine:
    """Not a side: how fast this machine is, asked in a process of its own, so that its matrices are nobody's memory."""

    def __init__(self, workload: str, threads: int) -> None:
        self.limits = threadpool_limits(threads)

    def sgemm(self, size: int = 1024) -> float:
        """FLOP/s of a square float32 product, the better of two."""
        a = np.ones((size, size), np.float32)
        out = a @ a
        best = np.inf
        for _ in range(2):
            start = time.perf_counter()
            np.matmul(a, a, out=out)
            best = min(best, time.perf_counter() - start)
        return 2 * size**3 / best


class Ours(Side):
    """backhand."""

    def prepare(self, threads: int) -> None:
        import backhand.losses
        import backhand.training.optimizers
        import benchmarks.backhand_nn

        self.losses, self.optimizers = backhand.losses, backhand.training.optimizers
        self.nn = benchmarks.backhand_nn.Backhand(SEED)

    def build(self) -> None:
        self.model = self.workload.build(self.nn)
        if isinstance(self.workload, Model):
            if self.workload.std is not None:
                rng = np.random.default_rng(SEED)
                for p in self.model.parameters():
                    if p.data.ndim == 2:
                        p.data[...] = self.workload.std * rng.standard_normal(p.shape)
            self.loss = getattr(self.losses, self.workload.loss)(**self.workload.loss_options)
            cls = getattr(self.optimizers, self.workload.optimizer)
            self.optimizer = cls(self.model.parameters(), **self.workload.options)
            self.model.input_requires_grad_(False)  # as a Trainer does it; PyTorch sees it in the tensor
        else:
            self.dout = np.random.default_rng(SEED + 2).standard_normal(self._shape_out(), np.float32)

    def _shape_out(self) -> tuple[int, ...]:
        self.forward()
        self.model.zero_grad()
        return self.y.shape

    def state(self) -> State:
        return dict(self.model.state_dict())

    def load(self, state: State) -> None:
        self.model.load_state_dict(state)

    def differentiate(self) -> float:
        x, target = self.batch
        self.optimizer.zero_grad()
        loss = self.loss(self.model(x), target)
        self.model.backward(self.loss.backward())
        return float(loss)

    def update(self) -> None:
        self.optimizer.step()

    def gradients(self) -> State:
        gradients = {name: p.grad.copy() for name, p in self.model.named_parameters()}
        if not self.is_model:
            dx = self.dx if isinstance(self.dx, tuple) else (self.dx,)
            gradients.update({"y": self.y}, **{f"dx{i}": d for i, d in enumerate(dx)})
        return gradients

    def before(self) -> None:
        if not self.is_model:
            self.model.zero_grad()

    def forward(self) -> None:
        options = {} if isinstance(self.workload, Model) else self.workload.options
        self.y = self.model(*self.batch, **options)

    def backward(self) -> None:
        self.dx = self.model.backward(self.dout)

    @contextmanager
    def still(self) -> Iterator[None]:
        with no_dropout(self.model):
            yield

    def flops(self) -> dict[str, float]:
        """The operations in products that each part has to do at least, two for each multiply-add."""
        from backhand.inspection import multiply_adds

        inputs = self.batch[:1] if self.is_model else self.batch
        counted = multiply_adds(self.model, *inputs, **({} if self.is_model else self.workload.options))
        self.model.zero_grad()
        return {part: 2.0 * counted[part] for part in self.parts}


class Eager(Side):
    """PyTorch, as it is written by hand."""

    def prepare(self, threads: int) -> None:
        import torch

        import benchmarks.torch_nn

        torch.set_num_threads(threads)
        torch.manual_seed(SEED)
        self.torch = torch
        self.nn = benchmarks.torch_nn.Torch()
        # some of torch is loaded when it is first used, and would count as memory of the step
        small = torch.nn.Linear(1, 1)
        small(torch.ones(1, 1)).sum().backward()
        torch.optim.Adam(small.parameters()).step()

    def build(self) -> None:
        self.model = self.workload.build(self.nn)
        self.compiled = self.compile(self.model)
        tensors: list[Any] = [self.torch.from_numpy(x) for x in self.batch]
        if isinstance(self.workload, Model):
            self.tensors = tensors
            self.loss = getattr(self.torch.nn, self.workload.loss)(**self.workload.loss_options)
            cls = getattr(self.torch.optim, self.workload.optimizer)
            self.optimizer = cls(self.model.parameters(), **self.workload.options)
        else:
            self.tensors = [x.requires_grad_() for x in tensors]
            self.options = self.workload.options
            self.forward()
            dout = np.random.default_rng(SEED + 2).standard_normal(tuple(self.y.shape), np.float32)
            self.dout = self.torch.from_numpy(dout)

    def compile(self, model: Any) -> Any:
        """The model that forward calls."""
        return model

    def state(self) -> State:
        return {name: tensor.numpy() for name, tensor in self.model.state_dict().items()}

    def load(self, state: State) -> None:
        # torch.tensor copies: the weights stay apart from the arrays that they came from
        self.model.load_state_dict({name: self.torch.tensor(array) for name, array in state.items()})

    def differentiate(self) -> float:
        x, target = self.tensors
        self.optimizer.zero_grad()
        loss = self.loss(self.compiled(x), target)
        loss.backward()
        return float(loss.item())

    def update(self) -> None:
        self.optimizer.step()

    def gradients(self) -> State:
        gradients = {name: p.grad.numpy().copy() for name, p in self.model.named_parameters()}
        if not self.is_model:
            gradients["y"] = self.y.detach().numpy()
            gradients.update({f"dx{i}": x.grad.numpy() for i, x in enumerate(self.tensors)})
        return gradients

    def before(self) -> None:
        if not self.is_model:
            for each in (*self.tensors, *self.model.parameters()):
                each.grad = None

    def forward(self) -> None:
        self.y = self.compiled(*self.tensors, **self.options)

    def backward(self) -> None:
        self.y.backward(self.dout)

    @contextmanager
    def still(self) -> Iterator[None]:
        with no_dropout(self.model):
            yield


class Compiled(Eager):
    """PyTorch through torch.compile."""

    def compile(self, model: Any) -> Any:
        """The same, compiled when it is first called."""
        return self.torch.compile(model)


class Jax(Side):
    """JAX, the whole step in one jit. Of whole models alone, and only of those in benchmarks.jax_nn."""

    def prepare(self, threads: int) -> None:
        # XLA takes a thread for each core that it may use, and can be told in no other way
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
        import jax

        import benchmarks.jax_nn

        self.jax = jax
        self.nn = benchmarks.jax_nn
        jax.jit(lambda x: x + 1)(1.0).block_until_ready()

    def build(self) -> None:
        assert isinstance(self.workload, Model) and self.workload.jax
        network = getattr(self.nn, self.workload.jax)
        self.x, self.target = (self.jax.numpy.asarray(each) for each in self.batch)
        update = self.nn.optimizer(self.workload.optimizer, self.workload.options)
        gradient = self.jax.value_and_grad(lambda w, x, target: self.nn.cross_entropy(network(w, x), target))

        def step(t: Any, memory: Any, w: Any, x: Any, target: Any) -> Any:
            loss, g = gradient(w, x, target)
            return loss, *update(t, memory, w, g)

        self.whole = self.jax.jit(step, donate_argnums=(0, 1, 2))
        self.gradient, self.updated = self.jax.jit(gradient), self.jax.jit(update)

    def load(self, state: State) -> None:
        # a shared weight stands in a state_dict twice, and is one weight
        kept = {
            name: array for name, array in state.items() if not (name == "lm_head.weight" and "wte.weight" in state)
        }
        self.w = {name: self.jax.numpy.array(array) for name, array in kept.items()}
        self.memory = {name: (0 * w, 0 * w) for name, w in self.w.items()}
        self.t = self.jax.numpy.zeros(())

    def differentiate(self) -> float:
        loss, self.g = self.gradient(self.w, self.x, self.target)
        return float(loss)

    def update(self) -> None:
        self.t, self.memory, self.w = self.updated(self.t, self.memory, self.w, self.g)

    def gradients(self) -> State:
        return {name: np.asarray(g) for name, g in self.g.items()}

    def step(self) -> None:
        loss, self.t, self.memory, self.w = self.whole(self.t, self.memory, self.w, self.x, self.target)
        float(loss)
        self.jax.block_until_ready(self.w)


SIDES: dict[str, type[Side]] = {"backhand": Ours, "torch": Eager, "compile": Compiled, "jax": Jax}
WORKERS: dict[str, type[Side] | type[Machine]] = {**SIDES, "machine": Machine}


@contextmanager
def no_dropout(model: Any) -> Iterator[None]:
    """Every Dropout at p = 0: two libraries cannot draw the same masks."""
    dropouts = [layer for layer in model.modules() if type(layer).__name__ == "Dropout"]
    kept = [layer.p for layer in dropouts]
    for layer in dropouts:
        layer.p = 0.0
    try:
        yield
    finally:
        for layer, p in zip(dropouts, kept, strict=True):
            layer.p = p


def resident(field: str) -> float:
    """Bytes of this process now (VmRSS) or at most (VmHWM); without /proc, at most either way."""
    try:
        with open("/proc/self/status") as file:
            found = re.search(rf"{field}:\s+(\d+) kB", file.read())
        if found:
            return 1024.0 * int(found[1])
    except OSError:
        pass
    import resource

    # Linux counts it in KB, macOS in bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1.0 if sys.platform == "darwin" else 1024.0)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
