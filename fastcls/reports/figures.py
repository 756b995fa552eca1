"""A figure: drawn on given Axes in the colours of a given palette, as PNG for files and as SVG for pages."""

from __future__ import annotations

import io
import re
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fastcls.evaluation import plots
from fastcls.runfolder import runs

NARROW = 3.7  # inches of a figure on a phone, where it is drawn a second time so that its letters can be read
SVG = "http://www.w3.org/2000/svg"
XLINK = "{http://www.w3.org/1999/xlink}href"
ElementTree.register_namespace("", SVG)
ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")


@dataclass(frozen=True)
class Palette:
    """Colours by their role; blue and vermillion stay apart for every kind of colour vision."""

    ink: str
    muted: str
    line: str
    surface: str
    train: str
    valid: str
    right: str
    wrong: str
    on_cell: str


PRINT = Palette("#1c2126", "#5d666f", "#d5d9dd", "#ffffff", "#c2570c", "#0b65a8", "#1f6fb2", "#c2570c", "#ffffff")
STAND_INS = {role.name: f"#a1b2{i:02x}" for i, role in enumerate(fields(Palette))}  # replaced by the page's variables
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


@dataclass(frozen=True)
class Figure:
    """A figure to be drawn: its file name, its words, its size in inches and the function that draws it."""

    name: str
    title: str
    alt: str
    width: float
    height: float
    draw: Callable[[Axes, Palette], None]
    tips: dict[str, str] = field(default_factory=dict)  # id of a drawn shape -> what hovering over it says
    tight: bool = False  # cut to what was drawn, where the labels' lengths decide the size
    cells: dict[str, tuple[str, str, str]] = field(default_factory=dict)  # id of a shape -> label, prediction, count
    scrolls: bool = False  # on a phone, where it cannot be drawn narrow

    def paint(self, palette: Palette) -> Canvas:
        """The figure in these colours."""
        canvas = Canvas(figsize=(self.width, self.height))
        left, bottom, top = 0.62 / self.width, 0.5 / self.height, 0.32 / self.height
        self.draw(canvas.add_axes((left, bottom, 0.985 - left, 1 - bottom - top)), palette)
        return canvas

    def png(self) -> bytes:
        """On white, 200 dots an inch."""
        with _style():
            buffer = io.BytesIO()
            options = {"dpi": 200, "facecolor": "white", **self._margins(0.12)}
            self.paint(PRINT).savefig(buffer, format="png", metadata={"Software": None}, **options)
        return buffer.getvalue()

    def svg(self) -> Markup:
        """For a page: transparent, `var(--fig-…)` colours, real text, ids of its own; wide and narrow."""
        if self.scrolls or self.width <= NARROW:
            return self._svg("")
        return self._svg("wide") + replace(self, name=f"{self.name}-narrow", width=NARROW)._svg("narrow")

    def _svg(self, kind: str) -> Markup:
        with _style():
            matplotlib.rcParams["svg.hashsalt"] = self.name
            buffer = io.BytesIO()
            metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
            self.paint(THEMED).savefig(buffer, format="svg", transparent=True, metadata=metadata, **self._margins(0.04))
        root = ElementTree.fromstring(buffer.getvalue())
        parents = {child: parent for parent in root.iter() for child in parent}
        for element in list(root.iter()):
            _adopt(element, self)
            if element.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style"):
                parents[element].remove(element)
        width = float(root.attrib.pop("width").removesuffix("pt"))
        root.attrib.pop("height")
        root.attrib.pop("version", None)
        root.set("role", "img")
        if kind:
            root.set("class", kind)
        root.set("aria-label", self.alt)
        root.set("style", f"--natural:{width * 4 / 3:.0f}px")
        return Markup(ElementTree.tostring(root, encoding="unicode"))  # made by matplotlib, escaped by ElementTree

    def _margins(self, inches: float) -> dict[str, Any]:
        return {"bbox_inches": "tight", "pad_inches": inches} if self.tight else {}


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
            for name, value in zip(("label", "prediction", "count"), figure.cells[identity], strict=True):
                element.set(f"data-{name}", value)
    elif identity and element.tag != f"{{{SVG}}}g":
        element.set("id", f"{figure.name}-{identity}")
    for name in (XLINK, "clip-path"):
        if name in element.attrib:
            element.set(name, element.attrib[name].replace("#", f"#{figure.name}-"))


def save(figures: Iterable[Figure], folder: Path) -> None:
    """Write each as figures/NAME.png into a folder."""
    for figure in figures:
        runs.atomic_write(folder / "figures" / f"{figure.name}.png", figure.png())


def is_narrow(ax: Axes) -> bool:
    """Whether the figure is the one for a phone."""
    return ax.figure.get_figwidth() <= NARROW  # type: ignore[union-attr]


def frame(ax: Axes, palette: Palette, title: str = "", xlabel: str = "") -> None:
    """Light horizontal lines, no box, the title to the left."""
    ax.set_title(
        "\n".join(textwrap.wrap(title, 42 if is_narrow(ax) else 80)),
        loc="left",
        color=palette.ink,
        fontsize=11,
        fontweight="bold",
    )
    ax.set_xlabel(xlabel, color=palette.muted)
    ax.set_facecolor("none")
    ax.grid(visible=False, axis="x")
    ax.grid(axis="y", color=palette.line, linewidth=0.7)
    ax.set_axisbelow(True)
    ax.tick_params(colors=palette.muted, length=0, labelsize=9, pad=5)
    for side, spine in ax.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(palette.line)


def over_epochs(ax: Axes, palette: Palette, title: str, share: bool) -> None:
    """The axes of learning curves of many runs; share: whether the metric is one, to be shown in percent."""
    frame(ax, palette, title, "epoch")
    ax.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True))
    if share:
        ax.yaxis.set_major_formatter(PercentFormatter(1))
