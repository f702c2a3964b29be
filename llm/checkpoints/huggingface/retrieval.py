"""What a folder says about vectors and reranking, in the files of the sentence-transformers library
and in its model card."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_llm.llm.checkpoints.files import read_json, read_json_object, read_text
from edge_llm.llm.checkpoints.huggingface.tensors import WHOLE
from edge_llm.llm.checkpoints.source import Retrieval
from edge_llm.llm.config import is_integer
from edge_llm.program.documents import PoolingKind

DENSE_WEIGHT = "linear.weight"  # of a module Dense
MODULES, PROMPTS = "modules.json", "config_sentence_transformers.json"
# Modules that say nothing of the numbers, or what is done in any case.
_KNOWN = ("Transformer", "Pooling", "Normalize", "LogitScore")
_POOLING: dict[str, PoolingKind] = {"lasttoken": "last", "mean": "mean", "mean_tokens": "mean"}


@dataclass(frozen=True, slots=True)
class Found:
    """A folder's facts, the files that state them, and lines for the export report. ``matrices``
    are the files of the matrices that hidden states are multiplied with, one of each."""

    retrieval: Retrieval | None
    sources: tuple[Path, ...]
    notes: tuple[str, ...]
    matrices: tuple[Path, ...] = ()


def read_retrieval(path: Path) -> Found:
    """Read what the folder of a checkpoint says.

    Raises:
        CheckpointError: a file that is damaged.
    """
    listed = _modules(path)
    modules = dict(listed)
    sources = [path / MODULES] if modules else []
    dense = _projection(listed)
    notes = [
        f"{MODULES}: module {kind} is not part of the program: its vectors go without it"
        for kind, file in listed
        if kind not in _KNOWN and file not in dense
    ]
    pooling: PoolingKind | None = None
    yes_no: tuple[int, int] | None = None
    if (file := modules.get("Pooling")) is not None:
        sources.append(file)
        said = _pooling(read_json_object(file))
        pooling = _POOLING.get(said)
        if pooling is None:
            notes.append(f"{file.parent.name}: pooling {said!r:.40} is not known: mean is taken")
    if (file := modules.get("LogitScore")) is not None:
        sources.append(file)
        values = read_json_object(file)
        yes, no = values.get("true_token_id"), values.get("false_token_id")
        if is_integer(yes) and is_integer(no):
            yes_no = yes, no
    query, document = "", ""
    if modules and (path / PROMPTS).is_file():
        sources.append(path / PROMPTS)
        prompts = read_json_object(path / PROMPTS).get("prompts")
        if isinstance(prompts, dict):
            query, document = _text(prompts.get("query")), _text(prompts.get("document"))
    judges = "LogitScore" in modules or _is_reranker(path / "README.md")
    if not (pooling or judges):
        return Found(None, tuple(sources), tuple(notes))
    found = Retrieval(
        pooling=pooling,
        query=query,
        document=document,
        judges=judges,
        yes_no=yes_no,
        projection=tuple(dense.values()),
    )
    return Found(
        found, (*sources, *dense), tuple(notes), tuple(file.with_name(WHOLE) for file in dense)
    )


def _projection(modules: Sequence[tuple[str, Path]]) -> dict[Path, tuple[int, int]]:
    """Return the modules behind the pooling that multiply with a matrix and nothing else, with its
    rows and columns. A mean of products is the product of the mean, so that they may come before
    the pooling."""
    kinds = [kind for kind, _ in modules]
    behind = modules[kinds.index("Pooling") + 1 :] if "Pooling" in kinds else ()
    found: dict[Path, tuple[int, int]] = {}
    for kind, file in behind:
        if kind != "Dense":
            continue
        values = read_json_object(file) if file.is_file() else {}
        rows, columns = values.get("out_features"), values.get("in_features")
        plain = values.get("bias") is False and _text(values.get("activation_function")).endswith(
            ".Identity"
        )
        stored = file.with_name(WHOLE).is_file()
        if not (plain and stored and is_integer(rows) and is_integer(columns)):
            return {}  # what follows it is of no use alone
        found[file] = rows, columns
    return found


def _modules(path: Path) -> list[tuple[str, Path]]:
    """Return the last part of each module's type, and its config, where modules.json is one of that
    library."""
    if not (path / MODULES).is_file():
        return []
    entries = read_json(path / MODULES)
    found: list[tuple[str, Path]] = []
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, dict):
            continue
        kind, place = entry.get("type"), entry.get("path")
        # A plain name: the list must not lead out of its folder.
        if isinstance(kind, str) and isinstance(place, str) and re.fullmatch(r"\w*", place):
            found.append((kind.rpartition(".")[2], path / place / "config.json"))
    return [(kind, file) for kind, file in found if file.is_file() or kind not in _KNOWN]


def _pooling(values: dict[str, object]) -> str:
    """Return the pooling by the library's name of it."""
    said = values.get("pooling_mode")
    if isinstance(said, str):
        return said
    flags = [
        name.removeprefix("pooling_mode_")
        for name, value in values.items()
        if name.startswith("pooling_mode_") and value is True
    ]
    return "+".join(flags)


def _is_reranker(card: Path) -> bool:
    """Return whether a model card's front matter files it under text ranking."""
    if not card.is_file():
        return False
    front = re.match(r"---\n(.*?)\n---", read_text(card), flags=re.DOTALL)
    return front is not None and bool(
        re.search(r"^pipeline_tag:\s*text-ranking\s*$", front[1], flags=re.MULTILINE)
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
