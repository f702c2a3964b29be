"""Objects of the API are shown in short, and loading and bars hold nothing up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

import edge_llm


def test_texts_and_reprs(tiny_program: Callable[..., Path]) -> None:
    with edge_llm.load(tiny_program("fp32")) as llm:
        answer = llm.generate("hi", max_tokens=30, temperature=0)
        pieces = list(llm.stream("hi", max_tokens=30, temperature=0))
        shown = repr(llm)
    assert str(answer) == answer.text == "".join(map(str, pieces))
    assert repr(answer).startswith("<Completion ")
    assert repr(pieces[-1]).endswith(f", {answer.finish_reason}>")
    assert shown.startswith("<LLM ")
    assert "fp32" in shown
    for text in (repr(answer), shown, *map(repr, pieces)):
        assert len(text) < 160
        assert "\n" not in text


def test_loading_and_answering_do_not_hold_up_the_loop(tiny_program: Callable[..., Path]) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    async def run() -> None:
        ticking = asyncio.create_task(tick())
        llm = await edge_llm.aload(tiny_program("fp32"))
        loaded = ticks
        assert loaded > 0
        try:
            answers = await llm.agenerate(["a", "b"], max_tokens=20, ignore_eos=True)
            assert len(answers) == 2
            assert ticks > loaded
            assert (await llm.aembed("hi")).ndim == 2
        finally:
            llm.close()
            ticking.cancel()

    asyncio.run(run())


def test_a_bar_of_many_answers(
    tiny_program: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with edge_llm.load(tiny_program("fp32")) as llm:
        answers = llm.generate(["a", "b", "c"], max_tokens=2, n=2, progress=True)
        assert "6/6" in capsys.readouterr().err
        assert len(answers) == len(llm.generate(["a", "b", "c"], max_tokens=2, n=2)) == 6
        assert capsys.readouterr().err == ""
