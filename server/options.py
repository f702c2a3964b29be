"""The options of the server."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from math import inf

from edge_llm.errors import ConfigError

_ORIGIN = re.compile(r"null|[a-z][a-z0-9+.-]*://[^/\s?#@*]+/?", re.IGNORECASE)
_HOST = re.compile(r"[^/\s?#@*\[\]]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """``port`` 0 takes a free one. ``allowed_hosts`` are Host headers accepted besides the bound
    address and the names of this machine's loopback; ``allowed_origins`` browser origins
    ("https://host:port"; none by default). ``strict`` refuses unknown request parameters.
    ``aliases`` are names that the first model answers to besides its own. ``memory`` bounds, in
    bytes, what the loaded models take together (None: nothing does), ``keep_seconds`` how long one
    stays after its last request, unless its name is among the ``pinned``; a request waits
    ``load_seconds`` for its model. ``max_body`` bounds a request
    in bytes, ``max_choices`` the answers that run or wait at once, ``max_connections`` those that
    are open. ``header_seconds`` and ``body_seconds`` are what a client may take to send a request,
    ``idle_seconds`` how long a connection is kept without one, ``send_seconds`` how long a client
    may read nothing of its reply, ``drain_seconds`` how long a stopping server lets answers
    end. ``instance`` are 8 hexadecimal digits that tell this server from others behind one front:
    the ids of its responses begin with them (none: it is alone)."""

    host: str = "127.0.0.1"
    port: int = 8017
    api_key: str | None = None
    no_auth: bool = False
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    strict: bool = False
    aliases: tuple[str, ...] = ()
    memory: int | None = None
    keep_seconds: float = inf
    pinned: tuple[str, ...] = ()
    load_seconds: float = 60.0
    max_body: int = 8 * 1024 * 1024
    max_choices: int = 256
    max_connections: int = 512
    header_seconds: float = 10.0
    body_seconds: float = 60.0
    idle_seconds: float = 75.0
    send_seconds: float = 10.0
    drain_seconds: float = 10.0
    instance: str = ""


def check_bind(options: ServerOptions) -> None:
    """Refuse to open the model to the network by accident.

    Raises:
        ConfigError: the address is reachable from elsewhere and there is no key, or the port or
            the key, a name or an origin is no such thing.
    """
    if not 0 <= options.port <= 65535:
        raise ConfigError(f"port is {options.port}, expected 0 (a free one) to 65535")
    if options.api_key is not None and not options.api_key.strip():
        raise ConfigError("the API key is empty")
    for alias in options.aliases:
        if not alias.strip():
            raise ConfigError("an alias of the model is empty")
    for host in options.allowed_hosts:
        if not _HOST.fullmatch(host) or (":" in host and ip_address(host) is None):
            raise ConfigError(
                f"allowed host is {host!r}, expected a name or an address without a port, "
                "like box.lan"
            )
    for origin in options.allowed_origins:
        if not _ORIGIN.fullmatch(origin):
            raise ConfigError(
                f"allowed origin is {origin!r}, expected a scheme and a host, "
                "like https://app.example or http://localhost:3000"
            )
    if not is_loopback(options.host) and options.api_key is None and not options.no_auth:
        raise ConfigError(
            f"{options.host} can be reached from other machines, and there is no API key",
            hint="set --api-key-file PATH, or spell out --no-auth",
        )


def is_loopback(host: str) -> bool:
    """Return whether an address or name means this machine alone."""
    address = ip_address(host)
    return host.lower() == "localhost" if address is None else address.is_loopback


def ip_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address that a literal names; None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
