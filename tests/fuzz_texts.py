"""Good texts of the kinds that tests/fuzz damages: templates, recipes, requests, tokenizers."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sentencepiece_models
from fixtures_checkpoints import CHAT_TEMPLATE

_TEMPLATE = """{%- set ns = namespace(tools=[]) -%}
{% macro call(t) %}{{ t.function.name }}({{ t.function.arguments | tojson }}){% endmacro %}
{% if tools %}{{ '<tools>' ~ (tools | tojson(indent=2)) ~ '</tools>' }}{% endif %}
{% for message in messages -%}
{% if message.role == 'critic' %}{{ raise_exception('role') }}{% endif %}
{% if loop.first and message['role'] == 'system' %}{% continue %}{% endif %}
{{ bos_token if loop.first }}<|{{ message.role }}|>{{ (message.content or '') | trim }}
{% generation %}{% for t in message.tool_calls or [] %}{{ call(t) }}{% endfor %}{% endgeneration %}
{{- '<|end|>' * (1 if not loop.last else 2) }}{% endfor %}{{ strftime_now('%d %b %Y') }}
{{ messages[-1].content.split(' ')[:3] | join(', ') }}{{ '%05d' % loop_count|default(3) }}
"""
TEMPLATES = {"all": _TEMPLATE, "plain": CHAT_TEMPLATE}
CHAT: dict[str, Any] = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "be brief"},
        {"role": "user", "name": "u", "content": [{"type": "text", "text": "h\u00e9llo"}]},
        {"role": "assistant", "content": None},
    ],
    "max_completion_tokens": 9,
    "temperature": 0.5,
    "top_p": 0.9,
    "logprobs": True,
    "top_logprobs": 3,
    "logit_bias": {"5": -100, "17": 2.5},
    "stop": ["a", "b"],
    "stream": True,
    "stream_options": {"include_usage": True},
    "seed": 3,
    "chat_template_kwargs": {"enable_thinking": True},
    "response_format": {"type": "text"},
    "user": "x",
}
COMPLETION: dict[str, Any] = {
    "model": "m",
    "prompt": ["a", "b"],
    "max_tokens": 5,
    "echo": True,
    "n": 2,
    "logprobs": 2,
    "presence_penalty": 0.5,
    "top_k": 4,
    "stop": "x",
}
RECIPE = """# all keys
model: some/where
scheme: 8da4w
group_size: 32
head: f16
overrides: {"*layers.0.*": i8, "*lm_head*": f32}
scale_rule: hqq
requantize: false
context: 128
kv_dtype: i8
adapters: [{path: lora, weight: 0.5}, {path: other}]
gate: {max_kl: 1e-3, min_top1: 0.9}
verify: yes
"""


def _pieces() -> list[tuple[str, float, int]]:
    words = ("▁", "▁a", "th", "▁th", "he", "▁the", "lo", "llo", "ello", "aa", "aaaa", "12")
    letters = "abcdefghijklmnopqrstuvwxyzHw"
    pieces = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)]
    pieces += [(f"<0x{byte:02X}>", 0.0, 6) for byte in range(256)]
    pieces += [(word, -float(rank), 1) for rank, word in enumerate((*words, *letters))]
    return pieces[:288]


PIECES = _pieces()


def write_tokenizers(new: Callable[[str, str], Path]) -> None:
    """A SentencePiece model as a protocol buffer and as tokenizer.json, and a tiktoken file."""
    from edge_llm.tokenizers.readers.convert import from_directory

    settings = {
        "bos_token": {"content": "<s>", "special": True},
        "eos_token": "</s>",
        "add_bos_token": True,
        "legacy": False,
        "added_tokens_decoder": {"300": {"content": "<|im_end|>", "special": True}},
        "chat_template": [{"name": "default", "template": CHAT_TEMPLATE}],
    }
    folder = new("sentencepiece", "model")
    (folder / "tokenizer.model").write_bytes(sentencepiece_models.model(PIECES))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    whole = new("tokenizer", "sentencepiece")
    (whole / "tokenizer.json").write_bytes(from_directory(folder).json)
    del settings["added_tokens_decoder"]
    (whole / "tokenizer_config.json").write_text(json.dumps(settings))
    (whole / "special_tokens_map.json").write_text('{"unk_token": "<unk>", "bos_token": "<s>"}')
    (whole / "added_tokens.json").write_text('{"<|im_end|>": 300}')

    tokens = [bytes([byte]) for byte in range(256)]
    tokens += [b"th", b"he", b"the", b" the", b"aa", b"aaaa", b"lo", b"llo", b"ello", b"12"]
    tokens += [b"x%d" % number for number in range(300 - len(tokens))]
    lines = [base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(tokens)]
    (new("tiktoken", "ranks") / "input.tiktoken").write_bytes(b"".join(lines))
