"""The Neural Turing Machine of models.NTM, as a user of PyTorch writes it: the forward alone, the rest is autograd's.

All heads are addressed at once where they can be, so that PyTorch has as few and as large operations as the model lets
it have. The names in the state_dict are those of models.NTM.
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
        seen = input_size + read_heads * width
        self.read_heads, self.write_heads, self.width = read_heads, write_heads, width
        self.controller: torch.nn.Module
        if controller == "lstm":
            self.controller = torch.nn.LSTMCell(seen, hidden_size)
            self.hidden = torch.nn.Parameter(torch.zeros(hidden_size))
            self.cell = torch.nn.Parameter(torch.zeros(hidden_size))
        else:
            self.controller = torch.nn.Linear(seen, hidden_size)
        self.sizes = [write_heads * width, heads * width, write_heads * width, heads, heads, heads, heads * 3]
        self.heads = torch.nn.Linear(hidden_size, sum(self.sizes))
        self.output = torch.nn.Linear(hidden_size + read_heads * width, output_size)
        self.memory = torch.nn.Parameter(0.05 * torch.randn(slots, width))
        self.weights = torch.nn.Parameter(torch.randn(heads, slots))
        self.reads = torch.nn.Parameter(torch.zeros(read_heads, width))

    def forward(self, x: Tensor) -> Tensor:
        batch = x.shape[1]
        memory, w, r = (
            start.expand(batch, *start.shape) for start in (self.memory, self.weights.softmax(-1), self.reads)
        )
        lstm = isinstance(self.controller, torch.nn.LSTMCell)
        if lstm:
            state = (self.hidden.expand(batch, -1), self.cell.expand(batch, -1))
        writers, outputs = self.write_heads, []
        for x_t in x:
            seen = torch.cat([x_t, r.flatten(1)], dim=1)
            if lstm:
                state = self.controller(seen, state)
                h = state[0]
            else:
                h = torch.tanh(self.controller(seen))
            add, key, erase, gate, strength, gamma, shift = (
                part.unflatten(1, (writers if i in (0, 2) else w.shape[1], -1))
                for i, part in enumerate(self.heads(h).split(self.sizes, dim=1))
            )
            erase, gate, shift = torch.sigmoid(erase), torch.sigmoid(gate), shift.softmax(-1)
            strength, gamma = functional.softplus(strength), 1 + functional.softplus(gamma)
            key = unit(key)
            looks = (key, strength, gate, shift, gamma, w)
            w_write = address(unit(memory), *(each[:, :writers] for each in looks))
            kept = 1 - w_write[:, 0, :, None] * erase[:, 0, None]
            for i in range(1, writers):
                kept = kept * (1 - w_write[:, i, :, None] * erase[:, i, None])
            memory = memory * kept + w_write.mT @ add
            w_read = address(unit(memory), *(each[:, writers:] for each in looks))
            r = w_read @ memory
            w = torch.cat([w_write, w_read], dim=1)
            outputs.append(self.output(torch.cat([h, r.flatten(1)], dim=1)))
        return torch.stack(outputs)


def unit(x: Tensor) -> Tensor:
    """Vectors of length 1."""
    return x / torch.sqrt((x * x).sum(-1, keepdim=True) + EPS**2)


def address(
    memory: Tensor, key: Tensor, strength: Tensor, gate: Tensor, shift: Tensor, gamma: Tensor, last: Tensor
) -> Tensor:
    """Content, interpolation, shift, sharpening: equations 5 to 9."""
    content = (strength * (key @ memory.mT)).softmax(-1)
    w = torch.lerp(last, content, gate)
    before, same, after = shift.unsqueeze(-1).unbind(-2)
    w = before * w.roll(-1, -1) + same * w + after * w.roll(1, -1)
    return (gamma * torch.log(w.clamp_min(FLOOR))).softmax(-1)
