"""llama.cpp as a process that gives logits: the ids of a text in, a file of float32 rows out.

    python logits_llama_cpp.py MODEL.gguf --threads N --context N

Requests and answers are JSON, one a line: ``{"ids": [...], "first": N, "file": PATH}`` computes the
text from an empty cache and writes the logits of the positions ``first`` to the last but one into
the file, [n, vocab]. Context and cache are as llama.cpp has them by default.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import sys
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np


class Scorer:
    def __init__(self, path: str, threads: int, context: int) -> None:
        self._log = llama_cpp.llama_log_callback(lambda level, text, data: None)
        llama_cpp.llama_log_set(self._log, ctypes.c_void_p())
        llama_cpp.llama_backend_init()
        self._model = llama_cpp.llama_model_load_from_file(
            path.encode(), llama_cpp.llama_model_default_params()
        )
        if not self._model:
            raise RuntimeError(f"llama.cpp cannot load {path}")
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx = settings.n_batch = context
        settings.n_threads = settings.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(self._model, settings)
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._batch = llama_cpp.llama_batch_init(context, 0, 1)
        self._vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))

    def logits(self, ids: list[int], first: int, file: Path) -> dict[str, Any]:
        llama_cpp.llama_memory_clear(self._memory, True)
        batch, count = self._batch, len(ids)
        batch.n_tokens = count
        for position, token in enumerate(ids):
            batch.token[position] = token
            batch.pos[position] = position
            batch.n_seq_id[position] = 1
            batch.seq_id[position][0] = 0
            batch.logits[position] = first <= position < count - 1
        if llama_cpp.llama_decode(self._context, batch):
            raise RuntimeError("llama_decode failed")
        rows = count - 1 - first
        found = llama_cpp.llama_get_logits(self._context)
        np.ctypeslib.as_array(found, (rows, self._vocab)).tofile(file)
        return {"rows": rows, "vocab": self._vocab}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--context", type=int, required=True)
    options = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # llama.cpp prints what it likes
    scorer = Scorer(options.model, options.threads, options.context)
    for line in sys.stdin:
        request = json.loads(line)
        found = scorer.logits(request["ids"], request["first"], Path(request["file"]))
        print(json.dumps(found), file=answers)


if __name__ == "__main__":
    main()
