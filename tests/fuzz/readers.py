"""Reads an input as a user of the package would, and checks what an accepted one promises."""

from __future__ import annotations

import math
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any

import numpy as np

# --- program files --------------------------------------------------------------------------------


def read_program(folder: Path) -> None:
    """Opens the file and, if it is accepted, uses its tokenizer and runs two steps of what it says.
    Each row gives a token of the vocabulary, or says that its logits are not finite."""
    from edge_llm.program.file import Program
    from edge_llm.runner.backends.registry import block_tables, open_executor
    from edge_llm.runner.executor import Batch, Limits, RowSampler
    from edge_llm.runner.sampling import SamplingParams
    from edge_llm.tokenizers.tokenizer import tokenizer_of

    with Program.open(folder / "input.edge") as program:
        _use_tokenizer(tokenizer_of(program))
        limits = Limits(
            max_tokens=8,
            max_rows=8,
            max_sequences=1,
            blocks=(2 if program.plan.context > 64 else 1,) * len(program.plan.groups),
            kv_dtype=program.documents.model.kv_dtype,
            threads=1,
        )
        executor = open_executor(program, limits)
        sampler = RowSampler(SamplingParams(), 1, 1, np.zeros(1, np.int32), 1)
        tables = block_tables(limits.blocks)
        try:
            for position, count in ((0, min(5, program.plan.context)), (1, 1)):
                if position >= program.plan.context:
                    break
                result = executor.step(
                    Batch(
                        tokens=np.zeros(count, np.int32),
                        positions=np.arange(position, position + count, dtype=np.int32),
                        sequences=np.zeros(count, np.int32),
                        rows=np.arange(count, dtype=np.int32),
                        block_tables=tables,
                        samplers=[sampler] * count,
                        want_logits=True,
                    )
                )
                assert result.logits is not None
                for token_id, error, row in zip(
                    result.ids, result.errors, result.logits, strict=True
                ):
                    if error is None:
                        assert 0 <= token_id < program.documents.tokenizer.size, token_id
                    else:
                        assert not np.isfinite(row).all(), error
        finally:
            executor.close()


def prepare_program() -> None:
    import edge_llm.program.file
    import edge_llm.runner.backends.native
    import edge_llm.tokenizers.stream
    import edge_llm.tokenizers.tokenizer  # noqa: F401


# --- checkpoints ----------------------------------------------------------------------------------


def read_checkpoint(folder: Path) -> None:
    """Opens the checkpoint with its adapters, reads every tensor, and makes its tokenizer."""
    import numpy as np

    from edge_llm.llm.checkpoints.arrays import FLOATS
    from edge_llm.llm.checkpoints.huggingface.adapters import with_adapters
    from edge_llm.llm.checkpoints.open import open_checkpoint
    from edge_llm.llm.checkpoints.source import TokenizerDirectory
    from edge_llm.tokenizers.readers.convert import from_directory, from_gguf

    files = sorted(folder.glob("*.gguf"))
    checkpoint = open_checkpoint(files[0] if files else folder)
    if (folder / "adapter_config.json").is_file():
        checkpoint = with_adapters(checkpoint, [(folder, 0.5)])
    for name, shape in checkpoint.shapes.items():
        tensor = checkpoint.tensor(name)
        assert tensor.shape == shape, (name, tensor.shape, shape)
        assert tensor.dtype in FLOATS, tensor.dtype
        if name in checkpoint.integer_formats:
            integers = checkpoint.integers(name)
            assert integers.format == checkpoint.integer_formats[name], name
            exact = name not in checkpoint.inexact
            assert not exact or np.array_equal(integers.dequantize(), tensor), name
    source = checkpoint.tokenizer
    if isinstance(source, TokenizerDirectory):
        from_directory(source.path)
    else:
        from_gguf(source.values)


def prepare_checkpoint() -> None:
    import edge_llm.llm.checkpoints.huggingface.adapters
    import edge_llm.llm.checkpoints.open
    import edge_llm.tokenizers.readers.convert  # noqa: F401


# --- tokenizers and templates ---------------------------------------------------------------------

TEXT = "the and the Hello, wörld!  12345\n\t<|im_end|> naïve 日本語 \U0001f469\u200d\U0001f680 ½ "
TEXT += "a" * 60 + "!\n" + "(" * 300  # what patterns may take exponential time for


