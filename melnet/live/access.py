"""Checks that requests come from the live page itself, and not from another site's page in the same browser."""

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

# Everything comes from this server, and no other page shows it in a frame, where clicks could be lured onto it.
POLICY = "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"


class OwnPages:
    """Middleware that refuses requests which a browser sends for another site's page.

    Such a request names the other site in ``Origin``. A site whose name was made to lead here (DNS rebinding) has its
    own name in ``Host`` too; so that is one of ``names``, or an address, which nobody can make lead elsewhere.
    Programs other than browsers send no ``Origin``, and are let through.
    """

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self._app, self._names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or own(Headers(scope=scope), self._names):
            await self._app(scope, receive, _with_policy(send))
        elif scope["type"] == "websocket":
            await WebSocket(scope, receive, send).close(1008)
        else:
            text = "Refused: this request comes from another page, or names another server.\n"
            await PlainTextResponse(text, 403)(scope, receive, send)


def own(headers: Headers, names: Collection[str]) -> bool:
    """Whether a request is for this server, by one of its names or an address, and from its own page if from any.

    >>> own(Headers({"host": "localhost:80", "origin": "http://localhost:80"}), ["localhost"])
    True
    >>> own(Headers({"host": "localhost:80", "origin": "http://example.org"}), ["localhost"])
    False
    >>> own(Headers({"host": "example.org"}), ["localhost"]), own(Headers({"host": "[::1]:80"}), ["localhost"])
    (False, True)
    """
    host, origin = headers.get("host", ""), headers.get("origin")
    try:
        name = urlsplit(f"//{host}").hostname or ""
        from_own_page = origin is None or urlsplit(origin).netloc == host
    except ValueError:  # brackets that do not hold an IPv6 address
        return False
    return from_own_page and (name in names or _is_address(name))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _with_policy(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["Content-Security-Policy"] = POLICY
            headers["X-Content-Type-Options"] = "nosniff"
            headers["Cache-Control"] = "no-cache"  # the page of another version may have had this address
        await send(message)

    return sending
