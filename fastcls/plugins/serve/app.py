"""The page over HTTP, the same for programs, and what keeps other web sites away from both."""

from __future__ import annotations

import ipaddress
import socket

import anyio
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastcls.errors import DataError
from fastcls.plugins.serve import api
from fastcls.plugins.serve.receiving import answered, limited
from fastcls.plugins.serve.site import Site

WAITING = 8  # pictures that may be under way at once, of all visitors
BYTES = "application/octet-stream"  # a type that no other site's page may send without being asked, and none is
LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
HEADERS = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",  # the page's own policy is wider
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


def application(site: Site, host: str = "127.0.0.1") -> ASGIApp:
    """The ASGI application; `host` is the address that it will listen on, whose names it answers to."""
    page = site.page()
    policy = page.split('http-equiv="Content-Security-Policy" content="')[1].split('"')[0]
    room = anyio.CapacityLimiter(WAITING)

    async def show(request: Request) -> Response:
        return HTMLResponse(page, headers={"content-security-policy": f"{policy}; frame-ancestors 'none'"})

    async def look(request: Request) -> Response:
        if request.headers.get("content-type") != BYTES:
            return _refusal("Send the image as its bytes.", 415)
        if room.available_tokens < 1:
            return _refusal("Too many images are being processed. Try again in a moment.", 503)
        return await answered(room, lambda: limited(request, site.most_bytes).body(), pictured, _refusal)

    def pictured(data: bytes) -> Response:
        try:
            return HTMLResponse(site.answer(data))
        except DataError as problem:  # an answer like another: no page should see an error in its console
            return PlainTextResponse(problem.message)

    own = [Route("/", show), Route("/look", look, methods=["POST"])]
    return Guard(Starlette(routes=own + api.routes(site, room)), host)


def _refusal(reason: str, status: int) -> Response:
    """After which the connection ends: what is still on its way to it is not read."""
    return PlainTextResponse(reason, status, {"connection": "close"})


class Guard:
    """Headers on every answer, and no answer to a name that is not ours: a foreign page may point its own name here."""

    def __init__(self, app: ASGIApp, host: str) -> None:
        self.app, self.host = app, host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        header = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        app = self.app if is_ours(header, self.host) else _refusal("This server does not have that host name.", 421)
        await app(scope, receive, guarded)


def is_ours(header: str, host: str) -> bool:
    """Whether a Host header names this server, listening on `host`.

    A number cannot be made to point elsewhere, so where other machines may ask, every number will do.
    """
    name = header[1:].split("]")[0] if header.startswith("[") else header.split(":")[0]
    name = name.lower().rstrip(".")
    if name in LOCAL or name == host.lower():
        return True
    if host in LOCAL:
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name in {socket.gethostname().lower(), socket.getfqdn().lower()}
    return True
