"""Parts of a tokenizer.json that the library knows, and that our own seeds do not have."""

from __future__ import annotations

import base64
import copy
from random import Random
from typing import Any

# Patterns that take exponential time where a matcher tries everything, and odd ones.
REGEXES = (
    *(
        "(a+)+$",
        "(a|aa)+$",
        "(a*)*b",
        "(.*)*x",
        r"(\w+\s?)*:",
        "(?=(a+))*",
        "((a{1,99}){1,99}){1,99}",
    ),
    *("", "(", "a{99999}", "(?<=a+)b", r"\p{L}+", r"\s+(?!\S)|\s+", "[^", "(?i)ß", r"\1", "a**"),
    *(
        r"(?<n>a)\g<n>*",
        r"(?<x>\(\g<x>*\))",
        r"\X",
        "^",
        "$",
        "(?~a)",
        "x" * 3000,
        "[a-\U0010ffff]",
    ),
)
_CHARSMAP = base64.b64encode(bytes([4, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0x7F, 97, 0])).decode()


def _regex(random: Random) -> dict[str, str]:
    kind = "Regex" if random.random() < 0.8 else "String"
    return {kind: random.choice(REGEXES)}


def _text(random: Random) -> str:
    return random.choice(
        ("", " ", "▁", "a", "aa", "\0", "é", "\U0001f469", "<|im_end|>", "a" * 2000)
    )


def _number(random: Random) -> Any:
    return random.choice((0, 1, 2, 3, 2**31, 2**32 - 1, 2**64 - 1, -1))


def _chain(random: Random) -> dict[str, Any]:
    """Replacements that each make what the one before it left a little longer."""
    content = random.choice(("a" * 1000, "aaa", "\u2581"))
    step = {"type": "Replace", "pattern": {"String": "a"}, "content": content}
    return {"type": "Sequence", "normalizers": [step] * random.choice((1, 2, 4, 20))}


def _flag(random: Random) -> bool:
    return random.random() < 0.5


