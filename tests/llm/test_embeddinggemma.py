"""EmbeddingGemma: Gemma 3's blocks over tokens that see those behind them, a mean, two matrices;
beside transformers, from a tiny checkpoint to vectors, and the same in GGUF."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from bits import assert_same_bits, isas
from fixtures_checkpoints import reference_model
from fixtures_server import serving
from numpy.typing import NDArray
from parity import (
    assert_parity,
    check_at_once,
    check_quantized_program,
    eager,
    prompt,
    reference,
    running,
)
from safetensors.numpy import load_file, save_file
from starlette.testclient import TestClient
from stored_tensors import assert_same_model

import edge_llm
from edge_llm.cli.main import main
from edge_llm.errors import CheckpointError, ContextLengthError, RequestError
from edge_llm.export.pipeline import export
from edge_llm.export.recipes.file import load_recipe
from edge_llm.llm.checkpoints.open import open_checkpoint
from edge_llm.llm.registry import read_config
from edge_llm.program.file import Program
from edge_llm.runner.evaluation.golden import check_golden
from edge_llm.server.app import create_app
from edge_llm.server.options import ServerOptions

Float32 = NDArray[np.float32]
PUBLISHED: dict[str, dict[str, Any]] = {
    "embeddinggemma-300m": {
        "_sliding_window_pattern": 6,
        "architectures": ["Gemma3TextModel"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attn_logit_softcapping": None,
        "bos_token_id": 2,
        "dtype": "float32",
        "eos_token_id": 1,
        "final_logit_softcapping": None,
        "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": 768,
        "initializer_range": 0.02,
        "intermediate_size": 1152,
        "layer_types": ([*["sliding_attention"] * 5, "full_attention"]) * 4,
        "max_position_embeddings": 2048,
        "model_type": "gemma3_text",
        "num_attention_heads": 3,
        "num_hidden_layers": 24,
        "num_key_value_heads": 1,
        "pad_token_id": 0,
        "query_pre_attn_scalar": 256,
        "rms_norm_eps": 1e-06,
        "rope_local_base_freq": 10000.0,
        "rope_scaling": None,
        "rope_theta": 1000000.0,
        "sliding_window": 512,
        "use_bidirectional_attention": True,
        "use_cache": True,
        "vocab_size": 262144,
    }
}
BOTH = {"use_bidirectional_attention": True, "tie_word_embeddings": True}
TEXTS = ["the cat and the hat", "another text", "x", "a" * 70 + " and a longer one" * 8]
QUERY, DOCUMENT = "task: search result | query: ", "title: none | text: "
Checkpoints = Callable[..., Path]


@pytest.fixture
def plain(tiny_checkpoint: Checkpoints) -> Path:
    """A checkpoint of the language model's form; its windows are shorter than the prompts."""
    return tiny_checkpoint("gemma3_text", **BOTH)


@pytest.fixture
def folder(plain: Path, tmp_path: Path) -> Path:
    """The same as sentence-transformers saves it: without a head, with a mean and two matrices."""
    return embedding_folder(plain, tmp_path / "model")


def embedding_folder(plain: Path, folder: Path) -> Path:
    shutil.copytree(plain, folder)
    file = folder / "model.safetensors"
    save_file({n.removeprefix("model."): v for n, v in load_file(file).items()}, file)
    kinds = ["Transformer", "Pooling", "Dense", "Dense", "Normalize"]
    places = ["" if kind == "Transformer" else f"{i}_{kind}" for i, kind in enumerate(kinds)]
    write(
        folder / "modules.json",
        [
            {
                "idx": i,
                "name": str(i),
                "path": place,
                "type": f"sentence_transformers.models.{kind}",
            }
            for i, (kind, place) in enumerate(zip(kinds, places, strict=True))
        ],
    )
    write(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": 64, "pooling_mode_mean_tokens": True, "include_prompt": True},
    )
    rng = np.random.default_rng(5)
    for place, rows, columns in (("2_Dense", 96, 64), ("3_Dense", 64, 96)):
        write(
            folder / place / "config.json",
            {
                "in_features": columns,
                "out_features": rows,
                "bias": False,
                "activation_function": "torch.nn.modules.linear.Identity",
            },
        )
        matrix = rng.standard_normal((rows, columns)) / columns**0.5
        save_file(
            {"linear.weight": matrix.astype(np.float32)}, folder / place / "model.safetensors"
        )
    prompts = {"query": QUERY, "document": DOCUMENT, "Clustering": "task: clustering | query: "}
    write(folder / "config_sentence_transformers.json", {"prompts": prompts})
    return folder


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def made(folder: Path, output: Path, scheme: str = "fp32", *settings: str) -> Path:
    return export(load_recipe(scheme, list(settings), model=str(folder)), output=output)


