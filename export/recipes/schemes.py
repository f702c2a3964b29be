"""Schemes: which format the weights of each kind of layer get, by one name for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from edge_llm.program.formats import WEIGHT_FORMATS, Activations

# router: what scores experts. It is small, and what it decides is much, or all or nothing.
Kind = Literal["linear", "embedding", "head", "router"]

# Names of the formats that weights can be quantized or rounded to.
FORMATS = tuple(name for name, form in WEIGHT_FORMATS.items() if form.is_panel and form.is_made)
# Format per kind of layer; "i4" stands for i4g32, i4g64 or i4g128 by the group size.
SCHEMES: Mapping[str, Mapping[Kind, str]] = MappingProxyType(
    {
        "8da4w": {"linear": "i4", "embedding": "i6g32", "head": "i6g32", "router": "f32"},
        "8da8w": {"linear": "i8", "embedding": "i8", "head": "i8", "router": "f32"},
        "fp16": {"linear": "f16", "embedding": "f16", "head": "f16", "router": "f16"},
        "bf16": {"linear": "bf16", "embedding": "bf16", "head": "bf16", "router": "bf16"},
        "fp32": {"linear": "f32", "embedding": "f32", "head": "f32", "router": "f32"},
    }
)
# Weights that a scheme treats apart where they are quantized here: pattern of names -> format.
# v_proj is 3 % of the weights of SmolLM2-135M. Of a float checkpoint of its shape with scrambled
# weights, int8 there lowers the KL to it from 0.77 to 0.68: 12 % of the loss. The decays and
# strengths of a gated delta rule act on all that follows, and their matrices have a row a head.
# Low-rank terms beside linears, as their checkpoints have them, are a few percent of the bytes.
_FLOATS = {"*.linear_attn.in_proj_[ab].weight": "f16", "*.adaptor.[AB].weight": "bf16"}
EXCEPTIONS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {"8da4w": {"*.v_proj.weight": "i8", **_FLOATS}, "8da8w": _FLOATS}
)
GROUP_SIZES = (32, 64, 128)
DEFAULT_GROUP_SIZE = 32
# How activations are rounded for what is quantized here, where not in groups: beside what four
# bits a weight lose, it does not show.
SCHEME_ACTIVATIONS: Mapping[str, Activations] = MappingProxyType({"8da4w": "token"})
DEFAULT_ACTIVATIONS: Activations = "group"
