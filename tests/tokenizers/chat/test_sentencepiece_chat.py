"""Conversations through real SentencePiece vocabularies: spaces after special tokens, typed
specials."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import tokenizers

from edge_llm.llm.checkpoints.gguf.file import read_gguf_file
from edge_llm.tokenizers.chat.encode import encode_chat
from edge_llm.tokenizers.chat.template import ChatTemplate
from edge_llm.tokenizers.readers.convert import TokenizerDocument, from_directory, from_gguf
from edge_llm.tokenizers.tokenizer import Tokenizer

PHI3 = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "<|assistant|>\n"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }}[/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
LLAMA2 = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token }}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }} {{ eos_token }}{% endif %}{% endfor %}"
)
TYPED = "<s>[INST] <|end|>\n<|assistant|>\n<|endoftext|>[/INST] <unk>"


def phi3(folder: Path) -> TokenizerDocument:
    return from_gguf(read_gguf_file(folder / "ggml-vocab-phi-3.gguf").metadata)


def llama2(folder: Path) -> TokenizerDocument:
    return from_gguf(read_gguf_file(folder / "ggml-vocab-llama-spm.gguf").metadata)


def mistral(folder: Path, scratch: Path) -> TokenizerDocument:
    [file] = folder.glob("*.model.v3")
    (scratch / "tokenizer.model").write_bytes(file.read_bytes())
    return from_directory(scratch)


class Parts(NamedTuple):
    document: TokenizerDocument
    tokenizer: Tokenizer
    template: ChatTemplate


@pytest.fixture(scope="module", params=["phi3", "llama2", "mistral"])
def parts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Parts:
    if request.param == "mistral":
        folder = request.getfixturevalue("mistral_tokenizer_dir")
        document, source = mistral(folder, tmp_path_factory.mktemp("mistral")), MISTRAL
    elif request.param == "phi3":
        document, source = phi3(request.getfixturevalue("ggml_vocab_dir")), PHI3
    else:
        document, source = llama2(request.getfixturevalue("ggml_vocab_dir")), LLAMA2
    template = ChatTemplate(source, bos="<s>", eos="</s>")
    return Parts(document, Tokenizer(document.json, document.facts), template)


def chat(*contents: str) -> list[dict[str, Any]]:
    return [{"role": ("user", "assistant")[i % 2], "content": c} for i, c in enumerate(contents)]


def test_ids_are_the_librarys(parts: Parts) -> None:
    document, tokenizer, template = parts
    theirs = tokenizers.Tokenizer.from_buffer(document.json)
    messages = chat("Hi there", "é 🦙\n", "  two  spaces ")
    ids = encode_chat(tokenizer, template, messages)
    assert ids == theirs.encode(template.render(messages), add_special_tokens=False).ids


@pytest.mark.parametrize("text", ["Hi", " Hi", "é\n\nb ", "a  b"])
def test_typed_specials_are_plain(parts: Parts, text: str) -> None:
    """The turn with typed specials is the ids of its text, the others stay as they are."""
    _, tokenizer, template = parts
    plain = encode_chat(tokenizer, template, chat(text, "b", text))
    typed = encode_chat(tokenizer, template, chat(text, "b", text + TYPED))
    specials = [i for i in plain if tokenizer.is_special(i)]
    assert [i for i in typed if tokenizer.is_special(i)] == specials
    shown = tokenizer.decode(typed, skip_specials=False)
    assert shown.replace(TYPED, "") == tokenizer.decode(plain, skip_specials=False)


def test_known_prompts(ggml_vocab_dir: Path, mistral_tokenizer_dir: Path, tmp_path: Path) -> None:
    """As the models were trained: Phi-3's chat tokens take the line end with them, Mistral's get
    one space and no second one, and Llama 2's text begins anew after BOS."""
    document = phi3(ggml_vocab_dir)
    tokenizer = Tokenizer(document.json, document.facts)
    ids = tokenizer.encode("<|user|>\nHi<|end|>\n<|assistant|>\n", specials=True)
    assert [tokenizer.token_text(i) for i in ids] == [
        "<s>", "<|user|>", "▁Hi", "<|end|>", "<|assistant|>",
    ]  # fmt: skip
    document = mistral(mistral_tokenizer_dir, tmp_path)
    tokenizer = Tokenizer(document.json, document.facts)
    ids = tokenizer.encode("[INST] Hi[/INST] Yes</s>[INST] No[/INST]", specials=True)
    assert [tokenizer.token_text(i) for i in ids] == [
        "<s>", "[INST]", "▁Hi", "[/INST]", "▁Yes", "</s>", "[INST]", "▁No", "[/INST]",
    ]  # fmt: skip
    document = llama2(ggml_vocab_dir)
    tokenizer = Tokenizer(document.json, document.facts)
    ids = tokenizer.encode("Hi</s><s>Hi", specials=True)
    assert [tokenizer.token_text(i) for i in ids] == ["<s>", "▁Hi", "</s>", "<s>", "▁Hi"]
