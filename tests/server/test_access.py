"""Models, health, and who may ask."""

from __future__ import annotations

from typing import Any

import pytest

from edge_llm.errors import ConfigError
from edge_llm.server.app import create_app
from edge_llm.server.gate.access import host_name
from edge_llm.server.models.shelf import Shelf
from edge_llm.server.options import ServerOptions, check_bind
from edge_llm.server.service import Service

KEY = "sk-ünsecret"


def test_models(client: Any) -> None:
    body = client.get("/v1/models").json()
    assert body["object"] == "list"
    (model,) = body["data"]
    assert model["id"] == "fake-model"
    assert model["object"] == "model"
    assert model["owned_by"] == "edge-llm"
    assert model["context_length"] == 512
    assert isinstance(model["created"], int)
    assert client.get("/v1/models/fake-model").json() == model
    assert client.get("/v1/models/fake-file").json() == model
    response = client.get("/v1/models/org/other")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"


def test_health(client: Any, service: Any) -> None:
    assert client.get("/health").json() == {"status": "ok"}
    service.drain()
    assert client.get("/health").status_code == 503


def test_health_while_loading() -> None:
    from starlette.testclient import TestClient

    app = create_app(Service(Shelf([]), max_choices=1), ServerOptions())
    response = TestClient(app, base_url="http://localhost").get("/health")
    assert response.status_code == 503
    assert response.json()["error"]["type"] == "server_error"
    assert response.headers["retry-after"]


def test_request_ids_differ(client: Any) -> None:
    ids = {client.get("/health").headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (None, 401),
        ("", 401),
        ("Bearer", 401),
        ("Bearer wrong", 401),
        (f"Basic {KEY}", 401),
        (f"Bearer {KEY}x", 401),
        (f"Bearer {KEY}", 200),
        (f"bearer  {KEY}", 200),
    ],
)
def test_api_key(make_client: Any, authorization: str | None, status: int) -> None:
    client = make_client(api_key=KEY)
    headers = {} if authorization is None else {"authorization": authorization.encode()}
    response = client.get("/v1/models", headers=headers)
    assert response.status_code == status
    if status == 401:
        error = response.json()["error"]
        assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_api_key")
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.headers["x-request-id"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"x-api-key": KEY.encode()}, 200),
        ({"x-api-key": KEY.encode(), "authorization": b"Bearer wrong"}, 200),
        ({"x-api-key": b"wrong", "authorization": f"Bearer {KEY}".encode()}, 200),
        ({"x-api-key": b"wrong"}, 401),
        ({"x-api-key": b""}, 401),
        ({"x-api-key": f"Bearer {KEY}".encode()}, 401),
    ],
)
def test_the_key_as_anthropics_clients_send_it(
    make_client: Any, headers: dict[str, bytes], status: int
) -> None:
    response = make_client(api_key=KEY).get("/v1/models", headers=headers)
    assert response.status_code == status


def test_errors_are_in_the_dialect_of_the_route(make_client: Any) -> None:
    client = make_client(api_key=KEY)
    response = client.post("/v1/messages", json={})
    body = response.json()
    assert (body["type"], body["error"]["type"]) == ("error", "authentication_error")
    assert body["request_id"] == response.headers["request-id"] == response.headers["x-request-id"]
    assert set(client.get("/api/tags").json()) == {"error"}


def test_every_route_but_health_is_behind_the_key(make_client: Any) -> None:
    client = make_client(api_key=KEY)
    assert client.get("/health").status_code == 200
    for path in ("/", "/v1/models", "/v1/models/fake-model", "/v1/nothing", "/health/x"):
        assert client.get(path).status_code == 401
    for path in ("/v1/chat/completions", "/v1/completions"):
        assert client.post(path, json={}).status_code == 401


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8017", 200),
        ("127.0.0.1", 200),
        ("localhost:1", 200),
        ("LocalHost.", 200),
        ("[::1]:8017", 200),
        ("box.lan", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("10.0.0.1", 403),
        ("", 403),
    ],
)
def test_host(make_client: Any, host: str, status: int) -> None:
    client = make_client(allowed_hosts=("Box.lan",))
    response = client.get("/v1/models", headers={"host": host})
    assert response.status_code == status
    if status == 403:
        assert response.json()["error"]["type"] == "permission_error"


def test_host_of_an_open_server(make_client: Any) -> None:
    client = make_client(host="0.0.0.0")
    assert client.get("/health", headers={"host": "192.168.1.7:8017"}).status_code == 200
    assert client.get("/health", headers={"host": "evil.example"}).status_code == 403


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 200),
        ("https://app.example", 200),
        ("HTTPS://APP.example", 200),
        ("http://127.0.0.1:8017", 200),  # our own
        ("https://app.example:444", 403),
        ("http://app.example", 403),
        ("http://127.0.0.1:8018", 403),
        ("http://localhost:8017", 403),
        ("null", 403),
    ],
)
def test_origin(make_client: Any, origin: str | None, status: int) -> None:
    client = make_client(allowed_origins=("https://app.example",))
    headers = {} if origin is None else {"origin": origin}
    response = client.get("/v1/models", headers=headers)
    assert response.status_code == status
    told = origin if status == 200 else None
    assert response.headers.get("access-control-allow-origin") == told
    assert response.headers["vary"] == "Origin"
    if told:
        assert "x-request-id" in response.headers["access-control-expose-headers"]


