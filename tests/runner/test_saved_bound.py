"""The folder of sessions has a bound: what is used last stays, and nothing is written in vain."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sessions import OTHER, PROMPT, ask, files, start
from waiting import wait_until

import edge_llm
from edge_llm.runner.engine.saved import SavedBlocks


@pytest.fixture(scope="module")
def program(tiny_program: Any) -> Path:
    path: Path = tiny_program()
    return path


def test_the_folder_is_bounded(program: Path, tmp_path: Path) -> None:
    with start(program, tmp_path) as llm:
        ask(llm, PROMPT)
    size = sum(path.stat().st_size for path in files(tmp_path))
    bound = size * 2
    with start(program, tmp_path, sessions_bytes=bound) as llm:
        for shift in range(8):
            ask(llm, [token + shift for token in OTHER])
        last = [token + 7 for token in OTHER]
    assert 0 < sum(path.stat().st_size for path in files(tmp_path)) <= bound
    with start(program, tmp_path, sessions_bytes=bound) as llm:
        assert ask(llm, last)[1] == len(last) - 1  # the one used last is there
        assert ask(llm, PROMPT)[1] == 0
    with start(program, tmp_path, sessions_bytes=1) as llm:  # not even one block
        ask(llm, PROMPT)


class Saves:
    """Counts what is written, and waits until all that a request has computed is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.written = self.ended = 0
        write, save = SavedBlocks._write, SavedBlocks.save

        def counted(saved: SavedBlocks, *about: Any) -> None:
            self.written += 1
            write(saved, *about)

        def noted(saved: SavedBlocks, *about: Any) -> None:
            save(saved, *about)
            self.ended += 1

        monkeypatch.setattr(SavedBlocks, "_write", counted)
        monkeypatch.setattr(SavedBlocks, "save", noted)

    def ask(self, llm: edge_llm.LLM, prompt: list[int]) -> tuple[tuple[int, ...], int]:
        before = self.ended
        answer = ask(llm, prompt)
        wait_until(lambda: self.ended > before)
        return answer


@pytest.fixture
def saves(monkeypatch: pytest.MonkeyPatch) -> Saves:
    return Saves(monkeypatch)


@pytest.fixture(scope="module")
def block_bytes(program: Path, tmp_path_factory: pytest.TempPathFactory) -> int:
    folder = tmp_path_factory.mktemp("measure")
    with start(program, folder) as llm:
        ask(llm, PROMPT)
    return max(path.stat().st_size for path in files(folder))


@pytest.mark.parametrize("kinds", [("f32",), ("f32", "f16")])
def test_more_than_the_folder_takes_is_not_written_again_and_again(
    program: Path, tmp_path: Path, saves: Saves, block_bytes: int, kinds: tuple[str, ...]
) -> None:
    with ExitStack() as stack:
        llms = [
            stack.enter_context(
                start(program, tmp_path, sessions_bytes=6 * block_bytes, kv_dtype=kind)
            )
            for kind in kinds
        ]
        last = [token + 7 for token in OTHER]
        for shift in range(8):
            for llm in llms:
                saves.ask(llm, [token + shift for token in OTHER])
        for llm in llms:
            saves.ask(llm, last)
        before = saves.written
        for _ in range(10):
            for llm in llms:
                saves.ask(llm, last)
        assert saves.written - before <= 2


def test_a_conversation_that_goes_on_is_whole_in_a_full_folder(
    program: Path, tmp_path: Path, saves: Saves, block_bytes: int
) -> None:
    bound = 10 * block_bytes
    room = 100 * block_bytes
    with start(program, tmp_path, sessions_bytes=bound, kv_budget=room) as llm:
        first, _ = saves.ask(llm, PROMPT)
        for shift in range(6):
            saves.ask(llm, [token + shift for token in OTHER])
        follow = [*PROMPT, *first, 9, 8, 7]
        assert saves.ask(llm, follow)[1] > len(PROMPT)  # the engine has it
    with start(program, tmp_path, sessions_bytes=bound) as llm:
        assert ask(llm, follow)[1] == len(follow) - 1


def test_a_request_does_not_wait_for_a_look_at_a_large_folder(tmp_path: Path) -> None:
    size = 1000
    other = tmp_path / "of-another-program"
    other.mkdir()
    for number in range(50):
        (other / f"{number:064x}-0.block").write_bytes(bytes(size))
        os.utime(other / f"{number:064x}-0.block", (0, 0))
    saved = SavedBlocks(tmp_path, "key", 40 * size)
    asked = 0

    def interrupted() -> bool:
        nonlocal asked
        asked += 1
        return asked % 5 == 0

    calls = 1
    while not saved._room_made(size, interrupted):
        assert asked == 5 * calls  # it has stopped at once
        calls += 1
    assert 5 < calls < 20  # and goes on where it was
    left = sum(path.stat().st_size for path in files(tmp_path))
    assert 30 * size < left <= 35 * size


def test_several_programs_keep_the_bound_together(tiny_program: Any, tmp_path: Path) -> None:
    program: Path = tiny_program()
    with start(program, tmp_path / "measure", kv_dtype="f32") as llm:
        ask(llm, PROMPT)
    most = 16 * max(path.stat().st_size for path in files(tmp_path / "measure"))
    folder = tmp_path / "shared"
    with ExitStack() as stack:
        llms = [
            stack.enter_context(start(program, folder, sessions_bytes=most, kv_dtype=kind))
            for kind in ("f32", "f16", "i8")
        ]
        for turn in range(3):
            for llm in llms:
                ask(llm, [3 + (i * (turn + 2)) % 60 for i in range(200)])
    assert sum(path.stat().st_size for path in files(folder)) <= most * 9 // 8
