"""Layers that predict further tokens (``mtp.*``) as the draft method of a program: against a layer
of transformers, from a tiny checkpoint to tokens."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bits import isas
from parity import assert_parity, prompt
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import edge_llm
from edge_llm.errors import ConfigError, NativeError, ProgramError, RequestError
from edge_llm.export.recipes.file import load_recipe
from edge_llm.llm.checkpoints.open import open_checkpoint
from edge_llm.llm.models.build import load_model
from edge_llm.llm.models.draft import draft_of
from edge_llm.program.file import Program
from edge_llm.runner.backends.registry import block_tables, blocks_of, open_executor
from edge_llm.runner.evaluation.golden import check_golden
from edge_llm.runner.executor import Batch, Executor, Limits, Segment

DENSE, SPARSE = "qwen3_5_text", "qwen3_5_moe_text"
FAMILIES = [DENSE, SPARSE]
CONTEXT = 256
Make = Callable[..., Path]


def _theirs(family: str) -> Any:
    if family == DENSE:
        from transformers.models.qwen3_5 import modeling_qwen3_5 as theirs

        return theirs, "Qwen3_5"
    from transformers.models.qwen3_5_moe import modeling_qwen3_5_moe as theirs_moe

    return theirs_moe, "Qwen3_5Moe"


class Reference(nn.Module):
    """The predictor as it was trained, of transformers' parts; without a cache."""

    def __init__(self, family: str, config: Any) -> None:
        super().__init__()
        theirs, name = _theirs(family)
        norm, eps = getattr(theirs, f"{name}RMSNorm"), config.rms_norm_eps
        dim = config.hidden_size
        self.pre_fc_norm_embedding = norm(dim, eps=eps)
        self.pre_fc_norm_hidden = norm(dim, eps=eps)
        self.fc = nn.Linear(2 * dim, dim, bias=False)
        attending = config.layer_types.index("full_attention")
        self.layers = nn.ModuleList([getattr(theirs, f"{name}DecoderLayer")(config, attending)])
        self.norm = norm(dim, eps=eps)

    def forward(self, model: Any, tokens: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """tokens: (n,); hidden: (n, dim), of the tokens before each, zeros before the first.
        Returns the logits of the tokens after each, and hidden states."""
        embedded = self.pre_fc_norm_embedding(model.model.embed_tokens(tokens))
        x = self.fc(torch.cat((embedded, self.pre_fc_norm_hidden(hidden)), dim=-1))[None]
        n = len(tokens)
        positions = torch.arange(n)[None]
        mask = torch.full((n, n), float("-inf")).triu(1)[None, None]
        rotation = model.model.rotary_emb(x, positions[None].expand(3, 1, n))
        x = self.layers[0](x, position_embeddings=rotation, attention_mask=mask)
        x = (x[0] if isinstance(x, tuple) else x)[0]
        out = self.norm(x)
        return model.lm_head(out), out


@pytest.fixture(autouse=True)
def _recurrent_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers' chunked form, which prompts take, is off by up to 9e-5 by itself."""
    for family in FAMILIES:
        theirs, _ = _theirs(family)
        recurrent = theirs.torch_recurrent_gated_delta_rule
        monkeypatch.setattr(theirs, "torch_chunk_gated_delta_rule", recurrent)


@pytest.fixture
def make(tiny_checkpoint: Make, tmp_path: Path) -> Make:
    """``make(family, **config)``: a tiny checkpoint with a layer that predicts further tokens."""

    def made(family: str = DENSE, **config: Any) -> Path:
        folder = tmp_path / "with-mtp"
        shutil.copytree(tiny_checkpoint(family, **config), folder)
        reference = Reference(family, _config(family, folder))
        with torch.random.fork_rng():
            torch.manual_seed(7)
            for name, parameter in reference.named_parameters():
                nn.init.normal_(parameter, std=0.1 if "norm" not in name else 0.3)
        tensors = load_file(folder / "model.safetensors")
        tensors |= {f"mtp.{k}": v.detach().clone() for k, v in reference.state_dict().items()}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    return made


def _config(family: str, folder: Path) -> Any:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder)
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    return config


