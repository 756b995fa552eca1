"""An S3 server on loopback, moto's, that can cut connections and serve errors."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import requests


class Store:
    """The server; of `tried` requests `after` are answered, then `broken` fail, `cut` end half-way, `stalled` wait."""

    def __init__(self) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        self.cut = self.broken = self.stalled = self.after = self.asked = 0
        self.answer = threading.Event()  # stalled requests, at last
        self.tried, self.error = ("GET", ".tar"), "503 Service Unavailable"  # method, and end of the name
        self.inner = DomainDispatcherApplication(create_backend_app)
        self.server = make_server("127.0.0.1", 0, self, threaded=True)
        self.url = f"http://127.0.0.1:{self.server.port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        bucket = f"fastcls-{uuid.uuid4()}"  # moto's are those of the whole process
        requests.put(f"{self.url}/{bucket}", timeout=10).raise_for_status()
        self.address = f"s3://{bucket}/packed"
        self.env = {
            "AWS_ENDPOINT_URL": self.url, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
        }  # fmt: skip

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] != self.tried[0] or not environ["PATH_INFO"].endswith(self.tried[1]):
            return self.inner(environ, start_response)
        self.asked += 1
        if self.after:
            self.after -= 1
        elif self.broken:
            self.broken -= 1
            start_response(self.error, [("Content-Length", "0")])
            return []
        elif self.stalled:
            self.stalled -= 1
            self.answer.wait(120)
        elif self.cut:
            self.cut -= 1
            return _half(b"".join(self.inner(environ, start_response)))
        return self.inner(environ, start_response)


def _half(body: bytes) -> Iterator[bytes]:
    yield body[: len(body) // 2]
    raise ConnectionError("cut")


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A server with an empty bucket, which the environment names as that of S3."""
    pytest.importorskip("moto", reason="needs moto[s3,server]")
    from werkzeug.serving import WSGIRequestHandler

    monkeypatch.setattr(WSGIRequestHandler, "log", lambda *_: None)
    found = Store()
    for name, value in found.env.items():
        monkeypatch.setenv(name, value)
    yield found
    found.answer.set()
    found.server.shutdown()
