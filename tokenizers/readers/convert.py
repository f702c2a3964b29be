"""Convert a checkpoint's tokenizer files to the one ``tokenizer.json`` that a program holds."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import tokenizers as hf

from edge_llm.errors import TokenizerError
from edge_llm.program.documents import TokenizerFacts
from edge_llm.tokenizers.growth import check_added, normalizer_growth
from edge_llm.tokenizers.readers.added import MAX_SIZE, Built, control_token
from edge_llm.tokenizers.readers.folder import (
    Folder,
    other_templates_note,
    read_bytes,
    read_folder,
)
from edge_llm.tokenizers.readers.gguf import build_bpe, build_merged_spm, build_spm
from edge_llm.tokenizers.readers.named import make_named_special
from edge_llm.tokenizers.readers.sentencepiece import build_sentencepiece
from edge_llm.tokenizers.readers.sentencepiece_file import read_pieces
from edge_llm.tokenizers.readers.tiktoken_file import build_tiktoken, is_tiktoken
from edge_llm.tokenizers.spelling import spelling_of
from edge_llm.tokenizers.tokenizer import library_errors, parse

# What a template's control tokens look like: <|im_start|>, <start_of_turn>, [INST].
_MARK = re.compile(r"(?=(<[^<>\s]{1,64}>|\[[^\[\]\s]{1,64}\]))")
_NAMED_TEMPLATE = "tokenizer.chat_template."
_GGUF_MODELS = {"gpt2": build_bpe, "llama": build_spm, "gemma4": build_merged_spm}
_REFUSED_MODELS = {"bert": "WordPiece", "t5": "SentencePiece Unigram", "rwkv": "RWKV"}


@dataclass(frozen=True, slots=True)
class TokenizerDocument:
    """The parts of a program file that come from a tokenizer: the bytes of a Hugging Face
    ``tokenizer.json``, the facts beside it, and the chat template if the source has one; notes for
    the report; and the token that the source puts behind every text, if any."""

    json: bytes
    facts: TokenizerFacts
    chat_template: str | None
    notes: tuple[str, ...] = ()
    end_id: int | None = None


def from_directory(path: Path) -> TokenizerDocument:
    """Read ``tokenizer.json``, else ``tokenizer.model`` (SentencePiece or tiktoken), else the one
    ``*.tiktoken``; with ``tokenizer_config.json``, ``special_tokens_map.json``,
    ``added_tokens.json`` and ``chat_template.jinja`` or ``chat_template.json``.

    A ``tokenizer.json`` is taken as it is: tokens that only the other files name are added, those
    that they call special are, and its post-processor alone decides about BOS (``add_bos_token`` is
    for older files). The others know no special tokens by themselves but those of their kind; there
    ``bos_token``, ``eos_token``, ``add_bos_token`` and ``legacy`` of the config count.

    Raises:
        TokenizerError: files missing, damaged, too large, at odds, or of an unsupported kind.
    """
    folder = read_folder(path)
    document = path / "tokenizer.json"
    if document.is_file():
        tokenizer = _whole_document(document, folder)
        bos_id = _make_special(tokenizer, "bos_token", folder, None)
        eos_id = _make_special(tokenizer, "eos_token", folder, None)
        with library_errors(f"{document} does not encode"):
            add_bos = bos_id is not None and tokenizer.encode("a").ids[:1] == [bos_id]
            end_id = _end_of(tokenizer)
    else:
        built = _build(path, folder)
        tokenizer = built.tokenizer
        bos_id = _make_special(tokenizer, "bos_token", folder, built.bos)
        eos_id = _make_special(tokenizer, "eos_token", folder, built.eos)
        add_bos = bool(folder.config.get("add_bos_token", built.adds_bos)) and bos_id is not None
        end_id = eos_id if folder.config.get("add_eos_token") is True else None
    notes = (*folder.notes, *make_named_special(tokenizer, folder.config))
    return _document(tokenizer, bos_id, eos_id, add_bos, folder.chat_template, end_id, notes)


def from_gguf(metadata: Mapping[str, object]) -> TokenizerDocument:
    """Build the tokenizer from the ``tokenizer.*`` keys of a GGUF file's metadata.

    Raises:
        TokenizerError: keys missing or damaged, or a tokenizer or pre-tokenizer that is not
            supported, by name.
    """
    model = metadata.get("tokenizer.ggml.model")
    build = _GGUF_MODELS.get(str(model))
    if build is None:
        kind = _REFUSED_MODELS.get(str(model))
        raise TokenizerError(
            f"tokenizer.ggml.model {model!r}{f' ({kind})' if kind else ''} is not supported; "
            "expected 'gpt2' (byte-level BPE), 'llama' or 'gemma4' (SentencePiece BPE)"
        )
    tokenizer, adds_bos = build(metadata)
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
        eos_id if metadata.get("tokenizer.ggml.add_eos_token") is True else None,
        other_templates_note(
            key.removeprefix(_NAMED_TEMPLATE) for key in metadata if key.startswith(_NAMED_TEMPLATE)
        ),
    )


def _end_of(tokenizer: hf.Tokenizer) -> int | None:
    """Return the token that a tokenizer's post-processor puts behind a text, if it is just one."""
    plain = tokenizer.encode("a", add_special_tokens=False).ids
    ids = tokenizer.encode("a").ids
    begin = next((i for i in range(len(ids)) if ids[i : i + len(plain)] == plain), len(ids))
    behind = ids[begin + len(plain) :]
    return behind[0] if len(behind) == 1 else None