def read_tokenizer(folder: Path) -> None:
    """Converts the files, and loads and uses what goes into a program."""
    from edge_llm.tokenizers.readers.convert import from_directory
    from edge_llm.tokenizers.tokenizer import Tokenizer

    document = from_directory(folder)
    _use_tokenizer(Tokenizer(document.json, document.facts))


def _use_tokenizer(tokenizer: Any) -> None:
    """Every id has a place in the vocabulary, and text in pieces is text at once."""
    from edge_llm.tokenizers.stream import TextDecoder

    ids = tokenizer.encode(TEXT)
    assert all(0 <= token_id < tokenizer.size for token_id in ids), ids
    tokenizer.encode_marked(TEXT)
    ids += [0, tokenizer.size - 1]
    stream = TextDecoder(tokenizer)
    pieces = [stream.push(token_id) for token_id in ids]
    assert "".join([*pieces, stream.finish()]) == tokenizer.decode(ids)


def prepare_tokenizer() -> None:
    import edge_llm.tokenizers.readers.convert
    import edge_llm.tokenizers.stream  # noqa: F401


def prepare_tiktoken() -> None:
    """Files of 300 ranks pass for a known kind; real ones have 128,000 and take a second each."""
    from edge_llm.tokenizers.readers import tiktoken_file

    prepare_tokenizer()
    layouts: Any = tiktoken_file._LAYOUTS
    layouts[300] = layouts[128_000]


SECONDS = 0.5  # for one template; the limit of a real one is longer
MESSAGES: list[Mapping[str, Any]] = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "héllo"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"function": {"name": "f", "arguments": {"x": [1, None, "<|im_end|>", math.pi]}}}
        ],
    },
    {"role": "tool", "content": "42", "name": "f"},
]


def read_template(folder: Path) -> None:
    from edge_llm.tokenizers.chat.template import ChatTemplate

    source = (folder / "chat_template.jinja").read_text(encoding="utf-8", errors="replace")
    template = ChatTemplate(source, bos="<s>", eos="</s>", seconds=SECONDS)
    function = {"type": "function", "function": {"name": "f", "parameters": {}}}
    tools = [function] if "tools" in source else None
    text = template.render(MESSAGES, tools=tools, enable_thinking=True, x="héllo", y=[1])
    assert isinstance(text, str)


def prepare_template() -> None:
    import edge_llm.tokenizers.chat.template  # noqa: F401


# --- recipes --------------------------------------------------------------------------------------


def read_recipe(folder: Path) -> None:
    from edge_llm.export.recipes.file import load_recipe

    recipe = load_recipe(folder / "recipe.yaml")
    recipe.format_for("model.layers.0.self_attn.q_proj.weight", "linear")
    recipe.kv_format()
    recipe.to_json()


def prepare_recipe() -> None:
    import edge_llm.export.recipes.recipe  # noqa: F401


# --- HTTP -----------------------------------------------------------------------------------------


def read_request(folder: Path) -> None:
    """The body of a request up to where the engine takes over; a refusal is a 4xx that can be
    written as JSON."""
    import json

    from starlette.requests import Request

    from edge_llm.errors import RequestError
    from edge_llm.server.body import read_request as read
    from edge_llm.server.errors import ApiError, error_body
    from edge_llm.server.openai.schemas import ChatRequest, CompletionRequest
    from edge_llm.server.options import ServerOptions
    from edge_llm.server.requests.validation import check_sampling

    (file,) = folder.iterdir()
    data = file.read_bytes()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": data, "more_body": False}

    headers = [(b"content-type", b"application/json")]
    request = Request({"type": "http", "headers": headers}, receive)
    kind: Any = ChatRequest if file.name == "chat.json" else CompletionRequest
    refusal: ApiError | None = None
    try:
        checked, ignored = _finished(read(kind, request, ServerOptions(max_body=2**20)))
        check_sampling(checked, least_tokens=0)
        json.dumps(ignored).encode()
    except ApiError as exc:
        refusal = exc
    if refusal is not None:
        assert 400 <= refusal.status < 500, refusal.status
        assert json.dumps(error_body(refusal))
        raise RequestError(refusal.message)


def _finished(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that never has to wait."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")


def prepare_request() -> None:
    import logging

    import edge_llm.server.body
    import edge_llm.server.requests.validation  # noqa: F401

    logging.disable()
