"""A batch job: a file of prompts to a file of answers, and on again where it was interrupted.

    python examples/batch.py prompts.jsonl answers.jsonl [MODEL]

Each line of the input is a JSON object with a ``prompt`` and, if it has one, an ``id``. Each line
of the output has the ``id`` (the line's number, where there is none), the ``text`` and why it
ended. What has an answer already is not asked again.
"""

from __future__ import annotations

import json
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import edge_llm

TOGETHER = 32  # prompts that are given to the engine at once; it runs as many as fit


def main() -> None:
    if len(sys.argv) < 3:
        sys.exit(f"usage: {sys.argv[0]} PROMPTS ANSWERS [MODEL]")
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    model = sys.argv[3] if len(sys.argv) > 3 else "smollm2-135m"
    done = {line["id"] for line in kept(target)} if target.exists() else set()
    asked = ({"id": number, **line} for number, line in enumerate(read(source)))
    left = iter([line for line in asked if line["id"] not in done])
    with edge_llm.load(model) as llm, target.open("a", encoding="utf-8") as file:
        while batch := list(islice(left, TOGETHER)):
            answers = llm.generate([line["prompt"] for line in batch], max_tokens=200, seed=1)
            for line, answer in zip(batch, answers, strict=True):
                row = {"id": line["id"], "text": answer.text, "ended": answer.finish_reason}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()  # what is written is not asked again
            print(f"{len(batch)} answers", file=sys.stderr)


def read(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSON Lines file."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line.strip()]


def kept(path: Path) -> list[dict[str, Any]]:
    """Return the answers that are there, after cutting off a line that was not finished."""
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if whole != data:
        path.write_bytes(whole)
    return read(path)


if __name__ == "__main__":
    try:
        main()
    except (edge_llm.EdgeLLMError, OSError) as error:
        sys.exit(f"error: {error}")