def expected_vector(plain: Path, folder: Path, ids: list[int]) -> Float32:
    """The modules of sentence-transformers one after the other, by transformers and numpy."""
    with torch.no_grad():
        states = reference_model(plain).model(torch.tensor([ids])).last_hidden_state[0]
    vector = states.double().mean(dim=0).numpy()
    for place in ("2_Dense", "3_Dense"):
        vector = load_file(folder / place / "model.safetensors")["linear.weight"] @ vector
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def test_eager_is_transformers_with_its_own_masks(plain: Path) -> None:
    assert reference_model(plain).config.sliding_window == 10  # of each direction
    check_at_once(plain)


def test_texts_of_one_step_do_not_see_each_other(plain: Path, tmp_path: Path) -> None:
    a, b = prompt(90, 1), prompt(33, 2)
    tokens, positions = torch.cat((a, b)), torch.cat((torch.arange(90), torch.arange(33)))
    owners = torch.tensor([0] * 90 + [1] * 33)
    logits = eager(plain, 160, slots=2)(tokens, positions, owners, torch.arange(123))
    expected = torch.cat(reference(plain, 160, a, b))
    assert_parity(logits, expected)
    path = made(plain, tmp_path / "x.edge", "fp32", "verify=false", "context=256")
    with Program.open(path) as program, running(program) as step:
        assert_parity(step((0, 0, a), (1, 0, b)), expected)


def test_quantized_program(plain: Path, tmp_path: Path) -> None:
    check_quantized_program(plain, "8da4w", tmp_path / "x.edge")


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_vectors_are_those_of_its_modules(
    plain: Path, folder: Path, tmp_path: Path, backend: str
) -> None:
    path = made(folder, tmp_path / "x.edge", "fp32", "verify=false", "context=256")
    with edge_llm.load(path, threads=2, backend=backend) as llm:
        got = llm.embed(TEXTS)
        queries = llm.embed(TEXTS, input_type="query")
        documents = llm.embed(TEXTS, input_type="document")
        short = llm.embed(TEXTS, dimensions=16)
        for row, text in enumerate(TEXTS):
            for vectors, front in ((got, ""), (queries, QUERY), (documents, DOCUMENT)):
                ids = llm.tokenizer.encode(front + text)
                np.testing.assert_allclose(
                    vectors[row], expected_vector(plain, folder, ids), atol=1e-4 * 64**-0.5
                )
    assert len(llm.tokenizer.encode(TEXTS[-1])) > 2 * 64
    cut = got[:, :16] / np.linalg.norm(got[:, :16], axis=1, keepdims=True)
    np.testing.assert_allclose(short, cut, atol=1e-6)


def test_bits_of_a_vector_follow_from_its_text(folder: Path, tmp_path: Path) -> None:
    """And not from neighbours, workers, instruction set, limits, or what was asked before."""
    path = made(folder, tmp_path / "x.edge", "8da4w", "gate=off", "context=256")
    with edge_llm.load(path, threads=1) as llm:
        alone = np.concatenate([llm.embed([text]) for text in TEXTS])
    for isa in isas():
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("EDGE_LLM_ISA", isa)
            with edge_llm.load(path, threads=2) as llm:
                assert_same_bits(llm.embed(TEXTS * 2), np.concatenate([alone, alone]))
    options: dict[str, Any]
    for options in (
        {"threads": 3, "max_sequences": 2},
        {"step_tokens": 8, "max_sequences": 8},
        {"context": 220, "kv_budget": 2**20},
    ):
        with edge_llm.load(path, **options) as llm:
            assert_same_bits(llm.embed(TEXTS[::-1] * 3), np.concatenate([alone[::-1]] * 3))
            assert llm.engine.stats().blocks_cached == 0


