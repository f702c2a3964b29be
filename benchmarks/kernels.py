"""Each kernel by itself beside the machine's ceilings: linears of every integer format for one row,
a few and many; attention of every cache type; sampling over 128k tokens.

    python benchmarks/kernels.py [--threads 2,1] [--isas avx512vnni,avx2] [--only linear]
                                 [--activations group --dry]

Small plans of one operator, repeated over more weights than caches hold, run on the executor and
timed by its profiler: the fastest tenth of the steps. Writes its section of docs/performance.md and
build/bench/kernels.json; with --dry, prints only.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from document import replace_section, table, where
from numpy.typing import NDArray
from programs import FOLDER, run

from edge_llm import native
from edge_llm.program.formats import (
    ACTIVATIONS,
    LEVELS,
    SUPER,
    WEIGHT_FORMATS,
    Activations,
    WeightFormat,
)
from edge_llm.program.integers import CODE_RANGES, Integers
from edge_llm.program.pack import pack_float, pack_integers
from edge_llm.program.plan import (
    INPUTS,
    POSITIONS,
    ROWS,
    SEQUENCES,
    TOKENS,
    Instruction,
    Plan,
    State,
    Weight,
    matrix,
)
from edge_llm.runner.backends.native import NativeExecutor, load
from edge_llm.runner.backends.registry import block_tables, blocks_of
from edge_llm.runner.evaluation.profile import Row, Run, StepTimes, summarize
from edge_llm.runner.executor import Batch, Limits, RowSampler
from edge_llm.runner.sampling import SamplingParams

Bytes = NDArray[np.uint8]

ISAS = ("avx512vnni", "avxvnni", "avx2", "neon_i8mm", "neon_dotprod", "neon")
FORMATS = {
    name: form for name, form in WEIGHT_FORMATS.items() if form.is_panel and not form.is_float
}
F32, I8 = WEIGHT_FORMATS["f32"], WEIGHT_FORMATS["i8"]
FEW, MANY = (1, 2, 3, 4, 6, 8), (64, 512)  # rows
WIDE, DEEP = 8192, 2048  # a feed-forward layer of a 1B model, both ways
STREAMED = 256 << 20  # bytes of weights for a few rows, more than caches hold
# (heads, kv heads, head_dim)
HEADS = {"Llama-3.2-1B": (32, 8, 64), "Qwen3-0.6B": (16, 8, 128)}
KV_DTYPES = ("f16", "i8", "f32")
VOCAB = 128256
HISTORY = np.arange(4096, dtype=np.int32) % 1000  # a text that repeats itself
SAMPLERS = {
    "greedy": SamplingParams(temperature=0),
    "temperature": SamplingParams(temperature=0.8),
    "top-k 40, top-p 0.9": SamplingParams(temperature=0.8, top_k=40, top_p=0.9),
    "top-p 0.9": SamplingParams(temperature=0.8, top_p=0.9),
    "min-p 0.05": SamplingParams(temperature=0.8, min_p=0.05),
    "typical-p 0.9": SamplingParams(temperature=0.8, typical_p=0.9),
    "top-k 40, typical-p 0.9": SamplingParams(temperature=0.8, top_k=40, typical_p=0.9),
    "XTC": SamplingParams(temperature=0.8, xtc_probability=1),
    "DRY after 4,096 tokens": SamplingParams(temperature=0.8, dry_multiplier=0.8),
}
# What int4 GEMMs should reach: half of a ceiling that adds in 16 bits, three quarters of others.
GEMM_BARS = {"avx2": 0.5}
SECONDS = 0.4  # of steps for each measurement, at least three steps


class Builder:
    """A plan with its weights, an operator at a time; every method returns a value's number."""

    def __init__(self, activations: Activations = "token") -> None:
        self._activations: Activations = activations
        self._values = [*INPUTS]
        self._weights: list[Weight] = []
        self._states: list[State] = []
        self._instructions: list[Instruction] = []
        self.tensors: dict[str, Bytes] = {}

    def embedding(self, width: int) -> int:
        table = np.random.default_rng(0).standard_normal((16, width)).astype(np.float32)
        weight = self._weight(pack_float(table, F32), F32, (16, width))
        return self._op("embedding", (TOKENS,), [width], weights=(weight,))[0]

    def linear(self, x: int, data: Bytes, form: WeightFormat, shape: tuple[int, int]) -> int:
        return self._op("linear", (x,), [shape[0]], weights=(self._weight(data, form, shape), -1))[
            0
        ]

    def attention(self, qkv: int, heads: int, kv_heads: int, head_dim: int) -> int:
        """Make a value that holds queries, keys and values side by side."""
        widths = [heads * head_dim, kv_heads * head_dim, kv_heads * head_dim]
        q, k, v = self._op("split", (qkv,), widths)
        self._states.append(State.kv(f"state.{len(self._states)}", kv_heads, head_dim, head_dim))
        return self._op(
            "attention",
            (q, k, v, POSITIONS, SEQUENCES),
            [heads * head_dim],
            state=len(self._states) - 1,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            scale=head_dim**-0.5,
            softcap=0.0,
            bidirectional=0,
        )[0]

    def select(self, x: int) -> int:
        number = self._op("select_rows", (x, ROWS), [self._values[x].width])[0]
        self._values[number] = matrix("R", self._values[number].width)
        return number

    def rows(self, x: int) -> None:
        """``x`` has a row for each wanted one."""
        self._values[x] = matrix("R", self._values[x].width)

    def plan(self, output: int, context: int) -> Plan:
        return Plan.causal_lm(
            context=context,
            vocab=self._values[output].width,
            values=tuple(self._values),
            weights=tuple(self._weights),
            states=tuple(self._states),
            instructions=tuple(self._instructions),
            output=output,
        )

    def _weight(self, data: Bytes, form: WeightFormat, shape: tuple[int, int]) -> int:
        name = f"weight.{len(self._weights)}"
        way: Activations = "token" if form.is_float else self._activations
        self._weights.append(Weight(name, name, form, shape, way))
        self.tensors[name] = data
        return len(self._weights) - 1

    def _op(
        self,
        name: str,
        inputs: tuple[int, ...],
        widths: list[int],
        *,
        weights: tuple[int, ...] = (),
        state: int = -1,
        **attributes: float,
    ) -> tuple[int, ...]:
        first = len(self._values)
        self._values += [matrix("T", width) for width in widths]
        outputs = tuple(range(first, len(self._values)))
        self._instructions.append(Instruction(name, inputs, outputs, weights, state, attributes))
        return outputs


