"""What every page has in common: the templates' environment, a style, a script, a policy that admits no more."""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup
from PIL import Image

from fastcls.datasets.walk import count
from fastcls.reports import wording
from fastcls.runfolder.text import clean
from fastcls.version import __version__

HERE = Path(__file__).parent


def render(template: str, home: Path = HERE, **values: Any) -> str:
    """A template as one self-contained page; every value is escaped.

    home: the folder of the template; a script.js there follows the one that all pages have.
    """
    script = "".join(
        file.read_text(encoding="utf-8")
        for folder in dict.fromkeys((HERE, home))
        if (file := folder / "script.js").is_file()
    )
    return (
        environment(home)
        .get_template(template)
        .render(
            version=__version__,
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii"),
            **values,
        )
    )


@functools.cache  # compiled templates: many runs of one process have a page each
def environment(home: Path = HERE) -> jinja2.Environment:
    """The templates of a folder and those that all pages share; whatever they are given is escaped."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader([home, HERE]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    found.filters |= {"soft": wording.soft, "headline": wording.headline}
    found.globals.update(
        percent=wording.percent, duration=wording.duration, grouped=wording.grouped, len=len, clean=clean, count=count
    )
    return found


def data_uri(data: bytes | Image.Image, kind: str = "PNG", **options: int | bool) -> str:
    """A picture, or the bytes of its file, as an address that holds all of it; options: of Pillow's `save`."""
    if not isinstance(data, bytes):
        buffer = io.BytesIO()
        data.save(buffer, kind, **options)
        data = buffer.getvalue()
    return f"data:image/{kind.lower()};base64,{base64.b64encode(data).decode('ascii')}"


def link(run: Path, out: Path) -> str:
    """The way from a page in `out` to a run's report, as a relative address; empty where there is no report."""
    report = run / "report.html"
    return quote(os.path.relpath(report, out).replace(os.sep, "/")) if report.is_file() else ""
