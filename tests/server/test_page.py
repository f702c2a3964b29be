"""The web chat as it is served: routes, headers, the key, and files that ask nobody else. What it
does in a browser is tested in `tests/clients/page`."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from edge_llm.server.page.files import INDEX, TYPES, assets

BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
FOLDER = Path(__file__).parents[2] / "server" / "page" / "assets"
NAMES = sorted(file.name for file in FOLDER.iterdir())
SCRIPTS = [name for name in NAMES if name.endswith(".js")]
KILOBYTES = 128  # of all files: what the page may add to the installation


def text_of(name: str) -> str:
    return (FOLDER / name).read_text("utf-8")


def policy_of(response: Any) -> dict[str, str]:
    parts = (part.strip().partition(" ") for part in policy(response).split(";"))
    return {name: value for name, _, value in parts}


def policy(response: Any) -> str:
    value: str = response.headers["content-security-policy"]
    return value


# --- routes -------------------------------------------------------------------------------------


def test_a_browser_gets_the_page(client: Any) -> None:
    response = client.get("/", headers=BROWSER)
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.text == text_of(INDEX)
    assert "Accept" in response.headers["vary"]
    head = client.head("/", headers=BROWSER)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["etag"] == response.headers["etag"]


@pytest.mark.parametrize("accept", ["*/*", "application/json", ""])
def test_a_program_gets_what_it_always_got(client: Any, accept: str) -> None:
    response = client.get("/", headers={"accept": accept})
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "unknown_url"


@pytest.mark.parametrize("name", [name for name in NAMES if name != INDEX])
def test_every_file_is_served_as_what_it_is(client: Any, name: str) -> None:
    response = client.get(f"/page/{name}")
    assert response.status_code == 200
    assert response.content == (FOLDER / name).read_bytes()
    kind = TYPES[name.rpartition(".")[2]]
    assert response.headers["content-type"].partition(";")[0] == kind
    assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", ["index.html", "nothing.js", "", "../files.py", "%2e%2e/files.py"])
def test_nothing_else_is_served(client: Any, name: str) -> None:
    assert client.get(f"/page/{name}", headers=BROWSER).status_code == 404


@pytest.mark.parametrize("path", ["/", "/page/main.js"])
def test_what_a_browser_has_is_not_sent_again(client: Any, path: str) -> None:
    first = client.get(path, headers=BROWSER)
    assert first.headers["cache-control"] == "no-cache"  # it asks each time
    etag = first.headers["etag"]
    for known in (etag, f'"other", W/{etag}'):
        again = client.get(path, headers={**BROWSER, "if-none-match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == etag
        assert policy(again) == policy(first)
    assert client.get(path, headers={**BROWSER, "if-none-match": '"other"'}).status_code == 200


def test_it_is_there_while_the_model_loads(make_client: Any, service: Any) -> None:
    service.drain()
    client = make_client()
    assert client.get("/health").status_code == 503
    assert client.get("/", headers=BROWSER).status_code == 200


# --- the key and the origin ---------------------------------------------------------------------


def test_the_page_is_open_and_what_it_asks_is_not(make_client: Any) -> None:
    client = make_client(api_key="k")
    assert client.get("/", headers=BROWSER).status_code == 200
    for name in NAMES:
        status = 401 if name == INDEX else 200
        assert client.get(f"/page/{name}").status_code == status
    assert client.get("/").status_code == 401  # as it always was
    assert client.get("/page/nothing.js").status_code == 401
    for path in ("/v1/models", "/docs", "/metrics", "/page", "/page/main.js/x", "//page/main.js"):
        assert client.get(path, headers=BROWSER).status_code == 401
    chat = {"messages": [{"role": "user", "content": "hi"}]}
    assert client.post("/v1/chat/completions", json=chat).status_code == 401
    own = {"authorization": "Bearer k", "origin": "http://127.0.0.1:8017"}
    assert client.post("/v1/chat/completions", json=chat, headers=own).status_code == 200


def test_names_that_point_here_get_no_page(client: Any) -> None:
    rebound = {**BROWSER, "host": "evil.example"}
    assert client.get("/", headers=rebound).status_code == 403
    assert client.get("/", headers={**BROWSER, "origin": "http://evil.example"}).status_code == 403


def test_models_tell_what_the_page_needs(client: Any, model: Any) -> None:
    (told,) = client.get("/v1/models").json()["data"]
    assert told["recommended"] == {"temperature": 0.5, "top_k": 7}
    assert told["capabilities"] == {
        "chat": True,
        "tools": False,
        "thinking": False,
        "thinking_switch": False,
        "efforts": [],
        "embedding": False,
    }


# --- the policy, and files that keep to it ------------------------------------------------------


def test_the_policy_is_strict(client: Any) -> None:
    for path in ("/", "/page/main.js", "/page/icon.svg"):
        found = policy_of(client.get(path, headers=BROWSER))
        assert found["default-src"] == "'none'"
        assert {name: value for name, value in found.items() if value == "'self'"}.keys() == {
            "script-src",
            "style-src",
            "img-src",
            "connect-src",
        }
        assert found["frame-ancestors"] == found["base-uri"] == found["form-action"] == "'none'"
        assert found["require-trusted-types-for"] == "'script'"
        assert "unsafe" not in str(found)
        assert "http" not in str(found)


class Tags(HTMLParser):
    """The elements of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_has_nothing_inline() -> None:
    tags = Tags(text_of(INDEX)).found
    for tag, attributes in tags:
        assert tag != "style"
        assert tag != "script" or attributes.get("src")
        assert not [name for name in attributes if name == "style" or name.startswith("on")]
    scripts = text_of(INDEX).split("<script")[1:]
    assert all(re.match(r"[^>]*></script>", script) for script in scripts)


