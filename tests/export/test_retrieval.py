"""What a checkpoint says about vectors and reranking, in the program that is made of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bits import assert_same_bits
from safetensors.numpy import load_file, save_file

import edge_llm
from edge_llm.cli.main import main
from edge_llm.errors import CheckpointError
from edge_llm.export.origin.load import load
from edge_llm.export.recipes.file import load_recipe
from edge_llm.export.recipes.recipe import Recipe
from edge_llm.program.documents import EmbeddingFacts

POOLING = "sentence_transformers.models.Pooling"


@pytest.fixture
def folder(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> Path:
    """A checkpoint to be changed, of the family of Qwen's embedding models."""
    return shutil.copytree(tiny_checkpoint("qwen3", tie_word_embeddings=True), tmp_path / "model")


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def modules(folder: Path, **kinds: str) -> None:
    """Write modules.json: a type and a folder for each."""
    entries = [
        {"idx": index, "name": str(index), "path": place, "type": f"sentence_transformers.{kind}"}
        for index, (kind, place) in enumerate(kinds.items())
    ]
    write(folder / "modules.json", entries)


def embedding_model(folder: Path) -> None:
    """Make of a folder what an embedding model's looks like."""
    modules(folder, Transformer="", Pooling="1_Pooling", Normalize="2_Normalize")
    flags = {"pooling_mode_mean_tokens": False, "pooling_mode_lasttoken": True}
    write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": 64, **flags})
    prompts = {"query": "Instruct: find\nQuery:", "document": ""}
    write(folder / "config_sentence_transformers.json", {"prompts": prompts})
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}},
        ],
        "pair": [
            {"Sequence": {"id": "A", "type_id": 0}},
            {"Sequence": {"id": "B", "type_id": 0}},
        ],
        "special_tokens": {
            "<|endoftext|>": {"id": "<|endoftext|>", "ids": [256], "tokens": ["<|endoftext|>"]}
        },
    }
    write(folder / "tokenizer.json", tokenizer)


def without_prefix(folder: Path) -> None:
    """Save the weights as a model without a head does."""
    file = folder / "model.safetensors"
    tensors = {name.removeprefix("model."): value for name, value in load_file(file).items()}
    save_file(tensors, file)


def facts(folder: Path) -> Any:
    return load(Recipe(model=str(folder)))


def test_embedding_model_says_how(folder: Path, tmp_path: Path) -> None:
    embedding_model(folder)
    without_prefix(folder)
    recipe = edge_llm.Recipe(model=str(folder), scheme="fp32", gate=None, verify=False)
    path = edge_llm.export(recipe, output=tmp_path / "model.edge")
    with edge_llm.load(path, threads=1) as llm:
        assert llm.program.documents.embedding == EmbeddingFacts(
            pooling="last", end_id=256, query="Instruct: find\nQuery:", document=""
        )
        hashed = json.dumps(llm.program.documents.provenance)
        assert "1_Pooling" in hashed or "config_sentence_transformers" in hashed
        ids = [*llm.tokenizer.encode("Instruct: find\nQuery:the cat"), 256]
        expected = llm.embed(ids, pooling="last")
        assert_same_bits(llm.embed("the cat", input_type="query"), expected)
        assert np.isfinite(expected).all()