class Bench:
    """One plan on the executor: one sequence, whose tokens are 0."""

    def __init__(
        self, builder: Builder, plan: Plan, threads: int, most: int, kv_dtype: str = "f16"
    ) -> None:
        self.plan = plan
        limits = Limits(
            max_tokens=most,
            max_rows=1,
            max_sequences=1,
            blocks=blocks_of(plan, plan.context),
            kv_dtype=kv_dtype,
            threads=threads,
        )
        self.executor: NativeExecutor = load(
            plan, builder.tensors, sampleable=plan.vocab, limits=limits
        )
        self._tables = block_tables(limits.blocks)

    def step(self, tokens: int, depth: int, sampler: SamplingParams | None = None) -> float:
        count = np.arange(depth, depth + tokens, dtype=np.int32)
        row = [] if sampler is None else [RowSampler(sampler, seed=1, history=HISTORY)]
        batch = Batch(
            tokens=np.zeros(tokens, np.int32),
            positions=count,
            sequences=np.zeros(tokens, np.int32),
            rows=np.array([tokens - 1] * len(row), np.int32),
            block_tables=self._tables,
            samplers=row,
        )
        start = time.perf_counter()
        self.executor.step(batch)
        return time.perf_counter() - start

    def rows(self, tokens: int, depth: int = 0, sampler: SamplingParams | None = None) -> list[Row]:
        """Where the time of such steps goes, by operator."""
        self.step(tokens, depth, sampler)  # warms up
        count = max(3, min(2000, int(SECONDS / self.step(tokens, depth, sampler))))
        self.executor.start_profile(count)
        for _ in range(count):
            self.step(tokens, depth, sampler)
        phases = self.executor.phases(wanted=sampler is not None)
        runs = [Run((self.executor.profiled_step(n),), (depth,)) for n in range(count)]
        self.executor.start_profile(0)

        def phases_of(step: StepTimes) -> Any:
            return phases

        return summarize(self.plan, runs, phases_of, self.executor.limits.kv_dtype).by_operator()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", default="2,1")
    parser.add_argument("--isas", default=",".join(ISAS), help="those that run here are measured")
    parser.add_argument("--only", choices=("linear", "attention", "sampling"))
    parser.add_argument("--formats", default=",".join(FORMATS), help="of linears")
    parser.add_argument("--activations", choices=ACTIVATIONS, default="token", help="of linears")
    parser.add_argument("--dry", action="store_true", help="print, and write no document")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    threads = [int(count) for count in options.threads.split(",")]
    if options.child:  # of one instruction set, which the environment names
        formats = options.formats.split(",")
        print(json.dumps(measure(threads, options.only, formats, options.activations)))
        return
    results: dict[str, Any] = {"where": where(), "isas": []}
    for isa in options.isas.split(","):
        command = [sys.executable, __file__, "--child", "--threads", options.threads]
        command += ["--formats", options.formats, "--activations", options.activations]
        command += ["--only", options.only] if options.only else []
        try:
            measured = run(command, {"EDGE_LLM_ISA": isa})
        except RuntimeError as exc:
            if "EDGE_LLM_ISA" not in str(exc):  # else: not of this processor
                raise
            continue
        print(f"{isa} measured", file=sys.stderr, flush=True)
        results["isas"].append({"isa": isa, **json.loads(measured)})
    text = markdown(results)
    if not options.dry:
        FOLDER.mkdir(parents=True, exist_ok=True)
        (FOLDER / "kernels.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
        replace_section("kernels", text)
    print(text)


def measure(
    threads: list[int], only: str | None, formats: list[str], activations: Activations
) -> dict[str, Any]:
    native.isa()  # an instruction set that does not run here fails before anything is measured
    parts = {"linear": partial(linears, formats, activations), "attention": attentions}
    parts |= {"sampling": samplings}
    rows: list[dict[str, Any]] = []
    for name, part in parts.items():
        if only in (None, name):
            for count in threads:
                rows += [{"kernel": name, "threads": count, **row} for row in part(count)]
    limits = {count: native.ceilings(count) for count in threads}
    return {
        "rows": rows,
        "ceilings": {
            count: [limit.bytes_per_second, limit.operations_per_second]
            for count, limit in limits.items()
        },
    }


def linears(formats: list[str], activations: Activations, threads: int) -> Iterator[dict[str, Any]]:
    """Seconds of multiplying alone, and with the quantization of the rows."""
    for form in (FORMATS[name] for name in formats):
        up, down = packed(form, WIDE, DEEP), packed(form, DEEP, WIDE)
        for counts, pairs in ((FEW, STREAMED // (up.size + down.size)), (MANY, 1)):
            builder = Builder(activations)
            x = builder.embedding(DEEP)
            for _ in range(pairs):
                x = builder.linear(x, up.copy(), form, (WIDE, DEEP))
                x = builder.linear(x, down.copy(), form, (DEEP, WIDE))
            plan = builder.plan(builder.select(x), context=max(MANY))
            bench = Bench(builder, plan, threads, max(MANY))
            for count in counts:
                found = [row for row in bench.rows(count) if row.operator.startswith("linear")]
                multiplied = [row for row in found if row.operations]
                yield {
                    "what": form.name,
                    "size": count,
                    "seconds": sum(row.seconds for row in multiplied),
                    "all_seconds": sum(row.seconds + row.waited for row in found),
                    "bytes": sum(row.bytes for row in multiplied),
                    "operations": sum(row.operations for row in multiplied),
                }
            bench.executor.close()


def packed(form: WeightFormat, n: int, k: int) -> Bytes:
    """Return a weight [n, k] of any integers whose scales are small."""
    rng = np.random.default_rng(0)
    groups = (n, k // (form.group or k))

    def halves(shape: tuple[int, int]) -> NDArray[np.float16]:
        return np.full(shape, 2.0**-8, np.float16)

    dtype, low, high = CODE_RANGES[form.code]
    if form.code in LEVELS:
        codes = np.array(LEVELS[form.code], np.int8)[rng.integers(0, 16, (n, k))]
    else:
        codes = rng.integers(low, high + 1, (n, k), np.int8).view(dtype)
    if form.scale == "f32":
        return pack_integers(Integers(form, codes, np.full(groups, 2.0**-12, np.float32)))
    if form.scale == "e8m0":
        return pack_integers(Integers(form, codes, np.full(groups, 120, np.uint8)))
    if form.scale == "s8":
        factor = halves((n, k // SUPER)) * np.float16(2.0**-6)
        signed = rng.integers(-32, 32, groups, np.int8)
        return pack_integers(Integers(form, codes, signed, factor=factor))
    if form.minimum == "none":
        return pack_integers(Integers(form, codes, halves(groups)))
    if form.scale == "q8":
        small = (rng.integers(0, 64, groups, np.uint8) for _ in range(2))
        factors = (halves((n, k // SUPER)) * np.float16(2.0**-6) for _ in range(2))
        return pack_integers(Integers(form, codes, *small, *factors))
    zeros = rng.integers(0, 16, groups, np.uint8)
    minimum = zeros if form.minimum == "zero" else -8 * halves(groups)
    return pack_integers(Integers(form, codes, halves(groups), minimum))


def attentions(threads: int) -> Iterator[dict[str, Any]]:
    """Decode after 1,024 and 4,096 cached tokens, prefill of 512 tokens after none and 1,536;
    eight layers, each with a cache of its own."""
    for title, (heads, kv_heads, head_dim) in HEADS.items():
        for dtype in KV_DTYPES:
            builder = Builder()
            qkv = builder.embedding((heads + 2 * kv_heads) * head_dim)
            for _ in range(8):
                out = builder.attention(qkv, heads, kv_heads, head_dim)
            plan = builder.plan(builder.select(out), context=4160)
            bench = Bench(builder, plan, threads, 512, dtype)
            for depth in range(0, 4096, 512):
                bench.step(512, depth)
            for tokens, depth in ((1, 1024), (1, 4096), (512, 0), (512, 1536)):
                found = [row for row in bench.rows(tokens, depth) if "attention" in row.operator]
                attended = [row for row in found if row.operations]
                yield {
                    "what": f"{title}, {dtype}",
                    "size": f"{'decode' if tokens == 1 else 'prefill 512'} at {depth:,}",
                    "seconds": sum(row.seconds for row in attended) / 8,
                    "bytes": sum(row.bytes for row in attended) // 8,
                    "operations": sum(row.operations for row in attended) // 8,
                }
            bench.executor.close()


def samplings(threads: int) -> Iterator[dict[str, Any]]:
    builder = Builder()
    x = builder.select(builder.embedding(64))
    logits = builder.linear(x, packed(I8, VOCAB, 64), I8, (VOCAB, 64))
    builder.rows(logits)
    bench = Bench(builder, builder.plan(logits, context=len(HISTORY)), threads, 1)
    for name, sampler in SAMPLERS.items():
        found = [row for row in bench.rows(1, 0, sampler) if row.operator == "sample"]
        yield {"what": name, "size": 1, "seconds": sum(row.seconds for row in found)}
    bench.executor.close()


def markdown(results: dict[str, Any]) -> str:
    parts = [results["where"]]
    for measured in results["isas"]:
        for threads, (bandwidth, arithmetic) in measured["ceilings"].items():
            rows = [row for row in measured["rows"] if row["threads"] == int(threads)]
            title = f"{measured['isa']}, {threads} thread{'s' if int(threads) > 1 else ''}"
            parts.append(
                f"### Kernels: {title}\n\nCeilings: {bandwidth / 1e9:.1f} GB/s read, "
                f"{arithmetic / 1e9:.0f} GOP/s int8."
            )
            parts += [linear_table(rows, bandwidth, arithmetic)]
            parts += [gemm_verdict(rows, arithmetic, GEMM_BARS.get(measured["isa"], 0.75))]
            parts += [attention_table(rows)]
            sampled = [row for row in rows if row["kernel"] == "sampling"]
            if sampled:
                listed = (f"{row['what']} {row['seconds'] * 1e3:.2f} ms" for row in sampled)
                parts.append(f"Sampling of {VOCAB:,} tokens: {', '.join(listed)}.")
    return "\n\n".join(part for part in parts if part)


def linear_table(rows: list[dict[str, Any]], bandwidth: float, arithmetic: float) -> str:
    """GB/s for up to eight rows, GOP/s for more, with the share of the ceiling."""
    found = [row for row in rows if row["kernel"] == "linear"]
    if not found:
        return ""
    lines = []
    for name in dict.fromkeys(row["what"] for row in found):
        cells = []
        for row in found:
            if row["what"] == name:
                few = row["size"] in FEW
                rate = row["bytes" if few else "operations"] / row["seconds"]
                share = rate / (bandwidth if few else arithmetic)
                cells.append(f"{rate / 1e9:.{1 if few else 0}f} ({share:.0%})")
        lines.append([name, *cells])
    head = ["linear", *(f"{n} rows, {'GB/s' if n in FEW else 'GOP/s'}" for n in FEW + MANY)]
    return table([head[0], head[1].replace("rows", "row"), *head[2:]], lines)


def gemm_verdict(rows: list[dict[str, Any]], arithmetic: float, bar: float) -> str:
    shares = [
        row["operations"] / row["seconds"] / arithmetic
        for row in rows
        if row["kernel"] == "linear"
        and row["size"] == max(MANY)
        and FORMATS[row["what"]].code == "i4"
    ]
    if not shares:
        return ""
    verdict = "pass" if min(shares) >= bar else "miss"
    return f"int4 times {max(MANY)} rows: at least {min(shares):.0%} (bar {bar:.0%}: {verdict})."


def attention_table(rows: list[dict[str, Any]]) -> str:
    found = [row for row in rows if row["kernel"] == "attention"]
    sizes = list(dict.fromkeys(row["size"] for row in found))
    names = list(dict.fromkeys(row["what"] for row in found))
    lines = []
    for name in names:
        cells = []
        for row in found:
            if row["what"] == name:
                decode = row["size"].startswith("decode")
                rate = row["bytes" if decode else "operations"] / row["seconds"] / 1e9
                unit = "GB/s" if decode else "GFLOP/s"
                cells.append(f"{row['seconds'] * 1e6:.0f} µs ({rate:.0f} {unit})")
        lines.append([name, *cells])
    return table(["attention, a layer", *sizes], lines) if found else ""


if __name__ == "__main__":
    main()