def test_the_page_names_files_that_are_there() -> None:
    named = {
        value
        for tag, attributes in Tags(text_of(INDEX)).found
        for name in ("src", "href")
        if (value := attributes.get(name)) and not value.startswith("#") and value != "./"
    }
    assert named == {"page/icon.svg", "page/style.css", "page/theme.js", "page/main.js"}
    for name in SCRIPTS:
        for imported in re.findall(r'from "(.*?)"', text_of(name)):
            assert imported.removeprefix("./") in SCRIPTS, name
    imported = {name for file in SCRIPTS for name in re.findall(r'from "\./(.*?)"', text_of(file))}
    assert imported | {"main.js", "theme.js"} == set(SCRIPTS)  # none is left over


def test_the_modules_name_elements_that_are_there() -> None:
    ids = {attributes["id"] for _, attributes in Tags(text_of(INDEX)).found if "id" in attributes}
    asked = {name for file in SCRIPTS for name in re.findall(r'byId\("(.*?)"\)', text_of(file))}
    assert asked <= ids
    icons = re.findall(r'(?:icon|iconButton)\("(\w+)"', "".join(map(text_of, SCRIPTS)))
    assert {f"i-{name}" for name in icons} <= ids


@pytest.mark.parametrize("name", NAMES)
def test_a_file_asks_no_other_address(name: str) -> None:
    own = text_of(name).replace("http://www.w3.org/2000/svg", "")  # a name, not an address
    assert not re.findall(r"(?:https?:)?//[a-z0-9-]+\.[a-z]{2,}", own)
    assert "@import" not in own
    assert "url(" not in own


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_module_makes_code_or_html_of_texts(name: str) -> None:
    """The policy would stop it; here it is not even written."""
    for word in (
        *("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "srcdoc"),
        *("DOMParser", "createContextualFragment", "setHTML", "eval(", "new Function"),
    ):
        assert word not in text_of(name)


def test_the_files_are_in_the_package_and_small() -> None:
    assert sorted(assets()) == NAMES
    assert sum(len(asset.content) for asset in assets().values()) < KILOBYTES * 1024
