"""Hugging Face tokenizer folders -> tokenizer.json, against transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from transformers import AutoTokenizer

from edge_llm.errors import TokenizerError
from edge_llm.tokenizers.readers.convert import from_directory, from_gguf
from edge_llm.tokenizers.tokenizer import Tokenizer


@pytest.fixture
def folder(tmp_path: Path, byte_metadata: dict[str, Any]) -> Path:
    """The tiny tokenizer as a Hugging Face folder."""
    (tmp_path / "tokenizer.json").write_bytes(from_gguf(byte_metadata).json)
    write_config(tmp_path, bos_token="<|im_start|>", eos_token={"content": "<|im_end|>"})
    return tmp_path


def write_config(folder: Path, **fields: Any) -> None:
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **fields}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def set_post_processor(folder: Path) -> None:
    """Make tokenizer.json itself add BOS."""
    file = folder / "tokenizer.json"
    tokenizer = tokenizers.Tokenizer.from_file(str(file))
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 259)]
    )
    tokenizer.save(str(file))


def test_facts(folder: Path) -> None:
    facts = from_directory(folder).facts
    assert (facts.size, facts.bos_id, facts.eos_id, facts.add_bos) == (262, 259, 260, False)


def test_without_a_config_there_is_no_bos(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()
    facts = from_directory(folder).facts
    assert (facts.bos_id, facts.eos_id, facts.add_bos) == (None, None, False)


@pytest.mark.parametrize("processor", [False, True])
@pytest.mark.parametrize("flag", [None, False, True])
def test_add_bos_as_transformers(folder: Path, processor: bool, flag: bool | None) -> None:
    if processor:
        set_post_processor(folder)
    extra = {} if flag is None else {"add_bos_token": flag}
    write_config(folder, bos_token="<|im_start|>", eos_token="<|im_end|>", **extra)
    document = from_directory(folder)
    ids = Tokenizer(document.json, document.facts).encode("hello")
    assert ids == AutoTokenizer.from_pretrained(folder)("hello").input_ids
    assert (ids[0] == 259) is document.facts.add_bos


def test_token_that_only_the_config_names_is_added(folder: Path) -> None:
    listed = {"262": {"content": "<new>", "special": True}}
    write_config(folder, eos_token="<new>", added_tokens_decoder=listed)
    document = from_directory(folder)
    assert (document.facts.eos_id, document.facts.size) == (262, 263)
    assert Tokenizer(document.json, document.facts).is_special(262)


def test_eos_becomes_special(folder: Path) -> None:
    write_config(folder, eos_token="<think>")
    document = from_directory(folder)
    assert Tokenizer(document.json, document.facts).is_special(261)


def test_truncation_and_padding_are_switched_off(folder: Path) -> None:
    file = folder / "tokenizer.json"
    tokenizer = tokenizers.Tokenizer.from_file(str(file))
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(file))
    document = from_directory(folder)
    assert len(Tokenizer(document.json, document.facts).encode("abc")) == 3


MARK = "hell"  # an entry of the vocabulary that text becomes too


@pytest.mark.parametrize(
    "fields",
    [
        {"additional_special_tokens": [MARK]},
        {"additional_special_tokens": [{"__type": "AddedToken", "content": MARK}]},
        {"extra_special_tokens": {"mark": MARK}},
    ],
)
def test_tokens_that_the_config_calls_special(folder: Path, fields: dict[str, Any]) -> None:
    write_config(folder, **fields)
    document = from_directory(folder)
    entries = {t["content"]: t for t in json.loads(document.json)["added_tokens"]}
    assert (entries[MARK]["id"], entries[MARK]["special"]) == (258, True)
    assert MARK in AutoTokenizer.from_pretrained(folder).all_special_tokens
    assert document.notes == ()


def test_special_tokens_without_an_entry_are_said(folder: Path) -> None:
    write_config(folder, additional_special_tokens=["<x>"], pad_token="<pad>")
    (note,) = from_directory(folder).notes
    assert note.endswith("not in the vocabulary are left out: '<x>'")


def test_a_padding_token_that_is_a_word_stays_one(folder: Path) -> None:
    write_config(folder, pad_token=MARK, unk_token=3, extra_special_tokens="<x>")
    document = from_directory(folder)
    assert MARK not in {token["content"] for token in json.loads(document.json)["added_tokens"]}


def test_a_token_is_what_the_config_says_of_it(folder: Path) -> None:
    described = {"content": "<think>", "rstrip": True, "special": True}
    write_config(folder, added_tokens_decoder={"261": described})
    (folder / "added_tokens.json").write_text('{"<|im_end|>": 260}')  # says nothing but the text
    entries = {t["id"]: t for t in json.loads(from_directory(folder).json)["added_tokens"]}
    assert (entries[261]["rstrip"], entries[261]["special"]) == (True, True)
    assert entries[260]["special"]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (None, None),
        ("one", "one"),
        ([{"name": "tool", "template": "t"}, {"name": "default", "template": "d"}], "d"),
        ([{"name": "tool", "template": "t"}], None),
        ([{"name": ["tool"], "template": "t"}], None),
    ],
)
def test_template_of_the_config(folder: Path, template: Any, expected: str | None) -> None:
    write_config(folder, chat_template=template)
    assert from_directory(folder).chat_template == expected


def test_template_file_wins(folder: Path) -> None:
    write_config(folder, chat_template="of the config")
    (folder / "chat_template.jinja").write_text("of the file é", encoding="utf-8")
    assert from_directory(folder).chat_template == "of the file é"
    (folder / "chat_template.json").write_text('{"chat_template": "of the older file"}')
    assert from_directory(folder).chat_template == "of the file é"
    (folder / "chat_template.jinja").unlink()
    assert from_directory(folder).chat_template == "of the config"
    write_config(folder)
    assert from_directory(folder).chat_template == "of the older file"


def test_templates_that_are_not_used_are_said(folder: Path) -> None:
    tools = {"name": "tool_use", "template": "t"}
    write_config(folder, chat_template=[tools])
    assert from_directory(folder).notes == (
        "chat template: none is used; others are not: 'tool_use'",
    )
    write_config(folder, chat_template=[tools, {"name": "default", "template": "d"}])
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "rag.jinja").write_text("r")
    assert from_directory(folder).notes == (
        "chat template: the one for all chats is used; others are not: 'rag', 'tool_use'",
    )


def test_thousands_of_listed_tokens_take_no_hours(folder: Path) -> None:
    first = from_directory(folder).facts.size
    listed = {str(first + i): {"content": f"<|{i}|>", "special": True} for i in range(20_000)}
    write_config(folder, added_tokens_decoder=listed)
    assert from_directory(folder).facts.size == first + 20_000


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"bos_token": "<nowhere>"}, "bos_token '<nowhere>' is not in the vocabulary"),
        ({"added_tokens_decoder": {"x": {"content": "a"}}}, "malformed added_tokens_decoder"),
        ({"added_tokens_decoder": {"300": {"content": "<new>"}}}, "gives '<new>' the id 300"),
        ({"chat_template": [{"name": "default", "template": []}]}, "chat_template in .* not text"),
        ({"chat_template": 3}, "chat_template in tokenizer_config.json is not text"),
    ],
)
def test_damaged_config(folder: Path, fields: dict[str, Any], complaint: str) -> None:
    write_config(folder, **fields)
    with pytest.raises(TokenizerError, match=complaint):
        from_directory(folder)


def test_damaged_files(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text("[]")
    with pytest.raises(TokenizerError, match="does not hold a JSON object"):
        from_directory(folder)
    (folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(TokenizerError, match="is not JSON"):
        from_directory(folder)
    (folder / "tokenizer_config.json").write_text("[" * 100_000)
    with pytest.raises(TokenizerError, match="is not JSON"):
        from_directory(folder)
    (folder / "tokenizer_config.json").unlink()
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(TokenizerError, match=r"not a readable tokenizer\.json"):
        from_directory(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(TokenizerError, match=r"has no tokenizer\.json"):
        from_directory(folder)


def test_other_kinds_are_refused_by_name(folder: Path) -> None:
    file = folder / "tokenizer.json"
    tokenizer = tokenizers.Tokenizer.from_file(str(file))
    tokenizer.decoder = tokenizers.decoders.WordPiece()
    tokenizer.save(str(file))
    with pytest.raises(TokenizerError, match="WordPiece decoder"):
        from_directory(folder)


def test_an_id_far_beyond_the_vocabulary(folder: Path) -> None:
    file = folder / "tokenizer.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    document["model"]["vocab"]["!"] = 2**31
    file.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(TokenizerError, match="ids up to 2147483648"):
        from_directory(folder)


def test_an_added_token_that_the_library_would_renumber(folder: Path) -> None:
    file = folder / "tokenizer.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    document["added_tokens"][-1] |= {"id": 300, "content": "<far>"}
    file.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(TokenizerError, match="'<far>' has the id 300, but 262"):
        from_directory(folder)
    document["model"]["vocab"]["<far>"] = 300
    file.write_text(json.dumps(document), encoding="utf-8")
    assert from_directory(folder).facts.size == 301


def test_a_special_token_that_is_no_text(folder: Path) -> None:
    write_config(folder, eos_token="\ud800")
    with pytest.raises(TokenizerError, match="not in the vocabulary"):
        from_directory(folder)


def test_a_pointer_in_place_of_a_tokenizer_is_named(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(TokenizerError, match=r"tokenizer\.json is a Git LFS pointer"):
        from_directory(folder)
