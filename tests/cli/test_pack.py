"""A program that is packed, uploaded, pulled by its address, and answers."""

from __future__ import annotations

import functools
import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from fixtures_hub import FakeHub

from edge_llm.cli.main import main


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def packed(
    tmp_path: Path, tiny_program: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder that `pack` has written for a program called "my tiny"."""
    monkeypatch.setenv("EDGE_LLM_HOME", str(tmp_path / "home"))
    mine = tmp_path / "my tiny.edge"
    mine.write_bytes(tiny_program("8da4w").read_bytes())
    folder = tmp_path / "out" / "folder"
    assert main(["pack", str(mine), "-o", str(folder)]) == 0
    return folder


@pytest.fixture
def site(packed: Path) -> Iterator[str]:
    """The address of the folder."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(packed)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_what_is_written(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert (
        main(["pack", str(packed.parents[1] / "my tiny.edge"), "-o", str(packed), "--force"]) == 0
    )
    printed = capsys.readouterr()
    assert printed.out == f"{packed / 'my-tiny.edge'}\n"
    assert "states no licence" in printed.err
    names = ["README.md", "my-tiny.edge", "my-tiny.edge.sha256"]
    assert sorted(path.name for path in packed.iterdir()) == names
    digest = hashlib.sha256((packed / "my-tiny.edge").read_bytes()).hexdigest()
    assert (packed / "my-tiny.edge.sha256").read_text() == f"{digest}  my-tiny.edge\n"
    _, front, text = (packed / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(front) == {
        "library_name": "edge-llm",
        "pipeline_tag": "text-generation",
        "tags": ["edge-llm", "8da4w"],
    }
    assert f"| SHA-256 | `{digest}` |" in text
    assert "| Context | 256 tokens (trained with 256) |" in text
    assert f"edge-llm pull 'https://HOST/PATH/my-tiny.edge#sha256={digest}'" in text
    assert "states no licence" in text
    assert "model.safetensors" in text
    assert "/tmp" not in text  # where it was made is nobody's business


def test_pulled_and_run(site: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["pull", f"{site}/my-tiny.edge"]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{tmp_path / 'home' / 'programs' / 'my-tiny.edge'}\n"
    assert "no digest" not in printed.err  # the one beside it was found
    assert main(["pull", f"{site}/my-tiny.edge"]) == 0
    assert "my-tiny is already here, and whole" in capsys.readouterr().err
    assert main(["run", "-m", "my-tiny", "--max-tokens", "2", "hi"]) == 0
    assert main(["rm", "my-tiny"]) == 0
    assert main(["inspect", f"{site}/my-tiny.edge"]) == 0  # fetched on the way
    capsys.readouterr()
    assert main(["pull", f"{site}/none.edge"]) == 1
    assert "there is no " in capsys.readouterr().err


def test_what_is_there_stays(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    program = packed.parents[1] / "my tiny.edge"
    (packed / "README.md").write_text("mine")
    assert main(["pack", str(program), "-o", str(packed)]) == 1
    assert "README.md already" in capsys.readouterr().err
    assert (packed / "README.md").read_text() == "mine"
    assert main(["pack", str(program), "-o", str(packed), "--force"]) == 0
    assert main(["pack", str(packed / "my-tiny.edge"), "-o", str(packed), "--force"]) == 1
    assert "is where the program lies" in capsys.readouterr().err
    assert main(["pack", str(program), "-o", str(program)]) == 1
    assert "cannot write" in capsys.readouterr().err


def test_a_damaged_program_is_not_packed(
    packed: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    damaged = bytearray((packed / "my-tiny.edge").read_bytes())
    damaged[-100] ^= 1
    (tmp_path / "bad.edge").write_bytes(damaged)
    assert main(["pack", str(tmp_path / "bad.edge"), "-o", str(tmp_path / "new")]) == 1
    assert "damaged" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_origin_and_licence(
    hub: FakeHub,
    tiny_checkpoint: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("EDGE_LLM_HOME", str(tmp_path / "home"))
    repository = hub.add("Org/Tiny", README__md="---\nlicense: apache-2.0\n---\n# Tiny\n")
    for file in tiny_checkpoint("llama").iterdir():
        repository.files[file.name] = file.read_bytes()
    assert main(["pull", "hf:Org/Tiny"]) == 0
    assert main(["export", "--model", "hf:Org/Tiny", "--set", "gate=off"]) == 0
    assert main(["pack", "-m", "Tiny-8da4w", "-o", str(tmp_path / "out")]) == 0
    assert "states no licence" not in capsys.readouterr().err
    _, front, text = (tmp_path / "out" / "README.md").read_text().split("---\n", 2)
    found = yaml.safe_load(front)
    assert (found["license"], found["base_model"]) == ("apache-2.0", "Org/Tiny")
    assert f"commit `{repository.commit}`" in text
    assert re.search(r"`model\.safetensors`: \d+ bytes, SHA-256 `[0-9a-f]{64}`", text)


def test_links_in_the_folder_are_replaced_not_written_through(
    tiny_program: Callable[..., Path], tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("keep")
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "README.md").symlink_to(precious)
    program = tmp_path / "mine.edge"
    program.write_bytes(tiny_program("fp32").read_bytes())
    assert main(["pack", str(program), "-o", str(folder), "--force"]) == 0
    assert precious.read_text() == "keep"
    assert "mine" in (folder / "README.md").read_text()
