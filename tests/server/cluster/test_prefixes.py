"""Requests go where their beginnings were computed, and elsewhere when that costs too much."""

from __future__ import annotations

import json
from typing import Any

from edge_llm.server.cluster.prefixes import (
    PIECE,
    Affinity,
    Prefix,
    instance_of,
    instance_tag,
    prefix_of,
)

CHAT = "/v1/chat/completions"


def chat(*texts: str, **fields: Any) -> Prefix:
    messages = [
        {"role": ("user", "assistant")[place % 2], "content": text}
        for place, text in enumerate(texts)
    ]
    return prefix_of(CHAT, json.dumps({**fields, "messages": messages}).encode())


def test_a_next_turn_begins_with_the_pieces_of_the_one_before() -> None:
    first = chat("a" * 3 * PIECE)
    second = chat("a" * 3 * PIECE, "an answer", "and a question", temperature=1)
    whole = len(first.pieces) - 1  # the last one is cut short
    assert whole >= 3
    assert second.pieces[:whole] == first.pieces[:whole]
    assert chat("b" + "a" * 3 * PIECE).pieces[0] != first.pieces[0]


def test_a_piece_is_named_by_what_is_before_it_too() -> None:
    one, other = chat("a" * PIECE + "c" * PIECE * 2), chat("b" * PIECE + "c" * PIECE * 2)
    assert not set(one.pieces) & set(other.pieces)


def test_the_order_of_fields_and_the_settings_of_sampling_do_not_count() -> None:
    messages = [{"role": "user", "content": "x" * 1000}]
    one = json.dumps({"messages": messages, "temperature": 0, "model": "m"}).encode()
    other = json.dumps({"model": "m", "max_tokens": 7, "messages": messages}).encode()
    assert prefix_of(CHAT, one) == prefix_of(CHAT, other)
    third = json.dumps({"model": "other", "messages": messages}).encode()
    assert prefix_of(CHAT, third) != prefix_of(CHAT, one)


def test_what_is_no_request_has_no_prefix() -> None:
    for body in (b"", b"{", b"[1]", b"\xff", b"[" * 100_000, b'{"messages": 3, "prompt": {}}'):
        prefix = prefix_of(CHAT, body)
        assert prefix.instance == ""
        assert len(prefix.pieces) <= 1


def test_a_long_text_has_a_bounded_number_of_pieces() -> None:
    assert len(chat("x" * 2_000_000).pieces) <= 2048


def test_what_goes_on_from_a_stored_response_belongs_to_its_instance() -> None:
    tag = instance_tag("replica-7")
    response = f"resp_{tag}{'0' * 40}"
    assert instance_of(response) == tag
    body = json.dumps({"input": "x", "previous_response_id": response}).encode()
    assert prefix_of("/v1/responses", body).instance == tag
    assert prefix_of(f"/v1/responses/{response}", b"").instance == tag
    assert prefix_of(f"/responses/{response}/input_items", b"").instance == tag
    assert prefix_of("/v1/responses/7", b"").instance == ""
    assert prefix_of("/v1/responses", b'{"previous_response_id": 3}').instance == ""


def test_what_refers_to_an_item_belongs_to_the_instance_that_made_it() -> None:
    tag = instance_tag("replica-7")
    item = f"msg_{tag}{'0' * 24}"
    untyped = {"id": item}
    for reference in ({"type": "item_reference"} | untyped, untyped, {"type": None} | untyped):
        said = {"type": "message", "role": "user", "content": "x", "id": "msg_1"}
        body = json.dumps({"input": [said, reference]}).encode()
        assert prefix_of("/v1/responses", body).instance == tag
    for other in ({"type": "message", "role": "user", "content": "x", "id": item}, {"id": 3}, 7):
        assert prefix_of("/v1/responses", json.dumps({"input": [other]}).encode()).instance == ""


def test_a_known_prefix_goes_where_it_was_and_an_unknown_one_to_the_idlest() -> None:
    affinity = Affinity(slack=2)
    prefix = chat("a" * 1000)
    affinity.routed(prefix, "two")
    loads = {"one": 0, "two": 1, "three": 3}
    assert affinity.ranked(chat("a" * 1000, "b", "c"), loads) == ["two", "one", "three"]
    assert affinity.ranked(chat("z" * 1000), loads) == ["one", "two", "three"]


def test_a_replica_with_too_much_to_do_is_passed_over() -> None:
    affinity = Affinity(slack=2)
    prefix = chat("a" * 1000)
    affinity.routed(prefix, "two")
    assert affinity.ranked(prefix, {"one": 0, "two": 2})[0] == "two"
    assert affinity.ranked(prefix, {"one": 0, "two": 3})[0] == "one"
    affinity.routed(prefix, "one")  # it has it now, too
    assert affinity.ranked(prefix, {"one": 1, "two": 0})[0] == "one"


def test_the_longest_beginning_decides() -> None:
    affinity = Affinity()
    affinity.routed(chat("s" * 1000), "one")
    affinity.routed(chat("s" * 1000, "t" * 1000), "two")
    loads = {"one": 0, "two": 0}
    assert affinity.ranked(chat("s" * 1000, "t" * 1000, "u"), loads)[0] == "two"


def test_a_replica_that_is_gone_is_forgotten() -> None:
    affinity = Affinity()
    prefix = chat("a" * 1000)
    affinity.routed(prefix, "gone")
    assert affinity.ranked(prefix, {"one": 5, "two": 1}) == ["two", "one"]
    assert affinity.ranked(prefix, {}) == []


def test_fronts_that_know_nothing_of_each_other_agree() -> None:
    names = [f"replica-{number}" for number in range(5)]
    loads = dict.fromkeys(names, 0)
    chosen = set()
    for text in range(50):
        prefix = chat(f"{text} " * 300)
        [first, *_] = Affinity().ranked(prefix, loads)
        assert Affinity().ranked(prefix, dict(reversed(loads.items())))[0] == first
        chosen.add(first)
    assert chosen == set(names)  # and all have something to do


def test_what_is_remembered_is_bounded() -> None:
    affinity = Affinity(known=10)
    old = chat("old" * 300)
    affinity.routed(old, "two")
    for number in range(20):
        affinity.routed(chat(f"{number}" * 300), "one")
    assert len(affinity._holders) == 10
    fresh = Affinity().ranked(old, {"one": 0, "two": 0})
    assert affinity.ranked(old, {"one": 0, "two": 0}) == fresh
