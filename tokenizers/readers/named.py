"""Special tokens that the config of a Hugging Face tokenizer names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import tokenizers as hf

from edge_llm.tokenizers.readers.added import control_token
from edge_llm.tokenizers.tokenizer import library_errors

# Lists of tokens, or objects of names with tokens.
_LISTS = ("additional_special_tokens", "extra_special_tokens")
# One token each. Some models fill up with a token that text has too, which stays a word of text.
_SINGLE = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
_SHOWN = 8


def make_named_special(tokenizer: hf.Tokenizer, config: Mapping[str, object]) -> tuple[str, ...]:
    """Make control tokens of the entries of the vocabulary that ``config`` calls special, as
    transformers does, and return a note about those that are no entries.

    Raises:
        TokenizerError: the tokenizer does not encode one of them.
    """
    special = {t.content for t in tokenizer.get_added_tokens_decoder().values() if t.special}
    named = [text for key in _LISTS for text in _texts(config.get(key))]
    found, unknown = [], []
    for text in dict.fromkeys(named):
        if tokenizer.token_to_id(text) is None:
            unknown.append(text)
        elif text not in special:
            found.append(text)
    for text in (text for key in _SINGLE for text in _texts([config.get(key)])):
        token_id = tokenizer.token_to_id(text)
        if token_id is None or text in special or text in found:
            continue
        with library_errors(f"the tokenizer does not encode {text!r}"):
            if token_id not in _plain(tokenizer, text):
                found.append(text)
    tokenizer.add_special_tokens([control_token(text) for text in found])
    if not unknown:
        return ()
    more = ", …" if unknown[_SHOWN:] else ""
    return (
        "special tokens of tokenizer_config.json that are not in the vocabulary are left out: "
        f"{', '.join(map(repr, unknown[:_SHOWN]))}{more}",
    )


def _plain(tokenizer: hf.Tokenizer, text: str) -> list[int]:
    """Return the ids of a text that is no added token."""
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def _texts(value: object) -> Iterator[str]:
    """Give the texts of tokens that stand in a config as texts or as objects with ``content``."""
    if isinstance(value, Mapping):
        value = list(value.values())
    for token in value if isinstance(value, list) else ():
        text = token.get("content") if isinstance(token, Mapping) else token
        # Lone surrogates, which JSON can hold, are no text to the library.
        if isinstance(text, str) and not any("\ud800" <= c <= "\udfff" for c in text):
            yield text
