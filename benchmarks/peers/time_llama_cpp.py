"""Times llama.cpp the way its own llama-bench does: llama_decode on token batches, no sampling."""

from __future__ import annotations

import ctypes

import llama_cpp
from worker import CHUNK, serve, timed, token_ids


class LlamaCpp:
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
        settings.n_ctx = context
        settings.n_batch = settings.n_ubatch = CHUNK
        settings.n_threads = settings.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(self._model, settings)
        self._memory = llama_cpp.llama_get_memory(self._context)
        self.vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        native = "AVX512_VNNI = 1" in llama_cpp.llama_print_system_info().decode()
        self.version = llama_cpp.__version__ + (" (AVX-512 VNNI)" if native else "")
        self._held = 0

    def fill(self, depth: int) -> None:
        if depth > self._held:
            self._run(depth - self._held, CHUNK)
        llama_cpp.llama_memory_seq_rm(self._memory, 0, depth, -1)
        self._held = depth

    def prefill(self, tokens: int) -> float:
        return timed(lambda: self._run(tokens, CHUNK))

    def decode(self, tokens: int) -> float:
        return timed(lambda: self._run(tokens, 1))

    def greedy(self, ids: list[int]) -> int:
        llama_cpp.llama_memory_clear(self._memory, True)
        self._held = 0
        self._step(ids)
        logits = llama_cpp.llama_get_logits_ith(self._context, -1)
        return max(range(self.vocab), key=logits.__getitem__)

    def _run(self, tokens: int, chunk: int) -> None:
        end = self._held + tokens
        while self._held < end:
            self._step(token_ids(self._held, min(chunk, end - self._held), self.vocab))
        llama_cpp.llama_synchronize(self._context)

    def _step(self, ids: list[int]) -> None:
        array = (llama_cpp.llama_token * len(ids))(*ids)
        if llama_cpp.llama_decode(self._context, llama_cpp.llama_batch_get_one(array, len(ids))):
            raise RuntimeError("llama_decode failed")
        self._held += len(ids)


if __name__ == "__main__":
    serve(LlamaCpp)
