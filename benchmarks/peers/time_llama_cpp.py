"""Times llama.cpp the way its own llama-bench does: llama_decode on token batches, no sampling.

Run by the interpreter of the peer's environment; prints one JSON object of rows like
`edge-llm bench --json`.

    python time_llama_cpp.py MODEL.gguf --threads 2 --prompt-tokens 512 --depth 0,1024
"""

from __future__ import annotations

import argparse
import json
import time

import llama_cpp


def counts(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt-tokens", type=counts, default=[512])
    parser.add_argument("--decode-tokens", type=counts, default=[128])
    parser.add_argument("--depth", type=counts, default=[0])
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()

    quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(quiet, None)
    llama_cpp.llama_backend_init()
    start = time.perf_counter()
    model = llama_cpp.llama_model_load_from_file(
        options.model.encode(), llama_cpp.llama_model_default_params()
    )
    settings = llama_cpp.llama_context_default_params()
    settings.n_ctx = max(options.depth) + max(options.prompt_tokens + options.decode_tokens) + 64
    settings.n_batch = settings.n_ubatch = 512
    settings.n_threads = settings.n_threads_batch = options.threads
    context = llama_cpp.llama_init_from_model(model, settings)
    load_seconds = time.perf_counter() - start
    memory = llama_cpp.llama_get_memory(context)
    vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))

    def decode(begin: int, count: int) -> None:
        tokens = [(position * 7919 + 1) % vocab for position in range(begin, begin + count)]
        array = (llama_cpp.llama_token * count)(*tokens)
        if llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(array, count)) != 0:
            raise RuntimeError("llama_decode failed")

    def run(depth: int, tokens: int, chunk: int) -> float:
        """Seconds for ``tokens`` tokens after ``depth`` cached ones."""
        llama_cpp.llama_memory_seq_rm(memory, 0, depth, -1)
        start = time.perf_counter()
        for begin in range(depth, depth + tokens, chunk):
            decode(begin, min(chunk, depth + tokens - begin))
        llama_cpp.llama_synchronize(context)
        return time.perf_counter() - start

    rows = []
    for depth in options.depth:
        llama_cpp.llama_memory_clear(memory, True)
        for begin in range(0, depth, 512):
            decode(begin, min(512, depth - begin))
        jobs = [("prefill", tokens, 512) for tokens in options.prompt_tokens]
        jobs += [("decode", tokens, 1) for tokens in options.decode_tokens]
        for kind, tokens, chunk in jobs:
            seconds = sorted(run(depth, tokens, chunk) for _ in range(options.repeat + 1))
            rows.append(
                {
                    "kind": kind,
                    "tokens": tokens,
                    "depth": depth,
                    "threads": options.threads,
                    "tokens_per_second": tokens / seconds[options.repeat // 2],
                }
            )
    print(json.dumps({"rows": rows, "load_seconds": load_seconds}))


if __name__ == "__main__":
    main()
