"""The checks that every model family passes, given the folder of a tiny checkpoint.

Eager models and fp32 programs must give the logits of transformers: for a prompt at once, token by
token, and with two sequences interleaved. Quantized programs must give those of the transformers
model whose linears hold torchao tensors made of the integers in the file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bits import isas
from fixtures_checkpoints import VOCAB, reference_model
from torch import nn
from torchao_tensor import torchao_tensor

from edge_llm import LLM, SamplingParams, load
from edge_llm.export.outcome import Outcome
from edge_llm.export.pipeline import export, make_program
from edge_llm.export.recipes.file import load_recipe
from edge_llm.llm.checkpoints.open import open_checkpoint
from edge_llm.llm.models.build import load_model
from edge_llm.llm.registry import FAMILIES
from edge_llm.program.file import Program
from edge_llm.program.integers import Integers
from edge_llm.program.pack import unpack_floats, unpack_integers
from edge_llm.runner.backends.native import groups
from edge_llm.runner.backends.registry import block_tables, blocks_of, open_executor
from edge_llm.runner.executor import Batch, Limits, Segment

# What families call the gates, what they let through, and what follows.
STACKS = (("gate_proj", "up_proj", "down_proj"), ("w1", "w3", "w2"))
Step = Callable[..., torch.Tensor]

CONTEXT = 160  # of eager models
PROGRAM_CONTEXT = 256
EAGER_LENGTH = 150
PROGRAM_LENGTH = 90  # more than one page of keys and values


def prompt(length: int, seed: int) -> torch.Tensor:
    """Random ids, int64 [length]; equal arguments give equal ids."""
    return torch.randint(0, VOCAB, (length,), generator=torch.Generator().manual_seed(seed))


def reference(folder: Path, context: int | None, *prompts: torch.Tensor) -> list[torch.Tensor]:
    """Logits [length, vocab] of transformers; ``context`` as in ``reference_model``."""
    model = reference_model(folder, context)
    with torch.no_grad():
        return [model(tokens[None]).logits[0] for tokens in prompts]


def assert_parity(got: torch.Tensor, expected: torch.Tensor) -> None:
    """The largest difference is small in units of the logits' deviation."""
    assert got.shape == expected.shape
    assert float((got - expected).abs().max() / expected.std()) < 1e-4


# --- eager ---------------------------------------------------------------------------------------


def eager(folder: Path, context: int, slots: int = 1) -> nn.Module:
    """Our model in float32, with float32 caches."""
    checkpoint = open_checkpoint(folder)
    return load_model(
        checkpoint.config,
        checkpoint.tensor,
        context=context,
        kv_dtype=torch.float32,
        slots=slots,
    )


def check_at_once(folder: Path, context: int = CONTEXT) -> None:
    tokens = prompt(min(EAGER_LENGTH, context), 1)
    every = torch.arange(len(tokens))
    logits = eager(folder, context)(tokens, every, torch.zeros_like(tokens), every)
    assert_parity(logits, *reference(folder, context, tokens))


def check_token_by_token(folder: Path, context: int = CONTEXT) -> None:
    tokens = prompt(24, 2)
    model = eager(folder, context)
    zero = torch.zeros(1, dtype=torch.long)
    steps = [model(tokens[i : i + 1], zero + i, zero, zero) for i in range(len(tokens))]
    assert_parity(torch.cat(steps), *reference(folder, context, tokens))


def check_interleaved(folder: Path, context: int = CONTEXT) -> None:
    a, b = prompt(20, 3), prompt(13, 4)
    model = eager(folder, context, slots=2)
    got: dict[int, list[torch.Tensor]] = {0: [], 1: []}
    # Uneven steps: (from, to) of a, then of b.
    for ranges in (((0, 5), (0, 1)), ((5, 6), (1, 9)), ((6, 20), (9, 13))):
        parts = [
            (tokens[low:high], torch.arange(low, high), torch.full((high - low,), slot))
            for slot, (tokens, (low, high)) in enumerate(zip((a, b), ranges, strict=True))
        ]
        batch = [torch.cat(columns) for columns in zip(*parts, strict=True)]
        logits = model(*batch, torch.arange(len(batch[0])))
        for slot in (0, 1):
            got[slot].append(logits[batch[2] == slot])
    for slot, expected in enumerate(reference(folder, context, a, b)):
        assert_parity(torch.cat(got[slot]), expected)


