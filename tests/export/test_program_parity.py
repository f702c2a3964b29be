"""Programs against transformers: what is computed, whoever wrote the modelling code.

fp32 programs must give its logits; 8da4w programs those of the transformers model whose linears
hold torchao tensors made of the integers in the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures_checkpoints import YARN_ROPE, reference_model
from numpy.typing import NDArray
from torch import nn

from edge_llm.export.eager import torchao_tensor
from edge_llm.export.load import load
from edge_llm.export.pipeline import export
from edge_llm.export.recipe import load_recipe
from edge_llm.export.weights import QuantizedWeight
from edge_llm.program.file import Program
from edge_llm.program.pack import unpack
from edge_llm.runner.backends import native
from edge_llm.runner.executor import Batch, Limits

Tiny = Callable[..., Path]
Step = Callable[..., NDArray[np.float32]]

LENGTH = 90  # more than one page of keys and values
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-untied": ("llama", {}),
    "llama-tied": ("llama", {"tie_word_embeddings": True, "num_hidden_layers": 3}),
    "llama-head-dim": ("llama", {"head_dim": 24}),
    "llama-biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "mistral": ("mistral", {}),
    "phi3-long": ("phi3", {}),
    "phi3-short": ("phi3", {"tie_word_embeddings": True, "original_max_position_embeddings": 90}),
    "qwen2-untied": ("qwen2", {}),
    "qwen2-tied": ("qwen2", {"tie_word_embeddings": True}),
    "qwen2-windows": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 40, "max_window_layers": 1},
    ),
    "qwen3-untied": ("qwen3", {}),
    "qwen3-tied": ("qwen3", {"tie_word_embeddings": True, "num_hidden_layers": 4}),
    "qwen3-yarn": ("qwen3", {"rope_parameters": YARN_ROPE}),
    "smollm3": (
        "smollm3",
        {"use_sliding_window": True, "sliding_window": 9, "tie_word_embeddings": True},
    ),
}
CONTEXTS = {"phi3-short": 90}  # as many as trained with before LongRoPE

Case = tuple[Path, int]


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, tiny_checkpoint: Tiny) -> Case:
    """The folder of a checkpoint, and the context of its program."""
    family, config = CASES[request.param]
    return tiny_checkpoint(family, **config), CONTEXTS.get(request.param, 256)


def prompt(seed: int, length: int = LENGTH) -> list[int]:
    return np.random.default_rng(seed).integers(0, 288, length).tolist()


def logits_of(model: nn.Module, tokens: list[int]) -> NDArray[np.float32]:
    with torch.no_grad():
        logits: NDArray[np.float32] = model(torch.tensor([tokens])).logits[0].numpy()
    return logits


@contextmanager
def running(program: Program) -> Iterator[Step]:
    """``step([(sequence, first position, tokens), ...]) -> logits`` of every token."""
    pages = -(-program.plan.context // native.page_tokens())
    executor = native.load(
        program.plan,
        {weight.tensor: program.weight_data(weight) for weight in program.plan.weights},
        sampleable=program.documents.tokenizer.size,
        limits=Limits(max_tokens=256, max_rows=256, max_sequences=2, pages=2 * pages, threads=1),
    )

    def step(*pieces: tuple[int, int, list[int]]) -> NDArray[np.float32]:
        counts = [len(tokens) for _, _, tokens in pieces]
        result = executor.step(
            Batch(
                tokens=np.array([token for _, _, tokens in pieces for token in tokens], np.int32),
                positions=np.concatenate(
                    [np.arange(first, first + len(tokens)) for _, first, tokens in pieces]
                ).astype(np.int32),
                sequences=np.repeat([sequence for sequence, _, _ in pieces], counts).astype(
                    np.int32
                ),
                rows=np.arange(sum(counts), dtype=np.int32),
                page_tables=np.arange(2 * pages, dtype=np.int32).reshape(2, pages),
                samplers=[None] * sum(counts),
                want_logits=True,
            )
        )
        assert result.logits is not None
        return result.logits

    try:
        yield step
    finally:
        executor.close()


def assert_parity(
    got: NDArray[np.float32], expected: NDArray[np.float32], bound: float = 1e-4
) -> None:
    assert got.shape == expected.shape
    assert float(np.abs(got - expected).max() / expected.std()) < bound


def test_fp32_program(case: Case, tmp_path: Path) -> None:
    folder, context = case
    reference = reference_model(folder, context)
    recipe = load_recipe("fp32", ["verify=false", f"context={context}"], model=str(folder))
    with Program.open(export(recipe, output=tmp_path / "x.edge")) as program:
        first, second = prompt(1), prompt(2)
        expected = [logits_of(reference, first), logits_of(reference, second)]
        with running(program) as step:  # at once
            assert_parity(step((0, 0, first)), expected[0])
        with running(program) as step:  # token by token
            steps = [step((0, at, first[at : at + 1])) for at in range(LENGTH)]
            assert_parity(np.concatenate(steps), expected[0])
        with running(program) as step:  # two sequences interleaved, in chunks of unequal size
            got: tuple[list[Any], list[Any]] = ([], [])
            at = [0, 0]
            for counts in ((7, 33), (40, 1), (1, 40), (42, 16)):
                pieces = [(i, at[i], (first, second)[i][at[i] : at[i] + counts[i]]) for i in (0, 1)]
                logits = step(*pieces)
                got[0].append(logits[: counts[0]])
                got[1].append(logits[counts[0] :])
                at = [at[0] + counts[0], at[1] + counts[1]]
            assert at == [LENGTH, LENGTH]
            for index in (0, 1):
                assert_parity(np.concatenate(got[index]), expected[index])


@pytest.mark.parametrize(
    ("case", "scheme"),
    [
        *((name, "8da4w") for name in CASES),
        *((name, "8da8w") for name in ("llama-tied", "phi3-long", "qwen2-untied", "qwen3-untied")),
    ],
    indirect=["case"],
)
def test_quantized_program(scheme: str, case: Case, tmp_path: Path) -> None:
    folder, context = case
    settings = ["verify=false", "kv_dtype=f32", f"context={context}"]
    recipe = load_recipe(scheme, settings, model=str(folder))
    with Program.open(export(recipe, output=tmp_path / "x.edge")) as program:
        reference = reference_model(folder, context)
        replace_weights(reference, program)
        tokens = prompt(3)
        expected = logits_of(reference, tokens)
        with running(program) as step:
            got = step((0, 0, tokens))
    # A rounding of an activation that falls the other way moves logits by a quantum: the bulk must
    # agree closely, and another choice is fine only where eager's first two are that close.
    spread = expected.std()
    error = np.abs(got - expected).max(axis=1) / spread
    assert float(np.median(error)) < 0.05
    assert float(error.max()) < 0.3
    lead = expected.max(axis=1) - expected[np.arange(LENGTH), got.argmax(axis=1)]
    assert float(lead.max() / spread) < 0.1


def test_the_report_names_the_regime(tiny_checkpoint: Tiny) -> None:
    def notes(context: int) -> list[str]:
        recipe = load_recipe("fp32", [f"context={context}"], model=str(tiny_checkpoint("phi3")))
        return [note for note in load(recipe).notes if note.startswith("rope: ")]

    for context, words in ((64, "the short factors of longrope"), (65, "the long factors")):
        (note,) = notes(context)
        assert words in note


def replace_weights(model: nn.Module, program: Program) -> None:
    """Puts the file's integers into ``model``: torchao tensors in linears, floats in the table."""
    weights = {weight.tensor: weight for weight in program.plan.weights}
    begin: dict[str, int] = {}
    parts: dict[str, QuantizedWeight] = {}
    for row in program.documents.report["weights"]:
        weight = weights[row["tensor"]]
        if weight.format == "raw_f32":
            continue
        unpacked = unpack(program.weight_data(weight), weight.format, *weight.shape)
        assert unpacked.q is not None
        assert unpacked.scales is not None
        first = begin.get(row["tensor"], 0)
        end = begin[row["tensor"]] = first + row["shape"][0]
        scales = torch.from_numpy(unpacked.scales[first:end].copy())
        q = torch.from_numpy(unpacked.q[first:end].copy())
        parts[row["name"]] = QuantizedWeight(
            weight.format, q, scales, q.shape[1] // scales.shape[1]
        )
    tied = program.documents.report["tied"]
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear):
            name = f"{path}.weight"
            tensor = torchao_tensor(parts[tied.get(name, name)])
        elif isinstance(module, nn.Embedding):
            tensor = parts[f"{path}.weight"].dequantize()
        else:
            continue
        module.weight = nn.Parameter(tensor, requires_grad=False)
