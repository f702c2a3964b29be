"""Programs of Meta's quantized checkpoints against an eager rendition of their arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures_meta import QuantizedFactory, Written
from hadamard_matrix import hadamard_matrix

import edge_llm
from edge_llm.cli.main import main
from edge_llm.export.pipeline import make_program
from edge_llm.export.recipes.recipe import Recipe
from edge_llm.llm.checkpoints.meta.shards import parameter_name
from edge_llm.program.file import Program

TABLE = "model.embed_tokens.weight"
OUTER = ("tok_embeddings", "output")
LORA = {"rank": 16, "scale": 2.0}
IDS = [(7 * i * i + 3 * i) % 250 for i in range(1, 40)]
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "qlora": {"lora": LORA},
    "qlora, odd rank": {"lora": {"rank": 5, "scale": 0.3}},
    "spinquant": {"spinquant": True},
    "spinquant 28": {"spinquant": True, "sizes": {"intermediate_size": 448}},
    "groups of 64": {"group": 64},
}


class Rendition:
    """Llama over Meta's tensors as they are stored: rotary pairs side by side, every linear of int8
    activations, low-rank terms added, and the Hadamard transform as the product with its matrix."""

    def __init__(self, written: Written, *, activations: bool = True) -> None:
        self.tensors, self.params = written.tensors, written.params
        self.rounds = rounded if activations else lambda x: x

    def weight(self, module: str) -> torch.Tensor:
        q, scales = self.tensors[f"{module}.weight"], self.tensors[f"{module}.scales"]
        groups = q.double().reshape(len(q), scales.shape[1], -1)
        return (groups * scales.double()[:, :, None]).reshape(q.shape)

    def linear(self, module: str, x: torch.Tensor) -> torch.Tensor:
        y = self.rounds(x) @ self.weight(module).T
        if f"{module}.adaptor.A.weight" in self.tensors:
            a, b = (self.tensors[f"{module}.adaptor.{part}.weight"].double() for part in "AB")
            y = y + self.params["lora_args"]["scale"] * (x @ a.T @ b.T)
        return y

    def norm(self, module: str, x: torch.Tensor) -> torch.Tensor:
        mean = (x**2).mean(dim=-1, keepdim=True)
        weight = self.tensors[f"{module}.weight"].double()
        return x / torch.sqrt(mean + self.params["norm_eps"]) * weight

    def heads(self, x: torch.Tensor, count: int, *, rotate: bool) -> torch.Tensor:
        """(heads, T, head_dim), as many as there are of queries."""
        split = x.reshape(len(x), count, -1)
        if rotate:
            dim = split.shape[-1]
            rates = self.params["rope_theta"] ** (-torch.arange(0, dim, 2).double() / dim)
            angles = torch.arange(len(x)).double()[:, None] * rates
            turned = torch.view_as_complex(split.reshape(len(x), count, -1, 2).contiguous())
            turned = turned * torch.polar(torch.ones_like(angles), angles)[:, None]
            split = torch.view_as_real(turned).flatten(2)
        copies = self.params["n_heads"] // count
        return split.repeat_interleave(copies, dim=1).transpose(0, 1)

    def logits(self, ids: list[int]) -> torch.Tensor:
        x = self.weight("tok_embeddings")[ids]
        later = torch.ones(len(ids), len(ids)).triu(1).bool()
        for layer in range(self.params["n_layers"]):
            name = f"layers.{layer}"
            y = self.norm(f"{name}.attention_norm", x)
            q, k, v = (self.linear(f"{name}.attention.{part}", y) for part in ("wq", "wk", "wv"))
            q = self.heads(q, self.params["n_heads"], rotate=True)
            k = self.heads(k, self.params["n_kv_heads"], rotate=True)
            v = self.heads(v, self.params["n_kv_heads"], rotate=False)
            scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
            mixed = scores.masked_fill(later, -torch.inf).softmax(dim=-1) @ v
            x = x + self.linear(f"{name}.attention.wo", mixed.transpose(0, 1).flatten(1))
            y = self.norm(f"{name}.ffn_norm", x)
            gate, up = (self.linear(f"{name}.feed_forward.{part}", y) for part in ("w1", "w3"))
            inner = torch.nn.functional.silu(gate) * up
            if self.params["quantization_args"].get("spinquant"):
                inner = inner @ torch.from_numpy(hadamard_matrix(inner.shape[1])).T
            x = x + self.linear(f"{name}.feed_forward.w2", inner)
        return self.linear("output", self.norm("norm", x))


def linears(written: Written) -> list[str]:
    """The modules of integers."""
    names = written.tensors
    return [name.removesuffix(".scales") for name in names if name.endswith(".scales")]


def parameter(module: str) -> str:
    return parameter_name(f"{module}.weight").removesuffix(".weight")


def rounded(x: torch.Tensor) -> torch.Tensor:
    """Each row in int8 with a scale and a zero point of its own, as torchao has it."""
    low, high = (x.amin(1, keepdim=True).clamp(max=0), x.amax(1, keepdim=True).clamp(min=0))
    scale = (high - low) / 255
    zero = (-128 - (low / scale).round()).clamp(-128, 127)
    return (((x / scale).round() + zero).clamp(-128, 127) - zero) * scale


def exported(written: Written, target: Path, **choices: Any) -> dict[str, Any]:
    recipe = Recipe(model=str(written.folder), kv_dtype="f32", **choices)
    return make_program(recipe, output=target).report


def logits(path: Path) -> Any:
    with edge_llm.load(path) as llm:
        return llm.logits(IDS)


def assert_near(got: Any, wanted: Any) -> None:
    off = np.linalg.norm(got - wanted, axis=1) / np.linalg.norm(wanted, axis=1)
    assert off.max() < 2e-6


@pytest.mark.parametrize("kind", KINDS)
def test_the_program_computes_what_the_checkpoint_means(
    kind: str, make_quantized_meta: QuantizedFactory, tmp_path: Path
) -> None:
    written = make_quantized_meta(**KINDS[kind])
    report = exported(written, tmp_path / "x.edge")
    assert_near(logits(tmp_path / "x.edge"), Rendition(written).logits(IDS).numpy())
    rows = {row["name"]: row for row in report["weights"]}
    integers = {f"{module}.weight" for module in map(parameter, linears(written))}
    assert {name for name, row in rows.items() if row["outcome"] == "unchanged"} == integers
    assert {row["outcome"] for name, row in rows.items() if name not in integers} == {"exact"}
    assert {rows[name]["format"] for name in ("lm_head.weight", TABLE)} == {"i8"}
    group = written.params["quantization_args"]["group_size"]
    assert rows["model.layers.0.mlp.down_proj.weight"]["format"] == f"i4g{group}"
    assert not any("keep the checkpoint's integers, but for" in note for note in report["notes"])


@pytest.mark.parametrize("kind", ["plain", "qlora", "spinquant"])
def test_scales_and_codes_that_a_program_has_not(
    kind: str, make_quantized_meta: QuantizedFactory, tmp_path: Path
) -> None:
    """Scales of 24 bits are rounded to 11, codes of -128 become -127: the report says by how much,
    and nothing else is lost."""
    written = make_quantized_meta(halves=False, **KINDS[kind])
    report = exported(written, tmp_path / "x.edge")
    nearly = adjusted(written)
    assert_near(logits(tmp_path / "x.edge"), Rendition(nearly).logits(IDS).numpy())
    before, after = Rendition(written), Rendition(nearly)
    rows = {row["name"]: row for row in report["weights"]}
    for module in linears(written):
        row = rows[f"{parameter(module)}.weight"]
        assert row["outcome"] == "adjusted"
        signal = (before.weight(module) ** 2).sum()
        noise = ((before.weight(module) - after.weight(module)) ** 2).sum()
        assert row["sqnr_db"] == pytest.approx(float(10 * torch.log10(signal / noise)), abs=0.01)
        assert row["sqnr_db"] > (40 if module in OUTER else 66)
    (note,) = (note for note in report["notes"] if "keep the checkpoint's integers" in note)
    lowest = min(row["sqnr_db"] for row in rows.values() if row["outcome"] == "adjusted")
    assert note.startswith(f"{len(linears(written))} weights keep the checkpoint's integers, but")
    assert note.endswith(f"SQNR {lowest:.1f} dB at least")


def adjusted(written: Written) -> Written:
    tensors = dict(written.tensors)
    for name, tensor in written.tensors.items():
        if name.endswith(".scales") and name.removesuffix(".scales") not in OUTER:
            tensors[name] = tensor.half().float()
        if name.removesuffix(".weight") in OUTER and tensor.dtype == torch.int8:
            tensors[name] = tensor.clamp(min=-127)
    return Written(written.folder, tensors)


def test_low_rank_terms_stay_apart(make_quantized_meta: QuantizedFactory, tmp_path: Path) -> None:
    written = make_quantized_meta(lora=LORA)
    exported(written, tmp_path / "x.edge")
    with Program.open(tmp_path / "x.edge") as program:
        ops = [op.op for op in program.plan.language_model.instructions]
        formats = {weight.name: weight.format.name for weight in program.plan.weights}
        notes = program.documents.report["notes"]
    assert ops.count("scale") == 14  # one a linear
    assert formats["model.layers.0.mlp.down_proj.adaptor.A.weight"] == "bf16"
    assert formats["model.layers.0.mlp.down_proj.adaptor.B.weight"] == "bf16"
    assert formats["model.layers.0.mlp.gate_proj+up_proj.adaptor.A.weight"] == "bf16"
    assert notes[0] == (
        "checkpoint quantized by Meta with QLoRA: 2 matrices hold i8, 14 matrices hold i4g32"
    )
    # The adaptors, which stay as they are, are none of those that are quantized.
    assert "16 of 16 matrices taken over as the checkpoint's own integers" in notes
    assert notes[1] == "adaptors of rank 16, times 2, stay beside the linears of every layer"


def test_other_schemes(make_quantized_meta: QuantizedFactory, tmp_path: Path) -> None:
    """Under a scheme of floats nothing is int8; a checkpoint that is quantized anew keeps its
    terms."""
    written = make_quantized_meta(lora=LORA, spinquant=True)
    exported(written, tmp_path / "x.edge", scheme="fp32")
    wanted = Rendition(written, activations=False).logits(IDS).numpy()
    assert_near(logits(tmp_path / "x.edge"), wanted)
    report = exported(written, tmp_path / "y.edge", scheme="8da8w", requantize=True)
    outcomes = {row["name"]: row["outcome"] for row in report["weights"]}
    assert outcomes["model.layers.0.mlp.up_proj.weight"] == "rounded"
    assert outcomes["model.layers.0.mlp.up_proj.adaptor.B.weight"] == "exact"


def test_from_the_command_line(make_quantized_meta: QuantizedFactory, tmp_path: Path) -> None:
    written = make_quantized_meta(lora=LORA, spinquant=True, halves=False)
    path = tmp_path / "x.edge"
    assert main(["export", str(written.folder), "-o", str(path)]) == 0
    assert main(["verify", str(path)]) == 0
    assert main(["export", str(written.folder), "--dry-run"]) == 0


def test_with_the_files_that_meta_publishes(
    make_quantized_meta: QuantizedFactory, llama3_tiktoken: Path, tmp_path: Path
) -> None:
    """Three files: what the tokenizer leaves out is known by its size."""
    sizes = {"vocab_size": 128_256, "num_hidden_layers": 1}
    written = make_quantized_meta(lora=LORA, spinquant=True, halves=False, sizes=sizes)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (written.folder / name).unlink()
    (written.folder / "tokenizer.model").write_bytes(llama3_tiktoken.read_bytes())
    report = exported(written, tmp_path / "x.edge")
    assert report["formats"]["i8"]["adjusted"] == 2
    with edge_llm.load(tmp_path / "x.edge") as llm:
        assert len(llm.generate("Hello", max_tokens=4, ignore_eos=True).token_ids) == 4