# --- programs in the native core -----------------------------------------------------------------


def check_fp32_program(
    folder: Path,
    output: Path,
    context: int = PROGRAM_CONTEXT,
    reference_folder: Path | None = None,
    settings: Sequence[str] = (),
) -> None:
    """Writes the program to ``output``; transformers reads ``reference_folder``, if given.
    ``settings`` are more of the recipe's."""
    given = ["verify=false", f"context={context}", *settings]
    recipe = load_recipe("fp32", given, model=str(folder))
    prompts = prompt(PROGRAM_LENGTH, 1), prompt(PROGRAM_LENGTH, 2)
    expected = reference(reference_folder or folder, context, *prompts)
    with Program.open(export(recipe, output=output)) as program:
        with running(program) as step:  # at once
            assert_parity(step((0, 0, prompts[0])), expected[0])
        with running(program) as step:  # token by token
            steps = [step((0, at, prompts[0][at : at + 1])) for at in range(PROGRAM_LENGTH)]
            assert_parity(torch.cat(steps), expected[0])
        with running(program) as step:  # two sequences interleaved, in chunks of unequal size
            got: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
            at = [0, 0]
            for counts in ((7, 33), (40, 1), (1, 40), (42, 16)):
                pieces = [(i, at[i], prompts[i][at[i] : at[i] + counts[i]]) for i in (0, 1)]
                logits = step(*pieces)
                got[0].append(logits[: counts[0]])
                got[1].append(logits[counts[0] :])
                at = [at[0] + counts[0], at[1] + counts[1]]
            assert at == [PROGRAM_LENGTH, PROGRAM_LENGTH]
            for index in (0, 1):
                assert_parity(torch.cat(got[index]), expected[index])


def check_quantized_program(
    folder: Path, scheme: str, output: Path, context: int = PROGRAM_CONTEXT
) -> None:
    """Writes the program to ``output``."""
    # torchao rounds activations by token, and by groups of columns not at all.
    settings = ["verify=false", "kv_dtype=f32", "activations=token", f"context={context}"]
    recipe = load_recipe(scheme, settings, model=str(folder))
    tokens = prompt(PROGRAM_LENGTH, 3)
    with Program.open(export(recipe, output=output)) as program:
        model = reference_model(folder, context)
        replace_weights(model, program)
        with torch.no_grad():
            expected = model(tokens[None]).logits[0]
        with running(program) as step:
            got = step((0, 0, tokens))
    # A rounding of an activation that falls the other way moves logits by a quantum: the bulk must
    # agree closely, and another choice is fine only where eager's first two are that close.
    spread = expected.std()
    error = (got - expected).abs().amax(dim=1) / spread
    assert float(error.median()) < 0.05
    assert float(error.max()) < 0.3
    chosen = expected.gather(1, got.argmax(dim=1, keepdim=True))
    assert float((expected.amax(dim=1, keepdim=True) - chosen).max() / spread) < 0.1


def check_forced_routes(folder: Path, scheme: str, output: Path, flips: float = 0.02) -> Outcome:
    """Write the program to ``output`` and return its export. Eager PyTorch with the same numbers
    must give its logits where each token goes to the experts that it went to in the program; left
    to themselves at most ``flips`` of the choices differ, by the rounding of an activation."""
    made = make_program(load_recipe(scheme, ["gate=off"], model=str(folder)), output=output)
    assert made.verification["same_numbers"]["kl"] < 1e-3
    assert made.verification["route_flips"]["same_numbers"] < flips
    return made


