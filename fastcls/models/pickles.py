"""What a pickle asks for, read off its instructions without following them."""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

LARGEST = 16_000_000  # bytes of instructions; tensors lie beside them
STREAMS = 8  # old files of torch are a few pickles, then the tensors
# what weights alone are made of
PLAIN = re.compile(
    r"torch\._utils\._rebuild_\w+|torch\.\w+Storage|torch\.serialization\._get_layout|collections\.OrderedDict"
)
# what an attack would call, named first
LOUD = {"os", "posix", "nt", "sys", "subprocess", "builtins", "__builtin__", "shutil", "socket", "importlib", "ctypes"}


def calls_of(file: Path) -> list[str]:
    """Dotted names of what a pickle, or a file of torch.save, would have called; but for tensors'."""
    try:
        found = list(dict.fromkeys(name for stream in _streams(file) for name in _names(stream)))
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError, RuntimeError):
        return []
    strange = [name for name in found if not PLAIN.fullmatch(name)]
    return sorted(strange, key=lambda name: (name.split(".")[0] not in LOUD, name.startswith(("torch.", "fastai."))))


def _streams(file: Path) -> Iterator[IO[bytes]]:
    if not zipfile.is_zipfile(file):
        with file.open("rb") as stream:
            yield io.BytesIO(stream.read(LARGEST))
        return
    with zipfile.ZipFile(file) as bundle:
        for member in bundle.infolist():
            if member.filename.endswith(".pkl") and member.file_size <= LARGEST:
                yield io.BytesIO(bundle.read(member))


def _names(stream: IO[bytes]) -> Iterator[str]:
    words: list[str] = []  # the last texts, which STACK_GLOBAL takes
    kept: dict[int, str] = {}
    for _ in range(STREAMS):
        try:
            for code, value, _ in pickletools.genops(stream):
                if code.name in ("GLOBAL", "INST"):
                    yield str(value).replace(" ", ".")
                elif code.name == "STACK_GLOBAL" and len(words) > 1:
                    yield ".".join(words[-2:])
                elif isinstance(value, str):
                    words.append(value)
                elif code.name == "MEMOIZE":
                    kept[len(kept)] = words[-1] if words else ""
                elif code.name in ("BINGET", "LONG_BINGET") and value in kept:
                    words.append(kept[value])
        except (ValueError, EOFError, IndexError, UnicodeDecodeError, OverflowError):
            return  # no more pickles