def _document(
    tokenizer: hf.Tokenizer,
    bos_id: int | None,
    eos_id: int | None,
    add_bos: bool,
    chat_template: str | None,
    end_id: int | None,
    notes: tuple[str, ...],
) -> TokenizerDocument:
    notes = (*notes, *_promote(tokenizer, chat_template))
    size = 1 + max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if not 0 < size <= MAX_SIZE:  # the library writes every id up to the last, also unused ones
        raise TokenizerError(f"the tokenizer has ids up to {size - 1}, at most {MAX_SIZE} can be")
    facts = TokenizerFacts(size=size, bos_id=bos_id, eos_id=eos_id, add_bos=add_bos)
    data = tokenizer.to_str(pretty=False).encode()
    return TokenizerDocument(data, facts, chat_template, notes, end_id)


def _promote(tokenizer: hf.Tokenizer, chat_template: str | None) -> tuple[str, ...]:
    """Make control tokens of entries that only a template can mean: it writes them letter by
    letter, they look like marks, and text never becomes them, so the file has lost their type."""
    if chat_template is None:
        return ()
    marks = set(_MARK.findall(chat_template))
    added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    found = []
    for mark in sorted(marks - added):
        token_id = tokenizer.token_to_id(mark)
        if token_id is None:
            continue
        with library_errors(f"the tokenizer does not encode {mark!r}"):
            if token_id not in tokenizer.encode(mark, add_special_tokens=False).ids:
                found.append(mark)
    tokenizer.add_special_tokens([control_token(mark) for mark in found])
    if not found:
        return ()
    return (
        "control tokens because the chat template writes them, though the file types them as "
        f"ordinary: {', '.join(found[:8])}{', …' if found[8:] else ''}",
    )


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


def _whole_document(file: Path, folder: Folder) -> hf.Tokenizer:
    """Return a ``tokenizer.json``, with the tokens that only the files beside it list."""
    data = read_bytes(file)
    tokenizer = parse(data)
    spelling_of(tokenizer)
    # The library gives an added token the id that its text has, whatever the file says.
    parsed = json.loads(data)
    for entry in parsed.get("added_tokens") or ():
        text, token_id = entry["content"], entry["id"]
        if tokenizer.token_to_id(text) not in (token_id, None):
            raise TokenizerError(
                f"{file}: the added token {text!r} has the id {token_id}, but "
                f"{tokenizer.token_to_id(text)} in the vocabulary or by its place"
            )
    listed = sorted(folder.listed.items())
    check_added(
        ((token.content, token.normalized) for _, token in listed), normalizer_growth(parsed)
    )
    # What the config says of a token counts, whatever tokenizer.json says. At once: each call takes
    # time for all tokens that are there.
    tokenizer.add_tokens(
        [
            token
            for token_id, token in listed
            if token_id in folder.described or tokenizer.token_to_id(token.content) is None
        ]
    )
    for token_id, token in listed:
        content = token.content
        if tokenizer.token_to_id(content) != token_id:
            raise TokenizerError(
                f"{file.parent}: tokenizer_config.json gives {content!r} the id {token_id}, "
                f"tokenizer.json {tokenizer.token_to_id(content)}"
            )
    return tokenizer


def _build(path: Path, folder: Folder) -> Built:
    """Return the tokenizer of a folder without ``tokenizer.json``."""
    files = [path / "tokenizer.model"]
    if not files[0].is_file():
        files = sorted(path.glob("*.tiktoken"))
    if len(files) != 1:
        found = f"{len(files)} *.tiktoken files" if files else "no tokenizer.json"
        raise TokenizerError(
            f"{path} has {found}",
            hint="Expected tokenizer.json, tokenizer.model or one *.tiktoken file.",
        )
    data = read_bytes(files[0])
    if is_tiktoken(data):
        return build_tiktoken(data, folder.listed)
    pieces = read_pieces(data)
    legacy = folder.config.get("legacy")
    tokenizer = build_sentencepiece(
        pieces, folder.listed, prefix_first_only=None if legacy is None else not legacy
    )
    return Built(tokenizer, pieces.bos, pieces.eos, adds_bos=True)


def _make_special(
    tokenizer: hf.Tokenizer, name: str, folder: Folder, default: str | None
) -> int | None:
    """Return the id of a token that the config names by its text, marked special."""
    token = folder.config.get(name, default)
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
