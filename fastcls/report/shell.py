"""What every page has in common: the templates' environment, a style, a script, a policy that admits no more."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from fastcls import __version__
from fastcls.report import wording

HERE = Path(__file__).parent


def render(template: str, **values: Any) -> str:
    """A template as one self-contained page; every value is escaped."""
    script = (HERE / "script.js").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["soft"] = wording.soft
    environment.globals.update(percent=wording.percent, duration=wording.duration, grouped=wording.grouped, len=len)
    return environment.get_template(template).render(
        version=__version__,
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii"),
        **values,
    )