def check_bits(folder: Path, scheme: str, output: Path) -> None:
    """Write the program to ``output``, whose tokens must depend on those before them and on nothing
    else: not on steps, hits, neighbours, threads, instruction sets, restarts nor drafts that are
    taken back."""
    recipe = load_recipe(scheme, ["gate=off"], model=str(folder))
    path = export(recipe, output=output)
    prompts = [prompt(length, length).tolist() for length in (200, 70, 33)]
    params = SamplingParams(
        max_tokens=40, temperature=0, ignore_eos=True, top_logprobs=1, speculation="off"
    )

    def answers(llm: LLM, **changes: Any) -> list[Any]:
        given = [llm.generate(ids, replace(params, **changes)) for ids in prompts]
        return [(answer.token_ids, answer.logprobs) for answer in given]

    with load(path, threads=1) as llm:
        alone = answers(llm)
        assert answers(llm) == alone  # from the cache
        assert answers(llm, speculation="ngram") == alone
        assert answers(llm, speculation="auto") == alone
        longer = [*prompts[1], *alone[1][0], *prompts[2]]
        turn = llm.generate(longer, params)
        # all but the token that was drawn last, which nobody has computed
        assert turn.stats.cached_tokens == len(prompts[1]) + len(alone[1][0]) - 1
    for isa in isas():
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("EDGE_LLM_ISA", isa)
            with load(path, threads=2, step_tokens=19) as llm:
                assert answers(llm) == alone
    with load(path, threads=3, step_tokens=7, max_sequences=3) as llm:
        together = llm.generate(prompts, params)
        assert [(answer.token_ids, answer.logprobs) for answer in together] == alone
    with load(path, threads=2) as llm:
        assert llm.generate(longer, params).logprobs == turn.logprobs
    with tempfile.TemporaryDirectory() as sessions:
        with load(path, threads=2, sessions=sessions) as llm:
            assert answers(llm) == alone
        with load(path, threads=1, sessions=sessions) as llm:
            again = llm.generate(longer, params)
            assert again.logprobs == turn.logprobs
            assert again.stats.cached_tokens == turn.stats.cached_tokens


@contextmanager
def running(program: Program) -> Iterator[Step]:
    """``step((sequence, first position, tokens), ...) -> logits`` of every token."""
    (blocks, *_) = blocks_of(program.plan, program.plan.context)
    executor = open_executor(
        program,
        Limits(
            max_tokens=256,
            max_rows=256,
            max_sequences=2,
            blocks=(2 * blocks,) * len(program.plan.groups),
            kv_dtype=program.documents.model.kv_dtype,
            threads=1,
        ),
    )

    def step(*pieces: tuple[int, int, torch.Tensor]) -> torch.Tensor:
        result = executor.step(
            Batch.of(
                *(
                    Segment(tokens.numpy(), [None] * len(tokens), first, sequence)
                    for sequence, first, tokens in pieces
                ),
                block_tables=block_tables(executor.limits.blocks, 2),
                want_logits=True,
            )
        )
        assert result.logits is not None
        return torch.from_numpy(result.logits)

    try:
        yield step
    finally:
        executor.close()


