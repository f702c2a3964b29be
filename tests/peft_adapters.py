"""Random LoRA adapters of the tiny random models, as the peft package writes them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fixtures_checkpoints import random_model
from numpy.typing import NDArray

ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
TARGETS = {
    "phi3": ("qkv_proj", "o_proj", "gate_up_proj", "down_proj"),
    "qwen3_moe": ("q_proj", "k_proj", "v_proj", "o_proj"),
}


class Written:
    """An adapter in ``folder``, beside the model that peft has put it on."""

    def __init__(self, folder: Path, model: Any) -> None:
        self.folder, self._model = folder, model

    def logits(self, ids: list[int]) -> NDArray[np.float32]:
        """Return peft's logits of every position, [n, vocab]."""
        with torch.no_grad():
            values: NDArray[np.float32] = self._model(torch.tensor([ids])).logits[0].numpy()
        return values


def write_adapter(
    folder: Path,
    family: str = "llama",
    *,
    seed: int = 0,
    base: dict[str, Any] | None = None,
    base_weights: bool = False,
    dtype: torch.dtype = torch.float32,
    **config: Any,
) -> Written:
    """Write an adapter of the tiny model of ``family`` with the settings ``base``; ``config`` is
    peft's, ``dtype`` that of its tensors."""
    import peft

    settings = {"r": 4, "lora_alpha": 8, "target_modules": list(TARGETS.get(family, ALL))} | config
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        model = peft.get_peft_model(
            random_model(family, **(base or {})), peft.LoraConfig(**settings)
        )
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.2)
                parameter.data = parameter.data.to(dtype).float()
        model.peft_config["default"].base_model_name_or_path = "base/model"
        model.save_pretrained(folder, save_embedding_layers=base_weights)
    if dtype != torch.float32:
        from safetensors.torch import load_file, save_file

        path = folder / "adapter_model.safetensors"
        save_file({name: tensor.to(dtype) for name, tensor in load_file(path).items()}, path)
    return Written(folder, model.eval())
