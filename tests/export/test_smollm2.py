"""The real small model: what its exports recorded about themselves."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import edge_llm
from edge_llm.export.outcome import Outcome
from edge_llm.export.recipes.file import load_recipe
from edge_llm.export.verification.oracle import eager_model
from edge_llm.export.verification.verify import eager_logits
from edge_llm.program.file import Program
from edge_llm.runner.evaluation.evaluation import evaluate, open_reader
from edge_llm.tokenizers.tokenizer import tokenizer_of


def test_fp32_is_the_checkpoint(smollm2_fp32_made: Outcome) -> None:
    verify = smollm2_fp32_made.verification
    with Program.open(smollm2_fp32_made.path) as program:
        golden = program.golden
    assert verify["same_numbers"]["max_error"] < 1e-3
    assert verify["unquantized"]["top1"] == 1.0
    assert golden is not None
    # "The capital of France is" -> " Paris.\n\n"
    assert golden.next[0][:4].tolist() == [7042, 30, 198, 198]


def test_8da4w_loses_what_eager_torchao_loses(smollm2_8da4w_made: Outcome) -> None:
    report, verify = smollm2_8da4w_made.report, smollm2_8da4w_made.verification
    assert verify["same_numbers"]["positions"] == 5 * 32
    # Thirty layers of int8 activations amplify a difference of one bit to a KL of about 0.02
    # between two runs of eager PyTorch itself.
    assert verify["same_numbers"]["kl"] < 0.06
    assert verify["same_numbers"]["top1_near"] > 0.95
    assert abs(verify["unquantized"]["kl"] - verify["eager_unquantized"]["kl"]) < 0.02
    # The file's own integers, of four bits with minima and, in its table, of eight: nothing is
    # lost but what activations lose.
    assert verify["unquantized"]["kl"] < 0.03
    assert 5.7 < report["bits_per_weight"] < 5.9
    assert report["formats"]["u4g32m"]["unchanged"] == 210
    assert report["formats"]["i8g32"]["unchanged"] == 1
    assert report["tied"] == {"lm_head.weight": "model.embed_tokens.weight"}


def test_8da4w_chooses_what_eager_torchao_chooses(smollm2_8da4w: Path, smollm2_gguf: Path) -> None:
    """Teacher-forced over 64 positions of 5 prompts: the same likeliest token, except where eager's
    lead is within what eager itself makes of a relative change of 1e-6 in its embeddings."""
    with edge_llm.load(smollm2_8da4w) as llm:
        golden = llm.program.golden
        assert golden is not None
        texts = [
            [*prompt[prompt >= 0].tolist(), *following[following >= 0].tolist()]
            for prompt, following in zip(golden.tokens, golden.next, strict=True)
        ]
        program = np.concatenate([llm.logits(text) for text in texts])
    model = eager_model(load_recipe("8da4w", model=str(smollm2_gguf)), slots=5, tokens=64)
    eager = eager_logits(model, texts)
    generator = torch.Generator().manual_seed(0)

    def perturb(module: torch.nn.Module, inputs: object, rows: torch.Tensor) -> torch.Tensor:
        return rows * (1 + 1e-6 * torch.randn(rows.shape, generator=generator))

    embedding = model.get_submodule("model.embed_tokens")
    embedding.register_forward_hook(perturb)
    noise = float((eager_logits(model, texts) - eager).std())

    assert program.shape == eager.shape == (5 * 64, llm.program.plan.vocab)
    assert float((program - eager).std()) < 1.5 * noise
    assert noise < 0.15 * float(eager.std())  # the comparison still means something
    ranked = np.sort(eager, axis=1)
    lead = ranked[:, -1] - ranked[:, -2]
    other = program.argmax(axis=1) != eager.argmax(axis=1)
    assert other.mean() < 0.1
    assert not lead[other].size or lead[other].max() < 3 * noise


@pytest.mark.slow
def test_8da4w_is_as_good_as_eager_torchao(
    smollm2_8da4w: Path, smollm2_gguf: Path, wikipedia_text: Path
) -> None:
    """Perplexity over 20 windows of 1024 tokens: within 0.5 % of eager PyTorch's."""
    context, windows = 1024, 20
    text = wikipedia_text.read_text(encoding="utf-8")
    with Program.open(smollm2_8da4w) as program, open_reader(program, context) as reader:
        ids = tokenizer_of(program).encode(text, add_bos=False)[: windows * context]
        quality = evaluate(reader, ids, window=context, windows=windows)
    tokens = quality.tokens
    assert tokens == windows * (context - 1)
    recipe = load_recipe("8da4w", model=str(smollm2_gguf))
    every = torch.arange(context)
    total = 0.0
    model = eager_model(recipe, slots=1, tokens=context)
    for window in range(windows):  # each overwrites the cache of the one before
        part = torch.tensor(ids[window * context : (window + 1) * context])
        with torch.no_grad():
            logits = model(part, every, torch.zeros_like(every), every[:-1])
        total += float(torch.nn.functional.cross_entropy(logits, part[1:], reduction="sum"))
    assert quality.perplexity.value == pytest.approx(math.exp(total / tokens), rel=0.005)
