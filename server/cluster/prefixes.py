"""Which replica has computed what a request begins with.

The cache of a replica finds the longest beginning that it has seen, in blocks of 64 tokens. So the
text of a request is cut into pieces of about a block, each named by a digest of itself and all
before it, and a router remembers which replica has got which piece.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PIECE = 256  # characters, about 64 tokens
MOST_PIECES = 2048  # of one request
MOST_KNOWN = 2**17  # pieces that a router remembers: some 20 MB

# The fields that a prompt is made of, in the order in which templates write them.
_FIELDS = ("model", "instructions", "system", "tools", "messages", "prompt", "input", "query")
_RESPONSE = "previous_response_id"
_ID = re.compile(r"([a-z]+)_([0-9a-f]{8})[0-9a-f]{24,}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Prefix:
    """What a request begins with: a digest of 8 bytes for each piece of its text; and the instance
    that alone can answer it, empty if any can."""

    pieces: tuple[bytes, ...] = ()
    instance: str = ""


def prefix_of(path: str, body: bytes) -> Prefix:
    """Return the prefix of a request. One without a text, or that no route would understand, has
    none: any replica may answer it."""
    responses = path.removeprefix("/v1").removeprefix("/responses/")
    if responses != path.removeprefix("/v1"):
        return Prefix(instance=instance_of(responses.partition("/")[0], "resp"))
    try:
        asked = json.loads(body) if body else None
    except (ValueError, RecursionError):
        return Prefix()
    if not isinstance(asked, dict):
        return Prefix()
    return Prefix(_pieces(_text(asked)), _instance(asked))


def instance_tag(name: str) -> str:
    """Return the 8 hexadecimal digits that stand for a replica of that name."""
    return hashlib.blake2b(name.encode(), digest_size=4).hexdigest()


def instance_of(given: object, kind: str = "") -> str:
    """Return the tag of the instance that has made a response or an item of one, as its id says;
    empty if it does not. ``kind`` is what the id has to begin with, if that is given."""
    found = _ID.fullmatch(given) if isinstance(given, str) else None
    return found[2] if found is not None and kind in ("", found[1]) else ""


def _instance(asked: Mapping[str, object]) -> str:
    """Return the tag of the instance that has what a request goes on from or refers to."""
    if tag := instance_of(asked.get(_RESPONSE), "resp"):
        return tag
    items = asked.get("input")
    for item in items if isinstance(items, list) else ():
        if not isinstance(item, dict):
            continue
        kind = item.get("type")
        refers = kind == "item_reference" or (kind is None and "role" not in item)
        if refers and (tag := instance_of(item.get("id"))):
            return tag
    return ""


def _text(asked: Mapping[str, object]) -> str:
    """Return the text that the pieces are cut from: equal for equal beginnings of prompts."""
    parts = []
    for field in _FIELDS:
        value = asked.get(field)
        for part in value if isinstance(value, list) else (value,):
            if part is not None:
                parts.append(part if isinstance(part, str) else json.dumps(part, sort_keys=True))
    return "\n".join(parts)[: PIECE * MOST_PIECES]


def _pieces(text: str) -> tuple[bytes, ...]:
    pieces, before = [], b""
    for begin in range(0, len(text), PIECE):
        piece = text[begin : begin + PIECE].encode("utf-8", "surrogatepass")
        before = hashlib.blake2b(before + piece, digest_size=8).digest()
        pieces.append(before)
    return tuple(pieces)


class Affinity:
    """Remembers which replica got which piece last, and ranks replicas by it. What was not seen for
    longest is forgotten."""

    def __init__(self, slack: int = 4, *, known: int = MOST_KNOWN) -> None:
        """``slack``: so many more requests than the idlest replica one may have that knows a
        prefix; beyond, the prefix is computed again elsewhere."""
        self._slack = slack
        self._most = known
        self._holders: OrderedDict[bytes, str] = OrderedDict()

    def routed(self, prefix: Prefix, replica: str) -> None:
        """Note that a replica gets a request."""
        for piece in prefix.pieces:
            self._holders[piece] = replica
            self._holders.move_to_end(piece)
        while len(self._holders) > self._most:
            self._holders.popitem(last=False)

    def ranked(self, prefix: Prefix, loads: Mapping[str, int]) -> Sequence[str]:
        """Return the replicas, the one to ask first in front. ``loads`` are the requests that each
        has now.

        In front is the one that has the longest part of the prefix, unless it has too many more
        requests than the idlest. The others follow by their loads; equal ones in an order that the
        beginning of the text decides, so that fronts which know nothing of each other agree.
        """
        first = prefix.pieces[0] if prefix.pieces else b""

        def order(replica: str) -> tuple[int, bytes]:
            name = replica.encode()
            return loads[replica], hashlib.blake2b(first + name, digest_size=8).digest()

        ranked = sorted(loads, key=order)
        holder = next(
            (
                self._holders[piece]
                for piece in reversed(prefix.pieces)
                if self._holders.get(piece) in loads
            ),
            None,
        )
        if holder is not None and loads[holder] <= loads[ranked[0]] + self._slack:
            ranked.remove(holder)
            ranked.insert(0, holder)
        return ranked
