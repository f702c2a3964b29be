"""Calibrated exports that were ended, and go on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from edge_llm.export.pipeline import make_program
from edge_llm.export.recipes.file import load_recipe
from edge_llm.export.weights import balance, kept, rounder
from edge_llm.export.weights.kept import Kept, forget, key_of

Tiny = Callable[..., Path]
STATE = ".x.edge.calibration"
TEXT = "The little boat went out to sea at dawn, and nobody saw it come home again. " * 12


class EndedError(Exception):
    """The export was ended."""


class Counted:
    """Counts the searches of factors and the matrices that are rounded while it is entered."""

    def __enter__(self) -> Counted:
        self._patches = [
            patch.object(balance, "_searched", side_effect=balance._searched),
            patch.object(rounder, "round_successively", side_effect=rounder.round_successively),
        ]
        self._mocks = [each.start() for each in self._patches]
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._patches:
            each.stop()

    @property
    def counts(self) -> tuple[int, int]:
        searched, rounded = self._mocks
        return searched.call_count, rounded.call_count


def make(
    source: Path, folder: Path, *settings: str, ended: tuple[str, float] | None = None
) -> tuple[bytes, list[str], tuple[int, int]]:
    """Return an export's bytes, what it told, and what it computed; ``ended`` at a stage, when so
    much of it is done."""
    text = source.parent / "text.txt"
    text.write_text(TEXT, encoding="utf-8")
    asked = ["verify=false", f"calibration={text}", *settings]
    recipe = load_recipe("8da4w", asked, model=str(source))
    packed: list[int] = []

    def progress(stage: str, done: int, total: int) -> None:
        of_reader = stage == "pack" and not packed  # the program that reads the text comes first
        if stage == "pack" and done == total:
            packed.append(1)
        if ended is not None and stage == ended[0] and not of_reader and done >= ended[1] * total:
            raise EndedError

    told: list[str] = []
    with Counted() as counted:
        if ended is None:
            made = make_program(
                recipe, output=folder / "x.edge", progress=progress, tell=told.append
            )
            return made.path.read_bytes(), told, counted.counts
        with pytest.raises(EndedError):
            make_program(recipe, output=folder / "x.edge", progress=progress, tell=told.append)
        return b"", told, counted.counts


@pytest.fixture
def source(tiny_checkpoint: Tiny) -> Path:
    return tiny_checkpoint("llama")


@pytest.fixture
def whole(source: Path, tmp_path: Path) -> tuple[bytes, tuple[int, int]]:
    """The bytes of an export that nobody ended, and what it computed."""
    folder = tmp_path / "whole"
    folder.mkdir()
    data, told, counts = make(source, folder)
    assert [file.name for file in folder.iterdir()] == ["x.edge"]
    assert told == []
    assert min(counts) > 4
    return data, counts


def test_it_goes_on_where_it_was_ended(
    source: Path, whole: tuple[bytes, tuple[int, int]], tmp_path: Path
) -> None:
    expected, (searches, matrices) = whole
    _, told, (searched, rounded) = make(source, tmp_path, ended=("balance", 0.5))
    assert (told, rounded) == ([], 0)
    assert 0 < searched < searches
    assert {file.name for file in tmp_path.iterdir()} == {STATE, "whole"}

    _, told, (more, rounded) = make(source, tmp_path, ended=("pack", 0.6))
    # what was found last before the end had been kept already
    assert (searched + more, told) == (
        searches, [f"going on from {STATE}: {searched} searches of factors"]
    )  # fmt: skip
    assert 0 < rounded < matrices

    made, told, (more, rest) = make(source, tmp_path)
    assert (more, rounded + rest) == (0, matrices)
    assert told == [
        f"going on from {STATE}: {searches} searches of factors, {rounded} rounded matrices"
    ]
    assert made == expected
    assert {file.name for file in tmp_path.iterdir()} == {"x.edge", "whole"}


@pytest.mark.parametrize("change", ["recipe", "source"])
def test_a_changed_export_begins_anew(
    change: str, source: Path, tiny_checkpoint: Tiny, tmp_path: Path
) -> None:
    make(source, tmp_path, ended=("pack", 0.6))
    settings = ["group_size=64"] if change == "recipe" else []
    other = tiny_checkpoint("llama", dtype="bfloat16") if change == "source" else source
    made, told, counts = make(other, tmp_path, *settings)
    assert len(told) == 1
    assert "of an export of other files, or with another recipe or version" in told[0]
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    assert (made, counts) == make(other, fresh, *settings)[::2]


@pytest.mark.parametrize("damage", ["cut", "bit", "zeros"])
def test_what_is_damaged_is_worked_out_again(
    damage: str, source: Path, whole: tuple[bytes, tuple[int, int]], tmp_path: Path
) -> None:
    expected, (searches, _) = whole
    make(source, tmp_path, ended=("pack", 0.9))
    state = tmp_path / STATE
    data = bytearray(state.read_bytes())
    if damage == "cut":
        data = data[:-5]
    elif damage == "bit":
        data[-5] ^= 1
    else:  # as file systems leave what a power cut took
        data[-5000:] = bytes(5000)
    state.write_bytes(data)
    made, told, (more, _) = make(source, tmp_path)
    assert made == expected
    assert more == 0
    assert "was cut or damaged at byte" in told[0]
    assert f"{searches} searches of factors" in told[1]
    assert not state.exists()


def test_a_file_of_something_else_is_no_state(
    source: Path, whole: tuple[bytes, tuple[int, int]], tmp_path: Path
) -> None:
    (tmp_path / STATE).write_bytes(b"\xff" * 100_000)
    made, told, counts = make(source, tmp_path)
    assert (made, counts) == whole
    assert "beginning anew" in told[0]


def test_a_budget_goes_on_too(source: Path, tmp_path: Path) -> None:
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    expected, _, (_, matrices) = make(source, fresh, "bits=7")
    make(source, tmp_path, "bits=7", ended=("pack", 0.6))
    made, told, (searched, rounded) = make(source, tmp_path, "bits=7")
    assert made == expected
    assert (searched, rounded < matrices) == (0, True)
    assert "losses" in told[0]


def arrays(value: float) -> dict[str, Any]:
    return {"a": np.full((2, 3), value, np.float32), "b": np.arange(5, dtype=np.uint8)}


def test_arrays_come_back_as_they_were(tmp_path: Path) -> None:
    target = tmp_path / "x.edge"
    with Kept(target, "key") as first:
        assert first.of("matrix a", lambda: arrays(1.0))["a"][0, 0] == 1.0
    with Kept(target, "key") as again:
        found = again.of("matrix a", lambda: pytest.fail("it was kept"))
    for name, values in arrays(1.0).items():
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name], values)
    with Kept(target, "key") as one:
        told: list[str] = []
        with Kept(target, "key", told.append) as other:  # as if by another process
            assert other.of("matrix a", lambda: arrays(2.0))["a"][0, 0] == 2.0
        assert "another export of x.edge is under way" in told[0]
        forget(target)
        assert one.of("matrix a", lambda: pytest.fail("it was kept"))
    forget(target)
    assert list(tmp_path.iterdir()) == []


def test_nothing_found_leaves_no_file(tmp_path: Path) -> None:
    with Kept(tmp_path / "x.edge", "key"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_ends_the_keeping_alone(tmp_path: Path) -> None:
    told: list[str] = []
    with (
        patch.object(Kept, "_put", side_effect=OSError(28, "No space left on device")),
        Kept(tmp_path / "x.edge", "key", told.append) as state,
    ):
        assert state.of("matrix a", lambda: arrays(1.0))["a"][0, 0] == 1.0
        assert state.of("matrix b", lambda: arrays(2.0))["a"][0, 0] == 2.0
    assert len(told) == 1
    assert "cannot be used (No space left on device)" in told[0]


def test_other_code_has_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key_of(["facts"])
    assert (before == key_of(["facts"]), before == key_of(["others"])) == (True, False)
    monkeypatch.setattr(kept.np, "__version__", "0.0")
    assert key_of(["facts"]) != before
