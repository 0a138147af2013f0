"""The Neural Turing Machine of models.NTM, as one writes it who knows PyTorch; the backward is autograd's.

Nothing is worked out twice, and what can wait for the end of the loop does: one output layer for all steps, the norms
of the memory once for the read heads and the next write heads, the strength folded into the key, one sigmoid and one
softplus for all that need them, addcmul for what is erased and added. (Written plainly it takes a fifth to a third
longer.) The names in the state_dict are those of models.NTM.
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor

EPS, FLOOR = 1e-4, 1e-12


class NTM(torch.nn.Module):
    """The twin of backhand.models.NTM. Graves, Wayne & Danihelka 2014, arXiv:1410.5401"""

    def __init__(
        self,
        input_size: int,
        output_size: int,
        hidden_size: int = 100,
        controller: str = "feedforward",
        memory_size: tuple[int, int] = (128, 20),
        read_heads: int = 1,
        write_heads: int = 1,
    ) -> None:
        super().__init__()
        slots, width = memory_size
        heads = read_heads + write_heads
        self.inputs, self.width, self.writers = input_size, width, write_heads
        seen = input_size + read_heads * width
        self.controller: torch.nn.Module
        if controller == "lstm":
            self.controller = torch.nn.LSTMCell(seen, hidden_size)
            self.hidden = torch.nn.Parameter(torch.zeros(hidden_size))
            self.cell = torch.nn.Parameter(torch.zeros(hidden_size))
        else:
            self.controller = torch.nn.Linear(seen, hidden_size)
        # add and key; erase and gate, to be squashed; strength and gamma, to be positive; shift
        self.sizes = [(write_heads + heads) * width, write_heads * width + heads, 2 * heads, 3 * heads]
        self.heads = torch.nn.Linear(hidden_size, sum(self.sizes))
        self.output = torch.nn.Linear(hidden_size + read_heads * width, output_size)
        self.memory = torch.nn.Parameter(0.05 * torch.randn(slots, width))
        self.weights = torch.nn.Parameter(torch.randn(heads, slots))
        self.reads = torch.nn.Parameter(torch.zeros(read_heads, width))

    def forward(self, x: Tensor) -> Tensor:
        batch, writers, width = x.shape[1], self.writers, self.width
        memory = self.memory.expand(batch, -1, -1)
        w = self.weights.softmax(-1).expand(batch, -1, -1)
        w_write, w_read = w[:, :writers], w[:, writers:]
        r = self.reads.flatten().expand(batch, -1)
        scale = inverse_norms(memory)[:, None]
        heads, told = w.shape[1], []
        if isinstance(self.controller, torch.nn.LSTMCell):
            state = (self.hidden.expand(batch, -1), self.cell.expand(batch, -1))
            from_x = x.unbind()
        else:
            assert isinstance(self.controller, torch.nn.Linear)
            weight = self.controller.weight
            from_x = functional.linear(x, weight[:, : self.inputs], self.controller.bias).unbind()
            from_r = weight[:, self.inputs :].t()
        for x_t in from_x:
            if isinstance(self.controller, torch.nn.LSTMCell):
                state = self.controller(torch.cat([x_t, r], 1), state)
                h = state[0]
            else:
                h = torch.tanh(torch.addmm(x_t, r, from_r))
            vectors, squashed, positive, shift = self.heads(h).split_with_sizes(self.sizes, 1)
            squashed, positive = torch.sigmoid(squashed), functional.softplus(positive)
            add, key = vectors.view(batch, -1, width).split_with_sizes([writers, heads], 1)
            erase, gate = squashed[:, : writers * width].view(batch, -1, width), squashed[:, writers * width :, None]
            strength, gamma = positive[:, :heads, None], 1 + positive[:, heads:, None]
            shift = shift.view(batch, heads, 3).softmax(-1)
            key = key * (strength * inverse_norms(key)[..., None])
            looks = (key, gate, shift, gamma)
            w_write = address(memory, scale, w_write, *(each[:, :writers] for each in looks))
            kept = memory
            for i in range(writers):
                kept = torch.addcmul(kept, kept, w_write[:, i, :, None] * erase[:, i, None], value=-1)
            if writers == 1:
                memory = torch.addcmul(kept, w_write.mT, add)
            else:
                memory = torch.baddbmm(kept, w_write.mT, add)
            scale = inverse_norms(memory)[:, None]
            w_read = address(memory, scale, w_read, *(each[:, writers:] for each in looks))
            r = (w_read @ memory).flatten(1)
            told.append(torch.cat([h, r], 1))
        return self.output(torch.stack(told))


def inverse_norms(x: Tensor) -> Tensor:
    """1 over the length of each vector."""
    return torch.rsqrt((x * x).sum(-1) + EPS**2)


def address(
    memory: Tensor, scale: Tensor, last: Tensor, key: Tensor, gate: Tensor, shift: Tensor, gamma: Tensor
) -> Tensor:
    """Content, interpolation, shift, sharpening: equations 5 to 9; the key has the strength in it."""
    content = ((key @ memory.mT) * scale).softmax(-1)
    w = torch.lerp(last, content, gate)
    rolled = torch.stack([w.roll(-1, -1), w, w.roll(1, -1)], -2)
    w = (shift[:, :, None] @ rolled)[:, :, 0]
    return (gamma * torch.log(w.clamp_min(FLOOR))).softmax(-1)
