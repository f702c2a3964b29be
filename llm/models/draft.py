"""A draft method: what a model predicts further tokens with, which lie beyond the next one.

Its one layer goes on from the hidden states that the head reads. A row has what the model made of
the token before, and the token itself, so that it follows from the tokens up to its own, as the
rows of every state do.
"""

from __future__ import annotations

import torch
from torch import nn

from edge_llm.llm.models import ops
from edge_llm.llm.models.layers import CacheShape, Decoder, RMSNorm


class Previous(nn.Module):
    """Keeps the rows of a sequence, and gives each token the row of the one before."""

    cache: torch.Tensor

    def __init__(self, dim: int, cache: CacheShape) -> None:
        super().__init__()
        rows = torch.zeros(cache.slots, cache.context, dim)
        self.register_buffer("cache", rows, persistent=False)

    def forward(
        self, x: torch.Tensor, positions: torch.Tensor, sequences: torch.Tensor
    ) -> torch.Tensor:
        before: torch.Tensor = ops.previous(x, self.cache, positions, sequences)
        return before


class Predictor(nn.Module):
    """A layer over the token and the hidden states before it, each normalized, side by side and
    then as wide as one of them. ``tables``: the names of the tables that the layer rotates with."""

    def __init__(
        self, dim: int, eps: float, cache: CacheShape, layer: nn.Module, tables: tuple[str, str]
    ) -> None:
        super().__init__()
        self.hidden = Previous(dim, cache)
        self.pre_fc_norm_embedding = RMSNorm(dim, eps)
        self.pre_fc_norm_hidden = RMSNorm(dim, eps)
        self.fc = nn.Linear(2 * dim, dim, bias=False)
        self.layers = nn.ModuleList([layer])
        self.norm = RMSNorm(dim, eps)
        self.tables = tables

    def forward(
        self,
        embedded: torch.Tensor,
        hidden: torch.Tensor,
        positions: torch.Tensor,
        sequences: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
    ) -> torch.Tensor:
        """embedded, hidden: (T, dim). Returns hidden states (T, dim)."""
        before = self.hidden(hidden, positions, sequences)
        both = (self.pre_fc_norm_embedding(embedded), self.pre_fc_norm_hidden(before))
        x = self.fc(torch.cat(both, dim=-1))
        for layer in self.layers:
            x = layer(x, positions, sequences, cos, sin)
        out: torch.Tensor = self.norm(x)
        return out


class DraftMethod(nn.Module):
    """The draft method of a decoder, whose table and head it shares; parameters have the same names
    as there."""

    def __init__(self, model: Decoder, predictor: Predictor) -> None:
        super().__init__()
        self.model = nn.ModuleDict({"embed_tokens": model.model["embed_tokens"]})
        self.mtp = predictor
        self.lm_head = model.lm_head
        for name in predictor.tables:
            self.register_buffer(name, model.get_buffer(name), persistent=False)

    def forward(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        sequences: torch.Tensor,
        rows: torch.Tensor,
        hidden: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The first four as in `Decoder.forward`; hidden: (T, dim), what its head reads.

        Returns logits (R, vocab) of the token after each row's, and hidden states (T, dim)."""
        cos, sin = map(self.get_buffer, self.mtp.tables)
        embedded = self.model["embed_tokens"](tokens)
        out = self.mtp(embedded, hidden, positions, sequences, cos, sin)
        logits: torch.Tensor = self.lm_head(torch.index_select(out, 0, rows))
        return logits, out


def draft_of(model: nn.Module) -> DraftMethod | None:
    """Return the draft method of a model; None if it has none."""
    predictor = getattr(model, "mtp", None)
    if not isinstance(predictor, Predictor) or not isinstance(model, Decoder):
        return None
    return DraftMethod(model, predictor)