def test_sessions_keep_nothing_of_it(folder: Path, tmp_path: Path) -> None:
    path = made(folder, tmp_path / "x.edge", "fp32", "verify=false", "context=64")
    with edge_llm.load(path, sessions=tmp_path / "sessions") as llm:
        first = llm.embed(["x" * 64, "and y"])
    assert not list((tmp_path / "sessions").rglob("*.block"))
    with edge_llm.load(path, sessions=tmp_path / "sessions") as llm:
        assert_same_bits(llm.embed(["x" * 64, "and y"]), first)


def test_whole_export_and_its_golden_record(folder: Path, tmp_path: Path) -> None:
    path = made(folder, tmp_path / "x.edge", "8da4w", "gate=off", "context=128")
    with Program.open(path) as program:
        check_golden(program, threads=2)
        assert program.golden is not None
        assert (program.golden.next == -1).all()
        method = program.plan.embed
        assert method is not None
        assert [op.op for op in method.instructions[-3:]] == ["rms_norm", "linear", "linear"]
        formats = {w.name: w.format.name for w in program.plan.weights}
        assert formats["projection.0.weight"] == "i6g32"
        assert program.plan.bidirectional


def test_it_makes_vectors_alone(folder: Path, tmp_path: Path) -> None:
    path = made(folder, tmp_path / "x.edge", "fp32", "verify=false", "context=64")
    with edge_llm.load(path) as llm:
        for ask in (
            lambda: llm.generate("go on"),
            lambda: llm.chat([{"role": "user", "content": "hello"}]),
            lambda: llm.logits([1, 2, 3]),
        ):
            with pytest.raises(RequestError, match="for vectors alone") as caught:
                ask()
            assert "LLM.embed" in str(caught.value.hint)
        assert not llm.about.answers
        assert llm.about.vectors
        with pytest.raises(ContextLengthError):
            llm.embed("x" * 65)
        assert llm.embed("x" * 64).shape == (1, 64)