@pytest.mark.parametrize("tied", [True, False])
def test_vectors_are_those_of_transformers(
    tied: bool, tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """A folder as Qwen3-Embedding is published has no head, also where that is not tied."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    source = tiny_checkpoint("qwen3", tie_word_embeddings=tied)
    folder = shutil.copytree(source, tmp_path / "model")
    AutoModel.from_pretrained(source).save_pretrained(folder)
    embedding_model(folder)
    recipe = edge_llm.Recipe(model=str(folder), scheme="fp32", gate=None, verify=False)
    path = edge_llm.export(recipe, output=tmp_path / "model.edge")
    reference, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    texts = ["the cat and the hat", "x", "a longer one, " * 12]
    with edge_llm.load(path, threads=2) as llm:
        for kind, prompt in (("query", "Instruct: find\nQuery:"), ("document", "")):
            got = llm.embed(texts, input_type=kind)  # type: ignore[call-overload]
            short = llm.embed(texts, input_type=kind, dimensions=24)  # type: ignore[call-overload]
            for vector, cut, text in zip(got, short, texts, strict=True):
                ids = tokenizer(prompt + text, return_tensors="pt")["input_ids"]
                assert ids[0, -1] == 256  # the end of the text
                with torch.no_grad():
                    state = reference(ids).last_hidden_state[0, -1].double().numpy()
                expected = state / np.linalg.norm(state)
                np.testing.assert_allclose(vector, expected, atol=1e-4)
                expected = state[:24] / np.linalg.norm(state[:24])
                np.testing.assert_allclose(cut, expected, atol=1e-4)


def test_a_head_that_is_missing_is_said(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_checkpoint("qwen3"), tmp_path / "model")
    file = folder / "model.safetensors"
    tensors = load_file(file)
    del tensors["lm_head.weight"]
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match="missing: lm_head"):
        facts(folder)
    embedding_model(folder)
    assert any("lm_head.weight is missing, as in" in note for note in facts(folder).notes)


@pytest.mark.parametrize("named", [True, False])
def test_scores_are_those_of_transformers(
    named: bool, tmp_path: Path, tiny_checkpoint: Callable[..., Path]
) -> None:
    """In a folder as Qwen3-Reranker is published, its tokens are named or found by their text."""
    import torch
    from fixtures_checkpoints import reference_model
    from transformers import AutoTokenizer

    source = tiny_checkpoint("qwen3", max_position_embeddings=1024)
    folder = shutil.copytree(source, tmp_path / "model")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    words = ("yes", "no", "ye")
    tokenizer["model"]["vocab"] |= {word: 265 + index for index, word in enumerate(words)}
    tokenizer["model"]["merges"] += [["y", "e"], ["ye", "s"], ["n", "o"]]
    write(folder / "tokenizer.json", tokenizer)
    (folder / "README.md").write_text("---\npipeline_tag: text-ranking\n---\n", encoding="utf-8")
    if named:
        modules(folder, Transformer="", LogitScore="1_LogitScore")
        ids = {"true_token_id": 265, "false_token_id": 266}
        write(folder / "1_LogitScore" / "config.json", ids)
    settings = ["gate=off", "verify=false", "context=1024"]
    recipe = load_recipe("fp32", settings, model=str(folder))
    path = edge_llm.export(recipe, output=tmp_path / "model.edge")
    documents = ["the hat", "a cat and another cat", "nothing at all"]
    reference, theirs = reference_model(folder), AutoTokenizer.from_pretrained(folder)
    with edge_llm.load(path, threads=2) as llm:
        judged = llm.program.documents.rerank
        assert judged is not None
        scores = llm.rerank("where", documents)
        template, instruction = judged.template, judged.instruction
    for score, document in zip(scores, documents, strict=True):
        text = template.replace("{instruction}", instruction).replace("{query}", "where")
        ids = theirs(text.replace("{document}", document), return_tensors="pt")["input_ids"]
        with torch.no_grad():
            logits = reference(ids).logits[0, -1, [265, 266]].double()
        assert score == pytest.approx(float(torch.softmax(logits, dim=0)[0]), abs=1e-4)


def test_inspect_shows_it(folder: Path, tmp_path: Path, capsys: Any) -> None:
    embedding_model(folder)
    modules(folder, Transformer="", Pooling="1_Pooling", LogitScore="1_LogitScore")
    write(folder / "1_LogitScore" / "config.json", {"true_token_id": 7, "false_token_id": 8})
    recipe = edge_llm.Recipe(model=str(folder), scheme="fp32", gate=None, verify=False)
    path = edge_llm.export(recipe, output=tmp_path / "model.edge")
    assert main(["inspect", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "vectors         last, token 256 behind every text" in shown
    assert "reranks         by token 7 against 8" in shown
    assert "methods         causal_lm, embed" in shown


def test_plain_checkpoint_says_nothing(folder: Path) -> None:
    loaded = facts(folder)
    assert loaded.embedding is None
    assert loaded.rerank is None


@pytest.mark.parametrize(
    ("values", "pooling"),
    [
        ({"pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode": "lasttoken"}, "last"),
        ({"pooling_mode": "mean"}, "mean"),
    ],
)
def test_poolings(folder: Path, values: dict[str, Any], pooling: str) -> None:
    modules(folder, Pooling="1_Pooling")
    write(folder / "1_Pooling" / "config.json", values)
    assert facts(folder).embedding == EmbeddingFacts(pooling=pooling)  # type: ignore[arg-type]


def test_what_is_not_known_is_noted(folder: Path) -> None:
    modules(folder, Pooling="1_Pooling", Dense="2_Dense")
    write(folder / "1_Pooling" / "config.json", {"pooling_mode_cls_token": True})
    loaded = facts(folder)
    assert loaded.embedding is None
    notes = "; ".join(loaded.notes)
    assert "pooling 'cls_token' is not known" in notes
    assert "module Dense is not part of the program" in notes


@pytest.mark.parametrize(
    "value", [{}, [3], [{"type": 1}], [{"type": "a.Pooling", "path": "../other"}]]
)
def test_modules_of_others_are_left_alone(folder: Path, value: Any) -> None:
    write(folder / "modules.json", value)
    write(folder.parent / "other" / "config.json", {"pooling_mode": "mean"})
    assert facts(folder).embedding is None


def test_reranker_says_how_it_judges(folder: Path) -> None:
    modules(folder, Transformer="", LogitScore="1_LogitScore")
    write(folder / "1_LogitScore" / "config.json", {"true_token_id": 7, "false_token_id": 8})
    found = facts(folder).rerank
    assert (found.yes_id, found.no_id) == (7, 8)
    for part in ("<Instruct>: {instruction}", "<Query>: {query}", "<Document>: {document}"):
        assert part in found.template


def test_reranker_by_its_model_card(folder: Path) -> None:
    card = folder / "README.md"
    card.write_text("---\nlicense: mit\npipeline_tag: text-ranking\n---\n", encoding="utf-8")
    loaded = facts(folder)  # "yes" is three bytes to this tokenizer
    assert loaded.rerank is None
    assert any("no tokens for yes and no" in note for note in loaded.notes)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    for index, word in enumerate(("yes", "no")):
        token = {"id": 265 + index, "content": word, "special": False, "normalized": False}
        flags = {"single_word": False, "lstrip": False, "rstrip": False}
        tokenizer["added_tokens"].append(token | flags)
    write(folder / "tokenizer.json", tokenizer)
    found = facts(folder).rerank
    assert (found.yes_id, found.no_id) == (265, 266)


def test_reranker_of_another_family_is_noted(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_checkpoint("llama"), tmp_path / "model")
    modules(folder, LogitScore="1_LogitScore")
    write(folder / "1_LogitScore" / "config.json", {"true_token_id": 7, "false_token_id": 8})
    loaded = facts(folder)
    assert loaded.rerank is None
    assert any("those of llama are asked is not known" in note for note in loaded.notes)


@pytest.mark.parametrize(("number", "pooling"), [(1, "mean"), (3, "last"), (2, None)])
def test_gguf_says_it_by_number(
    number: int, pooling: str | None, tiny_checkpoint: Callable[..., Path], make_gguf: Any
) -> None:
    def edit(writer: Any) -> None:
        writer.add_uint32("qwen3.pooling_type", number)
        writer.add_bool("tokenizer.ggml.add_eos_token", True)

    found = facts(make_gguf(tiny_checkpoint("qwen3"), edit=edit)).embedding
    if pooling is None:
        assert found is None
    else:
        assert found == EmbeddingFacts(pooling=pooling, end_id=258)  # type: ignore[arg-type]
