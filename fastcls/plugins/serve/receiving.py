"""A request's bytes, of which no more are read than are allowed, and from whom they come."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar
from urllib.parse import urlsplit

import anyio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message

from fastcls.errors import DataError

T = TypeVar("T")
SECONDS = 60  # in which a request must have arrived


class TooLarge(DataError):
    """More bytes than a picture, or a request, may have."""


def limited(request: Request, most: int) -> Request:
    """The same request, which raises TooLarge as soon as it has more than `most` bytes."""
    problem = TooLarge(f"More than {most / 1e6:g} MB. Resize the image, or start the server with a larger --max-mb.")
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > most:
        raise problem
    read = 0

    async def receive() -> Message:
        nonlocal read
        message = await request.receive()
        read += len(message.get("body", b""))
        if read > most:
            raise problem
        return message

    return Request(request.scope, receive)


async def answered(
    room: anyio.CapacityLimiter,
    read: Callable[[], Awaitable[T]],
    answer: Callable[[T], Response],
    refuse: Callable[[str, int], Response],
) -> Response:
    """What `answer` makes, in a thread, of what `read` takes from a request within SECONDS; in a place of the room."""
    try:
        async with room:
            with anyio.fail_after(SECONDS):
                data = await read()
            return await anyio.to_thread.run_sync(answer, data)
    except ClientDisconnect:  # a page that was closed or reloaded; nobody reads the answer
        return Response()
    except TimeoutError:
        return refuse(f"The request did not arrive within {SECONDS} seconds.", 408)
    except TooLarge as problem:
        return refuse(problem.message, 413)


def foreign(request: Request) -> bool:
    """Whether a browser says that a page of another site sends this; it may send forms and pictures unasked."""
    origin = request.headers.get("origin")
    elsewhere = origin is not None and urlsplit(origin).netloc != request.headers.get("host")
    return elsewhere or request.headers.get("sec-fetch-site", "none") in ("cross-site", "same-site")
