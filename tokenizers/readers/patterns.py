"""Rules by which byte-level tokenizers cut text into words before merging, by published name.

The names are those of ``tokenizer.ggml.pre`` in GGUF files. Where llama.cpp approximates the
authors' pattern, the authors' stands here.
"""

from __future__ import annotations

from dataclasses import dataclass

import tokenizers as hf
from tokenizers import normalizers, pre_tokenizers

from edge_llm.errors import TokenizerError

_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_BLANKS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}"
    rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_BLANKS}"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_QWEN35 = (
    rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_BLANKS}"
)


def _cased(ending: str, digits: str) -> str:
    """Return a pattern of words that change from upper to lower case at most once (o200k,
    Tekken)."""
    upper, lower = (rf"[\p{{L{case}}}\p{{Lm}}\p{{Lo}}\p{{M}}]" for case in ("u}\\p{Lt", "l"))
    head = r"[^\r\n\p{L}\p{N}]?"
    return (
        rf"{head}{upper}*{lower}+{ending}|{head}{upper}+{lower}*{ending}|{digits}"
        rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_BLANKS}"
    )


# What DeepSeek's pattern calls a letter: those of scripts with upper and lower case, but for
# Armenian's rarer ones, Georgian, Cherokee's and Latin's latest and mathematical letters.
_CASED = (
    r"[\p{Lu}\p{Ll}\p{Lt}&&[^\x{560}-\x{588}\x{10C7}-\x{10FF}\x{1C80}-\x{1C8F}\x{2D00}-\x{2D2D}"
    r"\x{A790}-\x{AB68}\x{10570}-\x{105BC}\x{10D50}-\x{10D85}\x{16E40}-\x{1DF2F}]]"
)
_FULL_WIDTH = r"\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}"
_HAN_AND_HANGUL = r"[\x{4E00}-\x{9FA5}\x{800}-\x{4E00}\x{AC00}-\x{D7FF}]+"


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules by which text is cut before merging: each pattern cuts the pieces that the one before
    it left.

    Attributes:
        whole_words: a piece that is a token is taken as it is, without merging.
        nfc: text is composed first.
        adds_bos: BOS belongs before raw text unless the file says otherwise.
    """

    patterns: tuple[str, ...]
    whole_words: bool = False
    nfc: bool = False
    adds_bos: bool = False

    def apply(self, tokenizer: hf.Tokenizer) -> None:
        """Set normalizer and pre-tokenizer of a byte-level tokenizer."""
        if self.nfc:
            tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                *(pre_tokenizers.Split(hf.Regex(pattern), "isolated") for pattern in self.patterns),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )


# Every numeric character stands alone, as all of Unicode's: ' ½' is ' ', '½'.
_SINGLE_DIGITS = Rules((r"\p{N}", _GPT2))

_RULES = {
    "default": Rules((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")),
    "gpt-2": Rules((_GPT2,)),
    "smollm": _SINGLE_DIGITS,
    "starcoder": _SINGLE_DIGITS,
    "refact": _SINGLE_DIGITS,
    "command-r": _SINGLE_DIGITS,
    "falcon": Rules((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, r"[0-9][0-9][0-9]")),
    "llama-bpe": Rules((LLAMA3,), whole_words=True, adds_bos=True),
    # Llama 3's vocabulary without BOS before raw text: SmolLM3's files are written under this name.
    "smaug-bpe": Rules((LLAMA3,), whole_words=True),
    "lfm2": Rules((LLAMA3,), whole_words=True, adds_bos=True),
    "dbrx": Rules((LLAMA3,)),  # cl100k: Phi-4, OLMo 2
    "qwen2": Rules((QWEN2,), nfc=True),
    "deepseek-r1-qwen": Rules((QWEN2,)),
    "qwen35": Rules((_QWEN35,)),
    "deepseek-llm": Rules(
        (
            r"[\r\n]",
            rf"\s?{_CASED}+",
            rf"\s?[!-/:-~{_FULL_WIDTH}]+",
            r"\s+$",
            _HAN_AND_HANGUL,
            r"\p{N}+",
        )
    ),
    "deepseek-coder": Rules((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _HAN_AND_HANGUL, r"\p{N}")),
    "gpt-4o": Rules((_cased(f"{_CONTRACTION}?", r"\p{N}{1,3}"),)),
    "tekken": Rules((_cased("", r"\p{N}"),), whole_words=True, adds_bos=True),
}


def rules_of(name: object) -> Rules:
    """Return the rules of a published name.

    Raises:
        TokenizerError: a name that is not known.
    """
    rules = _RULES.get(str(name))
    if rules is None:
        raise TokenizerError(
            f"tokenizer.ggml.pre {name!r} is not supported; expected one of {', '.join(_RULES)}"
        )
    return rules
