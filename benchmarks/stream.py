"""One stream through HTTP beside the bare executor, on one program.

    python benchmarks/stream.py --model FILE|NAME [--threads 2] [--tokens 256] [--rounds 5]

A server and `edge-llm bench` take turns. The client is a bare socket that only notes when bytes
come. Speed is that between the first and the last token; gaps are those between two reads.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from typing import Any
from urllib.parse import urlsplit

from served import served

PROMPT = "Write a long story about a lighthouse keeper who loses his notebook."
SCHEMA = {"type": "array", "items": {"type": "string", "maxLength": 40}, "minItems": 1000}
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "with a schema": {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "list", "strict": True, "schema": SCHEMA},
        }
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, metavar="FILE|NAME")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rates: dict[str, list[float]] = {name: [] for name in ("bench", *WAYS)}
    gaps: dict[str, list[float]] = {name: [] for name in WAYS}
    with served(options.model, options.threads) as url:
        stream(url, 8, {})  # warms up
        for _ in range(options.rounds):
            rates["bench"].append(bench(options.model, options.threads, options.tokens))
            for name, way in WAYS.items():
                times = stream(url, options.tokens, way)
                rates[name].append((options.tokens - 1) / (times[-1] - times[0]))
                gaps[name] += [b - a for a, b in itertools.pairwise(times)]
    bare = statistics.median(rates["bench"])
    print(f"bench: {bare:.1f} tokens/s, a step {1000 / bare:.2f} ms")
    for name in WAYS:
        rate = statistics.median(rates[name])
        ordered = sorted(gaps[name])
        print(
            f"{name}: {rate:.1f} tokens/s, {rate / bare:.3f} of it; gaps: median "
            f"{1000 * statistics.median(ordered):.2f} ms, 99th percentile "
            f"{1000 * ordered[int(0.99 * len(ordered))]:.2f} ms"
        )


def bench(model: str, threads: int, tokens: int) -> float:
    """Return the tokens a second that the executor alone decodes."""
    command = [sys.executable, "-m", "edge_llm.cli.main", "bench", "--model", model, "--json"]
    command += ["--threads", str(threads), "--prompt-tokens", "16", "--depth", "64"]
    command += ["--decode-tokens", str(tokens), "--repeat", "1"]
    rows = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    [row] = [row for row in rows["rows"] if row["kind"] == "decode"]
    return float(row["tokens_per_second"])


def stream(url: str, tokens: int, way: dict[str, Any]) -> list[float]:
    """Return when the parts of a streamed answer of ``tokens`` tokens came."""
    body = json.dumps(
        {
            "messages": [{"role": "user", "content": PROMPT}],
            "stream": True,
            "max_tokens": tokens,
            "ignore_eos": True,
            "seed": 1,
            **way,
        }
    ).encode()
    address = urlsplit(url)
    times: list[float] = []
    data = bytearray()
    with socket.create_connection((str(address.hostname), int(address.port or 80))) as connection:
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        while part := connection.recv(1 << 16):
            data += part
            if data.count(b"data: ") > 1 and b"data: [DONE]" not in part:
                times.append(time.perf_counter())  # behind the headers and the role
    if b"data: [DONE]" not in data or len(times) < 2:
        raise SystemExit(bytes(data).decode(errors="replace"))
    return times


if __name__ == "__main__":
    main()
