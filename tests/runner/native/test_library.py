"""Finding and opening the native library."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_llm import abi, native
from edge_llm.errors import NativeError
from edge_llm.program.ops import OPS


def test_missing_library_is_a_native_error_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(NativeError, match="native core is missing") as caught:
        native.open_library(tmp_path / "libedge_llm.so")
    assert caught.value.hint is not None
    assert native.LIBRARY_VARIABLE in caught.value.hint


def test_environment_overrides_the_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(native.LIBRARY_VARIABLE, str(tmp_path / "mine.so"))
    assert native.library_path() == tmp_path / "mine.so"
    monkeypatch.delenv(native.LIBRARY_VARIABLE)
    assert native.library_path().parent.name == "_native"


def test_file_that_is_no_library_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "libedge_llm.so"
    path.write_bytes(b"not a library")
    with pytest.raises(NativeError, match="no native core"):
        native.open_library(path)


def test_other_abi_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abi, "ABI_VERSION", 999)
    with pytest.raises(NativeError, match="expected 999") as caught:
        native.open_library(native.library_path())
    assert caught.value.hint is not None


def test_unknown_instruction_set_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_LLM_ISA", "abacus")
    with pytest.raises(NativeError, match=r"'abacus', expected one of: .*scalar"):
        native.isa()
    monkeypatch.setenv("EDGE_LLM_ISA", "scalar")
    assert native.isa() == "scalar"


def test_instruction_slots_hold_every_operator() -> None:
    slots = dict(abi.Instruction._fields_)  # type: ignore[arg-type]
    sizes = {name: getattr(slots[name], "_length_", 0) for name in slots}
    for spec in OPS.values():
        kinds = [attribute.kind for attribute in spec.attributes]
        assert len(spec.inputs) <= sizes["inputs"]
        assert len(spec.weights) <= sizes["weights"]
        assert kinds.count("int") <= sizes["ints"]
        assert kinds.count("float") <= sizes["floats"]