def _normalizer(random: Random) -> dict[str, Any]:
    return random.choice(
        (
            {"type": "Replace", "pattern": _regex(random), "content": _text(random)},
            {"type": "Prepend", "prepend": _text(random)},
            {"type": "Precompiled", "precompiled_charsmap": _CHARSMAP[: random.choice((4, 8, 99))]},
            {"type": "Strip", "strip_left": _flag(random), "strip_right": _flag(random)},
            {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
             "strip_accents": None, "lowercase": True},
            _chain(random), {"type": "Nmt"}, {"type": "StripAccents"}, {"type": "ByteLevel"},
            *({"type": kind} for kind in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase")),
        )
    )  # fmt: skip


def _pre_tokenizer(random: Random) -> dict[str, Any]:
    behaviors = ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous")
    return random.choice(
        (
            {"type": "Split", "pattern": _regex(random), "behavior": random.choice(behaviors),
             "invert": _flag(random)},
            {"type": "Split", "pattern": _regex(random), "behavior": "Isolated", "invert": False},
            {"type": "Metaspace", "replacement": _text(random)[:1], "split": _flag(random),
             "prepend_scheme": random.choice(("first", "never", "always"))},
            {"type": "ByteLevel", "add_prefix_space": _flag(random), "trim_offsets": _flag(random),
             "use_regex": _flag(random)},
            {"type": "CharDelimiterSplit", "delimiter": _text(random)[:1]},
            {"type": "Digits", "individual_digits": _flag(random)},
            {"type": "Punctuation", "behavior": random.choice(behaviors)},
            {"type": "FixedLength", "length": _number(random)},
            *({"type": kind} for kind in ("Whitespace", "WhitespaceSplit", "BertPreTokenizer")),
            {"type": "UnicodeScripts"},
        )
    )  # fmt: skip


def _decoder(random: Random) -> dict[str, Any]:
    return random.choice(
        (
            {"type": "Strip", "content": _text(random)[:1], "start": _number(random),
             "stop": _number(random)},
            {"type": "Replace", "pattern": _regex(random), "content": _text(random)},
            {"type": "Metaspace", "replacement": _text(random)[:1], "split": _flag(random),
             "prepend_scheme": random.choice(("first", "never", "always"))},
            {"type": "WordPiece", "prefix": _text(random), "cleanup": _flag(random)},
            {"type": "CTC", "pad_token": _text(random), "word_delimiter_token": _text(random),
             "cleanup": _flag(random)},
            {"type": "BPEDecoder", "suffix": _text(random)}, {"type": "Fuse"},
            {"type": "ByteFallback"}, {"type": "ByteLevel"},
        )
    )  # fmt: skip


def _post_processor(random: Random) -> dict[str, Any]:
    token = _text(random)
    return random.choice(
        (
            {"type": "TemplateProcessing",
             "single": [{"SpecialToken": {"id": token, "type_id": _number(random)}},
                        {"Sequence": {"id": "A", "type_id": 0}}],
             "pair": [{"Sequence": {"id": "B", "type_id": 1}}],
             "special_tokens": {token: {"id": token, "ids": [_number(random)] * 3,
                                        "tokens": [token]}}},
            {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True},
            {"type": "RobertaProcessing", "sep": [token, _number(random)],
             "cls": [token, _number(random)], "trim_offsets": True, "add_prefix_space": True},
            {"type": "BertProcessing", "sep": [token, _number(random)], "cls": ["", 0]},
        )
    )  # fmt: skip


def _model(random: Random, model: dict[str, Any]) -> dict[str, Any]:
    """The vocabulary as another kind of model, or with other settings."""
    vocabulary: dict[str, int] = model["vocab"]
    settings = {
        "dropout": random.choice((None, 0.0, 0.5, 1.0, 2.0, -1.0)),
        "unk_token": random.choice((None, "<unk>", _text(random))),
        "continuing_subword_prefix": random.choice((None, "", "##", "a" * 2000)),
        "end_of_word_suffix": random.choice((None, "", "</w>", "é")),
        "fuse_unk": _flag(random),
        "byte_fallback": _flag(random),
        "ignore_merges": _flag(random),
    }
    pieces = [[token, -float(rank)] for token, rank in vocabulary.items()]
    return random.choice(
        (
            model | dict([random.choice(list(settings.items()))]),
            model | settings,
            model | {"vocab": vocabulary | {_text(random): _number(random)}},
            {"type": "WordLevel", "vocab": vocabulary, "unk_token": _text(random)},
            {"type": "Unigram", "vocab": pieces, "unk_id": _number(random), "byte_fallback": True},
            {"type": "WordPiece", "vocab": vocabulary, "unk_token": _text(random),
             "continuing_subword_prefix": "##", "max_input_chars_per_word": _number(random)},
        )
    )  # fmt: skip


def _added(random: Random, number: int) -> dict[str, Any]:
    flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
    id_ = random.choice((number, number, _number(random)))
    return {"id": id_, "content": _text(random)} | {flag: _flag(random) for flag in flags}


def with_other_parts(random: Random, document: dict[str, Any]) -> dict[str, Any]:
    """A copy with a part of another kind, or beside the one that is there."""
    result = copy.copy(document)
    kinds: dict[str, Any] = {
        "normalizer": ("normalizers", _normalizer),
        "pre_tokenizer": ("pretokenizers", _pre_tokenizer),
        "decoder": ("decoders", _decoder),
        "post_processor": ("processors", _post_processor),
    }
    for _ in range(random.choice((1, 1, 2))):
        choice = random.randrange(7)
        if choice < 5:
            name = random.choice(("normalizer", "pre_tokenizer", *kinds))
            plural, make = kinds[name]
            parts = [make(random) for _ in range(random.choice((1, 1, 2)))]
            old = result.get(name)
            parts += [old] if old and random.random() < 0.6 else []
            random.shuffle(parts)
            result[name] = parts[0] if len(parts) == 1 else {"type": "Sequence", plural: parts}
        elif choice == 5:
            result["model"] = _model(random, document["model"])
        else:
            count = random.choice((1, 1, 3))
            more = [_added(random, 300 + index) for index in range(count)]
            result["added_tokens"] = document["added_tokens"] + more
    return result