def replace_weights(model: nn.Module, program: Program) -> None:
    """Puts the file's weights into ``model``: torchao tensors in linears of integers, floats in
    others, in the table and in norms."""
    weights = {weight.tensor: weight for weight in program.plan.weights}
    less_one = FAMILIES[program.documents.model.family].less_one
    own = dict(model.named_parameters())
    begin: dict[str, int] = {}
    parts: dict[str, Integers | torch.Tensor] = {}
    for row in program.documents.report["weights"]:
        weight = weights[row["tensor"]]
        data = program.weight_data(weight)
        if weight.format.name == "raw_f32":
            vector = torch.from_numpy(data.view(np.float32).reshape(weight.shape).copy())
            if less_one is not None and less_one.fullmatch(row["name"]):
                vector -= 1.0
            given = own.get(row["name"])
            if given is not None and given.shape == vector.shape:  # a norm may have taken factors
                given.data.copy_(vector)
            continue
        if len(weight.shape) == 3:
            parts[row["name"]] = unpack_integers(data, weight.format, *weight.matrix)
            continue
        first = begin.get(row["tensor"], 0)
        end = begin[row["tensor"]] = first + row["shape"][0]
        if weight.format.is_float:
            floats = unpack_floats(data, weight.format, *weight.matrix)[first:end]
            parts[row["name"]] = torch.from_numpy(floats.copy()).float()
        else:
            whole = unpack_integers(data, weight.format, *weight.matrix)
            parts[row["name"]] = whole.rows(slice(first, end))
    tied = program.documents.report["tied"]
    for path, module in list(model.named_modules()):
        names = next((names for names in STACKS if f"{path}.{names[0]}" in parts), ())
        if names:
            stacks = [parts[f"{path}.{name}"] for name in names]
            model.set_submodule(path, QuantizedExperts(module.num_experts, module.act_fn, stacks))
            continue
        if isinstance(module, nn.Linear):
            name = f"{path}.weight"
            part = parts[tied.get(name, name)]
            tensor = part if isinstance(part, torch.Tensor) else torchao_tensor(part)
        elif isinstance(module, nn.Embedding):
            table = parts[f"{path}.weight"]
            assert isinstance(table, Integers)
            tensor = torch.from_numpy(table.dequantize())
        else:
            continue
        module.weight = nn.Parameter(tensor, requires_grad=False)


class QuantizedExperts(nn.Module):
    """Takes the place of the experts of a transformers model."""

    def __init__(
        self,
        experts: int,
        activation: Callable[[torch.Tensor], torch.Tensor],
        stacks: list[Integers],
    ) -> None:
        super().__init__()
        self.activation = activation
        self.tensors = [
            [
                torchao_tensor(stack.rows(slice(first, first + stack.shape[0] // experts)))
                for first in range(0, stack.shape[0], stack.shape[0] // experts)
            ]
            for stack in stacks
        ]

    def forward(self, x: torch.Tensor, chosen: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        out = torch.zeros_like(x)
        for expert, (gate, up, down) in enumerate(zip(*self.tensors, strict=True)):
            tokens, places = torch.where(chosen == expert)
            if len(tokens):
                linear, mine = nn.functional.linear, x[tokens]
                made = linear(self.activation(linear(mine, gate)) * linear(mine, up), down)
                out[tokens] += shares[tokens, places, None] * made
        return out


def check_preemption(folder: Path, output: Path, patch: pytest.MonkeyPatch) -> None:
    """Write the program to ``output``, whose answers must be the same to the bit where sequences
    give up their blocks and are computed again, drafts included."""
    path = export(load_recipe("8da4w", ["gate=off"], model=str(folder)), output=output)
    prompts = [prompt(length, length).tolist() for length in (150, 70, 33)]
    prompts.append((prompts[2] * 4)[:120])  # whose drafts are accepted for a while, then not
    params = SamplingParams(
        max_tokens=40, temperature=0, ignore_eos=True, top_logprobs=1, speculation="off"
    )
    with Program.open(path) as program:  # room for the longest, and little beside it
        blocks = [group.block_bytes for group in groups(program.plan, "f16")]
    patch.setattr("edge_llm.runner.engine.scheduler.RESERVE_TOKENS", 0)
    tight = {"max_sequences": 4, "step_tokens": 64, "kv_budget": 6 * sum(blocks)}
    with load(path, kv_dtype="f16", **tight) as llm:
        squeezed = llm.generate(prompts, replace(params, speculation="ngram"))
        assert llm.engine.stats().preemptions > 0
    with load(path, kv_dtype="f16") as llm:
        alone = [llm.generate(ids, params) for ids in prompts]
    for one, other in zip(squeezed, alone, strict=True):
        assert (one.token_ids, one.logprobs) == (other.token_ids, other.logprobs)
