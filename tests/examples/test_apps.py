"""The examples for apps run, on a tiny model."""

from __future__ import annotations

import ast
import asyncio
import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def model(tiny_program: Callable[..., Path]) -> str:
    return str(tiny_program("fp32", max_position_embeddings=512))


def test_a_batch_goes_on_where_it_stopped(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "prompts.jsonl", tmp_path / "answers.jsonl"
    lines = [{"prompt": "a"}, {"id": "two", "prompt": "b"}, {"prompt": "c"}]
    source.write_text("\n".join(json.dumps(line) for line in lines))  # the last line has no end
    target.write_text('{"id": "two", "text": "kept", "ended": "stop"}\n{"id": 0, "te')
    monkeypatch.setattr(sys, "argv", ["batch.py", str(source), str(target), model])
    runpy.run_path(str(FOLDER / "batch.py"), run_name="__main__")
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    assert [row["id"] for row in rows] == ["two", 0, 2]
    assert rows[0]["text"] == "kept"
    assert all(row["ended"] in ("stop", "length") for row in rows)
    before = target.read_text()
    runpy.run_path(str(FOLDER / "batch.py"), run_name="__main__")
    assert target.read_text() == before


def test_a_batch_without_its_file_is_an_error_in_words(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        sys, "argv", ["batch.py", str(tmp_path / "none"), str(tmp_path / "a"), model]
    )
    with pytest.raises(SystemExit, match=r"error: .*No such file"):
        runpy.run_path(str(FOLDER / "batch.py"), run_name="__main__")


def test_the_fastapi_application(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx

    monkeypatch.setenv("MODEL", model)
    app: Any = runpy.run_path(str(FOLDER / "fastapi_app.py"))["app"]

    async def ask() -> tuple[dict[str, str], str, dict[str, Any]]:
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                whole = (await client.get("/ask", params={"question": "hi"})).json()
                parts = (await client.get("/stream", params={"question": "hi"})).text
                review = (await client.get("/review", params={"text": "Great phone"})).json()
        return whole, parts, review

    whole, parts, review = asyncio.run(ask())
    assert isinstance(whole["answer"], str)
    assert isinstance(parts, str)
    assert set(review) == {"product", "stars"}
    assert isinstance(review["stars"], int)


def test_the_notebook(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGE_LLM_NOTEBOOK_MODEL", model)
    cells = json.loads((FOLDER / "notebook.ipynb").read_text())["cells"]
    names: dict[str, Any] = {}

    async def run() -> None:
        for cell in cells:
            assert not cell.get("outputs")
            if cell["cell_type"] == "code":
                flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
                made = eval(compile("".join(cell["source"]), "cell", "exec", flags), names)
                if made is not None:
                    await made

    asyncio.run(run())
    assert names["vectors"].shape[0] == 3
    assert len(names["answers"]) == 3
    printed = capsys.readouterr()
    assert "Two plus two makes" in printed.out
    assert "3/3" in printed.err
