"""Times an OpenVINO GenAI folder by the pipeline's own clocks: the first inference of a prompt, and
those of the tokens after it, greedy sampling apart.

The pipeline computes a prompt and its continuation together: there is no prefill after cached
tokens, and decode after ``depth`` tokens first computes a prompt of that length."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path

import numpy as np
import openvino as ov
import openvino_genai as genai
from worker import serve, token_ids


class OpenVino:
    def __init__(self, path: str, threads: int, context: int) -> None:
        self._pipeline = genai.LLMPipeline(path, "CPU", INFERENCE_NUM_THREADS=threads)
        config = json.loads((Path(path) / "config.json").read_text(encoding="utf-8"))
        self.vocab = config["vocab_size"]
        self.version = genai.__version__.split("-")[0]
        self._depth = 0
        self._prompts = count()

    def fill(self, depth: int) -> None:
        self._depth = depth

    def prefill(self, tokens: int) -> float:
        if self._depth:
            raise ValueError("no prefill after cached tokens")
        return self._durations(tokens, 1)[0]

    def decode(self, tokens: int) -> float:
        return sum(self._durations(max(self._depth, 1), tokens + 1)[1:])

    def greedy(self, ids: list[int]) -> int:
        return int(self._generate(ids, 1).tokens[0][0])

    def _durations(self, prompt: int, answer: int) -> list[float]:
        ids = token_ids(0, prompt, self.vocab)
        ids[0] = next(self._prompts) % self.vocab  # no prompt's start is found in a cache
        metrics = self._generate(ids, answer).perf_metrics.raw_metrics
        durations = [float(micros) * 1e-6 for micros in metrics.token_infer_durations]
        if len(durations) != answer:
            raise ValueError(f"{len(durations)} inferences, expected {answer}")
        return durations

    def _generate(self, ids: list[int], answer: int) -> genai.EncodedResults:
        prompt = ov.Tensor(np.array([ids], np.int64))
        return self._pipeline.generate(
            prompt, max_new_tokens=answer, ignore_eos=True, do_sample=False
        )


if __name__ == "__main__":
    serve(OpenVino)
