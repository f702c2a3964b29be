"""The files beside a tokenizer in a Hugging Face folder: config, listed tokens, template."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers as hf

from edge_llm.errors import TokenizerError

MAX_TOKENIZER_BYTES = 2**27  # the largest known tokenizer.json has 2**25
MAX_CONFIG_BYTES = 2**24


@dataclass(frozen=True, slots=True)
class Folder:
    """``tokenizer_config.json`` over ``special_tokens_map.json``, the tokens that it or
    ``added_tokens.json`` lists by id, and the chat template."""

    config: Mapping[str, Any]
    listed: Mapping[int, hf.AddedToken]
    chat_template: str | None


def read_folder(path: Path) -> Folder:
    """Return what stands beside a tokenizer.

    Raises:
        TokenizerError: files that are damaged or too large.
    """
    config = _read_json(path / "special_tokens_map.json")
    config |= _read_json(path / "tokenizer_config.json")
    listed = _added_tokens(path / "added_tokens.json") | _listed_tokens(config)
    return Folder(config, listed, _template(path, config))


def read_bytes(file: Path, limit: int = MAX_TOKENIZER_BYTES) -> bytes:
    """Return a whole file of at most ``limit`` bytes.

    Raises:
        TokenizerError: it cannot be read, or is larger.
    """
    try:
        with file.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size  # room is made for all that is asked for
            data = stream.read(min(size, limit) + 1)
    except OSError as exc:
        raise TokenizerError(f"cannot read {file}: {exc.strerror}") from exc
    if len(data) > limit:
        raise TokenizerError(f"{file} has more than {limit} bytes, too many for such a file")
    return data


def _added_tokens(file: Path) -> dict[int, hf.AddedToken]:
    """Return the older list: text to id, without what kind of token it is."""
    values = _read_json(file)
    if not all(isinstance(i, int) and _is_text(text) for text, i in values.items()):
        raise TokenizerError(f"{file}: expected texts with their ids")
    return {i: hf.AddedToken(text, normalized=False) for text, i in values.items()}


def _listed_tokens(config: Mapping[str, Any]) -> dict[int, hf.AddedToken]:
    """Return the entries of ``added_tokens_decoder``."""
    listed = config.get("added_tokens_decoder") or {}
    try:
        return {
            int(key): hf.AddedToken(
                fields["content"],
                single_word=fields.get("single_word", False),
                lstrip=fields.get("lstrip", False),
                rstrip=fields.get("rstrip", False),
                normalized=fields.get("normalized", False),
                special=fields.get("special", False),
            )
            for key, fields in listed.items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        raise TokenizerError("tokenizer_config.json has a malformed added_tokens_decoder") from exc


def _template(path: Path, config: Mapping[str, Any]) -> str | None:
    """Return the chat template: its own file if there is one, else the config's (where a list of
    named templates has one called ``default``)."""
    file = path / "chat_template.jinja"
    if file.is_file():
        return _decode(file)
    template = config.get("chat_template")
    if isinstance(template, list):
        entries = [entry for entry in template if isinstance(entry, dict)]
        named = [e.get("template") for e in entries if e.get("name") == "default"]
        template = named[-1] if named else None
    if template is not None and not isinstance(template, str):
        raise TokenizerError(f"{path}: chat_template in tokenizer_config.json is not text")
    return template


def _read_json(file: Path) -> dict[str, Any]:
    """Return a JSON object; empty where there is no such file."""
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
        return read_bytes(file, MAX_CONFIG_BYTES).decode()
    except UnicodeDecodeError as exc:
        raise TokenizerError(f"{file} is not UTF-8") from exc


def _is_text(text: str) -> bool:
    """Return whether a text is free of lone surrogates, which JSON can hold and the library
    cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
