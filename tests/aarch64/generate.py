"""Runs a program file and prints what it gave, as JSON: run on two machines, compared in one test.

    python generate.py PROGRAM ISA [ISA ...]

For each instruction set: sha256 of the logits of a prompt, and the ids of three sampled replies
that run beside each other.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import edge_llm
from edge_llm import SamplingParams, native

PROMPT = "The same file gives the same text on every processor, byte for byte. " * 2


def outputs(program: Path) -> dict[str, Any]:
    with edge_llm.load(program, threads=2) as llm:
        logits = llm.logits([i * 37 % 256 for i in range(150)], chunk=48)  # three pages
        streams = [
            llm.stream(
                PROMPT[: 40 * (seed + 1)],
                SamplingParams(temperature=1.2, top_p=0.9, seed=seed, max_tokens=24),
            )
            for seed in range(3)
        ]
        replies = [[token for piece in stream for token in piece.token_ids] for stream in streams]
        last = logits[-1].tolist()
    return {
        "logits": hashlib.sha256(logits.tobytes()).hexdigest(),
        "some": [value.hex() for value in last[:4]],  # to look at when the rest differs
        "replies": replies,
    }


def main() -> None:
    found = {}
    for isa in sys.argv[2:]:
        os.environ["EDGE_LLM_ISA"] = isa
        assert native.isa() == isa
        found[isa] = outputs(Path(sys.argv[1]))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
