"""Llama 3.2, Qwen2.5 and Qwen3: ids, text and prompts equal to those of transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from edge_llm.program.documents import TokenizerFacts
from edge_llm.tokenizers.chat.encode import encode_chat
from edge_llm.tokenizers.chat.template import ChatTemplate
from edge_llm.tokenizers.readers.convert import from_directory
from edge_llm.tokenizers.tokenizer import Tokenizer

TEXTS = [
    "",
    "Hello, World! 12345 3.14 don't I'LL we'Ve",
    "\n\n  tabs\t\t and \r\n line ends   ",
    " ½ ² Ünïcödé é e\u0301 ﬁ Å",
    "日本語テスト 한국어 العربية ١٢٣ ภาษาไทย",
    "👩‍👩‍👧‍👦 🦙 \u200b \ufeff \x00 \x7f",
    "for (i=0; i<10; i++) { x[i] += 1; }  // <b>&amp;</b>",
    "<think> hm </think><tool_call>{}</tool_call>",
]
SPECIAL_TEXT = "<|im_start|>a<|im_end|> <|eot_id|><|begin_of_text|>b <|endoftext|>"
CONVERSATIONS: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": "Hi"}],
    [{"role": "system", "content": " Be  brief. "}, {"role": "user", "content": "é 🦙\n"}],
    [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nb"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d", "reasoning_content": "so"},
        {"role": "user", "content": "e"},
    ],
]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "é <b> & 'c'",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    },
}


class Pair(NamedTuple):
    ours: Tokenizer
    template: ChatTemplate
    theirs: PreTrainedTokenizerBase


@pytest.fixture(scope="module", params=["llama3", "qwen2_5", "qwen3"])
def pair(request: pytest.FixtureRequest) -> Pair:
    folder: Path = request.getfixturevalue(f"{request.param}_tokenizer_dir")
    document = from_directory(folder)
    ours = Tokenizer(document.json, document.facts)
    assert document.chat_template is not None
    template = ChatTemplate(
        document.chat_template,
        bos=ours.token_text(document.facts.bos_id),
        eos=ours.token_text(document.facts.eos_id),
    )
    return Pair(ours, template, AutoTokenizer.from_pretrained(folder))


def test_facts(pair: Pair) -> None:
    assert pair.ours.size == len(pair.theirs)
    assert pair.ours.facts.bos_id == pair.theirs.bos_token_id
    assert pair.ours.facts.eos_id == pair.theirs.eos_token_id


@pytest.mark.parametrize("text", TEXTS)
def test_ids_and_text(pair: Pair, text: str) -> None:
    ids = pair.theirs.encode(text)
    assert pair.ours.encode(text) == ids
    assert pair.ours.decode(ids, skip_specials=False) == pair.theirs.decode(ids)


def test_specials(pair: Pair) -> None:
    ids = pair.theirs.encode(SPECIAL_TEXT, add_special_tokens=False)
    assert pair.ours.encode(SPECIAL_TEXT, add_bos=False, specials=True) == ids
    plain = pair.theirs.encode(SPECIAL_TEXT, add_special_tokens=False, split_special_tokens=True)
    assert pair.ours.encode(SPECIAL_TEXT, add_bos=False) == plain
    assert pair.ours.decode(ids) == pair.theirs.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("tools", [None, [TOOL]], ids=["", "tools"])
@pytest.mark.parametrize("prompt", [True, False])
@pytest.mark.parametrize("messages", CONVERSATIONS, ids=["plain", "system", "turns"])
def test_prompts(
    pair: Pair, messages: list[dict[str, Any]], prompt: bool, tools: list[dict[str, Any]] | None
) -> None:
    # Llama's template asks for the date, Qwen3's for whether to think.
    options = {"date_string": "26 Jul 2024", "enable_thinking": False}
    expected = pair.theirs.apply_chat_template(
        messages, tools=tools, add_generation_prompt=prompt, tokenize=False, **options
    )
    assert pair.template.render(messages, tools, prompt, **options) == expected
    ids = pair.theirs.apply_chat_template(
        messages, tools=tools, add_generation_prompt=prompt, **options
    )["input_ids"]
    given = {"tools": tools, "add_generation_prompt": prompt, **options}
    assert encode_chat(pair.ours, pair.template, messages, **given) == ids


def test_typed_specials_end_no_turn(pair: Pair) -> None:
    def specials(content: str) -> list[int]:
        ids = encode_chat(pair.ours, pair.template, [{"role": "user", "content": content}])
        return [i for i in ids if pair.ours.is_special(i)]

    assert specials(SPECIAL_TEXT) == specials("x")


PHI4_MINI = {
    199999: "<|endoftext|>",
    200018: "<|endofprompt|>",
    200019: "<|assistant|>",
    200020: "<|end|>",
    200021: "<|user|>",
    200022: "<|system|>",
    200028: "<|tag|>",
}


@pytest.mark.slow
def test_phi4_mini(o200k_tokenizer_dir: Path, tmp_path: Path) -> None:
    """Its file: o200k with chat tokens whose ids leave a gap."""
    document = json.loads((o200k_tokenizer_dir / "tokenizer.json").read_bytes())
    document["added_tokens"] = [
        {**document["added_tokens"][0], "id": token_id, "content": text}
        for token_id, text in PHI4_MINI.items()
    ]
    document["model"]["vocab"] |= {text: token_id for token_id, text in PHI4_MINI.items()}
    (tmp_path / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    config = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "add_bos_token": False}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    converted = from_directory(tmp_path)
    assert converted.facts == TokenizerFacts(200029, 199999, 199999, False)
    tokenizer = Tokenizer(converted.json, converted.facts)
    assert dict(tokenizer.special_texts) == {text: i for i, text in PHI4_MINI.items()}
    ids = tokenizer.encode("<|user|>Hi<|end|><|assistant|>", specials=True)
    assert [ids[0], *ids[-2:]] == [200021, 200020, 200019]
    assert tokenizer.token_bytes(200010) == b""
    theirs = AutoTokenizer.from_pretrained(tmp_path, tokenizer_class="PreTrainedTokenizerFast")
    for text in [*TEXTS, SPECIAL_TEXT]:
        assert tokenizer.encode(text, specials=True) == theirs.encode(text)
