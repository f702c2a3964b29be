"""Models on Hugging Face: the real client against a hub on loopback."""

from __future__ import annotations

import builtins
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from fixtures_hub import FakeHub

from edge_llm import catalogue
from edge_llm.catalogue import hub as hub_module
from edge_llm.errors import MissingDependencyError, SourceError

WHOLE = {
    "config__json": "{}",
    "tokenizer__json": "{ }",
    "model__safetensors": b"w" * 1000,
    "README__md": "---\nlicense: mit\n---",
}
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


def hint_of(error: SourceError | MissingDependencyError) -> str:
    assert error.hint is not None
    return error.hint


def pull(name: str) -> tuple[Path, list[tuple[str, int, int]]]:
    calls: list[tuple[str, int, int]] = []
    return catalogue.pull(name, lambda *call: calls.append(call)), calls


def add_sharded(hub: FakeHub, name: str) -> None:
    repository = hub.add(name, config__json="{}", tokenizer__json="{ }")
    index = {"weight_map": {"a": SHARDS[0], "b": SHARDS[1]}}
    repository.files |= {
        SHARDS[0]: b"1" * 5000,
        SHARDS[1]: b"2" * 5000,
        "model.safetensors.index.json": json.dumps(index).encode(),
    }


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_pull_reads_only_what_an_export_does(hub: FakeHub) -> None:
    repository = hub.add("Org/model", **WHOLE)
    repository.files |= {
        "pytorch_model.bin": b"x",
        "consolidated.safetensors": b"x",
        "original/consolidated.00.pth": b"x",
        "onnx/model.onnx": b"x",
        "onnx/config.json": b"x",
        "model.gguf": b"x",
        "chat_template.jinja": b"{{ messages }}",
        "tokenizer_config.json": b"{  }",
    }
    folder, calls = pull("hf:Org/model")
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "chat_template.jinja",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert hub.downloads[0][0] == "model.safetensors"
    assert hub.downloads[-1][0] == "config.json"
    total = sum(path.stat().st_size for path in folder.iterdir())
    assert ("download", total, total) in calls
    assert calls[-1] == ("check", total, total)
    assert catalogue.commit_of(folder) == {"repository": "Org/model", "commit": repository.commit}
    assert catalogue.commit_of(folder / "config.json") == catalogue.commit_of(folder)
    assert catalogue.commit_of(hub.cache) is None


