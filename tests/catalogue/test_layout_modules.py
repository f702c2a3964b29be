"""The files of embedding models in folders of their own."""

from __future__ import annotations

from edge_llm.catalogue.layout import wanted


def test_configs_of_modules_are_fetched_too() -> None:
    names = ["config.json", "model.safetensors", "1_Pooling/config.json", "onnx/config.json"]
    assert wanted(iter(names)) == ["model.safetensors", "1_Pooling/config.json", "config.json"]


def test_matrices_of_modules_are_fetched_too() -> None:
    names = ["config.json", "2_Dense/config.json", "2_Dense/model.safetensors", "model.safetensors"]
    assert wanted([*names, "2_Dense/pytorch_model.bin"]) == [
        "model.safetensors",
        "2_Dense/config.json",
        "2_Dense/model.safetensors",
        "config.json",
    ]
