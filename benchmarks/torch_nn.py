"""torch.nn, with the few modules that it lacks, written as a user of PyTorch would."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor

from benchmarks.torch_ntm import NTM as NTM


class OptionA(torch.nn.Module):
    """The twin of benchmarks.backhand_nn.OptionA."""

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        self.pad = (filters - channels) // 2

    def forward(self, x: Tensor) -> Tensor:
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))


class Residual(torch.nn.Module):
    """The twin of backhand.models.Residual."""

    def __init__(self, body: torch.nn.Module, shortcut: torch.nn.Module | None = None) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        around: Tensor = x if self.shortcut is None else self.shortcut(x)
        return around + self.body(x)


class Positions(torch.nn.Module):
    """The twin of benchmarks.backhand_nn.Positions."""

    def __init__(self, context: int, width: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(context, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.weight[: x.shape[1]]


class Heads(torch.nn.Module):
    """The twin of benchmarks.backhand_nn.Heads."""

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        n, t, width = x.shape
        parts = x.view(n, t, 3, width // 3).unbind(2)
        return tuple(part.view(n, t, self.num_heads, -1).transpose(1, 2) for part in parts)


class ScaledDotProductAttention(torch.nn.Module):
    """PyTorch's fused attention, as a module."""

    def __init__(self, is_causal: bool = False) -> None:
        super().__init__()
        self.is_causal = is_causal

    def forward(self, qkv: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        return functional.scaled_dot_product_attention(*qkv, is_causal=self.is_causal)


class Permute(torch.nn.Module):
    """The axes in another order."""

    def __init__(self, *dims: int) -> None:
        super().__init__()
        self.dims = dims

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.dims)


class LSTM(torch.nn.LSTM):
    """torch.nn.LSTM that returns the output alone."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        y: Tensor = super().forward(x)[0]
        return y


class MultiheadAttention(torch.nn.MultiheadAttention):
    """torch.nn.MultiheadAttention that returns the output alone."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:  # type: ignore[override]
        y: Tensor = super().forward(q, k, v, **options)[0]
        return y


class Torch:
    """`nn` for benchmarks.networks: torch.nn and the modules above."""

    def __getattr__(self, name: str) -> Any:
        return globals()[name] if name in globals() else getattr(torch.nn, name)
