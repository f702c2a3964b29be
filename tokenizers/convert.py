"""A checkpoint's tokenizer files -> the one ``tokenizer.json`` that a program holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers as hf

from edge_llm.errors import TokenizerError
from edge_llm.program.documents import TokenizerFacts
from edge_llm.tokenizers.gguf_bpe import build_bpe
from edge_llm.tokenizers.tokenizer import check_decoder, parse

_MODEL_KINDS = {
    "llama": "SentencePiece",
    "bert": "WordPiece",
    "t5": "SentencePiece Unigram",
    "rwkv": "RWKV",
}


@dataclass(frozen=True, slots=True)
class TokenizerDocument:
    """What goes into a program file: the bytes of a Hugging Face ``tokenizer.json``, the facts
    beside it, and the chat template if the source has one."""

    json: bytes
    facts: TokenizerFacts
    chat_template: str | None


MAX_SIZE = 2**24  # ids of a tokenizer; the largest known ones have about 2**18


def from_directory(path: Path) -> TokenizerDocument:
    """Read ``tokenizer.json``, ``tokenizer_config.json`` and ``chat_template.jinja``.

    The result encodes as ``transformers`` does from the same folder: tokens that only
    ``tokenizer_config.json`` names are added, BOS and EOS are special, and the post-processor of
    ``tokenizer.json`` alone decides about BOS (``add_bos_token`` is for older files).

    Raises:
        TokenizerError: files missing, damaged, at odds, or of an unsupported kind.
    """
    file = path / "tokenizer.json"
    if not file.is_file():
        raise TokenizerError(
            f"{path} has no tokenizer.json",
            hint="SentencePiece and tiktoken files (tokenizer.model) are not supported.",
        )
    tokenizer = parse(_read(file))
    check_decoder(tokenizer)
    config = _read_json(path / "special_tokens_map.json")
    config |= _read_json(path / "tokenizer_config.json")

    for token_id, content, token in _listed_tokens(config):
        if tokenizer.id_to_token(token_id) != content:
            tokenizer.add_tokens([token])
        if tokenizer.token_to_id(content) != token_id:
            raise TokenizerError(
                f"{path}: tokenizer_config.json gives {content!r} the id {token_id}, "
                f"tokenizer.json {tokenizer.token_to_id(content)}"
            )
    bos_id = _make_special(tokenizer, "bos_token", config)
    eos_id = _make_special(tokenizer, "eos_token", config)

    add_bos = bos_id is not None and tokenizer.encode("a").ids[:1] == [bos_id]
    return _document(tokenizer, bos_id, eos_id, add_bos, _directory_template(path, config))


def from_gguf(metadata: Mapping[str, object]) -> TokenizerDocument:
    """Build the tokenizer from the ``tokenizer.*`` keys of a GGUF file's metadata.

    Raises:
        TokenizerError: keys missing or damaged, or a tokenizer or pre-tokenizer that is not
            supported, by name.
    """
    model = metadata.get("tokenizer.ggml.model")
    if model != "gpt2":
        kind = _MODEL_KINDS.get(str(model))
        raise TokenizerError(
            f"tokenizer.ggml.model {model!r}{f' ({kind})' if kind else ''} is not supported; "
            "expected 'gpt2' (byte-level BPE)"
        )
    tokenizer, adds_bos = build_bpe(metadata)
    bos_id = _gguf_id(metadata, "bos", tokenizer)
    eos_id = _gguf_id(metadata, "eos", tokenizer)
    add_bos = metadata.get("tokenizer.ggml.add_bos_token", adds_bos)
    template = metadata.get("tokenizer.chat_template")
    return _document(
        tokenizer,
        bos_id,
        eos_id,
        bool(add_bos) and bos_id is not None,
        template if isinstance(template, str) else None,
    )


def _document(
    tokenizer: hf.Tokenizer,
    bos_id: int | None,
    eos_id: int | None,
    add_bos: bool,
    chat_template: str | None,
) -> TokenizerDocument:
    size = 1 + max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if not 0 < size <= MAX_SIZE:  # the library writes every id up to the last, also unused ones
        raise TokenizerError(f"the tokenizer has ids up to {size - 1}, at most {MAX_SIZE} can be")
    facts = TokenizerFacts(size=size, bos_id=bos_id, eos_id=eos_id, add_bos=add_bos)
    return TokenizerDocument(tokenizer.to_str(pretty=False).encode(), facts, chat_template)


def _gguf_id(metadata: Mapping[str, object], name: str, tokenizer: hf.Tokenizer) -> int | None:
    token_id = metadata.get(f"tokenizer.ggml.{name}_token_id")
    if token_id is None:
        return None
    if (
        not isinstance(token_id, int)
        or not 0 <= token_id < 2**32  # what the library's ids hold
        or tokenizer.id_to_token(token_id) is None
    ):
        raise TokenizerError(f"tokenizer.ggml.{name}_token_id is {token_id!r}, which has no token")
    return token_id


def _listed_tokens(config: Mapping[str, Any]) -> list[tuple[int, str, hf.AddedToken]]:
    """The entries of ``added_tokens_decoder``, by id."""
    listed = config.get("added_tokens_decoder") or {}
    try:
        return [
            (
                int(key),
                fields["content"],
                hf.AddedToken(
                    fields["content"],
                    single_word=fields.get("single_word", False),
                    lstrip=fields.get("lstrip", False),
                    rstrip=fields.get("rstrip", False),
                    normalized=fields.get("normalized", False),
                    special=fields.get("special", False),
                ),
            )
            for key, fields in sorted(listed.items(), key=lambda item: int(item[0]))
        ]
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        raise TokenizerError("tokenizer_config.json has a malformed added_tokens_decoder") from exc


def _make_special(tokenizer: hf.Tokenizer, name: str, config: Mapping[str, Any]) -> int | None:
    """The id of a token that the config names by its text, marked special."""
    token = config.get(name)
    text = token.get("content") if isinstance(token, dict) else token
    if text is None:
        return None
    try:
        token_id = tokenizer.token_to_id(text) if isinstance(text, str) else None
    except UnicodeEncodeError:  # a lone surrogate is no token
        token_id = None
    if token_id is None:
        raise TokenizerError(f"tokenizer_config.json: {name} {text!r} is not in the vocabulary")
    known = tokenizer.get_added_tokens_decoder().get(token_id)
    if known is None or not known.special:
        tokenizer.add_special_tokens([hf.AddedToken(text, special=True, normalized=False)])
    return token_id


def _directory_template(path: Path, config: Mapping[str, Any]) -> str | None:
    """The chat template: its own file if there is one, else the config's (where a list of named
    templates has one called ``default``)."""
    file = path / "chat_template.jinja"
    if file.is_file():
        return _decode(file)
    template = config.get("chat_template")
    if isinstance(template, list):
        named = {t.get("name"): t.get("template") for t in template if isinstance(t, dict)}
        template = named.get("default")
    if template is not None and not isinstance(template, str):
        raise TokenizerError(f"{path}: chat_template in tokenizer_config.json is not text")
    return template


def _read_json(file: Path) -> dict[str, Any]:
    """A JSON object; empty where there is no such file."""
    if not file.is_file():
        return {}
    try:
        value = json.loads(_decode(file))
    except (ValueError, RecursionError) as exc:
        raise TokenizerError(f"{file} is not JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise TokenizerError(f"{file} does not hold a JSON object")
    return value


def _decode(file: Path) -> str:
    try:
        return _read(file).decode()
    except UnicodeDecodeError as exc:
        raise TokenizerError(f"{file} is not UTF-8") from exc


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as exc:
        raise TokenizerError(f"cannot read {file}: {exc.strerror}") from exc
