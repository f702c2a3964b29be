"""Rerankers in GGUF files, as llama.cpp's converter lays Qwen3-Reranker out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from stored_tensors import tensor_of

from edge_llm.errors import CheckpointError
from edge_llm.export.pipeline import export
from edge_llm.export.recipes.file import load_recipe
from edge_llm.llm.checkpoints.open import open_checkpoint
from edge_llm.llm.checkpoints.source import Retrieval
from edge_llm.program.file import Program

YES, NO = 265, 266


@pytest.fixture
def folder(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> Path:
    """Qwen3 with a tied head, whose tokenizer has yes and no."""
    made = shutil.copytree(tiny_checkpoint("qwen3", tie_word_embeddings=True), tmp_path / "folder")
    document = json.loads((made / "tokenizer.json").read_text())
    vocab = document["model"]["vocab"]
    assert len(vocab) == YES
    vocab |= {"yes": YES, "no": NO}
    (made / "tokenizer.json").write_text(json.dumps(document))
    return made


def ranking(rows: NDArray[np.float32]) -> Callable[[gguf.GGUFWriter], None]:
    def edit(writer: gguf.GGUFWriter) -> None:
        writer.add_pooling_type(gguf.PoolingType.RANK)
        writer.add_array("qwen3.classifier.output_labels", ["yes", "no"])
        writer.add_tensor("cls.output.weight", rows)

    return edit


def test_a_reranker_is_the_model_that_it_was_made_of(
    folder: Path, make_gguf: Callable[..., Path], tmp_path: Path
) -> None:
    source = open_checkpoint(folder)
    table = tensor_of(source, "model.embed_tokens.weight").numpy()
    made = open_checkpoint(make_gguf(folder, "Q8_0", edit=ranking(table[[YES, NO]])))
    assert made.retrieval == Retrieval(pooling=None, judges=True, yes_no=(YES, NO))
    assert made.config == source.config
    assert made.shapes == source.shapes
    recipe = load_recipe("fp32", ["verify=false"], model=str(made.sources[0]))
    with Program.open(export(recipe, output=tmp_path / "x.edge")) as program:
        facts = program.documents.rerank
    assert facts is not None
    assert (facts.yes_id, facts.no_id) == (YES, NO)


def test_a_head_of_which_two_rows_are_left_is_refused(
    folder: Path, make_gguf: Callable[..., Path]
) -> None:
    rows = torch.randn(2, 64, generator=torch.Generator().manual_seed(1)).numpy()
    with pytest.raises(CheckpointError, match="two rows of a head that is nowhere in the file"):
        open_checkpoint(make_gguf(folder, edit=ranking(rows)))


def test_other_heads_are_left_over(folder: Path, make_gguf: Callable[..., Path]) -> None:
    def edit(writer: Any) -> None:
        writer.add_pooling_type(gguf.PoolingType.RANK)
        writer.add_tensor("cls.output.weight", np.zeros((3, 64), np.float32))

    with pytest.raises(CheckpointError, match=r"left over.*cls\.output\.weight"):
        open_checkpoint(make_gguf(folder, edit=edit))
