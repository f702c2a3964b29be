"""The PyTorch module of Qwen3.5 with experts; its facts are in `families/qwen3_5_moe_text.py`."""

from __future__ import annotations

from torch import nn

from edge_llm.llm.families.qwen3_5_moe_text import Qwen35MoeTextConfig
from edge_llm.llm.models.experts import SparseMLP
from edge_llm.llm.models.layers import CacheShape
from edge_llm.llm.models.qwen3_5_text import Qwen35Block, predicting


def build(config: Qwen35MoeTextConfig, cache: CacheShape) -> nn.Module:
    """Return the module; its parameters are not initialized."""

    def block(layer: int) -> nn.Module:
        mlp = SparseMLP(
            config.hidden_size,
            config.moe_intermediate_size,
            experts=config.num_experts,
            chosen=config.num_experts_per_tok,
            normalize=True,
            shared_ffn=config.shared_expert_intermediate_size,
        )
        return Qwen35Block(config, layer, cache, mlp)

    return predicting(config, cache, block)
