"""What a pickle asks for, read off its instructions without following them."""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

LARGEST = 16_000_000  # bytes of instructions; tensors lie beside them
STREAMS = 8  # old files of torch are a few pickles, then the tensors
OF_TORCH, MAGIC = 5, 0x1950A86A20F9469CFC6C  # so many pickles, the first of which is this number
# what weights alone are made of
PLAIN = re.compile(
    r"torch\._utils\._rebuild_\w+|torch\.\w+Storage|torch\.serialization\._get_layout|collections\.OrderedDict"
)
# what an attack would call, named first
LOUD = {"os", "posix", "nt", "sys", "subprocess", "builtins", "__builtin__", "shutil", "socket", "importlib", "ctypes"}
COMPUTED = "a name that is not written out"  # in the file: the parts of it are put together as it is read
PUTS, GETS = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}, {"GET", "BINGET", "LONG_BINGET"}  # of the memo
CALLS = {"GLOBAL", "INST", "PERSID"}  # their words are no text on the stack
MARK = object()


@dataclass
class Asked:
    """Dotted names that would be called, but for tensors'; `whole` if every instruction was read."""

    names: list[str]
    whole: bool


def is_pickle(file: Path) -> bool:
    """Whether a file is a pickle, as far as its first instructions, or a zip file as torch writes them."""
    with file.open("rb") as stream:
        start = stream.read(LARGEST)
    return start.startswith(b"\x80") or zipfile.is_zipfile(file) or asked_of(io.BytesIO(start)).whole


def calls_of(file: Path) -> Asked:
    """What a pickle, or a file of torch.save, would have called."""
    try:
        found = [asked_of(stream) for stream in _streams(file)]
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError, RuntimeError):
        found = []
    names = dict.fromkeys(name for asked in found for name in asked.names)
    strange = [name for name in names if not PLAIN.fullmatch(name)]
    strange.sort(key=lambda name: (name.split(".")[0] not in LOUD, name.startswith(("torch.", "fastai."))))
    return Asked(strange, bool(found) and all(asked.whole for asked in found))


def _streams(file: Path) -> Iterator[IO[bytes]]:
    """The pickles of a file; ValueError where one is too large to be read here."""
    if not zipfile.is_zipfile(file):
        with file.open("rb") as stream:
            yield io.BytesIO(stream.read(LARGEST))
        return
    with zipfile.ZipFile(file) as bundle:
        for member in bundle.infolist():
            if member.filename.lower().endswith(".pkl"):
                yield io.BytesIO(b"" if member.file_size > LARGEST else bundle.read(member))


def asked_of(stream: IO[bytes]) -> Asked:
    """Every name in the pickles of a stream, and whether all that are read of it could be."""
    names: list[str] = []
    wanted, done = 1, 0
    try:
        for done in range(STREAMS):
            if _read(stream, names) == MAGIC and not done:
                wanted = OF_TORCH
    except (ValueError, EOFError, IndexError, KeyError, UnicodeDecodeError, OverflowError):
        return Asked(names, done >= wanted)  # no more pickles
    return Asked(names, True)


def _read(stream: IO[bytes], names: list[str]) -> Any:
    """Read one pickle, add the names in it; gives what it holds, where that is a text or a number.

    What lies on the stack is followed as far as texts go: the parts of a name may have been put there long before.
    """
    stack: list[Any] = []
    kept: dict[int, Any] = {}
    for code, value, _ in pickletools.genops(stream):
        if code.name in ("GLOBAL", "INST"):
            names.append(str(value).replace(" ", "."))
        elif code.name == "STACK_GLOBAL":
            written = all(isinstance(part, str) for part in stack[-2:])
            names.append(".".join(stack[-2:]) if written else COMPUTED)
        elif code.name.startswith("EXT"):  # a number that a program has registered a name for
            names.append(COMPUTED)
        if code.name in PUTS:
            kept[len(kept) if value is None else int(value)] = stack[-1]
        elif code.name == "DUP":
            stack.append(stack[-1])
        elif code.name == "STOP":
            return stack.pop()
        else:
            _take(stack, code)
            given = kept[int(value or 0)] if code.name in GETS else value if code.name not in CALLS else None
            stack += [MARK if kind is pickletools.markobject else given for kind in code.stack_after]
    return None


def _take(stack: list[Any], code: pickletools.OpcodeInfo) -> None:
    """Take off what an instruction takes; IndexError where that is not there."""
    taken = code.stack_before
    if pickletools.markobject in taken:
        while stack.pop() is not MARK:
            pass
        taken = taken[: taken.index(pickletools.markobject)]
    for _ in taken:
        stack.pop()
