"""Serves a program whose model says what `script.py` says: ``serve.py PROGRAM [KEY]``;
with a key, unknown parameters are refused too.

Prints the address as ``edge-llm serve --port 0`` does.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from executor import ScriptedExecutor
from script import answer

from edge_llm.api import LLM
from edge_llm.program.file import Program
from edge_llm.runner.config import RunnerConfig
from edge_llm.runner.engine.engine import Engine
from edge_llm.runner.engine.requests import EngineFacts
from edge_llm.runner.executor import Limits
from edge_llm.server.models.offer import Offer
from edge_llm.server.models.programs import ServedProgram, offers_of
from edge_llm.server.options import ServerOptions
from edge_llm.server.run import Stop, address, bind, run
from edge_llm.tokenizers.tokenizer import tokenizer_of

CONTEXT, BLOCK, SEQUENCES = 32_768, 16, 8


def load(path: Path) -> LLM:
    program = Program.open(path)
    tokenizer = tokenizer_of(program)
    stop_ids = frozenset(program.documents.generation.stop_ids)
    limits = Limits(
        max_tokens=4096,
        max_rows=256,
        max_sequences=SEQUENCES,
        blocks=(SEQUENCES * CONTEXT // BLOCK,),
        kv_dtype="f32",
        context=CONTEXT,
    )
    end = tokenizer.facts.eos_id
    assert end in stop_ids
    facts = EngineFacts(
        context=CONTEXT,
        vocab=program.plan.vocab,
        block_size=BLOCK,
        stop_ids=stop_ids,
        sampleable=tokenizer.facts.size,
        windows=(0,),
    )
    return LLM(program, Engine(ScriptedExecutor(limits, tokenizer, end, answer), facts), tokenizer)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    path = Path(sys.argv[1])
    key = sys.argv[2] if len(sys.argv) > 2 else None
    options = ServerOptions(port=0, api_key=key, strict=key is not None)
    with bind(options) as listener:
        url = address(options.host, listener)

        def announce(offers: Sequence[Offer]) -> None:
            print(json.dumps({"url": url, "model": offers[0].name}), flush=True)

        async def serve() -> None:
            [own] = offers_of([ServedProgram(path, RunnerConfig())])
            own.load = lambda: load(path)
            await run([own], options, listener, announce, Stop())

        asyncio.run(serve())


main()
