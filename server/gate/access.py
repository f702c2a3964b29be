"""Who may ask: the Host, the Origin, and the key.

A page in a browser can make any site's name point at 127.0.0.1 (DNS rebinding), and can send simple
requests anywhere. So the Host must be a name of this server, and an Origin must be our own or on
the list.
"""

from __future__ import annotations

import hmac

from starlette.datastructures import Headers

from edge_llm.server.errors import ApiError
from edge_llm.server.gate.cors import Origins
from edge_llm.server.options import ServerOptions, ip_address, is_loopback
from edge_llm.server.page.files import is_open

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
OPEN_PATHS = frozenset({"/health"})


class Access:
    """Refuses requests by their headers."""

    def __init__(self, options: ServerOptions) -> None:
        self.origins = Origins(options.allowed_origins)
        self._key = None if options.api_key is None else options.api_key.encode()
        self._hosts = LOOPBACK_HOSTS | {
            host.lower() for host in (options.host, *options.allowed_hosts)
        }
        # A name can be made to point here, an address cannot: with an open bind, any address that
        # reached this server is its own.
        self._any_address = not is_loopback(options.host)

    def check_place(self, headers: Headers) -> None:
        """Check where a request comes from and what it takes us for.

        Raises:
            ApiError: 403.
        """
        host = host_name(headers.get("host", ""))
        if host not in self._hosts and not (self._any_address and ip_address(host) is not None):
            raise _forbidden("This Host is not allowed (see --allowed-host).")
        if not self.origins.allows(headers):
            raise _forbidden("This Origin is not allowed (see --allowed-origin).")

    def check_key(self, path: str, headers: Headers) -> None:
        """Check the key, where there is one and the path is not open to all.

        Raises:
            ApiError: 401.
        """
        if self._key is None or path in OPEN_PATHS or is_open(path, headers):
            return
        scheme, _, key = headers.get("authorization", "").partition(" ")
        bearer = key.strip() if scheme.lower() == "bearer" else ""
        # Header bytes come as Latin-1. Both are compared, whichever is there.
        given = [text.encode("latin-1") for text in (bearer, headers.get("x-api-key", ""))]
        if sum(hmac.compare_digest(key, self._key) for key in given) == 0:
            raise ApiError(
                401,
                "The API key is missing or wrong. Send it as 'Authorization: Bearer KEY' or as "
                "'x-api-key: KEY'.",
                code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )


def host_name(header: str) -> str:
    """Return the host of a Host header, without port, brackets or a trailing dot, in lower case."""
    bracketed = header.startswith("[")
    name = header[1:].partition("]")[0] if bracketed else header.partition(":")[0]
    return name.removesuffix(".").lower()


def _forbidden(message: str) -> ApiError:
    return ApiError(403, message, kind="permission_error")