def _reference(family: str, folder: Path) -> tuple[Any, Reference]:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    reference = Reference(family, _config(family, folder)).eval()
    tensors = load_file(folder / "model.safetensors")
    reference.load_state_dict(
        {k.removeprefix("mtp."): v for k, v in tensors.items() if k.startswith("mtp.")}
    )
    return model, reference


@torch.no_grad()
def _expected(family: str, folder: Path, tokens: Tensor, known: int) -> Tensor:
    """Return the logits after each token [n, vocab], where the model has seen the first ``known``
    and the method goes on from what it made itself."""
    model, reference = _reference(family, folder)
    hidden = torch.zeros(1, model.config.hidden_size)  # of the token before each
    if known:
        seen = model.model(input_ids=tokens[None, :known]).last_hidden_state[0]
        hidden = torch.cat((hidden, seen))
    for count in range(known + 1, len(tokens) + 1):
        logits, out = reference(model, tokens[:count], hidden[:count])
        hidden = torch.cat((hidden, out[-1:]))
    return logits


def _exported(folder: Path, path: Path, *overrides: str, scheme: str = "fp32") -> Path:
    recipe = load_recipe(
        scheme, ["verify=false", f"context={CONTEXT}", *overrides], model=str(folder)
    )
    return edge_llm.export(recipe, output=path)


@contextmanager
def _running(path: Path, backend: str = "native", sequences: int = 1) -> Iterator[Any]:
    with Program.open(path) as program:
        plan = program.plan
        each = blocks_of(plan, CONTEXT, name=backend)
        limits = Limits(
            max_tokens=CONTEXT,
            max_rows=CONTEXT,
            max_sequences=sequences,
            blocks=tuple(count * sequences for count in each),
            kv_dtype="f32",
            threads=2,
        )
        executor = open_executor(program, limits, name=backend)
        try:
            yield _Steps(executor, block_tables(limits.blocks, sequences))
        finally:
            executor.close()