def test_commands_that_need_predictions(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = str(made(folder, tmp_path / "x.edge", "8da4w", "gate=off", "context=128"))
    text = tmp_path / "text"
    text.write_text("the cat and the hat " * 30, encoding="utf-8")
    for command in (
        ["eval", path, "--text", str(text), "--window", "64"],
        ["bench", path, "--prompt-tokens", "32", "--decode-tokens", "2"],
    ):
        assert main(command) == 1
        assert "the model is for vectors alone" in capfd.readouterr().err
    assert main(["bench", path, "--prompt-tokens", "32", "--decode-tokens", "0"]) == 0
    assert main(["verify", path]) == 0


def test_over_http(folder: Path, tmp_path: Path) -> None:
    path = made(folder, tmp_path / "x.edge", "8da4w", "gate=off", "context=128")
    with edge_llm.load(path, threads=1) as llm:
        app = create_app(serving(llm, max_choices=4), ServerOptions())
        client = TestClient(app, base_url="http://127.0.0.1:8017")
        body = {"input": TEXTS[:3], "input_type": "query", "dimensions": 16}
        reply = client.post("/v1/embeddings", json=body).json()
        got = np.array([entry["embedding"] for entry in reply["data"]], np.float32)
        assert_same_bits(got, llm.embed(TEXTS[:3], input_type="query", dimensions=16))
        reply = client.post("/api/embed", json={"model": llm.name, "input": TEXTS[0]}).json()
        assert_same_bits(np.array(reply["embeddings"], np.float32), llm.embed(TEXTS[0]))
        message = {"role": "user", "content": "hello"}
        for route, asked in (
            ("/v1/chat/completions", {"messages": [message]}),
            ("/v1/completions", {"prompt": "hello"}),
            ("/api/chat", {"model": llm.name, "messages": [message], "stream": False}),
            ("/v1/messages", {"model": llm.name, "max_tokens": 4, "messages": [message]}),
        ):
            response = client.post(route, json=asked)
            assert response.status_code == 400, response.text
            assert "for vectors alone" in response.text
        shown = client.post("/api/show", json={"model": llm.name}).json()
        assert shown["capabilities"] == ["embedding"]
        long = client.post("/v1/embeddings", json={"input": "x" * 129})
        assert long.json()["error"]["code"] == "context_length_exceeded"


def test_the_same_model_in_gguf(
    folder: Path, make_gguf: Callable[..., Path], tmp_path: Path
) -> None:
    def add(writer: gguf.GGUFWriter) -> None:
        writer.add_pooling_type(gguf.PoolingType.MEAN)
        writer.add_embedding_length_out(64)
        for number, place in ((2, "2_Dense"), (3, "3_Dense")):
            matrix = load_file(folder / place / "model.safetensors")["linear.weight"]
            writer.add_dense_features_dims(f"dense_{number}", matrix.shape[1], matrix.shape[0])
            writer.add_tensor(f"dense_{number}.weight", matrix)

    plain = usual(folder, tmp_path)
    file = make_gguf(plain, edit=add)
    assert_same_model(open_checkpoint(plain), open_checkpoint(file))
    retrieval = open_checkpoint(file).retrieval
    assert retrieval == open_checkpoint(plain).retrieval
    paths = [
        made(source, tmp_path / f"{name}.edge", "fp32", "verify=false", "context=256")
        for name, source in (("folder", plain), ("gguf", file))
    ]
    vectors = []
    for path in paths:
        with edge_llm.load(path, threads=1) as llm:
            ids = [llm.tokenizer.encode(text)[:200] for text in TEXTS]
            vectors.append(llm.embed(ids))
    assert_same_bits(vectors[0], vectors[1])


def usual(folder: Path, tmp_path: Path) -> Path:
    """Return a model with what GGUF files leave to their reader."""
    from fixtures_checkpoints import write_tiny_checkpoint

    plain = tmp_path / "usual"
    plain.mkdir()
    write_tiny_checkpoint(
        plain,
        "gemma3_text",
        **BOTH,
        query_pre_attn_scalar=24,
        num_hidden_layers=7,
        sliding_window_pattern=6,
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": 1_000_000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        },
    )
    for name in ("modules.json", "config_sentence_transformers.json"):
        shutil.copy(folder / name, plain / name)
    for place in ("1_Pooling", "2_Dense", "3_Dense"):
        shutil.copytree(folder / place, plain / place)
    return plain


def test_gguf_without_its_matrices_says_so(
    folder: Path, make_gguf: Callable[..., Path], tmp_path: Path
) -> None:
    def add(writer: gguf.GGUFWriter) -> None:
        writer.add_pooling_type(gguf.PoolingType.MEAN)
        writer.add_causal_attention(False)

    checkpoint = open_checkpoint(make_gguf(usual(folder, tmp_path), edit=add))
    assert checkpoint.retrieval is not None
    assert checkpoint.retrieval.query == QUERY
    assert any("without dense_2.weight and dense_3.weight" in note for note in checkpoint.notes)


@pytest.mark.parametrize(
    ("place", "changes", "message"),
    [
        (
            "2_Dense",
            {"out_features": 32},
            r"projection.0.weight: got \[96, 64\], expected \[32, 64\]",
        ),
        ("3_Dense", {"in_features": 32}, "projection.1.weight: takes 32 columns, gets 96"),
    ],
)
def test_matrices_that_do_not_fit(
    folder: Path, place: str, changes: dict[str, Any], message: str
) -> None:
    file = folder / place / "config.json"
    write(file, json.loads(file.read_text()) | changes)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    "changes", [{"bias": True}, {"activation_function": "torch.nn.modules.activation.Tanh"}]
)
def test_what_is_more_than_a_matrix_is_left_out_and_said(
    folder: Path, changes: dict[str, Any]
) -> None:
    file = folder / "3_Dense" / "config.json"
    write(file, json.loads(file.read_text()) | changes)
    checkpoint = open_checkpoint(folder)
    assert checkpoint.retrieval is not None
    assert checkpoint.retrieval.projection == ()
    assert sum("module Dense is not part of the program" in note for note in checkpoint.notes) == 2


def test_published_config() -> None:
    config, unread = read_config(PUBLISHED["embeddinggemma-300m"], "config.json")
    assert unread == ()
    shapes = [config.attention(layer) for layer in (0, 5)]
    assert [shape.window for shape in shapes if shape] == [257, 0]
    assert all(shape is not None and shape.bidirectional for shape in shapes)
