"""A loaded source has its stop ids, and says what is wrong with its chat template."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_llm.export.origin.load import Loaded, load
from edge_llm.export.recipes.recipe import Recipe

Tiny = Callable[..., Path]
END_OF_TEXT, IM_END = 256, 258
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def folder(tiny_checkpoint: Tiny, tmp_path: Path) -> Path:
    """A copy of a checkpoint that ends answers with <|endoftext|> alone, free to be changed."""
    made = tmp_path / "tiny"
    shutil.copytree(tiny_checkpoint("llama"), made)
    edit(made / "generation_config.json", eos_token_id=END_OF_TEXT)
    edit(made / "tokenizer_config.json", eos_token="<|endoftext|>", chat_template=None)
    for file in made.glob("chat_template*"):
        file.unlink()
    return made


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def loaded(folder: Path, **fields: Any) -> Loaded:
    return load(Recipe(model=str(folder), **fields))


def stop_notes(source: Loaded) -> list[str]:
    return [note for note in source.notes if note.startswith("stop ids")]


def test_the_end_that_the_tokenizer_names(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", eos_token="<|im_end|>")
    source = loaded(folder)
    assert source.generation.stop_ids == (END_OF_TEXT, IM_END)
    assert stop_notes(source) == [f"stop ids: {IM_END} added, which the tokenizer ends texts with"]


def test_the_end_that_the_template_writes(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(CHATML)
    source = loaded(folder)
    assert source.generation.stop_ids == (END_OF_TEXT, IM_END)
    assert stop_notes(source) == [
        f"stop ids: {IM_END} added, which the chat template ends an answer with"
    ]


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}bye<|im_end|>",
        "{% for m in messages %}{{ m.content }}.<|im_end|>{% endfor %}",
        "{{ messages[0].content }}<|im_end|>",
        "{{ raise_exception('no') }}",
        "{% for m in messages %}{{ m.content }}<|endoftext|>{% endfor %}",
    ],
)
def test_a_template_that_ends_answers_with_nothing_new(folder: Path, template: str) -> None:
    (folder / "chat_template.jinja").write_text(template)
    source = loaded(folder)
    assert source.generation.stop_ids == (END_OF_TEXT,)
    assert stop_notes(source) == []


def test_no_end_at_all_is_said(folder: Path) -> None:
    edit(folder / "generation_config.json", eos_token_id=None)
    edit(folder / "config.json", eos_token_id=None)
    edit(folder / "tokenizer_config.json", eos_token=None)
    assert stop_notes(loaded(folder)) == [
        "stop ids: none are known, so answers end at their limit of tokens alone"
    ]
