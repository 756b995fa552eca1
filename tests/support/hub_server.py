"""A stand-in for the Hugging Face Hub: the part of its API that huggingface_hub uses, over HTTP, kept in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

TOKEN = "hf_" + "a" * 34  # huggingface_hub looks at its form
AGAIN = "hf_" + "b" * 34  # one that may read, and not write


@dataclass
class Repository:
    """The files of the newest commit, and its name."""

    private: bool = False
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def commit(self) -> str:
        text = "".join(f"{name}{hashlib.sha1(data).hexdigest()}" for name, data in sorted(self.files.items()))
        return hashlib.sha1(text.encode()).hexdigest()


class Hub(ThreadingHTTPServer):
    """Repositories by 'models/OWNER/NAME' or 'datasets/OWNER/NAME'."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, Repository] = {}
        self.requests: list[str] = []
        self.broken = False  # answers with an error

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        self.server.requests.append(f"{self.command} {self.path}")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if self.server.broken:
            return self.error(500, "")
        path = unquote(urlsplit(self.path).path).strip("/")
        match path.split("/"):
            case ["api", "validate-yaml"]:
                return self.json({})
            case ["api", kind, owner, name, *rest]:
                if (repository := self.repository(f"{kind}/{owner}/{name}")) is None:
                    return None
                return self.about(repository, f"{owner}/{name}", rest)
            case ["datasets", owner, name, "resolve", revision, *file]:
                return self.resolve(f"datasets/{owner}/{name}", revision, "/".join(file))
            case [owner, name, "resolve", revision, *file]:
                return self.resolve(f"models/{owner}/{name}", revision, "/".join(file))
        return self.error(404, "EntryNotFound")

    def about(self, repository: Repository, name: str, rest: list[str]) -> None:
        if len(rest) > 1 and rest[1] not in ("main", repository.commit):
            return self.error(404, "RevisionNotFound")
        if rest[:1] == ["tree"]:
            below = "/".join(rest[2:])
            start = f"{below}/" if below else ""
            files = {path: data for path, data in repository.files.items() if path.startswith(start)}
            folders = {"/".join(path.split("/")[:n]) for path in files for n in range(1, path.count("/") + 1)} - {below}
            entries = [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in sorted(folders)]
            entries += [{"type": "file", "path": path, **self.sized(data)} for path, data in files.items()]
            return self.json(entries)
        siblings = [{"rfilename": path, "size": len(data)} for path, data in repository.files.items()]
        return self.json({"id": name, "sha": repository.commit, "private": repository.private, "siblings": siblings})

    def sized(self, data: bytes) -> dict[str, Any]:
        return {"oid": hashlib.sha1(data).hexdigest(), "size": len(data)}

    def resolve(self, key: str, revision: str, file: str) -> None:
        if (repository := self.repository(key)) is None:
            return
        if revision not in ("main", repository.commit):
            return self.error(404, "RevisionNotFound")
        if file not in repository.files:
            return self.error(404, "EntryNotFound", {"X-Repo-Commit": repository.commit})
        data = repository.files[file]
        headers = {"X-Repo-Commit": repository.commit, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'}
        self.send(200, data, {"Content-Type": "application/octet-stream", **headers})

    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size) if size else self.chunks()
        if self.server.broken:
            return self.error(500, "")
        path = unquote(urlsplit(self.path).path).strip("/")
        if path == "api/validate-yaml":
            return self.json({"errors": [], "warnings": []})
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        match path.split("/"):
            case ["api", kind, owner, name, "paths-info", _]:
                if (repository := self.repository(f"{kind}/{owner}/{name}")) is not None:
                    asked = json.loads(body)["paths"] if body.startswith(b"{") else []
                    found = {path: repository.files[path] for path in asked if path in repository.files}
                    self.json([{"type": "file", "path": path, **self.sized(data)} for path, data in found.items()])
                return None
        if token != TOKEN:
            return self.error(403 if token else 401, "", {"X-Error-Message": "you may not write"})
        match path.split("/"):
            case ["api", "repos", "create"]:
                wanted = json.loads(body)
                name = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
                private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
                self.server.repositories.setdefault(f"models/{name}", Repository(private))
                return self.json({"url": f"{self.server.address}/{name}", "id": name})
            case ["api", kind, owner, name, "preupload", _]:
                files = [file["path"] for file in json.loads(body)["files"]]
                modes = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in files]
                return self.json({"files": modes})
            case ["api", kind, owner, name, "commit", _]:
                repository = self.server.repositories[f"{kind}/{owner}/{name}"]
                for line in map(json.loads, body.decode().splitlines()):
                    if line["key"] == "file":
                        repository.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                url = f"{self.server.address}/{owner}/{name}/commit/{repository.commit}"
                return self.json({"success": True, "commitUrl": url, "commitOid": repository.commit})
        return self.error(404, "EntryNotFound")

    def repository(self, key: str) -> Repository | None:
        """The repository, or an answer that there is none that this caller may know of."""
        found = self.server.repositories.get(key)
        if found is None or (found.private and TOKEN not in self.headers.get("Authorization", "")):
            self.error(404 if self.headers.get("Authorization") else 401, "RepoNotFound")
            return None
        return found

    def chunks(self) -> bytes:
        """A body that is sent in chunks."""
        found = b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                found += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        return found

    def json(self, value: Any) -> None:
        self.send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def error(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        self.send(status, b"{}", {"Content-Type": "application/json", "X-Error-Code": code, **(headers or {})})

    def send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@contextmanager
def serving() -> Iterator[Hub]:
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


@pytest.fixture
def hub(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty Hub with an empty cache, to which the user has a token."""
    pytest.importorskip("huggingface_hub", reason="needs the extra hub")
    from huggingface_hub import constants

    home = tmp_path_factory.mktemp("hub")
    with serving() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True, raising=False)
        monkeypatch.setenv("HF_ENDPOINT", server.address)  # of processes that are started
        monkeypatch.setenv("HF_HOME", str(home))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("XDG_CACHE_HOME", str(home))
        yield server
