"""Times a program file through the engine, as a server runs it: greedy answers, one at a time."""

from __future__ import annotations

from array import array

from worker import serve, timed, token_ids

import edge_llm
from edge_llm.native import isa

PROMPT = 8


class Engine:
    def __init__(self, path: str, threads: int, context: int) -> None:
        self._llm = edge_llm.load(path, threads=threads, context=context, max_sequences=1)
        self.version = f"{edge_llm.__version__} ({isa()})"
        self.vocab = self._llm.program.plan.vocab
        self._depth = 0

    def fill(self, depth: int) -> None:
        self._depth = depth

    def prefill(self, tokens: int) -> float:
        ids = array("i", token_ids(self._depth, tokens, self.vocab))
        return timed(lambda: self._llm.generate(ids, max_tokens=1, temperature=0, ignore_eos=True))

    def decode(self, tokens: int) -> float:
        ids = array("i", token_ids(0, max(PROMPT, self._depth), self.vocab))
        options = {"temperature": 0, "ignore_eos": True, "speculation": "off"}
        answer = self._llm.generate(ids, max_tokens=tokens + 1, **options)  # type: ignore[arg-type]
        return answer.stats.decode_seconds * tokens / (answer.stats.completion_tokens - 1)

    def greedy(self, ids: list[int]) -> int:
        return self._llm.generate(ids, max_tokens=1, temperature=0).token_ids[0]


if __name__ == "__main__":
    serve(Engine)
