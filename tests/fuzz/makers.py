"""Makes one damaged input of a kind under a folder, from good ones.

A seed is a folder of files, SEEDS/TARGET/NAME. Each maker copies one and damages a file in it, on
the level that its reader gets deep at: fields of headers, tokens of templates, opcodes of pickles.
Now and then it damages plain bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import yaml
from containers import (
    Field,
    join_gguf,
    join_protobuf,
    join_safetensors,
    join_zip,
    split_gguf,
    split_pickle,
    split_protobuf,
    split_safetensors,
    split_zip,
    varint,
)
from mutations import (
    dump,
    mutate_bytes,
    mutate_json,
    mutate_list,
    mutate_number,
    mutate_text,
)
from templates import mutate_template
from tokenizer_parts import with_other_parts

from edge_llm.program.container import DIGESTS_KEY, LENGTH_BYTES, documents_digest, pad_header

Make = Callable[[Random, Path, Path], None]
Damage = Callable[[Random, bytes, Sequence[bytes]], bytes]
RAW = 0.1  # of the inputs are damaged as plain bytes


def damaging(*names: str) -> Make:
    """Copies a seed and damages one of the files whose names end so, now and then two."""

    def make(random: Random, seeds: Path, folder: Path) -> None:
        source = random.choice(_listed(seeds))
        files = _listed(source)
        for file in files:
            os.link(file, folder / file.name)
        present = [file for file in files if file.name.endswith(names)]
        for file in random.sample(present, min(len(present), random.choice((1, 1, 1, 2)))):
            others = [_read(other / file.name) for other in _listed(seeds)]
            data = _damage(random, file.name, _read(file), [data for data in others if data])
            (folder / file.name).unlink()
            (folder / file.name).write_bytes(data)

    return make


_CACHE: dict[Path, Any] = {}


def _listed(folder: Path) -> list[Path]:
    if folder not in _CACHE:
        _CACHE[folder] = sorted(folder.iterdir())
    found: list[Path] = _CACHE[folder]
    return found


def _read(file: Path) -> bytes:
    if file not in _CACHE:
        _CACHE[file] = file.read_bytes() if file.is_file() else b""
    found: bytes = _CACHE[file]
    return found


def _damage(random: Random, name: str, data: bytes, others: Sequence[bytes]) -> bytes:
    damage = next((damage for ending, damage in _DAMAGES.items() if name.endswith(ending)), None)
    if damage is None or random.random() < RAW:
        return mutate_bytes(random, data, others, [])
    return damage(random, data, others)


def _json(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    return dump(mutate_json(random, json.loads(data), [json.loads(other) for other in others]))


def _yaml(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    if random.random() < 0.7:  # JSON is YAML
        changed = dump(mutate_json(random, _loaded(data), [_loaded(other) for other in others]))
        # The parser is slow; only some inputs shall be large.
        return (
            changed if len(changed) < 4096 or random.random() < 0.1 else _yaml(random, data, others)
        )
    words = ("&a ", "*a", "<<: *a", "- ", "[*a, *a, *a]", "!!python/object:os.system ", "!!set ")
    words += ("? ", "%YAML 9", "---\n", "!!binary ", "0x1p9", "1:30:00", "2001-01-01", "\n  ")
    texts = [other.decode() for other in others]
    return mutate_text(random, data.decode(), texts, words).encode()


def _safetensors(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    header, tensors = split_safetensors(data)
    if random.random() < 0.4:  # numbers of the tensors themselves
        return data[: -len(tensors)] + mutate_bytes(random, tensors, [tensors], _FLOATS)
    return join_safetensors(dump(mutate_json(random, header)), tensors)


def _tokenizer(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    if random.random() < 0.4:
        return _json(random, data, others)
    document = with_other_parts(random, json.loads(data))
    return dump(document if random.random() < 0.8 else mutate_json(random, document))


@cache
def _loaded(data: bytes) -> Any:
    return yaml.safe_load(data)


# Infinity, NaN and the largest number of each float, and zero.
_FLOATS = (b"\0\x7c", b"\1\x7c", b"\xff\x7b", b"\x80\x7f", b"\xc0\x7f", b"\0\0\x80\x7f", b"\0\0")


def _program(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """A document of the program changed, or its table of tensors, or a tensor; digests are made
    right again, since whoever writes a hostile file does that too."""
    header, tensors = split_safetensors(data)
    metadata: dict[str, str] = header["__metadata__"]
    digests = json.loads(metadata[DIGESTS_KEY])
    kind = random.random()
    if kind < 0.6:
        key = random.choice([key for key in metadata if key.startswith("edge_llm.")])
        key = "edge_llm.plan" if random.random() < 0.5 else key
        try:
            metadata[key] = dump(mutate_json(random, json.loads(metadata[key]))).decode()
        except ValueError:  # plain text: the version
            metadata[key] = mutate_text(random, metadata[key], [], ["1.0", "1.1", "2.0", "."])
    elif kind < 0.75:
        header = mutate_json(random, header)
    else:
        name = random.choice([name for name in header if name != "__metadata__"])
        begin, end = header[name]["data_offsets"]
        changed = _tensor(random, name, tensors[begin:end])
        tensors = tensors[:begin] + changed + tensors[end:]
        digests["tensors"][name] = hashlib.sha256(changed).hexdigest()
    found = header.get("__metadata__") if isinstance(header, dict) else None
    if isinstance(found, dict) and found.get(DIGESTS_KEY) == metadata[DIGESTS_KEY]:
        try:
            digests["documents"] = documents_digest(found)
            found[DIGESTS_KEY] = json.dumps(digests)
        except (TypeError, AttributeError, ValueError):
            pass  # beyond repair: let it be
    text = dump(header)
    size = -(-(LENGTH_BYTES + len(text)) // 64) * 64
    return pad_header(text, size) + tensors


def _tensor(random: Random, name: str, data: bytes) -> bytes:
    """As many bytes as before: the tokenizer's JSON as such, integers as integers."""
    if name in ("tokenizer.json", "tokenizer.skeleton") and random.random() < 0.7:
        text = _tokenizer(random, data.rstrip(b"\0"), [])
        return text[: len(data)].ljust(len(data), b" ")
    if name.startswith("tokenizer.") and len(data) % 4 == 0:
        result = bytearray(data)
        for _ in range(random.choice((1, 1, 3, 30))):
            at = random.randrange(0, len(data), 4)
            number = random.choice((0, 1, -1, random.randrange(300), 2**31 - 1, -(2**31)))
            result[at : at + 4] = number.to_bytes(4, "little", signed=True)
        return bytes(result)
    return mutate_bytes(random, data, [data], _FLOATS)[: len(data)].ljust(len(data), b"\0")


