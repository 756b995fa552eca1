"""A figure as print-quality PNG, and as SVG that takes its colours and letters from the page's style."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup

from fastcls.evaluation import plots
from fastcls.reports.figures import PRINT, Figure, Palette

SVG = "http://www.w3.org/2000/svg"
XLINK = "{http://www.w3.org/1999/xlink}href"
ElementTree.register_namespace("", SVG)
ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")

ROLES = ("ink", "muted", "line", "surface", "train", "valid", "right", "wrong", "on_cell")
STAND_INS = {role: f"#a1b2{i:02x}" for i, role in enumerate(ROLES)}  # replaced by the page's variables
THEMED = Palette(**STAND_INS)


@contextmanager
def _style() -> Iterator[None]:
    """matplotlib's own defaults, whatever the user's are, and silence about letters that no font has."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*[Gg]lyph.*missing.*")
        warnings.filterwarnings("ignore", message=r".*does not support.*natively.*")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"font.family": plots.fonts(), "svg.fonttype": "none", "axes.unicode_minus": False})
        matplotlib.rcParams["text.parse_math"] = False  # names may have two '$'
        yield


def _cut(figure: Figure, margin: float) -> dict[str, Any]:
    return {"bbox_inches": "tight", "pad_inches": margin} if figure.tight else {}


def png(figure: Figure) -> bytes:
    """The figure on white, 200 dots an inch."""
    with _style():
        buffer = io.BytesIO()
        options = {"dpi": 200, "facecolor": "white", **_cut(figure, 0.12)}
        figure.paint(PRINT).savefig(buffer, format="png", metadata={"Software": None}, **options)
    return buffer.getvalue()


def svg(figure: Figure) -> Markup:
    """The figure for the page: transparent, `var(--fig-…)` colours, real text, ids of its own."""
    with _style():
        matplotlib.rcParams["svg.hashsalt"] = figure.name
        buffer = io.BytesIO()
        metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.paint(THEMED).savefig(buffer, format="svg", transparent=True, metadata=metadata, **_cut(figure, 0.04))
    root = ElementTree.fromstring(buffer.getvalue())
    parents = {child: parent for parent in root.iter() for child in parent}
    for element in list(root.iter()):
        _adopt(element, figure)
        if element.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style"):
            parents[element].remove(element)
    width = float(root.attrib.pop("width").removesuffix("pt"))
    root.attrib.pop("height")
    root.attrib.pop("version", None)
    root.set("role", "img")
    root.set("aria-label", figure.alt)
    root.set("style", f"--natural:{width * 4 / 3:.0f}px")
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # made by matplotlib, escaped by ElementTree


def _adopt(element: ElementTree.Element, figure: Figure) -> None:
    """Give one element the page's colours and letters, and an id that no other figure has."""
    if "style" in element.attrib:
        style = element.attrib["style"]
        for role, stand_in in STAND_INS.items():
            style = style.replace(stand_in, f"var(--fig-{role.replace('_', '-')})")
        style = re.sub(r"font-family: [^;]*", "font-family: var(--sans)", style)
        element.set("style", re.sub(r"(font: (?:\w+ )*[\d.]+px) [^;]*", r"\1 var(--sans)", style))
    identity = element.attrib.pop("id", None)
    if identity in figure.tips:
        title = ElementTree.Element(f"{{{SVG}}}title")
        title.text = figure.tips[identity]
        element.insert(0, title)
        element.set("class", "cell")
        if identity in figure.cells:
            element.set("data-label", figure.cells[identity][0])
            element.set("data-prediction", figure.cells[identity][1])
    elif identity and element.tag != f"{{{SVG}}}g":
        element.set("id", f"{figure.name}-{identity}")
    for name in (XLINK, "clip-path"):
        if name in element.attrib:
            element.set(name, element.attrib[name].replace("#", f"#{figure.name}-"))
