"""Generated text of many scripts, for comparing tokenizers: words, digits, emoji and their joiners,
runs of blanks, control characters, combining marks, specials that somebody typed."""
# ruff: noqa: RUF001 - characters that look like others are the point

from __future__ import annotations

import random
import unicodedata
from collections.abc import Iterator

_WORDS = """
the quick brown fox function return self import def hello world ing tion hundred don't WE'LL I'm
Straße naïve café МОСКВА привет θεός 東京 日本語 こんにちは カタカナ 안녕하세요 مرحبا שלום हिन्दी
বাংলা ภาษาไทย ქართული հայերեն ﬁne Ǆ ǅ 𝐀𝐛 𐐀𐐨 x86_64 http://a.b/c?d=e#f <b>&amp;</b>
"""
_ALPHABETS = (
    "abcdefghijklmnopqrstuvwxyz ABC",
    "   \t\n\r ",
    "0123456789٣٤½²Ⅷ④,.-",
    "éèüßñçøåœ",
    "日本語漢字한국어カタカナ",
    "العربية עברית हिन्दी ไทย",
    "😀👩🏽🦙🇩🇪❤️\u200d👨\u200d👩\u200d👧\ufe0f",
    "\x00\x01\x1b\x7f\x85\xa0\u200b\u2028\u3000\ufeff",
    "'s't're'VE'll'M'd ſ'ſ",
    '!?.,;:()[]{}<>|/\\-_=+*&^%$#@~`"',
    "▁▁ ▁a Ġ Ċ",
    "e\u0301\u0323a\u030a\u1112\u1161\u11ab각ﬁÅ",
)
_SPECIALS = """
<s> </s> <unk> <0x0A> <|endoftext|> <|im_start|> <|im_end|> <|eot_id|> <|begin_of_text|> [INST]
[/INST] <|end|> <|user|> <|assistant|>
"""
WORDS, SPECIALS = tuple(_WORDS.split()), tuple(_SPECIALS.split())


def mixed_texts(count: int, seed: int = 0) -> Iterator[str]:
    """The same texts for the same arguments."""
    source = random.Random(seed)
    for _ in range(count):
        yield "".join(_piece(source) for _ in range(source.randint(1, 8)))


def _piece(source: random.Random) -> str:
    kind = source.random()
    if kind < 0.4:
        return source.choice(WORDS) + source.choice(["", " ", "  ", "\n"])
    if kind < 0.5:
        return source.choice(source.choice(_ALPHABETS)) * source.randint(1, 20)
    if kind < 0.8:
        return "".join(source.choices(source.choice(_ALPHABETS), k=source.randint(1, 12)))
    if kind < 0.9:
        return source.choice(SPECIALS)
    while True:  # any character that Unicode has, and no half of one
        character = chr(source.randrange(0x110000 if source.random() < 0.3 else 0x10000))
        if unicodedata.category(character) not in ("Cs", "Cn", "Co"):
            return character
