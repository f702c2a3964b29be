"""Many clients at once: throughput and waiting, with a shared beginning of prompts and without,
beside another server.

    python benchmarks/serving.py --model FILE|NAME [--peer URL] [--clients 1,2,4,8,16]
                                 [--seconds 60] [--slots 8] [--context 4096] [--output FILE]

Our server is started here; the peer runs already, with as many slots and as much context, and is
asked in turn with ours, each idle while the other works. Clients are closed loops: each asks for
`TOKENS` tokens, reads them as a stream, and asks again. The clients are one process of raw
connections, so that they take little of the machine. Prompts have some `WORDS` words; "shared" ones
begin with the same, but for a question at their end, "different" ones have nothing in common.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from document import table, where
from served import served

WORDS = 380  # about 500 tokens
TOKENS = 64
SYLLABLES = ("ka", "lo", "mi", "ren", "tor", "vas", "el", "nu", "pri", "sha", "den", "or", "quen")


@dataclass(slots=True)
class Cell:
    """The figures that a number of clients saw of a server; times in seconds."""

    first: list[float] = field(default_factory=list)
    between: list[float] = field(default_factory=list)
    tokens: int = 0
    prompt: int = 0
    cached: int = 0
    seconds: float = 0.0


def text_of(source: random.Random, words: int) -> str:
    """Return that many words of a language of nowhere."""
    return " ".join(
        "".join(source.choices(SYLLABLES, k=source.randint(1, 3))) for _ in range(words)
    )


def prompt_of(kind: str, client: int, turn: int) -> str:
    """Return a prompt; no two of them are equal."""
    own = random.Random(f"{kind} {client} {turn}")
    body = text_of(random.Random(1) if kind == "shared" else own, WORDS)
    return f"{body}\n\nWhat is {text_of(own, 6)}?"


async def ask(address: Any, prompt: str, cell: Cell) -> None:
    """Read one streamed answer, and note when its parts came."""
    body = json.dumps(
        {
            "messages": [{"role": "user", "content": prompt}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": TOKENS,
            "temperature": 0,
            "ignore_eos": True,
            "cache_prompt": True,
        }
    ).encode()
    reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=2**22)
    try:
        began = last = time.perf_counter()
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        first, usage = True, None
        async for line in reader:
            if not line.startswith(b"data: {"):
                continue
            chunk = json.loads(line[6:])
            usage = chunk.get("usage") or usage
            choices = chunk.get("choices")
            if not choices or not choices[0]["delta"].get("content"):
                continue
            now = time.perf_counter()
            (cell.first if first else cell.between).append(now - (began if first else last))
            first, last = False, now
    finally:
        writer.close()
    if usage is None or first:
        raise SystemExit("a server ended a stream without an answer or its usage")
    cell.tokens += usage["completion_tokens"]
    cell.prompt += usage["prompt_tokens"]
    cell.cached += (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0


async def clients(url: str, kind: str, count: int, seconds: float, salt: int) -> Cell:
    """Return what so many clients saw for so long; answers that have begun are waited for."""
    cell, address = Cell(), urlsplit(url)
    began = time.perf_counter()

    async def loop(client: int) -> None:
        turn = 0
        while time.perf_counter() - began < seconds:
            await ask(address, prompt_of(kind, 1000 * salt + client, turn), cell)
            turn += 1

    await asyncio.gather(*(loop(client) for client in range(count)))
    cell.seconds = time.perf_counter() - began
    return cell


def quantile(times: list[float], share: float) -> float:
    """Return a quantile in milliseconds."""
    ordered = sorted(times) or [0.0]
    return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, metavar="FILE|NAME")
    parser.add_argument("--peer", metavar="URL", help="another server, with as many slots")
    parser.add_argument("--clients", default="1,2,4,8,16")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--output", type=Path, help="write the table there too")
    options = parser.parse_args()
    head = ["prompts", "clients", "server", "tokens/s", "first token p50 / p95 / p99, ms"]
    head += ["between p50 / p95 / p99, ms", "cached"]
    rows = []
    slots = ("--max-sequences", str(options.slots), "--context", str(options.context))
    with served(options.model, options.threads, *slots) as url:
        servers = {"edge-llm": url, **({"peer": options.peer} if options.peer else {})}
        for address in servers.values():  # warm
            asyncio.run(clients(address, "different", 1, 0.1, 99))
        for kind in ("shared", "different"):
            for number, count in enumerate(map(int, options.clients.split(","))):
                for name, address in servers.items():
                    cell = asyncio.run(clients(address, kind, count, options.seconds, number))
                    rows.append(row_of(kind, count, name, cell))
                    print("  ".join(rows[-1]), file=sys.stderr)
    text = f"{where('')}\n\n{table(head, rows)}"
    print(text)
    if options.output is not None:
        options.output.write_text(text, encoding="utf-8")


def row_of(kind: str, count: int, name: str, cell: Cell) -> list[str]:
    times = [
        " / ".join(f"{quantile(found, share):.0f}" for share in (0.5, 0.95, 0.99))
        for found in (cell.first, cell.between)
    ]
    rate = f"{cell.tokens / cell.seconds:.0f}"
    return [kind, str(count), name, rate, *times, f"{cell.cached / max(cell.prompt, 1):.0%}"]


if __name__ == "__main__":
    main()
