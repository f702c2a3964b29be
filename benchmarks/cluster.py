"""Two nodes behind Ray Serve beside one, and routing by prefix beside Ray's own.

    $(python tools/cluster.py --python) benchmarks/cluster.py --model FILE [--seconds 30]
                                        [--clients 8] [--rounds 3] [--quick]

Each node has one core of this machine, and a replica with one thread. Prompts are of some
380 words: "different" ones have nothing in common, "groups" are of eight kinds, as of eight
applications, that begin alike. Ways take turns within a round; medians count. What passes requests
and tokens on (Ray's proxies, and our entrances) is counted apart, in processor time. Writes a
section of docs/scaling.md, unless --quick is given.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import ray
from document import ROOT, replace_section, table, where
from ray import serve
from ray.cluster_utils import Cluster
from serving import WORDS, Cell, ask, quantile, text_of

from edge_llm.server.cluster.application import ClusterOptions, build
from edge_llm.server.cluster.prefixes import Affinity, prefix_of

PORT = 8741
GROUPS = 8
MANY = 100  # replicas
RAYS = "ray.serve._private.request_router:PowerOfTwoChoicesRequestRouter"
PASSING = (b"ProxyActor", b"Entrance")  # in the titles of processes that pass things on
WAYS = {"one node": (1, False), "two nodes": (2, False), "two nodes, Ray's routing": (2, True)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, metavar="FILE")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="print, and write no document")
    options = parser.parse_args()
    found: dict[tuple[str, str], list[Cell]] = {}
    passed: dict[tuple[str, str], list[float]] = {}
    with nodes():
        for number in range(options.rounds):
            for way, (replicas, rays) in WAYS.items():
                with application(options.model, replicas, rays) as url:
                    for kind in ("different", "groups"):
                        before = passing_seconds()
                        cell = asyncio.run(
                            clients(url, kind, options.clients, options.seconds, number)
                        )
                        found.setdefault((kind, way), []).append(cell)
                        spent = passing_seconds() - before
                        passed.setdefault((kind, way), []).append(spent / cell.tokens)
    rows = []
    for (kind, way), cells in sorted(found.items(), key=lambda entry: entry[0][0]):
        rate = statistics.median(cell.tokens / cell.seconds for cell in cells)
        first = statistics.median(quantile(cell.first, 0.5) for cell in cells)
        late = statistics.median(quantile(cell.first, 0.95) for cell in cells)
        cached = statistics.median(cell.cached / max(cell.prompt, 1) for cell in cells)
        waits = f"{first:.0f} / {late:.0f}"
        cost = f"{1e3 * statistics.median(passed[kind, way]):.2f}"
        rows.append([kind, way, f"{rate:.0f}", waits, f"{cached:.0%}", cost])
    head = ["prompts", "", "tokens/s", "first token p50 / p95, ms", "cached"]
    head.append("passing on, processor ms a token")
    text = (
        f"{where()} {options.clients} clients, {Path(options.model).name}.\n\n{table(head, rows)}\n"
        f"To choose among {MANY} replicas takes {1e3 * choosing_seconds():.2f} ms a request."
    )
    print(text)
    if not options.quick:
        replace_section("cluster", text, ROOT / "docs" / "scaling.md")


def choosing_seconds() -> float:
    """Return what it takes to find the prefix of a request and to rank `MANY` replicas by it."""
    affinity, loads = Affinity(), {f"replica {number}": number % 5 for number in range(MANY)}
    bodies = []
    for number in range(500):
        said = text_of(random.Random(number), WORDS)
        bodies.append(json.dumps({"messages": [{"role": "user", "content": said}]}).encode())
    began = time.perf_counter()
    for body in bodies:
        prefix = prefix_of("/v1/chat/completions", body)
        affinity.routed(prefix, affinity.ranked(prefix, loads)[0])
    return (time.perf_counter() - began) / len(bodies)


def passing_seconds() -> float:
    """Return the processor time that the processes which pass things on have taken so far."""
    ticks = 0
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            if any(title in (process / "cmdline").read_bytes() for title in PASSING):
                fields = (process / "stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])  # in user space, in the system
    return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def nodes() -> Iterator[None]:
    """Run a cluster of two nodes of one core each."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": PORT})
        yield
    finally:
        serve.shutdown()
        ray.shutdown()
        cluster.shutdown()


@contextmanager
def application(model: str, replicas: int, rays: bool) -> Iterator[str]:
    """Run so many replicas, each on a node of its own; give the address."""
    made = build(ClusterOptions(programs=[model], no_auth=True, context=2048))
    entrance = made._bound_deployment
    bound = entrance.init_args[1]
    options = {"num_replicas": replicas, "ray_actor_options": {"num_cpus": 1}}
    if rays:
        options["request_router_config"] = {"request_router_class": RAYS}
    bound._bound_deployment = bound._bound_deployment.options(**options)
    made._bound_deployment = entrance.options(ray_actor_options={"num_cpus": 0})
    serve.run(made)
    try:
        yield f"http://127.0.0.1:{PORT}"
    finally:
        serve.delete("default")


async def clients(url: str, kind: str, count: int, seconds: float, salt: int) -> Cell:
    """Return what so many clients saw for so long; answers that have begun are waited for."""
    cell, address, began = Cell(), urlsplit(url), time.perf_counter()

    async def loop(client: int) -> None:
        turn = 0
        while time.perf_counter() - began < seconds:
            own = random.Random(f"{salt} {client} {turn}")
            group = random.Random(f"{salt} {own.randrange(GROUPS)}")
            body = text_of(group if kind == "groups" else own, WORDS)
            await ask(address, f"{body}\n\nWhat is {text_of(own, 6)}?", cell)
            turn += 1

    await asyncio.gather(*(loop(client) for client in range(count)))
    cell.seconds = time.perf_counter() - began
    return cell


if __name__ == "__main__":
    main()
