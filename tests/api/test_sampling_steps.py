"""Sampling by what a user gives: the texts and ids of a tokenizer, not masks."""

from __future__ import annotations

from collections import Counter

import edge_llm


def trigrams(ids: tuple[int, ...]) -> Counter[tuple[int, ...]]:
    return Counter(ids[i : i + 3] for i in range(len(ids) - 2))


def test_dry_ends_a_loop_and_breakers_let_it_be(llm: edge_llm.LLM) -> None:
    """A strong DRY leaves no three tokens that were there before, prompt included."""
    prompt = llm.tokenizer.encode("the end and the end and the end")
    options = {"temperature": 0.0, "max_tokens": 60, "ignore_eos": True}
    loose = llm.generate(prompt, **options)
    assert max(trigrams(loose.token_ids).values()) > 1
    strong = {"dry_multiplier": 100.0, "dry_base": 1.0, "dry_sequence_breakers": []}
    held = llm.generate(prompt, **options, **strong, speculation="off")
    assert max(trigrams(held.token_ids).values()) == 1
    assert not trigrams(held.token_ids).keys() & trigrams(tuple(prompt)).keys()
    again = llm.generate(prompt, **options, **strong, speculation="ngram")
    assert again.token_ids == held.token_ids
    every = [llm.tokenizer.decode([i]) for i in {*prompt, *loose.token_ids}]
    breakers = sorted({text for text in every if text and "�" not in text})[:32]
    free = llm.generate(prompt, **options, **(strong | {"dry_sequence_breakers": breakers}))
    assert free.token_ids[:3] == loose.token_ids[:3]


def test_an_answer_ends_by_more_ids_and_not_before_min_tokens(llm: edge_llm.LLM) -> None:
    options = {"temperature": 0.0, "max_tokens": 20, "ignore_eos": True}
    plain = llm.generate("Once", **options).token_ids
    stopped = llm.generate("Once", **options, stop_token_ids=[plain[3]])
    assert stopped.token_ids == plain[: plain.index(plain[3])]
    assert stopped.finish_reason == "stop"
    longer = llm.generate("Once", **options, stop_token_ids=[plain[3]], min_tokens=10)
    assert len(longer.token_ids) >= 10
    assert plain[3] not in longer.token_ids


def test_steps_that_draw_are_the_same_for_the_same_seed(llm: edge_llm.LLM) -> None:
    options = {"seed": 5, "max_tokens": 30, "ignore_eos": True, "temperature": 1.5}
    steps = {"xtc_probability": 0.5, "xtc_threshold": 0.004, "typical_p": 0.9}
    first = llm.generate("Once", **options, **steps, speculation="off")
    assert llm.generate("Once", **options, **steps).token_ids == first.token_ids
    together = llm.generate(["x", "Once", "y"], **options, **steps, speculation="ngram")
    assert together[1].token_ids == first.token_ids
    assert llm.generate("Once", **options).token_ids != first.token_ids
