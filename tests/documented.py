"""What test_docs.py runs the documentation with: its blocks, what stands in for what is not here, a shell.

A page's blocks run from top to bottom in one folder, in bash. Whatever bash calls by name is a stand-in that asks the
test's process: `fastcls` is answered there, where fastai is imported already, and what cannot run here is looked up in
NOT_RUN. A name that is neither is not found, and the page fails.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from typer.main import get_command
from typer.testing import CliRunner

from fastcls import sources
from fastcls.cli import app

TOOLS = (  # of every Unix; they run as they are
    "basename bash cat cp cut diff dirname echo env find grep head ls mkdir mv printf rm sed sh sleep sort tail tr uniq"
    " wc xargs"
)

# What no page's command does here, by how it begins. What follows `-m fastcls` in it is tried with --dry-run.
NOT_RUN = {
    "python3 -m venv": "tests/test_package.py installs the wheel",
    ". .venv/bin/activate": "the same",
    "pip install": "the same; nothing is installed while tests run",
    "pytest": "this is pytest",
    "scripts/check": "CI runs it after the tests",
    "tensorboard": "serves until Ctrl-C; test_tracking.py reads what it would show",
    "mlflow": "the same",
    "torchrun": "several machines or GPUs; test_scaling.py starts torchrun on one without",
    "accelerate": "several GPUs; test_scaling.py starts it without",
    "scontrol": "Slurm's",
}


# Words that follow those of the page, where all that it asks for would take long or is not here; `code` is then what
# the command ends with. Of several patterns that match, all count.
@dataclass(frozen=True)
class More:
    """pattern: of the words behind `fastcls`. code: what it ends with."""

    pattern: str
    words: str
    why: str
    code: int = 0


TRAINS = (
    r"^(?:recipe|compare|search|lr-find) "
    r"(?!.*--(?:help|copy|show|dry-run|gpus|processes|storage|trials)\b)(?!\S*runs/|a b )"
)
PHOTOGRAPHS = r"(?:folder|pets-resnet50|birds-resnet50|imagenette-\S+|cifar10-resnet18|recipes/\S+)(?= |$)"
MORE = [
    More(TRAINS + r"(?!.*--time)(?!.*epochs[ =](?:auto|\d+,))", "--epochs 1", "not the minutes of a training"),
    More(r"^recipe .*--time ", "--dry-run", "how much it trains depends on the machine"),
    More(TRAINS + r"(?!.*--precision)", "--precision fp32", "no probe of bf16"),
    More(TRAINS + PHOTOGRAPHS, "--size 32 --bs 8", "photographs as small as digits, and few"),
    More(
        TRAINS + PHOTOGRAPHS + r"(?!.*(?:arch|unfreeze)[ =])(?!.*xresnet)",
        "--arch squeezenet1_1",
        "a network of 1 M parameters in place of 25 M; --dry-run has the large ones",
    ),
    More(TRAINS + "(?:cifar|.*xresnet)", "--bs 20", "few images"),
    More(TRAINS + r"(?:digits-cnn|\./)", "--limit 20", "the same"),
    More(r"^lr-find ", "--steps 20", "the fewest"),
    More(r"^compare .*--seeds", "--seeds 1", "test_compare.py has several"),
    More(r"^recipe .*--processes", "--dry-run", "test_scaling.py trains so"),
    More(r"^recipe .*--gpus", "--dry-run", "there are not so many GPUs", code=5),
    More(r"^resume .*--gpus", "", "the run was trained on a CPU", code=2),
    More(r"^recipe .*--path /data/", "", "no images lie there", code=3),
    More(r"^search .*(?:--trials|--storage)", "--dry-run", "test_search.py searches; these are ResNets"),
    More(r"^serve ", "--port 0", "the port may be taken"),
]
KIN = "another of its kind trains"  # of what is only tried, to keep the whole under three minutes
MORE += [
    More(f"^{words}$", "--dry-run", KIN)
    for words in (
        r"compare folder .*--vary balanced.*",
        r"compare folder .*--vary policy.*",
        r"compare \./mine.py .*",
        r"compare pets-resnet50 .*",
        r"compare cifar.*",
        r"compare digits-cnn (?:--seeds 5|--one-at-a-time|--vary filters=8,16 --seeds 3|--vary lr).*",
        r"recipe cifar10-cnn5(?: --precision fp32.*)?",
        r"recipe cifar10-speedrun .*",
        r"recipe \./mine\.py .*--limit 50",
        r"recipe recipes/\S+ .*--limit 20",
        r"recipe folder .*--weights model\.safetensors",
        r"recipe digits-cnn --auto-batch.*",
        r"recipe digits-cnn --track mlflow",
        r"recipe folder .*--epochs auto.*",
        r"recipe pets-resnet50 --tune head",
    )
]

# What of a page's own words would take long: what stands there, what is run
SHORTER = {
    "get_learner(size=128)": 'get_learner(size=64, arch="squeezenet1_1", bs=8)',
    "learn.lr_find()": "learn.lr_find(num_it=20)",
    "fine_tune(3, 2e-3)": "fine_tune(1, 2e-3)",
    "run(epochs=3, seed=1)": "run(epochs=1, seed=1)",
    "seeds=3)": "seeds=1, epochs=1, limit=20)",
    "'timm/convnext*'": "'timm/convnext_atto*'",
    "for seed in 1 2 3;": "for seed in 1 2;",
}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: its language, its text, the line it begins at; its title, where it is a file's name."""

    kind: str
    text: str
    line: int
    file: str = ""


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, those within lists too."""
    text = page.read_text(encoding="utf-8")
    fence = re.compile(r'^( *)```(\S*)(?: title="([^"]+)")?[^\n]*\n(.*?)^\1```$', re.S | re.M)
    found = ((m, text.count("\n", 0, m.start()) + 2) for m in fence.finditer(text))
    return [Block(m[2], textwrap.dedent(m[4]), line, m[3] or "") for m, line in found]


def shorter(text: str) -> str:
    for long, short in SHORTER.items():
        text = text.replace(long, short)
    return text


def declared(words: list[str]) -> str | None:
    """The reason why a command that is not ours does not run."""
    line = " ".join(words)
    return next((why for begin, why in NOT_RUN.items() if f"{line} ".startswith(f"{begin} ")), None)


def more(words: list[str]) -> tuple[list[str], int]:
    """What is added to the words of a `fastcls` command, and the exit code that it then has."""
    line = " ".join(words)
    found = [one for one in MORE if re.search(one.pattern, line)]
    return [word for one in found for word in one.words.split()], max((one.code for one in found), default=0)


def commands(text: str) -> list[list[str]]:
    """The words of every command of a bash block, as far as they can be told without running it."""
    found: list[list[str]] = []
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;")
        lexer.whitespace_split = True
        words: list[str] = []
        for token in [*lexer, ";"]:
            if token.strip("&|;"):
                words += [token] if words or not re.fullmatch(r"\w+=.*", token) else []
            elif words:
                found.append(words)
                words = []
    return found


@functools.cache
def knob_flags(recipe: str) -> set[str]:
    return {knob.flag for knob in sources.find(recipe).knobs}


def wrong(span: str) -> str:
    """What does not exist of a command within a sentence, which may leave out or shorten what it needs; else ''."""
    program, *words = shlex.split(span.replace("…", " "))
    flags = {word.partition("=")[0] for word in words if word.startswith("--")}
    if program == "pytest":
        gone = [word for word in words if word.startswith("tests/") and not (ROOT / word.partition("::")[0]).is_file()]
    elif program == "fastcls":
        verbs = get_command(app).commands
        if not words or words[0] not in verbs:
            return "" if not words or words[0].startswith("-") or words[0].isupper() else f"{span}: no such verb"
        verb = verbs[words[0]]
        known = {"--help", *(flag for option in verb.params for flag in (*option.opts, *option.secondary_opts))}
        if verb.context_settings.get("ignore_unknown_options"):
            named = words[1:2] if {*words[1:2]} & {*sources.available()} else sources.available()
            knobs = set().union(*map(knob_flags, named))
            known |= knobs | {f"--no-{flag[2:]}" for flag in knobs}
        gone = sorted(flags - known)
    else:
        file = program if program != "python" else words[1].replace(".", "/") + ".py"
        if file.isupper() or "NAME" in file or not (ROOT / file.partition("/")[0]).is_dir():
            return ""
        source = (ROOT / file).read_text(encoding="utf-8") if (ROOT / file).is_file() else ""
        source += (ROOT / "benchmarks" / "common.py").read_text(encoding="utf-8") if program == "python" else ""
        gone = [] if source else [file]
        gone += sorted(flag for flag in flags if source and f'"{flag}"' not in source and f"{flag[2:]}=" not in source)
    return f"{span}: {', '.join(gone)}" if gone else ""


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
HERE = '#!/bin/sh\nexec "$@"\n'  # what a job would be given to run


@dataclass
class Shell:
    """Runs a page's blocks in `folder`, and prints every command and what came of it.

    before: what a command needs to find, by the words that follow `fastcls`.
    """

    folder: Path
    env: dict[str, str]
    before: dict[str, Any] = field(default_factory=dict)
    failed: bool = False  # a command that bash may not have minded, at the head of a pipe say

    def __post_init__(self) -> None:
        self.bin = self.folder.parent / "bin"
        self.bin.mkdir()
        for tool in TOOLS.split():
            if path := shutil.which(tool):
                (self.bin / tool).symlink_to(path)
        stand_ins = {begin.split()[0]: STAND_IN for begin in ("fastcls", "scripts/measure", *NOT_RUN)} | {"srun": HERE}
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
                return 127, "", f"{shlex.join(words)}: neither run nor in NOT_RUN of tests/documented.py\n"
            print(f"not run: {shlex.join(words)}  ({why})")
            if "fastcls" not in words:
                return 0, "", ""
            words = [*words[words.index("fastcls") :], "--dry-run"]
        words = words[1:]
        if prepare := self.before.get(" ".join(words)):
            prepare()
        added, expected = more(words)
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
            if found := re.search(r"http://\S+", running.stdout.readline()):
                with urllib.request.urlopen(found[0], timeout=30) as page:
                    assert page.status == 200
        finally:
            running.send_signal(signal.SIGINT)
            stdout, stderr = running.communicate(timeout=30)
    return 0 if found and running.returncode == 130 else running.returncode or 1, stdout, stderr