PREFLIGHT = {
    "origin": "https://app.example",
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type, x-stainless-os,a b,\u00e9",
}


def test_preflight_needs_no_key(make_client: Any) -> None:
    client = make_client(allowed_origins=("https://app.example",), api_key=KEY)
    headers = {name: value.encode("latin-1") for name, value in PREFLIGHT.items()}
    response = client.options("/v1/chat/completions", headers=headers)
    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["access-control-allow-origin"] == "https://app.example"
    assert "POST" in response.headers["access-control-allow-methods"]
    allowed = response.headers["access-control-allow-headers"]
    assert allowed == "authorization, content-type, x-stainless-os"
    refused = client.options("/v1/models", headers={**headers, "origin": "https://evil.example"})
    assert refused.status_code == 403
    assert "access-control-allow-origin" not in refused.headers


def test_errors_can_be_read_by_pages_that_may_ask(make_client: Any) -> None:
    client = make_client(allowed_origins=("https://app.example",), api_key=KEY)
    response = client.get("/v1/models", headers={"origin": "https://app.example"})
    assert response.status_code == 401
    assert response.headers["access-control-allow-origin"] == "https://app.example"


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/models/fake-model", "/metrics", "/x"])
def test_head_is_get_without_its_body(client: Any, path: str) -> None:
    head, get = client.head(path), client.get(path)
    assert head.status_code == get.status_code
    assert head.content == b""
    assert head.headers["content-type"] == get.headers["content-type"]


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [("DELETE", "/v1/models", "GET, HEAD"), ("GET", "/v1/completions", "POST")],
)
def test_other_methods(client: Any, method: str, path: str, allow: str) -> None:
    response = client.request(method, path)
    assert response.status_code == 405
    assert response.headers["allow"] == allow
    assert response.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({"x-api-key": KEY}, 200),
        ({"x-api-key": f"{KEY}x"}, 401),
        ({"x-api-key": ""}, 401),
        ({"x-api-key": KEY, "authorization": "Bearer other"}, 200),
        ({"x-api-key": "other", "authorization": f"Bearer {KEY}"}, 200),
    ],
)
def test_both_ways_to_send_the_key(make_client: Any, given: dict[str, str], status: int) -> None:
    headers = {name: value.encode() for name, value in given.items()}
    assert make_client(api_key=KEY).get("/v1/models", headers=headers).status_code == status


def test_a_missing_key_in_the_dialect_of_the_route(make_client: Any) -> None:
    body = make_client(api_key=KEY).post("/v1/messages", json={}).json()
    assert body["error"]["type"] == "authentication_error"


@pytest.mark.parametrize(
    ("header", "name"),
    [("a.b:1", "a.b"), ("[::1]:1", "::1"), ("[::1", "::1"), ("", ""), (":80", ""), ("A.", "a")],
)
def test_host_name(header: str, name: str) -> None:
    assert host_name(header) == name


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_needs_no_key(host: str) -> None:
    check_bind(ServerOptions(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "box.lan", ""])
def test_other_addresses_need_a_key(host: str) -> None:
    with pytest.raises(ConfigError) as info:
        check_bind(ServerOptions(host=host))
    assert info.value.hint is not None
    assert "--api-key-file PATH, or spell out --no-auth" in info.value.hint
    check_bind(ServerOptions(host=host, api_key="k"))
    check_bind(ServerOptions(host=host, no_auth=True))


def test_ports_and_empty_keys() -> None:
    with pytest.raises(ConfigError, match="port is 70000"):
        check_bind(ServerOptions(port=70000))
    with pytest.raises(ConfigError, match="key is empty"):
        check_bind(ServerOptions(api_key=" "))


@pytest.mark.parametrize(
    "options",
    [
        {"aliases": ("",)},
        {"allowed_hosts": ("http://box.lan",)},
        {"allowed_hosts": ("box.lan:8017",)},
        {"allowed_hosts": ("",)},
        {"allowed_origins": ("app.example",)},
        {"allowed_origins": ("*",)},
        {"allowed_origins": ("https://app.example/chat",)},
    ],
)
def test_names_that_could_never_match(options: Any) -> None:
    with pytest.raises(ConfigError, match=r"empty|expected"):
        check_bind(ServerOptions(**options))


def test_names_that_can_match() -> None:
    check_bind(
        ServerOptions(
            aliases=("gpt-4o-mini",),
            allowed_hosts=("box.lan", "192.168.1.7", "::1"),
            allowed_origins=(
                "https://app.example",
                "http://localhost:3000/",
                "app://obsidian.md",
                "null",
            ),
        )
    )
