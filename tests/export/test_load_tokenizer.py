"""What the stage load settles between a checkpoint and its tokenizer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tokenizers

from edge_llm.errors import CheckpointError
from edge_llm.export.load import load
from edge_llm.export.recipe import load_recipe


@pytest.fixture
def source(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> Path:
    """A checkpoint of our own, to be changed."""
    small = tiny_checkpoint("llama", num_hidden_layers=1)
    return Path(shutil.copytree(small, tmp_path / "source"))


@pytest.mark.parametrize(
    ("eos", "stop_ids", "noted"), [([0], (0, 258), True), ([258, 256], (258, 256), False)]
)
def test_the_tokenizers_eos_ends_a_turn(
    source: Path, eos: list[int], stop_ids: tuple[int, ...], noted: bool
) -> None:
    file = source / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token_id": eos}))
    loaded = load(load_recipe("8da4w", [], model=str(source)))
    assert loaded.generation.stop_ids == stop_ids
    assert ("the tokenizer's EOS 258 ends a turn too" in loaded.notes) == noted


def test_more_tokens_than_rows(source: Path) -> None:
    rows = json.loads((source / "config.json").read_text())["vocab_size"]
    file = str(source / "tokenizer.json")
    tokenizer = tokenizers.Tokenizer.from_file(file)
    while tokenizer.get_vocab_size() < rows:
        tokenizer.add_tokens([f"<extra {tokenizer.get_vocab_size()}>"])
    tokenizer.save(file)
    load(load_recipe("8da4w", [], model=str(source)))
    tokenizer.add_tokens(["<one more>"])
    tokenizer.save(file)
    with pytest.raises(
        CheckpointError, match=f"has {rows + 1} tokens, expected at most the {rows} rows"
    ):
        load(load_recipe("8da4w", [], model=str(source)))
