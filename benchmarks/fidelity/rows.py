"""The rows of each table of docs/quality.md: which file, and how it is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sources import WORK, checkpoint, exported, floats, gguf_bits, own_file, quantized

from edge_llm.program.file import Program

OURS, THEIRS = "edge-llm", "llama.cpp"
JUDGE = "llama.cpp Q4_0"  # whose speed the others are compared with
K_QUANTS = "llama.cpp Q4_K_M, importance matrix"
BEFORE = "8da4w of the first version"
PLAIN, CALIBRATED = "8da4w", "8da4w, calibrated"
GROUPED = "activations per group"
# Q4_K_M has 6.2 bits per weight of this checkpoint, of 576 columns: room for six in most linears.
_SIX = {f"*.{name}_proj.weight": "i6g32" for name in ("q", "o", "up", "down")}

# Title -> options of the recipe; a new row is a line here. `BEFORE` is 8da4w as it was when
# the bars were set: every linear in int4, an int8 head, no factors moved between linears.
PROGRAMS: Mapping[str, dict[str, Any]] = {
    BEFORE: {
        "activations": "token",
        "linear": "i4g32",
        "embedding": "i8",
        "head": "i8",
        "evened": False,
    },
    PLAIN: {"activations": "token"},
    f"{PLAIN}, {GROUPED}": {"activations": "group"},
    CALIBRATED: {"activations": "token", "calibration": "builtin"},
    f"{CALIBRATED}, {GROUPED}": {"activations": "group", "calibration": "builtin"},
    f"{CALIBRATED}, {GROUPED}, int6 in q, o, up and down": {
        "activations": "group",
        "calibration": "builtin",
        "overrides": _SIX,
    },
    "8da8w": {"scheme": "8da8w"},
    "fp16": {"scheme": "fp16"},
    f"{CALIBRATED}, {GROUPED}, 6.1 bits": {
        "activations": "group",
        "calibration": "builtin",
        "bits": 6.1,
    },
}
# Of SmolLM2's own file, whose four bits are kept.
OWN_PROGRAMS: Mapping[str, dict[str, Any]] = {
    PLAIN: {"activations": "token"},
    f"{PLAIN}, {GROUPED}": {"activations": "group"},
}
# The types of llama.cpp's quantizer that are judged.
KINDS = (
    "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K_S", "Q4_K_M", "Q5_K_M", "Q6_K", "IQ4_NL",
    "IQ4_XS",
)  # fmt: skip
# How the same file is run: by llama.cpp, and by our program made of it.
SIDES: Mapping[str, dict[str, Any] | None] = {
    "llama_cpp": None,
    "token": {"activations": "token"},
    "group": {"activations": "group"},
}


@dataclass(frozen=True, slots=True)
class Row:
    """A file to be measured, at ``path`` once it was made."""

    title: str
    engine: str
    path: Path
    make: Callable[[], Path]

    def bits(self) -> float:
        """Return the bits per weight of the file."""
        if self.engine == THEIRS:
            return gguf_bits(self.path)
        with Program.open(self.path) as program:
            return float(program.documents.report["bits_per_weight"])


def _theirs(title: str, make: Callable[[], Path], path: Path) -> Row:
    return Row(title, THEIRS, path, make)


def _ours(title: str, model: Callable[[], Path], name: str, options: dict[str, Any]) -> Row:
    return Row(title, OURS, WORK / f"{name}.edge", lambda: exported(model(), name, options))


def main_rows() -> list[Row]:
    """Return what is made of the float checkpoint."""
    ours = [
        _ours(title, checkpoint, f"float-{number}", options)
        for number, (title, options) in enumerate(PROGRAMS.items())
    ]
    return [
        *ours,
        _gguf(JUDGE, "Q4_0"),
        _gguf("llama.cpp Q4_K_M", "Q4_K_M"),
        _gguf(K_QUANTS, "Q4_K_M", imatrix=True),
        _gguf("llama.cpp Q8_0", "Q8_0"),
        _theirs("llama.cpp F32", floats, WORK / "F32.gguf"),
    ]


def _gguf(title: str, kind: str, *, imatrix: bool = False) -> Row:
    path = WORK / f"{kind}{'-imatrix' if imatrix else ''}.gguf"
    return _theirs(title, lambda: quantized(kind, imatrix=imatrix), path)


def own_rows() -> list[Row]:
    """Return what runs SmolLM2's own file."""
    ours = [
        _ours(title, own_file, f"own-{number}", options)
        for number, (title, options) in enumerate(OWN_PROGRAMS.items())
    ]
    return [*ours, _theirs("llama.cpp, the same file", own_file, own_file())]


def grid_rows(kind: str) -> dict[str, Row]:
    """Return what runs one file of llama.cpp's quantizer, by side."""
    return {
        side: _gguf(kind, kind)
        if options is None
        else _ours(f"{kind}, {side}", lambda: quantized(kind), f"{kind}-{side}", options)
        for side, options in SIDES.items()
    }
