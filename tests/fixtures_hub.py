"""A model hub on loopback: the few endpoints of huggingface.co that its client needs here."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest


@dataclass
class Repository:
    """Files of one commit. ``gated``: listed for everybody, given to nobody."""

    files: dict[str, bytes]
    gated: bool = False
    revisions: tuple[str, ...] = ("main",)

    @property
    def commit(self) -> str:
        return hashlib.sha1(json.dumps(sorted(map(repr, self.files.items()))).encode()).hexdigest()


@dataclass
class FakeHub:
    """``repositories`` by name; ``requests`` that came; ``downloads``: the files that were sent, as
    ``(name, first byte)``. The connection ends half-way through the files of ``broken``."""

    cache: Path
    repositories: dict[str, Repository] = field(default_factory=dict)
    downloads: list[tuple[str, int]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)

    def add(self, name: str, gated: bool = False, **files: bytes | str) -> Repository:
        """A repository; ``__`` in a keyword stands for the dot of a file's name."""
        encoded = {
            key.replace("__", "."): value if isinstance(value, bytes) else value.encode()
            for key, value in files.items()
        }
        self.repositories[name] = Repository(encoded, gated)
        return self.repositories[name]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """An empty hub that the client asks instead of the real one, and an empty cache."""
    fake = FakeHub(tmp_path / "hub-cache")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(fake))
    server.daemon_threads = True
    address = f"http://127.0.0.1:{server.server_address[1]}"
    constants = "huggingface_hub.constants"
    monkeypatch.setattr(f"{constants}.ENDPOINT", address)
    monkeypatch.setattr(
        f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE",
        address + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(f"{constants}.HF_HUB_CACHE", str(fake.cache))
    monkeypatch.setattr(f"{constants}.HF_HUB_OFFLINE", False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield fake
    server.shutdown()
    thread.join()
    server.server_close()


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._reply(body=False)

        def do_GET(self) -> None:
            self._reply(body=True)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            pass

        def _reply(self, *, body: bool) -> None:
            path = unquote(self.path.partition("?")[0]).strip("/")
            hub.requests.append(f"{self.command} {path}")
            is_api = path.startswith("api/models/")
            parts = path.removeprefix("api/models/").split("/")
            repository = hub.repositories.get("/".join(parts[:2]))
            rest = parts[2:]
            if repository is None:
                return self._refuse(401, "RepoNotFound")
            if is_api:
                revision = "/".join(rest[1:]) if rest[:1] == ["revision"] else "main"
                if revision not in (*repository.revisions, repository.commit):
                    return self._refuse(404, "RevisionNotFound")
                names = repository.files
                document = {
                    "id": "/".join(parts[:2]),
                    "sha": repository.commit,
                    "siblings": [{"rfilename": n, "size": len(names[n])} for n in names],
                }
                return self._send(json.dumps(document).encode(), body, {})
            if repository.gated:
                return self._refuse(403, "GatedRepo")
            name = "/".join(rest[2:])
            data = repository.files.get(name)
            if data is None:
                return self._refuse(404, "EntryNotFound")
            headers = {
                "X-Repo-Commit": repository.commit,
                "ETag": f'"{hashlib.sha256(data).hexdigest()}"',
            }
            return self._send(data, body, headers, name)

        def _refuse(self, status: int, code: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _send(
            self, data: bytes, body: bool, headers: dict[str, str], name: str | None = None
        ) -> None:
            start = 0
            span = self.headers.get("Range")
            if span:
                start = int(span.removeprefix("bytes=").partition("-")[0])
            self.send_response(206 if span else 200)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            if not body:
                return
            if name is None:
                self.wfile.write(data)
                return
            hub.downloads.append((name, start))
            if name in hub.broken:
                self.wfile.write(data[start : start + (len(data) - start) // 2])
                self.close_connection = True
                return
            self.wfile.write(data[start:])

    return Handler
