"""docs/http.md names the routes that there are, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

from starlette.testclient import TestClient

from edge_llm.server.app import create_app
from edge_llm.server.models.shelf import Shelf
from edge_llm.server.options import ServerOptions
from edge_llm.server.service import Service

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "http.md").read_text(encoding="utf-8")


def test_the_table_of_routes_is_complete() -> None:
    app = create_app(Service(Shelf([]), max_choices=1), ServerOptions())
    client = TestClient(app, base_url="http://127.0.0.1:8017")
    paths = client.get("/openapi.json").json()["paths"]
    documented = {re.sub(r"\{\w+(:path)?\}", "{id}", path) for path in paths}
    table = PAGE.partition("\n## Routes\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`(?:GET|POST).*?) \|", table, re.MULTILINE)
    named = {path for cell in cells for path in re.findall(r"(/[\w/{}.]*)", cell)}
    assert named <= documented
    short = {path.removeprefix("/v1") for path in named}  # OpenAI's are there without it too
    assert documented <= named | short


def test_links_within_the_page_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", text).lower().replace(" ", "-") for text in headings}
    assert set(re.findall(r"\]\(#([\w-]+)\)", PAGE)) <= anchors
