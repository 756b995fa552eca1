"""Downloads that are cut, changed or forged, and archives that want out of their folder."""

import hashlib
import io
import json
import socket
import stat
import sys
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import python

from fastcls.datasets import archives, downloads
from fastcls.datasets.archives import unpack
from fastcls.datasets.downloads import cache_dir, download
from fastcls.errors import DataError, DownloadError, OutputError

BODY = bytes(range(256)) * 2000
MD5 = hashlib.md5(BODY).hexdigest()


class Server:
    """A small HTTP server whose next answers a test can spoil."""

    def __init__(self):
        self.body = BODY
        self.ranges = True  # whether Range is understood
        self.cuts = []  # bytes after which the next connections break off
        self.statuses = []  # error codes for the next answers
        self.etag = '"one"'
        self.requests = []  # the Range header of each request, or ""
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.answer(self)

            def log_message(self, *args):
                pass

        self.httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.httpd.server_port}/file.tgz"
        self.thread = threading.Thread(target=self.httpd.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def answer(self, handler):
        wanted = handler.headers.get("Range", "")
        self.requests.append(wanted)
        if self.statuses:
            handler.send_error(self.statuses.pop(0))
            return
        body, start = self.body, 0
        same = handler.headers.get("If-Range", self.etag) == self.etag
        if wanted and self.ranges and same:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                handler.send_response(416)
                handler.send_header("Content-Range", f"bytes */{len(body)}")
                handler.send_header("Content-Length", "0")
                handler.end_headers()
                return
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            handler.send_response(200)
        handler.send_header("Content-Length", str(len(body) - start))
        if self.etag:
            handler.send_header("ETag", self.etag)
        handler.end_headers()
        stop = start + self.cuts.pop(0) if self.cuts else len(body)
        handler.wfile.write(body[start:stop])
        if stop < len(body):
            handler.wfile.flush()
            handler.connection.shutdown(socket.SHUT_WR)

    def close(self):
        self.httpd.shutdown()
        self.httpd.server_close()
        self.thread.join()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(downloads, "WAITS", (0, 0, 0))
    running = Server()
    yield running
    running.close()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("FASTCLS_DATA", str(folder))
    return folder


@pytest.fixture
def dest(tmp_path):
    return tmp_path / "files" / "file.tgz"


def leftovers(folder):
    return sorted(entry.name for entry in folder.iterdir() if not entry.name.endswith(".lock"))


# ---------------------------------------------------------------------------- download


def test_whole_file_arrives_and_nothing_else_stays(server, dest, capsys):
    assert download(server.url, dest, md5=MD5) == dest
    assert dest.read_bytes() == BODY
    assert leftovers(dest.parent) == ["file.tgz"]
    assert capsys.readouterr().err == f"Downloading {server.url} to {dest}\n"


def test_a_file_that_is_there_and_right_is_not_fetched_again(server, dest):
    download(server.url, dest, md5=MD5)
    download(server.url, dest, md5=MD5)
    assert len(server.requests) == 1


def test_a_file_that_is_there_but_wrong_is_fetched_again(server, dest):
    dest.parent.mkdir()
    dest.write_bytes(b"something else")
    assert download(server.url, dest, md5=MD5).read_bytes() == BODY


def test_a_cut_connection_is_resumed_within_the_call(server, dest):
    server.cuts = [200_000, 100_000]
    assert download(server.url, dest, md5=MD5).read_bytes() == BODY
    assert len(server.requests) == 3
    assert server.requests[0] == "" and all(wanted.startswith("bytes=") for wanted in server.requests[1:])


def test_what_an_earlier_call_left_is_resumed(server, dest):
    dest.parent.mkdir()
    dest.with_name("file.tgz.part").write_bytes(BODY[:1000])
    assert download(server.url, dest, md5=MD5).read_bytes() == BODY
    assert server.requests == ["bytes=1000-"]


def test_a_call_that_gave_up_leaves_its_bytes_for_the_next(server, dest):
    server.cuts = [150_000, 0, 0, 0, 0]
    with pytest.raises(DownloadError, match="could not be downloaded") as caught:
        download(server.url, dest, md5=MD5)
    assert "Try again" in caught.value.hint and str(dest) in caught.value.hint
    kept = dest.with_name("file.tgz.part").stat().st_size
    assert kept > 0
    assert download(server.url, dest, md5=MD5).read_bytes() == BODY
    assert server.requests[-1] == f"bytes={kept}-"


def test_progress_however_slow_is_never_given_up(server, dest):
    server.cuts = [70_000] * 7  # more cuts than attempts in a row are allowed
    assert download(server.url, dest, md5=MD5).read_bytes() == BODY


def test_a_server_without_range_sends_the_whole_again(server, dest):
    server.ranges = False
    server.cuts = [200_000]
    assert download(server.url, dest, md5=MD5).read_bytes() == BODY


def test_a_part_longer_than_the_file_is_thrown_away(server, dest):
    dest.parent.mkdir()
    dest.with_name("file.tgz.part").write_bytes(BODY + b"more")
    assert download(server.url, dest, md5=MD5).read_bytes() == BODY
    assert server.requests == [f"bytes={len(BODY) + 4}-", ""]


def test_a_part_that_is_already_whole_is_accepted(server, dest):
    dest.parent.mkdir()
    dest.with_name("file.tgz.part").write_bytes(BODY)
    assert download(server.url, dest, md5=MD5).read_bytes() == BODY


def test_the_beginning_of_an_older_version_is_not_joined_to_the_new_one(server, dest):
    server.cuts = [150_000, 0, 0, 0, 0]
    with pytest.raises(DownloadError):
        download(server.url, dest)
    server.body, server.etag = BODY[::-1], '"two"'
    assert download(server.url, dest).read_bytes() == server.body


def test_without_etag_a_stale_beginning_is_noticed_by_the_checksum(server, dest):
    server.etag = ""
    dest.parent.mkdir()
    dest.with_name("file.tgz.part").write_bytes(b"an older beginning")
    assert download(server.url, dest, md5=MD5).read_bytes() == BODY


def test_server_errors_are_retried_and_refusals_are_not(server, dest):
    server.statuses = [503, 429]
    assert download(server.url, dest, md5=MD5).read_bytes() == BODY
    dest.unlink()
    server.statuses = [404]
    with pytest.raises(DownloadError, match="404"):
        download(server.url, dest, md5=MD5)
    assert len(server.requests) == 4


def test_a_wrong_checksum_removes_the_file(server, dest):
    with pytest.raises(DownloadError) as caught:
        download(server.url, dest, md5="0" * 32)
    assert server.url in caught.value.message and MD5 in caught.value.message and "0" * 32 in caught.value.message
    assert leftovers(dest.parent) == []


def test_the_first_checksum_is_recorded_and_later_ones_held_against_it(server, dest, cache):
    download(server.url, dest)
    recorded = json.loads((cache / "checksums.json").read_text())
    assert recorded == {server.url: hashlib.sha256(BODY).hexdigest()}
    dest.unlink()
    server.body = b"changed"
    with pytest.raises(DownloadError, match="expected") as caught:
        download(server.url, dest)
    assert "checksums.json" in caught.value.hint and not dest.exists()
    (cache / "checksums.json").write_text("{}")  # what the hint says
    assert download(server.url, dest).read_bytes() == b"changed"


def test_a_damaged_record_is_said(server, dest, cache):
    cache.mkdir()
    (cache / "checksums.json").write_text("[1")
    with pytest.raises(OutputError, match=r"checksums\.json"):
        download(server.url, dest)


def test_a_terminal_shows_a_bar(server, dest, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    download(server.url, dest, md5=MD5, size=len(BODY))
    assert dest.read_bytes() == BODY and "Downloading" not in capsys.readouterr().err


@pytest.mark.parametrize("url", ["ftp://host/file", "file:///etc/passwd", "", "http://"])
def test_other_addresses_are_refused(url, dest, server):
    with pytest.raises(DownloadError):
        download(url, dest)


def test_nobody_answers(dest, server):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/x"
        with pytest.raises(DownloadError, match="refused"):
            download(url, dest)


def test_a_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        download(server.url, tmp_path / "file" / "inside" / "x.tgz")


def test_two_at_once_fetch_one_file(server, dest):
    threads = [threading.Thread(target=download, args=(server.url, dest), kwargs={"md5": MD5}) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dest.read_bytes() == BODY and len(server.requests) == 1


def test_cache_dir_without_the_variable(monkeypatch):
    monkeypatch.delenv("FASTCLS_DATA")
    assert cache_dir().parts[-2:] == ("fastcls", "data")


# ---------------------------------------------------------------------------- unpack


MODES = {".tar": "w", ".tgz": "w:gz", ".gz": "w:gz", ".xz": "w:xz", ".tbz": "w:bz2"}
KINDS = {
    "dir": tarfile.DIRTYPE,
    "sym": tarfile.SYMTYPE,
    "hard": tarfile.LNKTYPE,
    "fifo": tarfile.FIFOTYPE,
    "char": tarfile.CHRTYPE,
    "block": tarfile.BLKTYPE,
}


def make_tar(path, *members):
    """A tar of (name, bytes or type, {attribute: value}) members, compressed as its suffix has it."""
    with tarfile.open(path, MODES[path.suffix]) as tar:
        for name, content, *more in members:
            info = tarfile.TarInfo(name)
            data = content if isinstance(content, bytes) else b""
            info.size = len(data)
            if not isinstance(content, bytes):
                info.type = KINDS[content]
            for key, value in (more[0] if more else {}).items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(data))
    return path


def make_zip(path, *members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, data, *mode in members:
            info = zipfile.ZipInfo("placeholder")
            info.filename = name
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (mode[0] if mode else stat.S_IFREG | 0o644) << 16
            bundle.writestr(info, data)
    return path


@pytest.mark.parametrize("name", ["a.tar", "a.tgz", "a.tar.xz", "a.tbz"])
def test_tar_is_unpacked(tmp_path, name):
    members = [("top", "dir"), ("top/cat/1.jpg", b"cat"), ("top/dog/" + "d" * 150 + ".jpg", b"dog")]
    members.append(("top/again.jpg", "hard", {"linkname": "top/cat/1.jpg"}))
    archive = make_tar(tmp_path / name, *members)
    out = unpack(archive, tmp_path / "out")
    assert out == tmp_path / "out"
    assert (out / "top/cat/1.jpg").read_bytes() == (out / "top/again.jpg").read_bytes() == b"cat"
    assert (out / "top/dog" / ("d" * 150 + ".jpg")).read_bytes() == b"dog"
    assert out.stat().st_mode & 0o777 == 0o755


def test_zip_is_unpacked(tmp_path):
    out = unpack(make_zip(tmp_path / "a.zip", ("top/cat/1.jpg", b"cat"), ("top/dog/", b"")), tmp_path / "out")
    assert (out / "top/cat/1.jpg").read_bytes() == b"cat" and (out / "top/dog").is_dir()


def test_several_archives_are_unpacked_side_by_side(tmp_path):
    archives = [make_tar(tmp_path / f"{n}.tgz", (f"{n}/x", b"x")) for n in "ab"]
    assert sorted(entry.name for entry in unpack(archives, tmp_path / "out").iterdir()) == ["a", "b"]


def test_an_existing_folder_is_not_touched(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="exists already"):
        unpack(make_tar(tmp_path / "a.tgz", ("x", b"x")), tmp_path / "out")


@pytest.fixture
def small(monkeypatch):
    """Archives may hold less than they usually may."""
    monkeypatch.setattr(archives, "MAX_BYTES", 200_000)
    monkeypatch.setattr(archives, "MAX_MEMBERS", 10)


MALICIOUS_TARS = {  # further ones are in support/hostile_files.py
    "windows drive": ([("C:/evil", b"x")], "absolute"),
    "backslash root": ([("\\evil", b"x")], "absolute"),
    "climbs out with backslashes": ([("a\\..\\..\\evil", b"x")], "leaves the folder"),
    "symlink out": ([("a", "sym", {"linkname": "../../outside"})], "symbolic link"),
    "absolute symlink": ([("a", "sym", {"linkname": "/etc"})], "symbolic link"),
    "absolute hard link": ([("a", "hard", {"linkname": "/etc/passwd"})], "links to"),
    "hard link to nothing": ([("a", "hard", {"linkname": "nothing"})], "contradicts"),
    "block device": ([("a", "block")], "device or pipe"),
    "file as folder": ([("a", b"x"), ("a/b", b"x")], "contradicts"),
    "too many": ([(f"{n}", b"") for n in range(20)], "more than 10 members"),
    "too large": ([("zeros", bytes(300_000))], "more than 200,000 bytes"),
    "too large together": ([(f"{n}", bytes(90_000)) for n in range(3)], "more than 200,000 bytes"),
    "huge header": ([("x" * 3_000_000, b"")], "bytes long"),
}


@pytest.mark.parametrize(("members", "reason"), MALICIOUS_TARS.values(), ids=MALICIOUS_TARS)
def test_malicious_tars_are_refused(tmp_path, members, reason, small):
    outside = tmp_path / "outside"
    outside.write_text("untouched")
    (tmp_path / "in").mkdir()
    archive = make_tar(tmp_path / "in" / "a.tgz", *members)
    with pytest.raises(DataError, match=reason) as caught:
        unpack(archive, tmp_path / "in" / "out")
    assert str(archive) in caught.value.message
    assert leftovers(tmp_path / "in") == ["a.tgz"]
    assert leftovers(tmp_path) == ["in", "outside"] and outside.read_text() == "untouched"


MALICIOUS_ZIPS = {
    "windows drive": ([("C:\\evil", b"x")], "absolute"),
    "fifo": ([("a", b"", stat.S_IFIFO | 0o644)], "device or pipe"),
    "file as folder": ([("a", b"x"), ("a/b", b"x")], "contradicts"),
    "too many": ([(f"{n}", b"") for n in range(20)], "more than 10 members"),
    "bomb": ([("zeros", bytes(5_000_000))], "more than 200,000 bytes"),
}


@pytest.mark.parametrize(("members", "reason"), MALICIOUS_ZIPS.values(), ids=MALICIOUS_ZIPS)
def test_malicious_zips_are_refused(tmp_path, members, reason, small):
    inner = tmp_path / "in"
    inner.mkdir()
    with pytest.raises(DataError, match=reason):
        unpack(make_zip(inner / "a.zip", *members), inner / "out")
    assert leftovers(inner) == ["a.zip"] and leftovers(tmp_path) == ["in"]


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tar.xz", "a.zip"])
@pytest.mark.parametrize("keep", [0, 0.02, 0.5, 0.9])
def test_cut_archives_are_not_taken_for_whole_ones(tmp_path, name, keep):
    import random

    noise = [(f"{n}.jpg", random.Random(n).randbytes(30_000)) for n in range(20)]
    archive = tmp_path / name
    if name.endswith("zip"):
        make_zip(archive, *noise)
    else:
        make_tar(archive, *noise)
    archive.write_bytes(archive.read_bytes()[: int(archive.stat().st_size * keep)])
    with pytest.raises(DataError, match="damaged or has an unknown format"):
        unpack(archive, tmp_path / "out")
    assert leftovers(tmp_path) == [name]


def test_a_tar_cut_between_two_members_is_noticed(tmp_path):
    archive = make_tar(tmp_path / "a.tar", ("1", b"x"), ("2", b"x"))
    archive.write_bytes(archive.read_bytes()[:1024])
    with pytest.raises(DataError, match="it is truncated"):
        unpack(archive, tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"not an archive" * 100, b"<html>moved</html>", b"\x1f\x8bnot gzip"])
def test_what_is_no_archive_is_refused(tmp_path, content):
    (tmp_path / "a.tgz").write_bytes(content)
    with pytest.raises(DataError, match="damaged or has an unknown format"):
        unpack(tmp_path / "a.tgz", tmp_path / "out")


def test_a_missing_archive_is_said(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        unpack(tmp_path / "a.tgz", tmp_path / "out")


def test_nothing_heavy_is_imported():
    code = "import sys, fastcls.datasets.layouts; print(*sys.modules)"
    loaded = python("-c", code, check=True)
    assert not {"torch", "fastai", "pandas", "numpy", "requests", "sklearn", "PIL", "rich"} & set(loaded.stdout.split())
