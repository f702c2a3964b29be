"""Many clients at once: throughput and waiting, with a shared beginning of prompts and without,
beside llama.cpp's server or another one.

    python benchmarks/serving.py [--models smollm2-135m,llama3.2-1b] [--clients 1,2,4,8,16]
                                 [--seconds 60] [--slots 8] [--context 4096] [--threads 2]
    python benchmarks/serving.py --avx2 ...
    python benchmarks/serving.py --model FILE|NAME [--peer URL] ...

The first way starts both servers, with equal slots, context and threads, and writes a section of
docs/performance.md for each model, if nothing but the models is chosen; the second does so with
kernels for AVX2 on both sides, as on processors without VNNI, and with fewer numbers of clients;
the third asks a peer that runs already, and prints. The two are asked in turn, each idle while the
other works. Clients are closed loops: each asks for `TOKENS` tokens, reads them as a stream, and
asks again. They are one process of raw connections, so that they take little of the machine.
Prompts have some `WORDS` words; "shared" ones begin with the same, but for a question at their end,
"different" ones have nothing in common.
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

sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))

from document import replace_section, table, where
from llama_server import files, llama_server
from programs import MODELS, SMOLLM2
from served import served

WORDS = 380  # about 870 tokens of SmolLM2
TOKENS = 64
SERVED = (SMOLLM2, "llama3.2-1b")
KINDS = ("shared", "different")
CLIENTS, CLIENTS_AVX2 = "1,2,4,8,16", "4,8"
JUDGED = 8  # clients
# Times the peer's tokens a second at least, and its 95 % quantile of the first token at most.
BARS = {"shared": (5.0, 0.5), "different": (2.0, 0.5)}
WAITS = ("first token p50 / p95 / p99, ms", "between p50 / p95 / p99, ms")
ROW = ("prompts", "clients", "server", "tokens/s", *WAITS, "cached")
RATIO = ("prompts", "clients", "tokens/s", "first token, p95", "between, p95")
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

    @property
    def rate(self) -> float:
        """Tokens a second, of all clients."""
        return self.tokens / self.seconds


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
    parser.add_argument("--models", default=",".join(SERVED))
    parser.add_argument("--model", metavar="FILE|NAME", help="beside what runs at --peer")
    parser.add_argument("--peer", metavar="URL", help="another server, with as many slots")
    parser.add_argument("--clients", help=f"default: {CLIENTS}; with --avx2: {CLIENTS_AVX2}")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--avx2", action="store_true", help="our AVX2 kernels beside llama.cpp's")
    options = parser.parse_args()
    if unknown := [name for name in options.models.split(",") if name not in MODELS]:
        parser.error(f"--models: {unknown[0]!r} is none of {', '.join(MODELS)}")
    if options.avx2:
        os.environ["EDGE_LLM_ISA"] = "avx2"  # ours
    if options.model is not None:
        print(compared(options.model, options.peer, "peer", options))
        return
    chosen = {"models": parser.get_default("models"), "avx2": False}
    whole = vars(options) | chosen == vars(parser.parse_args([]))
    kernels = "-avx2" if options.avx2 else ""
    for model in options.models.split(","):
        ours, theirs = files(model)
        slots = (options.threads, options.slots, options.context)
        with llama_server(theirs, *slots, avx2=options.avx2) as peer:
            body = compared(str(ours), peer, f"llama.cpp, {theirs.name}", options)
            title = f"{MODELS[model]}, many clients{', AVX2 kernels' if options.avx2 else ''}"
            text = f"## {title}\n\n{body}"
        print(text)
        if whole:
            replace_section(f"serving{kernels}-{model}", text)


def compared(model: str, peer: str | None, called: str, options: argparse.Namespace) -> str:
    """Return the tables of what clients get of our server, and of the one at ``peer``."""
    slots = ("--max-sequences", str(options.slots), "--context", str(options.context))
    given = options.clients or (CLIENTS_AVX2 if options.avx2 else CLIENTS)
    counts = [int(count) for count in given.split(",")]
    rows, ratios = [], []
    with served(model, options.threads, *slots) as url:
        servers = {"edge-llm": url} | ({called: peer} if peer else {})
        for address in servers.values():  # warm
            asyncio.run(clients(address, "different", 1, 0.1, 99))
        for kind in KINDS:
            for number, count in enumerate(counts):
                cells = {}
                for name, address in servers.items():
                    cell = asyncio.run(clients(address, kind, count, options.seconds, number))
                    cells[name] = cell
                    rows.append(row_of(kind, count, name, cell))
                    print("  ".join(rows[-1]), file=sys.stderr)
                if peer:
                    ratios.append(ratio_of(kind, count, *cells.values()))
    setting = (
        f"{options.slots} slots of {options.context} tokens, {options.threads} threads, "
        f"{options.seconds:.0f} s a cell, answers of {TOKENS} tokens."
    )
    parts = [f"{where()} {setting}", table(ROW, rows)]
    if ratios:
        words = (
            "Ours beside the peer's: tokens a second (more is better), and the 95 % quantiles of "
            "waiting (less is better)."
        )
        parts += [words, table(RATIO, ratios)]
    return "\n\n".join(parts)


def row_of(kind: str, count: int, name: str, cell: Cell) -> list[str]:
    times = [
        " / ".join(f"{quantile(found, share):.0f}" for share in (0.5, 0.95, 0.99))
        for found in (cell.first, cell.between)
    ]
    share = f"{cell.cached / max(cell.prompt, 1):.0%}"
    return [kind, str(count), name, f"{cell.rate:.0f}", *times, share]


def ratio_of(kind: str, count: int, ours: Cell, theirs: Cell) -> list[str]:
    """Return how ours compares, and how it passes the bars of `BARS`."""
    rate = ours.rate / theirs.rate
    first, between = (
        quantile(mine, 0.95) / max(quantile(other, 0.95), 1e-3)
        for mine, other in ((ours.first, theirs.first), (ours.between, theirs.between))
    )
    texts = [f"{rate:.2f}", f"{first:.2f}", f"{between:.2f}"]
    if count == JUDGED:
        most, least = BARS[kind]
        texts[0] += f" (bar {most}: {'pass' if rate >= most else 'miss'})"
        texts[1] += f" (bar {least}: {'pass' if first <= least else 'miss'})"
    return [kind, str(count), *texts]


if __name__ == "__main__":
    main()
