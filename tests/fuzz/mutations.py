"""Damage, at random but by seed: to bytes, to JSON values, to text."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, TypeVar

Item = TypeVar("Item")

# Sizes and counts that arithmetic goes wrong with.
NUMBERS = (0, 1, 2, 3, 7, 31, 32, 33, 64, 127, 128, 255, 256, 4096, 65535, 65536, 2**24, 2**31 - 1)
NUMBERS += (2**31, 2**32 - 1, 2**32, 2**48, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
_DEEP = "a list in a list in a list, 3000 times"
MAX_GROWTH = 4096  # characters of a text that is put in
MAX_SIZE = 2**16  # characters that one change may add


def mutate_bytes(
    random: Random, data: bytes, others: Sequence[bytes], words: Sequence[bytes]
) -> bytes:
    """``data`` after one to eight changes; ``others`` are spliced in, ``words`` put in."""
    result = bytearray(data)
    for _ in range(_changes(random)):
        size = len(result)
        at = random.randrange(size) if size else 0
        span = min(size - at, 1 << random.randrange(10))
        match random.randrange(11):
            case 0 if size:
                result[at] ^= 1 << random.randrange(8)
            case 1 if size:
                result[at] = random.randrange(256)
            case 2 | 3 | 4 if size:
                width = random.choice((1, 2, 4, 8))
                number = random.choice(NUMBERS) + random.choice((-1, 0, 0, 1))
                result[at : at + width] = (number % (1 << 8 * width)).to_bytes(width, "little")
            case 5:
                del result[at:]
            case 6:
                del result[at : at + span]
            case 7:
                result[at:at] = result[at : at + span]
            case 8:
                result[at:at] = random.randbytes(random.randrange(64))
            case 9 if words:
                word = random.choice(words)
                end = at + len(word) if random.random() < 0.5 else at
                result[at:end] = word
            case _:
                other = random.choice(others) if others else data
                start = random.randrange(len(other) + 1)
                result[at : at + span] = other[start : start + span]
    return bytes(result)


def mutate_json(random: Random, value: Any, others: Sequence[Any] = ()) -> Any:
    """A copy of ``value`` after one to eight changes; parts of ``others`` are put in."""
    root = [copy.deepcopy(value)]
    for _ in range(_changes(random)):
        holder, key = _place(random, root)
        change = random.choice(_CHANGES)
        change(random, holder, key, [root[0], *others])
    return root[0]


def dump(value: Any) -> bytes:
    """JSON, also of what JSON has no words for (NaN), or Python no stack (deep nesting)."""
    text = json.dumps(value).replace(f'"{_DEEP}"', "[" * 3000 + "]" * 3000)
    return text.encode()


def mutate_text(random: Random, text: str, others: Sequence[str], words: Sequence[str]) -> str:
    """``text`` after one to eight changes that keep most of its words whole."""
    encoded = [word.encode() for word in words]
    raw = mutate_bytes(
        random,
        text.encode("utf-8", "surrogatepass"),
        [other.encode("utf-8", "surrogatepass") for other in others],
        encoded,
    )
    return raw.decode(errors="replace")


def mutate_list(
    random: Random, items: Sequence[Item], change: Callable[[Item], Item], others: Sequence[Item]
) -> list[Item]:
    """``items`` after one to eight changes: an item changed, out, twice, moved, put in."""
    result = list(items)
    for _ in range(_changes(random)):
        at = random.randrange(len(result) + 1)
        match random.randrange(8):
            case 0 | 1 | 2 | 3 if at < len(result):
                result[at] = change(result[at])
            case 4 if at < len(result):
                del result[at]
            case 5 if result:
                result[at:at] = [random.choice(result)] * random.choice((1, 1, 2, 100))
            case 6 if result:
                result.insert(at, result.pop(random.randrange(len(result))))
            case _ if others:
                result.insert(at, random.choice(others))
    return result


def mutate_number(random: Random, value: int | float) -> int | float:
    """Another number, often one that arithmetic goes wrong with."""
    return random.choice(
        (value + 1, value - 1, -value, value * 2, value // 2, random.choice(NUMBERS), 1e300)
    )


def _changes(random: Random) -> int:
    return min(8, 1 + int(random.expovariate(0.9)))


Change = Callable[[Random, Any, Any, list[Any]], None]


def _place(random: Random, root: list[Any]) -> tuple[Any, Any]:
    """A container in the tree and a key or index in it."""
    holder: Any = root
    key: Any = 0
    while isinstance(holder[key], dict | list) and holder[key] and random.random() < 0.85:
        holder = holder[key]
        key = (
            random.choice(list(holder))
            if isinstance(holder, dict)
            else random.randrange(len(holder))
        )
    return holder, key


def _replace(random: Random, holder: Any, key: Any, _: list[Any]) -> None:
    holder[key] = random.choice(
        (
            None,
            True,
            False,
            random.choice(NUMBERS),
            -random.choice(NUMBERS),
            random.choice(NUMBERS) + 0.5,
            1e308,
            float("nan"),
            float("-inf"),
            10**40,
            "",
            "x" * random.choice((1, 100, MAX_GROWTH)),
            "\x00\ud800\u202e\U0001f600",
            [],
            {},
            [[[[]]]],
            _DEEP,
        )
    )


def _nudge(random: Random, holder: Any, key: Any, others: list[Any]) -> None:
    value = holder[key]
    if isinstance(value, bool) or not isinstance(value, int | float):
        _replace(random, holder, key, others)
    else:
        holder[key] = random.choice(
            (value + 1, value - 1, -value, value * 2, value / 2, str(value))
        )


def _delete(random: Random, holder: Any, key: Any, others: list[Any]) -> None:
    if isinstance(holder, dict) or len(holder) > 1:
        del holder[key]
    else:
        _replace(random, holder, key, others)


def _repeat(random: Random, holder: Any, key: Any, _: list[Any]) -> None:
    copies = random.choice((1, 2, 16, 200))
    if copies * _size(holder[key]) > MAX_SIZE:
        copies = 1
    if isinstance(holder, dict):
        for index in range(copies):
            holder[f"{key}{index}"] = copy.deepcopy(holder[key])
    else:
        holder[key:key] = [copy.deepcopy(holder[key]) for _ in range(copies)]


def _size(value: Any) -> int:
    """About the characters that a value is written with."""
    if isinstance(value, str):
        return len(value) + 2
    if isinstance(value, dict):
        return sum(len(key) + _size(inner) for key, inner in value.items()) + 2
    return sum(map(_size, value)) + 2 if isinstance(value, list) else 4


def _transplant(random: Random, holder: Any, key: Any, others: list[Any]) -> None:
    source, place = _place(random, [random.choice(others)])
    if _size(source[place]) <= MAX_SIZE:
        holder[key] = copy.deepcopy(source[place])


def _rename(random: Random, holder: Any, key: Any, others: list[Any]) -> None:
    if isinstance(holder, dict):
        holder[random.choice((f"{key}_", key[:-1], key.upper(), ""))] = holder.pop(key)
    else:
        _delete(random, holder, key, others)


def _scramble(random: Random, holder: Any, key: Any, others: list[Any]) -> None:
    value = holder[key]
    if isinstance(value, str):
        holder[key] = mutate_text(random, value, [], [])
    elif isinstance(value, list):
        random.shuffle(value)
    else:
        _nudge(random, holder, key, others)


_CHANGES: tuple[Change, ...] = (_replace, _nudge, _delete, _repeat, _transplant, _rename, _scramble)
