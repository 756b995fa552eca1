"""A shell for test_docs.py, in which the blocks of a page run from top to bottom, in one folder.

Whatever bash calls by name is a stand-in that asks the test's process: `fastcls` is answered there, where fastai is
imported already, and what cannot run here is looked up in NOT_RUN. A name that is neither is not found, and the page
fails.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from documented import NOT_RUN, Block, declared, more, shorter, wrong
from typer.testing import CliRunner

from fastcls.cli.verbs import app

TOOLS = (  # of every Unix; they run as they are
    "basename bash cat cp cut diff dirname echo env find grep head ls mkdir mv printf rm sed sh sleep sort tail tr uniq"
    " wc xargs"
)

STAND_IN = """#!{python} -SE
import json, os, socket, sys
with socket.create_connection(("127.0.0.1", int(os.environ["PAGE_PORT"]))) as asked:
    stdin = sys.stdin.read() if "-" in sys.argv else ""
    words = [sys.argv[0] if sys.argv[0].startswith("scripts/") else os.path.basename(sys.argv[0]), *sys.argv[1:]]
    what = dict(words=words, stdin=stdin, cwd=os.getcwd(), env=dict(os.environ))
    asked.sendall(json.dumps(what).encode() + b"\\n")
    answer = json.loads(asked.makefile().read())
sys.stdout.write(answer["stdout"])
sys.stderr.write(answer["stderr"])
sys.exit(answer["code"])
"""


@dataclass
class Shell:
    """Runs a page's blocks in `folder`, and prints every command and what came of it.

    before: what a command needs to find, by the words that follow `fastcls`.
    """

    folder: Path
    env: dict[str, str]
    page: str
    before: dict[str, Any] = field(default_factory=dict)
    failed: bool = False  # a command that bash may not have minded, at the head of a pipe say

    def __post_init__(self) -> None:
        self.bin = self.folder.parent / "bin"
        self.bin.mkdir()
        for tool in TOOLS.split():
            if path := shutil.which(tool):
                (self.bin / tool).symlink_to(path)
        stand_ins = {begin.split()[0]: STAND_IN for begin in ("fastcls", "scripts/measure", *NOT_RUN)}
        del stand_ins["."]  # bash's own
        for name, text in stand_ins.items():
            file = (self.folder if "/" in name else self.bin) / name
            file.parent.mkdir(exist_ok=True)
            file.write_text(text.format(python=sys.executable))
            file.chmod(0o755)

    def run(self, block: Block) -> None:
        """A block of bash, stopped at the first command that fails."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(0.02)
            env = {
                **self.env,
                "PATH": str(self.bin),
                "HOME": str(self.folder),
                "PAGE_PORT": str(server.getsockname()[1]),
            }
            script = f"set -e\n.() {{ :; }}\n{shorter(block.text)}\nwait\n"
            with (self.folder.parent / "bash.txt").open("w+") as output:
                bash = subprocess.Popen(
                    [shutil.which("bash") or "bash", "-c", script],
                    stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env, cwd=self.folder,
                )  # fmt: skip
                try:
                    while bash.poll() is None:
                        with contextlib.suppress(TimeoutError):
                            asked, _ = server.accept()
                            with asked:
                                self._answer(asked, env)
                finally:
                    bash.kill()
                    bash.wait()
                output.seek(0)
                said = output.read()
        assert bash.returncode == 0 and not self.failed, f"line {block.line}:\n{block.text}\n{said[-4000:]}"

    def python(self, block: Block, page: str, names: dict[str, Any]) -> None:
        """A block of Python, in the namespace that those above it left; one with a title is the file of that name."""
        if block.file:
            (self.folder / block.file).write_text(block.text, encoding="utf-8")
            return
        began = time.process_time()
        exec(compile("\n" * (block.line - 1) + shorter(block.text), page, "exec"), names)
        print(f"{time.process_time() - began:5.1f} s  Python of line {block.line}", flush=True)

    def _answer(self, asked: socket.socket, env: dict[str, str]) -> None:
        asked.settimeout(60)
        what = json.loads(asked.makefile().readline())
        changed = {name: value for name, value in what["env"].items() if env.get(name) != value and name != "_"}
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(what["cwd"])
            for name, value in changed.items():
                patch.setenv(name, value)
            code, stdout, stderr = self._command(what["words"], what["stdin"])
        asked.sendall(json.dumps({"code": code, "stdout": stdout, "stderr": stderr}).encode())

    def _command(self, words: list[str], stdin: str) -> tuple[int, str, str]:
        if words[0] == "scripts/measure":
            done = subprocess.run([ROOT / words[0], *words[1:], "--dry-run"], capture_output=True, text=True, cwd=ROOT)
            self.failed |= done.returncode != 0
            return done.returncode, done.stdout, done.stderr
        if words[0] != "fastcls":
            if (why := declared(words)) is None:
                self.failed = True
                return 127, "", f"{shlex.join(words)}: neither run nor in NOT_RUN of tests/support/documented.py\n"
            print(f"not run: {shlex.join(words)}  ({why})")
            if "fastcls" not in words:
                problem = wrong(shlex.join(words))
                self.failed |= bool(problem)
                return int(bool(problem)), "", problem
            words = [*words[words.index("fastcls") :], "--dry-run"]
        words = words[1:]
        if prepare := self.before.get(" ".join(words)):
            prepare()
        added, expected = more(words, self.page)
        words = [*words, *added]
        began = time.process_time()
        code, stdout, stderr = served(words) if words[0] == "serve" else invoked(words, stdin)
        print(f"{time.process_time() - began:5.1f} s  fastcls {shlex.join(words)}: {code}", flush=True)
        if code != expected:
            self.failed = True
            return code or 1, stdout, f"{stderr}\nfastcls {shlex.join(words)}\nended with {code}, not {expected}\n"
        return 0, stdout, stderr


def invoked(words: list[str], stdin: str) -> tuple[int, str, str]:
    """`fastcls WORDS` in this process."""
    result = CliRunner().invoke(app, words, prog_name="fastcls", input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def served(words: list[str]) -> tuple[int, str, str]:
    """`fastcls serve …` in a process of its own, its page asked for once; 0 where Ctrl-C ended it as it should."""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    started = [sys.executable, "-m", "fastcls", *words]
    with subprocess.Popen(started, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            if found := re.search(r"http://(\S+?)/", running.stdout.readline()):
                with contextlib.closing(http.client.HTTPConnection(found[1], timeout=30)) as page:
                    page.request("GET", "/")
                    assert page.getresponse().status == 200
        finally:
            running.send_signal(signal.SIGINT)
            stdout, stderr = running.communicate(timeout=30)
    return 0 if found and running.returncode == 130 else running.returncode or 1, stdout, stderr
