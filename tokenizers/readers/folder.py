"""The files beside a tokenizer in a Hugging Face folder: config, listed tokens, template."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers as hf

from edge_llm.errors import TokenizerError

MAX_TOKENIZER_BYTES = 2**27  # the largest known tokenizer.json has 2**25
MAX_CONFIG_BYTES = 2**24
_POINTER = b"version https://git-lfs.github.com/spec/"  # of what Git leaves for a large file


@dataclass(frozen=True, slots=True)
class Folder:
    """``tokenizer_config.json`` over ``special_tokens_map.json``, the tokens that it or
    ``added_tokens.json`` lists by id, the chat template, and notes for the report; ``described``
    are the ids of tokens of which the config says all, not their texts alone."""

    config: Mapping[str, Any]
    listed: Mapping[int, hf.AddedToken]
    described: frozenset[int]
    chat_template: str | None
    notes: tuple[str, ...]


def read_folder(path: Path) -> Folder:
    """Return what stands beside a tokenizer.

    Raises:
        TokenizerError: files that are damaged or too large.
    """
    config = _read_json(path / "special_tokens_map.json")
    config |= _read_json(path / "tokenizer_config.json")
    described = _listed_tokens(config)
    listed = _added_tokens(path / "added_tokens.json") | described
    template, notes = _template(path, config)
    return Folder(config, listed, frozenset(described), template, notes)


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
    if data.startswith(_POINTER):
        raise TokenizerError(
            f"{file} is a Git LFS pointer, expected the file that it stands for",
            hint="run `git lfs pull` in the folder, or fetch the model with `edge-llm pull`",
        )
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


def other_templates_note(
    names: Iterable[str], used: str = "the one for all chats is"
) -> tuple[str, ...]:
    """Return a note about named chat templates that are not used, and what is."""
    listed = [repr(name)[:40] for name in sorted(names)]
    if not listed:
        return ()
    return (
        f"chat template: {used} used; others are not: {', '.join(listed[:8])}"
        f"{', …' if listed[8:] else ''}",
    )


def _template(path: Path, config: Mapping[str, Any]) -> tuple[str | None, tuple[str, ...]]:
    """Return the chat template, the first of: a file of its own, the config's (where a list of
    named templates has one called ``default``), the older file of its own; and a note about others.
    """
    others = {file.stem for file in path.glob("additional_chat_templates/*.jinja")}
    template = config.get("chat_template")
    where = "chat_template in tokenizer_config.json"
    file, older = path / "chat_template.jinja", path / "chat_template.json"
    if file.is_file():
        template = _decode(file)
    elif template is None and older.is_file():
        template, where = _read_json(older).get("chat_template"), older.name
    if isinstance(template, list):
        named = {
            entry["name"]: entry.get("template")
            for entry in template
            if isinstance(entry, dict) and isinstance(entry.get("name"), str)
        }
        template = named.pop("default", None)
        others |= named.keys()
    if template is not None and not isinstance(template, str):
        raise TokenizerError(f"{path}: {where} is not text")
    used = "none is" if template is None else "the one for all chats is"
    return template, other_templates_note(others, used)


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
