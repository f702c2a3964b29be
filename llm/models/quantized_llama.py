"""The PyTorch module of Llama as Meta publishes it quantized; its facts are in
`families/quantized_llama.py`."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from edge_llm.llm.families.quantized_llama import QuantizedLlamaConfig
from edge_llm.llm.models.layers import Attention, CacheShape, GatedMLP, prenorm_decoder
from edge_llm.program.hadamard import order_of, paley_matrix


@torch.library.custom_op("edge::hadamard", mutates_args=())
def hadamard(x: torch.Tensor) -> torch.Tensor:
    """Transforms each row by a Hadamard matrix, divided by the root of its size.

    Args:
        x: (T, N); N is 2^k, and then the matrix is Sylvester's, or 28 * 2^k, and then it is the
            Kronecker product of `paley_matrix` with Sylvester's of 2^k.

    Returns:
        (T, N) in the dtype of x.
    """
    rows, size = x.shape
    order = order_of(size)
    parts = x.reshape(rows, order, size // order)
    width = 1
    while width < size // order:
        pairs = parts.reshape(rows, -1, 2, width)
        first, second = pairs[:, :, 0], pairs[:, :, 1]
        parts = torch.stack((first + second, first - second), dim=2)
        width *= 2
    parts = parts.reshape(rows, order, size // order)
    if order > 1:
        parts = torch.from_numpy(paley_matrix()).to(x) @ parts
    y: torch.Tensor = parts * size**-0.5
    return y.reshape(rows, size)


@hadamard.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


class LowRank(nn.Module):
    """B(scale * A(x)), of rank ``rank``."""

    def __init__(self, k: int, n: int, rank: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.A = nn.Linear(k, rank, bias=False)
        self.B = nn.Linear(rank, n, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.B(self.A(x) * self.scale)
        return y


class AdaptedLinear(nn.Linear):
    """A linear, and a low-rank term of its own beside it."""

    def __init__(self, k: int, n: int, rank: int, scale: float) -> None:
        super().__init__(k, n, bias=False)
        self.adaptor = LowRank(k, n, rank, scale)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = functional.linear(x, self.weight) + self.adaptor(x)
        return y


class TransformedMLP(GatedMLP):
    """down(hadamard(silu(gate(x)) * up(x)))."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gated = self.activation(self.gate_proj(x)) * self.up_proj(x)
        out: torch.Tensor = self.down_proj(hadamard(gated))
        return out


def build(config: QuantizedLlamaConfig, cache: CacheShape) -> nn.Module:
    """Return the module; its parameters are not initialized."""
    dim, ffn = config.hidden_size, config.intermediate_size
    mlp = TransformedMLP if config.hadamard else GatedMLP
    model = prenorm_decoder(
        config,
        cache,
        attention=lambda layer: Attention(dim, config.attention(layer), cache),
        mlp=lambda layer: mlp(dim, ffn),
    )
    if config.adapter_scale is not None:
        for name, part in list(model.named_modules()):
            if name.endswith((".self_attn", ".mlp")):
                _adapt(part, config.adapter_rank, config.adapter_scale)
    return model


def _adapt(part: nn.Module, rank: int, scale: float) -> None:
    """Put an adapted linear in place of each linear of ``part``."""
    for name, child in list(part.named_children()):
        if isinstance(child, nn.Linear):
            adapted = AdaptedLinear(child.in_features, child.out_features, rank, scale)
            setattr(part, name, adapted)