def test_cached_copy_works_offline(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("Org/model", **WHOLE)
    folder, _ = pull("hf:Org/model")
    requests = len(hub.requests)
    assert pull("hf:Org/model") == (folder, [])
    assert catalogue.resolve("hf:Org/model") == folder
    assert len(hub.requests) == requests
    offline(monkeypatch)
    assert catalogue.locate("hf:Org/model") == folder
    with pytest.raises(SourceError, match="cannot fetch hf:Org/other from Hugging Face") as caught:
        pull("hf:Org/other")
    assert "hf download Org/other --local-dir DIR" in hint_of(caught.value)
    assert "pass its path as --model" in hint_of(caught.value)


def test_a_revision_is_pinned(hub: FakeHub) -> None:
    first = hub.add("Org/model", **WHOLE)
    first.revisions = ("main", "v1.0", "refs/pr/1")
    commit = first.commit
    folder, _ = pull("hf:Org/model@v1.0")
    assert pull("hf:Org/model@refs/pr/1")[0] == pull(f"hf:Org/model@{commit}")[0] == folder
    assert not isinstance(catalogue.locate("hf:Org/model"), Path)  # main was never asked for
    main, _ = pull("hf:Org/model")
    assert main == folder
    # The branch moves on; what was fetched stays what it was.
    first.files["model.safetensors"] = b"v" * 1000
    assert first.commit != commit
    assert pull("hf:Org/model")[0] == folder
    assert catalogue.remove("hf:Org/model")
    assert catalogue.commit_of(pull("hf:Org/model")[0]) == {
        "repository": "Org/model",
        "commit": first.commit,
    }


def test_an_interrupted_download_goes_on_where_it_was(hub: FakeHub) -> None:
    add_sharded(hub, "Org/big")

    def interrupt(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        import huggingface_hub

        real = huggingface_hub.hf_hub_download
        sent: list[str] = []

        def one_then_interrupt(repository: str, name: str, **named: Any) -> str:
            sent.append(name)
            return real(repository, name, **named) if len(sent) < 2 else interrupt()  # type: ignore[return-value,func-returns-value]

        patch.setattr("huggingface_hub.hf_hub_download", one_then_interrupt)
        with pytest.raises(KeyboardInterrupt):
            pull("hf:Org/big")
    assert not isinstance(catalogue.locate("hf:Org/big"), Path)
    hub.downloads.clear()
    folder, calls = pull("hf:Org/big")
    assert SHARDS[0] not in [name for name, _ in hub.downloads]
    fetched = [total for stage, _, total in calls if stage == "download"]
    assert fetched[-1] < 5500  # what was missing, not all
    assert (folder / SHARDS[0]).read_bytes() == b"1" * 5000
    assert (folder / SHARDS[1]).read_bytes() == b"2" * 5000


def test_a_broken_connection_leaves_no_half_file(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the client's own attempts
    add_sharded(hub, "Org/big")
    hub.broken.add(SHARDS[1])
    with pytest.raises(SourceError, match="cannot fetch hf:Org/big"):
        pull("hf:Org/big")
    assert not isinstance(catalogue.locate("hf:Org/big"), Path)
    assert not list(hub.cache.rglob(SHARDS[1]))
    hub.broken.clear()
    folder, _ = pull("hf:Org/big")
    assert (folder / SHARDS[1]).read_bytes() == b"2" * 5000


@pytest.mark.parametrize("lost", ["config.json", "tokenizer.json", SHARDS[0], SHARDS[1]])
def test_half_a_copy_is_not_taken_for_one(hub: FakeHub, lost: str) -> None:
    add_sharded(hub, "Org/big")
    folder, _ = pull("hf:Org/big")
    (folder / lost).resolve().unlink()  # the blob: the link stays
    assert (folder / lost).is_symlink()
    assert not isinstance(catalogue.locate("hf:Org/big"), Path)
    assert pull("hf:Org/big")[0] == folder
    assert (folder / lost).is_file()


@pytest.mark.parametrize("index", ["{}", "[]", "{", '{"weight_map": []}', '{"weight_map": {}}'])
def test_a_damaged_index_is_not_whole(hub: FakeHub, index: str) -> None:
    repository = hub.add("Org/model", **WHOLE)
    repository.files["model.safetensors.index.json"] = index.encode()
    with pytest.raises(SourceError, match="not all that an export needs"):
        pull("hf:Org/model")


def test_tokenizer_model_and_meta_checkpoints(hub: FakeHub) -> None:
    hub.add("Org/sp", config__json="{}", tokenizer__model=b"x", model__safetensors=b"w")
    hub.add("Org/tt", config__json="{}", qwen__tiktoken=b"x", model__safetensors=b"w")
    hub.add("Org/none", config__json="{}", model__safetensors=b"w")
    meta = hub.add("Org/meta", params__json="{}", tokenizer__model=b"x")
    meta.files["consolidated.00.pth"] = b"w"
    for name in ("sp", "tt", "meta"):
        assert pull(f"hf:Org/{name}")[0].is_dir()
    with pytest.raises(SourceError, match="not all that an export needs"):
        pull("hf:Org/none")


def test_a_gguf_model_in_parts_is_one(hub: FakeHub) -> None:
    repository = hub.add("Org/parts")
    names = [f"q4/big-{part:05}-of-00003.gguf" for part in (1, 2, 3)]
    repository.files |= {name: name.encode() for name in names}
    hub.broken.add(names[2])
    with pytest.raises(SourceError, match="cannot fetch"):
        pull("hf:Org/parts")
    with pytest.raises(SourceError, match="not on this machine yet"):
        catalogue.resolve("hf:Org/parts")
    hub.broken.clear()
    first, _ = pull("hf:Org/parts")
    assert [(first.parent / Path(name).name).read_bytes() for name in names] == [
        name.encode() for name in names
    ]
    assert first.name == "big-00001-of-00003.gguf"
    assert pull(f"hf:Org/parts/{names[1]}")[0].name == "big-00002-of-00003.gguf"
    assert len(catalogue.remove(f"hf:Org/parts/{names[1]}").paths) == 3
    assert not first.exists()

    del repository.files[names[1]]
    with pytest.raises(SourceError, match=r"has no file q4/big-00002-of-00003\.gguf"):
        pull(f"hf:Org/parts/{names[0]}")


def test_gguf_repositories(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("Org/one", only__gguf=b"GGUF")
    several = hub.add("Org/several", README__md="", config__json="{}")
    several.files |= {"a-q4.gguf": b"GGUF4", "sub/a-q8.gguf": b"GGUF8" * 10}
    assert pull("hf:Org/one")[0].name == "only.gguf"
    with pytest.raises(SourceError, match="has 2 GGUF models: name the one to use") as caught:
        pull("hf:Org/several@main")
    assert "  hf:Org/several/sub/a-q8.gguf@main  (0.00 GB)" in hint_of(caught.value)
    with pytest.raises(SourceError, match=r"has no file b\.gguf") as caught:
        pull("hf:Org/several/b.gguf")
    assert "hf:Org/several/a-q4.gguf" in hint_of(caught.value)
    file, _ = pull("hf:Org/several/sub/a-q8.gguf")
    assert file.read_bytes() == b"GGUF8" * 10
    offline(monkeypatch)
    assert catalogue.resolve("hf:Org/several/sub/a-q8.gguf@main") == file
    assert catalogue.resolve("hf:Org/one").name == "only.gguf"
    model = catalogue.identify("hf:Org/several/sub/a-q8.gguf")
    assert isinstance(model, catalogue.HubSource)
    assert (model.name, str(model)) == ("a-q8", "hf:Org/several/sub/a-q8.gguf")


def test_only_pickles(hub: FakeHub) -> None:
    repository = hub.add("Org/old", config__json="{}", tokenizer__json="{}")
    repository.files["pytorch_model.bin"] = b"x"
    with pytest.raises(
        SourceError, match=r"neither safetensors nor GGUF weights; it has pytorch_model\.bin"
    ):
        pull("hf:Org/old")


def test_gated(hub: FakeHub) -> None:
    hub.add("meta-llama/Llama-3.2-3B-Instruct", gated=True, **WHOLE)
    with pytest.raises(SourceError, match="does not let you have meta-llama") as caught:
        pull("llama3.2-3b")
    assert "accept its licence (llama3.2, https://www.llama.com" in hint_of(caught.value)
    assert "at https://huggingface.co/meta-llama/Llama-3.2-3B-Instruct" in hint_of(caught.value)
    assert "HF_TOKEN" in hint_of(caught.value)
    hub.add("Org/closed", gated=True, **WHOLE)
    with pytest.raises(SourceError, match="does not let you have Org/closed") as caught:
        pull("hf:Org/closed")
    assert "at https://huggingface.co/Org/closed and log in" in hint_of(caught.value)


def test_gone(hub: FakeHub) -> None:
    with pytest.raises(SourceError, match=r"has no Qwen/Qwen3-0\.6B") as caught:
        pull("qwen3-0.6b")
    assert "gated" not in hint_of(caught.value)
    hub.add("Org/model", **WHOLE)
    with pytest.raises(SourceError, match="Org/model has no revision v9"):
        pull("hf:Org/model@v9")


def test_disk_full(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("Org/model", **WHOLE)
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10})())
        with pytest.raises(SourceError, match=r"needs 0\.00 GB, .* has 0\.00 GB free") as caught:
            pull("hf:Org/model")
        assert "HF_HOME" in hint_of(caught.value)
        assert hub.downloads == []

    def full(*arguments: object, **named: object) -> None:
        raise OSError(28, "No space left on device", "/cache/file")

    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.hf_hub_download", full)
        with pytest.raises(SourceError, match="No space left on device: /cache/file") as caught:
            pull("hf:Org/model")
        assert hint_of(caught.value) == "HF_HOME names another folder for the cache."
    assert not isinstance(catalogue.locate("hf:Org/model"), Path)


def test_remove(hub: FakeHub) -> None:
    repository = hub.add("Org/model", **WHOLE)
    repository.revisions = ("main", "v1")
    repository.files["small.gguf"] = b"GGUF"
    folder, _ = pull("hf:Org/model")
    old = folder.resolve()
    repository.files["config.json"] = b'{"new": 1}'
    new, _ = pull("hf:Org/model@v1")
    assert new != old
    assert catalogue.remove("hf:Org/model@v1").paths == [new]
    assert not new.exists()
    assert catalogue.resolve("hf:Org/model") == folder
    assert (folder / "model.safetensors").read_bytes() == b"w" * 1000  # both had this one
    with pytest.raises(SourceError, match="hf:Org/model@v1 is not on this machine"):
        catalogue.remove("hf:Org/model@v1")

    file, _ = pull("hf:Org/model/small.gguf@v1")
    blob = file.resolve()
    assert catalogue.remove("hf:Org/model/small.gguf@v1").paths == [file]
    assert not blob.exists()
    assert catalogue.remove("hf:Org/model").paths == [hub.cache / "models--Org--model"]
    assert list(hub.cache.rglob("*.safetensors")) == []
    with pytest.raises(SourceError, match="is not on this machine"):
        catalogue.remove("hf:Org/model")


def test_resolve_explains_what_to_do(hub: FakeHub) -> None:
    with pytest.raises(SourceError, match=r"llama3\.2-1b is not on this machine yet") as caught:
        catalogue.resolve("llama3.2-1b")
    hint = hint_of(caught.value)
    assert "`edge-llm pull llama3.2-1b`" in hint
    assert "https://www.llama.com/llama3_2/license/" in hint
    assert "https://huggingface.co/meta-llama/Llama-3.2-1B-Instruct" in hint
    assert "pass its path as --model" in hint
    with pytest.raises(SourceError, match="hf:Org/model@v1 is not on this machine yet") as caught:
        catalogue.resolve("hf:Org/model@v1")
    assert "`edge-llm pull hf:Org/model@v1`" in hint_of(caught.value)
    assert "hf download Org/model --revision v1 --local-dir" in hint_of(caught.value)
    assert hub.requests == []


def test_a_repository_of_the_catalogue_by_its_reference(hub: FakeHub) -> None:
    model = catalogue.identify("hf:huggingfacetb/smollm2-135m-instruct@main")
    assert isinstance(model, catalogue.HubSource)  # and not the package on PyPI
    assert model.entry == catalogue.find("smollm2-135m")
    assert model.sampling == {"temperature": 0.2, "top_p": 0.9}


@pytest.mark.parametrize(
    "reference",
    [
        "hf:",
        "hf:model",
        "hf:org/",
        "hf:/model",
        "hf:org/model@",
        "hf:../model",
        "hf:org/..",
        "hf:org/model@../../x",
        "hf:org/model/../x.gguf",
        "hf:org/model//x.gguf",
        "hf:org/model/x\n.gguf",
        "hf:org/model/x.safetensors",
        "hf:org/" + "m" * 1000,
        "hf:org/model@" + "m" * 1000,
    ],
)
def test_malformed_references(hub: FakeHub, reference: str) -> None:
    for look_up in (catalogue.pull, catalogue.locate, catalogue.remove, catalogue.find_program):
        with pytest.raises(SourceError, match=r"hf:") as caught:
            look_up(reference)
        assert len(str(caught.value)) < 400
    assert hub.requests == []


def test_a_name_that_looks_like_a_repository() -> None:
    with pytest.raises(SourceError) as caught:
        catalogue.find("Org/some-model")
    assert "hf:Org/some-model" in hint_of(caught.value)


def test_client_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("huggingface_hub"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    for name in [name for name in sys.modules if name.startswith("huggingface_hub")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", refuse)
    assert not catalogue.is_pulled(catalogue.find("qwen3-0.6b"))
    with pytest.raises(MissingDependencyError, match="needs huggingface_hub") as caught:
        catalogue.pull("qwen3-0.6b")
    assert "pip install huggingface_hub" in hint_of(caught.value)


def test_a_hub_that_gives_no_commit(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = hub.add("Org/model", **WHOLE)
    monkeypatch.setattr(type(repository), "commit", "../../evil")
    with pytest.raises(SourceError, match=r"gave no commit for hf:Org/model: '\.\./\.\./evil'"):
        pull("hf:Org/model")
    assert hub_module.cached(catalogue.HubSource("Org/model")) is None
