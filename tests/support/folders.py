"""What folders and their tables hold, to be compared; their JSON changed."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import stat
from pathlib import Path
from typing import Any


def held(folder: Path) -> dict[str, str]:
    """What each entry below a folder is and holds."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            status = path.lstat()
            kind = stat.filemode(status.st_mode)
            if path.is_symlink():
                kind += f" to {path.readlink()}"
            elif stat.S_ISREG(status.st_mode):
                kind += hashlib.sha256(path.read_bytes()).hexdigest()
            found[str(path.relative_to(folder))] = kind
    return found


def csv_rows(file: Path | str) -> list[dict[str, str]]:
    """The rows of a table, by the titles of its columns."""
    return text_rows(Path(file).read_bytes().decode())


def text_rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def images_of(run: Path) -> Path:
    """The folder of the images that a run was trained on."""
    return Path(json.loads((run / "run.json").read_text())["data"]["root"])


def change(file: Path, **values: Any) -> None:
    """Replace values of a JSON object."""
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