def _gguf(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    file = split_gguf(data)
    others_ = [split_gguf(other) for other in random.sample(others, min(2, len(others)))]
    kind = random.random()

    def of_tensor(tensor: list[Any]) -> list[Any]:
        name, dimensions, type_, offset = tensor
        match random.randrange(4):
            case 0:
                name = mutate_bytes(random, name, [other[0] for other in file.tensors], [])
            case 1:
                dimensions = mutate_list(
                    random, dimensions, lambda size: int(mutate_number(random, size)), [1, 0]
                )[:6]
            case 2:
                type_ = random.choice((*range(42), 2**31, 2**32 - 1))
            case _:
                offset = int(mutate_number(random, offset))
        return [name, dimensions, type_, offset]

    def of_value(value: Any) -> Any:
        if isinstance(value, bytes):
            return mutate_bytes(random, value, [], [b"llama", b"phi3", b"qwen2", b"default"])
        return mutate_number(random, value)

    def of_key(entry: list[Any]) -> list[Any]:
        key, type_, of_items, value = entry
        if random.random() < 0.1:
            key = mutate_bytes(random, key, [other[0] for other in file.metadata], [])
        elif random.random() < 0.1:
            type_ = random.randrange(14)
            value = value if isinstance(value, list) == (type_ == 9) else 1
        elif isinstance(value, list):
            value = mutate_list(random, value, of_value, value[:1])
        else:
            value = of_value(value)
        return [key, type_, of_items, value]

    if kind < 0.35:
        file.tensors = mutate_list(random, file.tensors, of_tensor, others_[0].tensors)
    elif kind < 0.8:
        metadata = [entry for other in others_ for entry in other.metadata]
        file.metadata = mutate_list(random, file.metadata, of_key, metadata)
    else:
        file.data = mutate_bytes(random, file.data, [file.data], _FLOATS)
    return join_gguf(file)


def _sentencepiece(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    def change(field: Field) -> Field:
        number, kind, value = field
        choice = random.random()
        if choice < 0.1:
            return [random.choice((1, 2, 3, 4, 5, 10, 24, 35, 40, 41, 42, 2**29)), kind, value]
        if choice < 0.15:
            return [number, random.randrange(8), varint(7) if kind == 0 else b"\1\1\1\1\1\1\1\1"]
        if isinstance(value, list):
            return [number, kind, mutate_list(random, value, change, value)]
        if isinstance(value, int):
            return [number, kind, int(mutate_number(random, value))]
        words = [
            b"\xe2\x96\x81",
            b"<0x41>",
            b"<s>",
            b"</s>",
            b"[INST]",
            b"\0\0\xc0\x7f",
            b"a" * 600,
        ]
        changed = mutate_bytes(random, value, [], words)
        fixed = {1: 8, 5: 4}.get(kind)
        return [number, kind, changed if fixed is None else changed[:fixed].ljust(fixed, b"\0")]

    fields = split_protobuf(data)
    return join_protobuf(mutate_list(random, fields, change, fields[-2:]))


def _tiktoken(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    words = [b"\n", b" ", b"=", b"AA==", b"IQ== 0", b"-1", b"\xd9\xa1", b"\0", b"\r", b"\x0b"]
    lines = data.splitlines(keepends=True)
    if random.random() < 0.6:  # other texts for some ranks; those of the bytes mostly stay
        for _ in range(random.choice((1, 2, 30))):
            at = random.randrange(0 if random.random() < 0.1 else 256, len(lines))
            text = random.choice((b"a", b" a", b"<|im_end|>", b"\xff", b"\xe6\x97", b"\n")) * (
                random.choice((1, 1, 1, 2, 3, 200))
            )
            lines[at] = base64.b64encode(text + b"%d" % at) + b" %d\n" % at
        return b"".join(lines)
    return b"".join(mutate_list(random, lines, lambda x: mutate_bytes(random, x, [], words), lines))


def _template(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    return mutate_template(random, data.decode(), [other.decode() for other in others]).encode()


_GLOBALS = (
    b"ctorch\nFloatStorage\n", b"ctorch\nHalfStorage\n", b"ctorch\nLongStorage\n", b"cos\nsystem\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n", b"ccollections\nOrderedDict\n", b"cbuiltins\neval\n",
    b"ctorch._utils\n_rebuild_parameter\n", b"\x93", b"R", b"b", b"(", b"t", b"l", b"u", b"s", b"0",
    b"2", b".", b"Q", b"\x81", b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x8a\x04\xff\xff\xff\x7f",
    b"\x8b\xff\xff\xff\x7f", b"X\xff\xff\xff\x7f", b"T\xff\xff\xff\xff", b"I99999\n", b"N", b"\x88",
)  # fmt: skip


def _torch_file(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    records = split_zip(data)
    name = next(name for name in records if name.endswith("/data.pkl"))

    def opcode(code: bytes) -> bytes:
        if len(code) > 1 and random.random() < 0.6:  # its argument
            head, body = code[:1], code[1:]
            if head in (b"J", b"K", b"M"):
                number = int(mutate_number(random, int.from_bytes(body, "little")))
                return head + (number % (1 << 8 * len(body))).to_bytes(len(body), "little")
            return head + mutate_bytes(random, body, [], [])
        return random.choice(_GLOBALS)

    if random.random() < 0.7:
        codes = split_pickle(records[name])
        records[name] = b"".join(mutate_list(random, codes, opcode, [*codes, *_GLOBALS]))
        return join_zip(records.items())

    def record(entry: tuple[str, bytes]) -> tuple[str, bytes]:
        if random.random() < 0.5:
            return mutate_text(random, entry[0], list(records), ["../", "/data.pkl", "0"]), entry[1]
        return entry[0], mutate_bytes(random, entry[1], [], [b"big", b"little"])

    entries = mutate_list(random, list(records.items()), record, [])
    if random.random() < 0.8:
        return join_zip(dict(entries).items(), random.choice((0, 0, 0, 8)))
    # The directory at the end: names, sizes, places, methods.
    start = data.rindex(b"PK\x01\x02", 0, len(data)) if b"PK\x01\x02" in data else 0
    start = data.find(b"PK\x01\x02", max(0, start - 4096))
    return data[:start] + mutate_bytes(random, data[start:], [data[start:]], [b"PK\x06\x06"])


_DAMAGES: dict[str, Damage] = {
    "tokenizer.json": _tokenizer,
    ".json": _json,
    ".safetensors": _safetensors,
    ".edge": _program,
    ".gguf": _gguf,
    ".model": _sentencepiece,
    ".tiktoken": _tiktoken,
    ".jinja": _template,
    ".pth": _torch_file,
    ".yaml": _yaml,
}