class _Steps:
    def __init__(self, executor: Executor, tables: Any) -> None:
        self._executor, self._tables = executor, tables

    def model(self, tokens: Tensor, first: int = 0, sequence: int = 0, wanted: bool = True) -> Any:
        return self._run(tokens, first, sequence, wanted, False)

    def draft(self, token: Tensor, first: int, sequence: int = 0) -> Tensor:
        return self._run(token, first, sequence, True, True)

    def _run(self, tokens: Tensor, first: int, sequence: int, wanted: bool, draft: bool) -> Tensor:
        samplers = [None] * len(tokens) if wanted else []
        segment = Segment(tokens.numpy().astype(np.int32), samplers, first, sequence)
        batch = Batch.of(segment, block_tables=self._tables, want_logits=True, draft=draft)
        logits = self._executor.step(batch).logits
        assert logits is not None
        return torch.from_numpy(logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_module_is_what_was_trained(family: str, make: Make) -> None:
    folder = make(family)
    checkpoint = open_checkpoint(folder)
    assert any("are the draft method" in note for note in checkpoint.notes)
    tokens, known = prompt(90, 3), 89
    model = load_model(checkpoint.config, checkpoint.tensor, context=128, kv_dtype=torch.float32)
    method = draft_of(model)
    assert method is not None
    theirs, _ = _reference(family, folder)
    positions, sequences = torch.arange(90), torch.zeros(90, dtype=torch.int64)
    with torch.no_grad():
        hidden = theirs.model(input_ids=tokens[None]).last_hidden_state[0]
        expected = _expected(family, folder, tokens, known)
        logits, _ = method(tokens, positions, sequences, positions, hidden)
        assert_parity(logits, expected)
        for t in range(90):  # token by token, over what is kept
            one = slice(t, t + 1)
            row = torch.zeros(1, dtype=torch.int64)
            single, _ = method(tokens[one], positions[one], sequences[one], row, hidden[one])
            assert_parity(single, expected[one])


@pytest.mark.parametrize("backend", ["native", "torch"])
@pytest.mark.parametrize("family", FAMILIES)
def test_programs_predict_what_was_trained(
    family: str, backend: str, make: Make, tmp_path: Path
) -> None:
    folder, tokens = make(family), prompt(100, 5)
    path = _exported(folder, tmp_path / "x.edge")
    with Program.open(path) as program:
        assert set(program.plan.methods) == {"causal_lm", "embed", "draft"}
    for known in (0, 1, 63, 64, 96):
        expected = _expected(family, folder, tokens[: known + 4], known)
        with _running(path, backend) as steps:
            if known:
                steps.model(tokens[:known], wanted=False)
            got = [steps.draft(tokens[t : t + 1], t) for t in range(known, known + 4)]
        assert_parity(torch.cat(got), expected[known:])


def test_a_draft_without_rows_or_with_hidden_states_is_refused(make: Make, tmp_path: Path) -> None:
    with Program.open(_exported(make(), tmp_path / "x.edge")) as program:
        blocks = blocks_of(program.plan, 64)
        limits = Limits(
            max_tokens=4, max_rows=4, max_sequences=1, blocks=blocks, kv_dtype="f32", threads=1
        )
        executor = open_executor(program, limits)
        for segment in (Segment([1]), Segment([1], [None], hidden=1)):
            batch = Batch.of(segment, block_tables=block_tables(blocks), draft=True)
            with pytest.raises(NativeError, match=r"rows_count of a draft|hidden_count"):
                executor.step(batch)
        executor.close()


@pytest.mark.parametrize("scheme", ["fp32", "8da4w"])
def test_drafts_depend_on_the_tokens_before_alone(scheme: str, make: Make, tmp_path: Path) -> None:
    path = _exported(make(), tmp_path / "x.edge", scheme=scheme)
    tokens, wrong = prompt(140, 5), prompt(140, 6)
    with _running(path) as steps:
        logits = steps.model(tokens[:130])
        once = [steps.draft(tokens[t : t + 1], t) for t in range(130, 134)]
    with _running(path, sequences=3) as steps:
        steps.model(tokens[:1], sequence=2, wanted=False)
        ends = [1, 17, 63, 64, 65, 120, 130]
        for begin, end in pairwise(ends):
            for t in range(begin, min(begin + 3, end)):  # drafts that turn out to be wrong
                steps.draft(wrong[t : t + 1], t, 2)
            assert torch.equal(steps.model(tokens[begin:end], begin, 2), logits[begin:end])
            steps.model(wrong[begin:end], begin, 1)
        again = [steps.draft(tokens[t : t + 1], t, 2) for t in range(130, 134)]
    assert torch.equal(torch.cat(again), torch.cat(once))


def test_a_program_without_its_draft_method_is_that_of_a_checkpoint_without(
    make: Make, tiny_checkpoint: Make, tmp_path: Path
) -> None:
    path = _exported(make(), tmp_path / "x.edge", scheme="8da4w")
    plain = _exported(tiny_checkpoint(DENSE), tmp_path / "y.edge", scheme="8da4w")
    with Program.open(path, draft=False) as program, Program.open(plain) as other:
        assert program.plan == other.plan


def _texts() -> list[list[int]]:
    prompts = [prompt(length, length).tolist() for length in (150, 70, 33)]
    prompts.append((prompts[2] * 4)[:120])
    prompts.append(prompts[0][:130] + prompts[1][:20])  # hits the first, and rewinds
    return prompts


@pytest.mark.parametrize("speculation", ["draft", "auto"])
@pytest.mark.parametrize(
    "sampling", [{"temperature": 0.0}, {"temperature": 0.8, "seed": 5, "repetition_penalty": 1.2}]
)
def test_speculation_changes_no_token(
    sampling: dict[str, Any],
    speculation: str,
    make: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = _exported(make(), tmp_path / "x.edge", scheme="8da4w")
    params = {"max_tokens": 40, "ignore_eos": True, "top_logprobs": 1, **sampling}
    with edge_llm.load(path) as llm:
        alone = [llm.generate(ids, speculation="off", **params) for ids in _texts()]
    with edge_llm.load(path, draft=True, max_sequences=5) as llm:
        for _ in range(2):  # the second time over prefix hits
            together = llm.generate(_texts(), speculation=speculation, **params)
            assert [a.token_ids for a in together] == [a.token_ids for a in alone]
            assert [a.logprobs for a in together] == [a.logprobs for a in alone]
            assert sum(answer.stats.drafted_tokens for answer in together) > 0
    monkeypatch.setattr("edge_llm.runner.engine.scheduler.RESERVE_TOKENS", 0)
    with Program.open(path) as program:
        from edge_llm.runner.backends.native import groups

        room = 6 * sum(group.block_bytes for group in groups(program.plan, "f16"))
    tight = {"max_sequences": 4, "step_tokens": 64, "kv_budget": room, "kv_dtype": "f16"}
    with edge_llm.load(path, kv_dtype="f16") as llm:
        alone = [llm.generate(ids, speculation="off", **params) for ids in _texts()]
    with edge_llm.load(path, draft=True, **tight) as llm:
        squeezed = llm.generate(_texts(), speculation=speculation, **params)
        assert llm.engine.stats().preemptions > 0
    assert [a.token_ids for a in squeezed] == [a.token_ids for a in alone]


def test_who_predicts_well_is_believed(make: Make, tmp_path: Path) -> None:
    """Where layers add nothing, the next token follows from the last one alone, and a predictor
    that looks at the embedding alone knows the one after."""
    folder = make()
    tensors = load_file(folder / "model.safetensors")
    for name, values in tensors.items():
        if name.endswith(("o_proj.weight", "out_proj.weight", "down_proj.weight")):
            values.zero_()
    dim = tensors["mtp.fc.weight"].shape[0]
    tensors["mtp.fc.weight"] = torch.cat((torch.eye(dim), torch.zeros(dim, dim)), dim=1)
    tensors["mtp.pre_fc_norm_embedding.weight"].zero_()
    tensors["mtp.norm.weight"] = tensors["model.norm.weight"].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    path = _exported(folder, tmp_path / "x.edge")
    params = {"max_tokens": 60, "ignore_eos": True, "temperature": 0.7, "seed": 3}
    with edge_llm.load(path, draft=True) as llm:
        answer = llm.generate(prompt(20, 1).tolist(), speculation="draft", **params)
        plain = llm.generate(prompt(20, 1).tolist(), speculation="off", **params)
    assert answer.token_ids == plain.token_ids
    assert answer.stats.drafted_tokens >= 40
    assert answer.stats.accepted_tokens >= 0.95 * answer.stats.drafted_tokens


def test_programs_that_make_no_drafts_refuse(
    make: Make, tiny_checkpoint: Make, tmp_path: Path
) -> None:
    path = _exported(make(), tmp_path / "x.edge")
    plain = _exported(tiny_checkpoint(DENSE), tmp_path / "y.edge")
    with pytest.raises(ConfigError, match=r"y\.edge has no draft method"):
        edge_llm.load(plain, draft=True)
    for program in (path, plain):
        with (
            edge_llm.load(program) as llm,
            pytest.raises(RequestError, match="neither a draft method nor a draft program"),
        ):
            llm.generate("x", speculation="draft")


def test_a_text_model_among_other_parts_predicts_too(make: Make) -> None:
    folder = make()
    config = json.loads((folder / "config.json").read_text())
    whole = {"model_type": "qwen3_5", "text_config": config, "vision_config": {}}
    (folder / "config.json").write_text(json.dumps(whole))
    tensors = load_file(folder / "model.safetensors")
    renamed = {k.replace("model.", "model.language_model.", 1): v for k, v in tensors.items()}
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    checkpoint = open_checkpoint(folder)
    assert "mtp.fc.weight" in checkpoint.shapes
    assert "mtp_weights" not in checkpoint.unread_config_keys


@pytest.mark.parametrize("name", ["norm", "fc", "layers.0.mlp.up_proj"])
def test_what_is_not_whole_is_left_out(name: str, make: Make) -> None:
    folder = make()
    tensors = load_file(folder / "model.safetensors")
    del tensors[f"mtp.{name}.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    checkpoint = open_checkpoint(folder)
    assert not any(name.startswith("mtp.") for name in checkpoint.shapes)
    assert any("predict further tokens are left out" in note for note in checkpoint.notes)


@pytest.mark.parametrize("family", FAMILIES)
def test_exports_are_verified(
    family: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe("8da4w", [f"context={CONTEXT}", "gate=off"], model=str(make(family)))
    path = edge_llm.export(recipe, output=tmp_path / "x.edge")
    with Program.open(path) as program:
        assert program.golden is not None
        assert program.golden.drafts is not None
        assert (program.golden.drafts >= 0).all()
        check_golden(program)
        changed = program.golden.drafts.copy()
        changed[2, 1] = (changed[2, 1] + 1) % 256
        golden = replace(program.golden, drafts=changed)
        monkeypatch.setattr(Program, "golden", golden)
        with pytest.raises(ProgramError, match="prompt 2: the draft method predicts other tokens"):
            check_golden(program)
        monkeypatch.undo()
        formats = {weight.name: weight.format.name for weight in program.plan.weights}
    assert formats["mtp.fc.weight"] == "i4g32"


def test_drafts_of_constrained_answers(make: Make, tmp_path: Path) -> None:
    """A draft knows nothing of what is allowed: it is cut where it goes beyond."""
    path = _exported(make(), tmp_path / "x.edge")
    schema = {"type": "object", "properties": {"a": {"type": "string", "maxLength": 12}}}
    params = {"max_tokens": 40, "temperature": 1.0, "seed": 4, "json_schema": schema}
    with edge_llm.load(path, draft=True) as llm:
        plain = llm.generate("x", speculation="off", **params)
        drafted = llm.generate("x", speculation="draft", **params)
    assert plain.token_ids == drafted.token_ids


def test_many_experts_and_another_backend(make: Make, tmp_path: Path) -> None:
    path = _exported(make(SPARSE), tmp_path / "x.edge")
    params = {"max_tokens": 12, "ignore_eos": True, "temperature": 0.0}
    prompts = [prompt(70, 1).tolist(), prompt(9, 2).tolist()]
    for backend in ("native", "torch"):
        with edge_llm.load(path, draft=True, backend=backend, kv_dtype="f32") as llm:
            plain = llm.generate(prompts, speculation="off", **params)
            drafted = llm.generate(prompts, speculation="draft", **params)
            assert [a.token_ids for a in plain] == [a.token_ids for a in drafted]
            assert sum(a.stats.drafted_tokens for a in drafted) > 0


def test_drafts_are_the_same_on_every_instruction_set(make: Make, tmp_path: Path) -> None:
    path = _exported(make(), tmp_path / "x.edge", scheme="8da4w")
    code = (
        "import sys, edge_llm\n"
        "with edge_llm.load(sys.argv[1], draft=True) as llm:\n"
        "    a = llm.generate(list(range(40)), max_tokens=30, ignore_eos=True, temperature=0.9,\n"
        "        seed=2, speculation='draft')\n"
        "print(a.token_ids, a.stats.drafted_tokens, a.stats.accepted_tokens)\n"
    )
    said = set()
    for isa in isas():
        environment = {**os.environ, "EDGE_LLM_ISA": isa}
        command = [sys.executable, "-c", code, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        said.add(done.stdout)
    assert len(said) == 1


def test_adapters_beside_a_draft_method_change_no_token(make: Make, tmp_path: Path) -> None:
    path = _exported(make(), tmp_path / "x.edge")
    stem, folder = "base_model.model.model.layers.0.mlp.down_proj", tmp_path / "lora"
    checkpoint = open_checkpoint(tmp_path / "with-mtp")
    rows, columns = checkpoint.shapes["model.layers.0.mlp.down_proj.weight"]
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 4, "lora_alpha": 8}')
    random = torch.Generator().manual_seed(0)
    tensors = {
        f"{stem}.lora_A.weight": torch.randn(4, columns, generator=random),
        f"{stem}.lora_B.weight": torch.randn(rows, 4, generator=random),
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    options: dict[str, Any] = {"max_tokens": 30, "temperature": 0.0, "ignore_eos": True}
    with edge_llm.load(path, draft=True, adapters={"mine": folder}) as llm:
        answers = {
            (name, speculation): llm.generate(
                [1, 2, 3, 4], adapter=name, speculation=speculation, **options
            )
            for name in (None, "mine")
            for speculation in ("off", "draft")
        }
    for name in (None, "mine"):
        assert answers[name, "draft"].token_ids == answers[name, "off"].token_ids
        assert answers[name, "draft"].stats.drafted_tokens > 0
    assert answers["mine", "off"].token_ids != answers[None, "off"].token_ids
