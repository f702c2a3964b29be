"""The files of the web chat, as they are sent: a page, its style and its modules. No build step."""

from __future__ import annotations

import hashlib
import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

FOLDER = "/page/"  # where they are; the page itself is at "/"
INDEX = "index.html"
# By the end of the name; a file of another kind has no business among them.
TYPES: Mapping[str, str] = MappingProxyType(
    {
        "css": "text/css",
        "html": "text/html",
        "js": "text/javascript",
        "svg": "image/svg+xml",
    }
)


@dataclass(frozen=True, slots=True)
class Asset:
    """A file. ``etag`` changes with its content."""

    content: bytes
    media_type: str
    etag: str


@cache
def assets() -> Mapping[str, Asset]:
    """Return all files by their names."""
    folder = importlib.resources.files("edge_llm") / "server" / "page" / "assets"
    found = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    return MappingProxyType({name: _asset(name, content) for name, content in found.items()})


def wants_page(headers: Mapping[str, str]) -> bool:
    """Return whether a client that asks for ``/`` is a browser, by what it accepts: for others
    nothing is there."""
    return "text/html" in headers.get("accept", "").lower()


def is_open(path: str, headers: Mapping[str, str]) -> bool:
    """Return whether a request is for the page or a file of it, which need no key."""
    if path == "/":
        return wants_page(headers)
    name = path.removeprefix(FOLDER)
    return name != path and name != INDEX and name in assets()


def _asset(name: str, content: bytes) -> Asset:
    digest = hashlib.sha256(content).hexdigest()
    return Asset(content, TYPES[name.rpartition(".")[2]], f'"{digest[:32]}"')
