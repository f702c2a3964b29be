"""Sessions in a folder: conversations go on where they were, and nothing that is damaged counts."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sessions import OTHER, PROMPT, ask, files, start
from waiting import wait_until

import edge_llm
from edge_llm.errors import ConfigError, NativeError
from edge_llm.runner.engine.saved import MAGIC, SavedBlocks


@pytest.fixture(scope="module")
def program(tiny_program: Any) -> Path:
    path: Path = tiny_program()
    return path


def test_a_restart_goes_on_where_it_was(program: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "sessions"
    with start(program, folder) as llm:
        first, cached = ask(llm, PROMPT)
        assert cached == 0
        follow = [*PROMPT, *first, 9, 8, 7]
    with edge_llm.load(program, threads=1) as llm:
        alone, _ = ask(llm, follow)
    with start(program, folder) as llm:
        again, cached = ask(llm, PROMPT)
        assert (again, cached) == (first, len(PROMPT) - 1)
        second, cached = ask(llm, follow)
        assert cached >= len(PROMPT) + len(first) - 1
        assert second == alone
    assert {path.stat().st_mode & 0o777 for path in files(folder)} == {0o600}


def test_what_was_said_is_there_after_a_kill(program: Path, tmp_path: Path) -> None:
    folder, copy = tmp_path / "sessions", tmp_path / "as-it-was"
    with start(program, folder) as llm:
        first, _ = ask(llm, PROMPT)
        wait_until(lambda: len(files(folder)) == -(-len(PROMPT + list(first)) // 64))
        shutil.copytree(folder, copy)  # nothing was closed
    for part in copy.rglob("*"):
        if part.is_dir():
            left = part / "left.part"
            left.write_bytes(b"half a block")
            os.utime(left, (0, 0))
    with start(program, copy) as llm:
        again, cached = ask(llm, PROMPT)
        assert again == first
        assert cached >= len(PROMPT) // 64 * 64
    assert not list(copy.rglob("*.part"))


def test_a_kill_between_two_blocks_leaves_the_beginning(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = SavedBlocks._write

    def killed(self: SavedBlocks, name: str, whole: bytes) -> None:
        if len(files(tmp_path)) == 2:
            raise OSError("killed")
        write(self, name, whole)

    with monkeypatch.context() as patched:
        patched.setattr(SavedBlocks, "_write", killed)
        with start(program, tmp_path) as llm:
            first, _ = ask(llm, PROMPT)
    assert len(files(tmp_path)) == 2
    with start(program, tmp_path) as llm:
        assert ask(llm, PROMPT) == (first, 128)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: b"",
        lambda data: data[:200],
        lambda data: MAGIC + bytes(len(data)),
        lambda data: data[:-5] + bytes([data[-5] ^ 1]) + data[-4:],
        lambda data: data[:60] + bytes([data[60] ^ 1]) + data[61:],
    ],
)
def test_damaged_files_are_dropped_and_computed_again(
    program: Path, tmp_path: Path, damage: Any, caplog: Any
) -> None:
    with start(program, tmp_path) as llm:
        first, _ = ask(llm, PROMPT)
    saved = files(tmp_path)
    for path in saved:
        path.write_bytes(damage(path.read_bytes()))
    with start(program, tmp_path) as llm:
        again, cached = ask(llm, PROMPT)
        assert (again, cached) == (first, 0)
    assert "a saved block is dropped" in caplog.text
    with start(program, tmp_path) as llm:  # they were written again
        assert ask(llm, PROMPT) == (first, len(PROMPT) - 1)


def test_a_file_under_another_name_is_dropped(program: Path, tmp_path: Path) -> None:
    with start(program, tmp_path) as llm:
        first, _ = ask(llm, PROMPT)
        other, _ = ask(llm, OTHER)
    one, two, *_ = files(tmp_path)
    one.write_bytes(two.read_bytes())
    for name in ("x-0.block", "-9.block", "ff-99.block", "ff-1000000000000.block"):
        (one.parent / name).write_bytes(two.read_bytes())
    with start(program, tmp_path) as llm:
        assert ask(llm, PROMPT)[0] == first
        assert ask(llm, OTHER)[0] == other


def test_programs_and_kinds_of_keys_do_not_mix(
    program: Path, tiny_program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with start(program, tmp_path) as llm:
        ask(llm, PROMPT)
    with start(program, tmp_path, kv_dtype="i8") as llm:
        assert ask(llm, PROMPT)[1] == 0
    with start(tiny_program("fp16"), tmp_path) as llm:
        assert ask(llm, PROMPT)[1] == 0
    with start(program, tmp_path) as llm:
        assert ask(llm, PROMPT)[1] == len(PROMPT) - 1
    monkeypatch.setattr("edge_llm.__version__", "0.2.0")  # whose kernels may round otherwise
    with start(program, tmp_path) as llm:
        assert ask(llm, PROMPT)[1] == 0


def test_a_full_disk_does_not_stop_answers(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    with edge_llm.load(program, threads=1) as llm:
        alone, _ = ask(llm, PROMPT)

    def full(*about: object, **options: object) -> int:
        raise OSError(28, "No space left on device")

    with start(program, tmp_path) as llm:
        monkeypatch.setattr("edge_llm.runner.engine.saved.os.open", full)
        assert ask(llm, PROMPT)[0] == alone
        wait_until(lambda: "sessions are not saved any longer" in caplog.text)
        assert ask(llm, PROMPT)[0] == alone


@pytest.mark.parametrize("call", ["read_bytes", "lstat"])
def test_files_that_cannot_be_read_now_stay(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any, call: str
) -> None:
    with start(program, tmp_path) as llm:
        first, _ = ask(llm, PROMPT)
    saved = files(tmp_path)

    def failing(path: Path) -> object:
        raise OSError(24, "Too many open files")

    with edge_llm.load(program, threads=1) as llm:
        folder = SavedBlocks(tmp_path, saved[0].parent.name, 10**9)
        with monkeypatch.context() as patch:
            patch.setattr(Path, call, failing)
            assert folder.restore(llm.engine._pool, llm.engine._executor, lambda: False) == 0
    assert "cannot be read" in caplog.text
    assert files(tmp_path) == saved
    with start(program, tmp_path) as llm:
        assert ask(llm, PROMPT) == (first, len(PROMPT) - 1)


@pytest.mark.parametrize("error", [NativeError("no such block"), MemoryError("of the host")])
def test_a_block_that_cannot_be_read_does_not_stop_answers(
    program: Path, tmp_path: Path, caplog: Any, error: Exception
) -> None:
    def failing(*about: object) -> bytes:
        raise error

    with start(program, tmp_path) as llm:
        executor: Any = llm.engine._executor
        executor.read_block = failing
        first, _ = ask(llm, PROMPT)
        wait_until(lambda: "sessions are not saved any longer" in caplog.text)
        assert ask(llm, PROMPT)[0] == first
    assert files(tmp_path) == []


def test_an_engine_that_is_stopped_reads_no_more(program: Path, tmp_path: Path) -> None:
    with start(program, tmp_path) as llm:
        ask(llm, PROMPT)
        wait_until(lambda: len(files(tmp_path)) > 2)
    answers = iter([False, True])
    with edge_llm.load(program, threads=1) as llm:
        folder = SavedBlocks(tmp_path, files(tmp_path)[0].parent.name, 10**9)
        pool, executor = llm.engine._pool, llm.engine._executor
        assert folder.restore(pool, executor, lambda: next(answers)) == 1
    assert len(files(tmp_path)) > 2


@pytest.mark.parametrize("family", ["qwen3_5_text", "gemma3_text", "lfm2"])
def test_states_and_windows_go_on_after_a_restart(
    tiny_program: Any, tmp_path: Path, family: str
) -> None:
    path: Path = tiny_program("8da4w", family=family)
    with start(path, tmp_path) as llm:
        first, _ = ask(llm, PROMPT)
    follow = [*PROMPT, *first, 9, 8, 7]
    with edge_llm.load(path, threads=1) as llm:
        alone, _ = ask(llm, follow)
    with start(path, tmp_path) as llm:
        second, cached = ask(llm, follow)
    assert second == alone
    assert cached >= len(PROMPT)


def test_two_servers_share_a_folder(program: Path, tmp_path: Path, caplog: Any) -> None:
    with edge_llm.load(program, threads=1) as llm:
        alone = [ask(llm, prompt)[0] for prompt in (PROMPT, OTHER)]
    with start(program, tmp_path) as one, start(program, tmp_path) as two:
        with ThreadPoolExecutor(2) as pool:
            for _ in range(5):
                both = [pool.submit(ask, llm, p) for llm, p in ((one, PROMPT), (two, OTHER))]
                assert [future.result()[0] for future in both] == alone
                both = [pool.submit(ask, llm, p) for llm, p in ((two, PROMPT), (one, OTHER))]
                assert [future.result()[0] for future in both] == alone
        wait_until(lambda: files(tmp_path))
        for path in files(tmp_path):  # a third one makes room
            path.unlink()
        assert [ask(one, prompt)[0] for prompt in (PROMPT, OTHER)] == alone
    with start(program, tmp_path) as llm:
        assert [ask(llm, p) for p in (PROMPT, OTHER)] == [
            (answer, len(prompt) - 1) for answer, prompt in zip(alone, (PROMPT, OTHER), strict=True)
        ]
    assert "saved" not in caplog.text


def test_files_that_went_are_written_again_at_the_end(program: Path, tmp_path: Path) -> None:
    with start(program, tmp_path) as llm:
        first, _ = ask(llm, PROMPT)
        wait_until(lambda: len(files(tmp_path)) == -(-len(PROMPT + list(first)) // 64))
        for path in files(tmp_path):  # another server makes room
            path.unlink()
    with start(program, tmp_path) as llm:
        assert ask(llm, PROMPT) == (first, len(PROMPT) - 1)


def test_where_sessions_cannot_be_kept(program: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ConfigError, match=r"sessions: .* cannot be used"):
        start(program, tmp_path / "file")
    with pytest.raises(ConfigError, match="sessions_bytes is 0"):
        start(program, tmp_path, sessions_bytes=0)
    with pytest.raises(ConfigError, match="sessions is 7, expected a folder"):
        edge_llm.load(program, sessions=7)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="sessions cannot be kept by the backend torch"):
        start(program, tmp_path, backend="torch")


def test_blocks_of_another_size_are_refused(program: Path) -> None:
    with edge_llm.load(program, threads=1) as llm:
        executor: Any = llm.engine._executor
        data = executor.read_block(0, 0)
        executor.write_block(0, 0, data)
        for group, block, wrong in ((0, 0, data[:-1]), (0, 10**6, data), (7, 0, data)):
            with pytest.raises(NativeError, match=r"bytes|exist"):
                executor.write_block(group, block, wrong)


def test_what_lies_beside_the_blocks_is_left_alone_and_does_no_harm(
    program: Path, tmp_path: Path
) -> None:
    with start(program, tmp_path) as llm:
        first, _ = ask(llm, PROMPT)
    saved = files(tmp_path)
    folder = saved[0].parent
    foreign = tmp_path / "deep" / "er" / "mine.block"
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"x")
    written = folder / "of-another-server.part"  # now
    written.write_bytes(b"x")
    (folder / f"{'0' * 64}-0.block").mkdir()
    os.mkfifo(folder / f"{'1' * 64}-0.block")
    (folder / f"{'2' * 64}-0.block").symlink_to(folder / "nowhere")
    (folder / "notes-0.block").write_bytes(b"x")
    huge = folder / f"{'3' * 64}-0.block"
    with huge.open("wb") as file:
        file.truncate(1 << 40)
    with start(program, tmp_path, sessions_bytes=1 << 50) as llm:
        again, cached = ask(llm, PROMPT)
    assert (again, cached) == (first, len(PROMPT) - 1)
    assert not huge.exists()
    assert foreign.exists()
    assert written.exists()
    assert (folder / "notes-0.block").exists()
