"""The page's server: a port of this machine, until Ctrl-C."""

from __future__ import annotations

import errno
import ipaddress
import socket

import uvicorn
from starlette.types import ASGIApp

from fastcls.errors import EnvironmentProblem, UsageError

GRACE = 3  # seconds that an answer under way may still take after Ctrl-C


def listen(host: str, port: int) -> socket.socket:
    """A socket at which visitors may queue already; port 0 takes a free one.

    UsageError for an address that is none of this machine's, EnvironmentProblem for a port that is taken.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=64)  # type: ignore[arg-type]
    except (socket.gaierror, UnicodeError):
        raise UsageError(f"--host {host}: unknown host.", "The usual address is 127.0.0.1.") from None
    except OSError as problem:
        if problem.errno == errno.EADDRNOTAVAIL:
            raise UsageError(
                f"--host {host}: not an address of this machine.", "The usual address is 127.0.0.1."
            ) from None
        what = "is in use by another program" if problem.errno == errno.EADDRINUSE else f"({problem.strerror})"
        raise EnvironmentProblem(
            f"--port {port}: this port cannot be used; it {what}.", "Use a free one:  --port 0"
        ) from None


def url(listening: socket.socket) -> str:
    """The address to visit, from this machine."""
    host, port = listening.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = "127.0.0.1" if listening.family == socket.AF_INET else "::1"
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def server(app: ASGIApp) -> uvicorn.Server:
    """Whose `run(sockets=[…])` answers until Ctrl-C, SIGTERM or its `should_exit`."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http="h11",
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=GRACE,
        )
    )
