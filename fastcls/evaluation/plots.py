"""Drawings on given Axes: confusion matrix, reliability, pictures with what was said of them. Names are no markup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from fastcls.evaluation import calibration
from fastcls.runfolder.text import clean, shorten

LOOKED = "inferno"  # of a Grad-CAM map over its picture

FALLBACKS = (  # letters that DejaVu Sans lacks, from whichever of these is installed
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans", "Noto Sans Devanagari", "Noto Sans Thai"),
    *("Noto Sans Bengali", "Noto Sans Tamil", "Source Han Sans", "WenQuanYi Micro Hei", "Droid Sans Fallback"),
    *("PingFang SC", "Hiragino Sans", "Arial Unicode MS", "Microsoft YaHei", "Malgun Gothic", "Nirmala UI"),
)


@cache
def fonts() -> list[str]:
    """Families that matplotlib tries in turn for each letter."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in FALLBACKS if name in installed)]


def grid(n: int, axs: Sequence[Axes] | None = None, **kwargs: Any) -> list[Axes]:
    """The Axes given, or those of a new figure of about as many rows as columns; `kwargs` go to plt.subplots."""
    if axs is not None:
        return list(np.ravel(np.asarray(axs, dtype=object)))
    import matplotlib.pyplot as plt

    columns = max(1, int(np.ceil(np.sqrt(n))))
    rows = max(1, -(-n // columns))
    found = plt.subplots(rows, columns, **{"figsize": (2.6 * columns, 2.9 * rows), "squeeze": False, **kwargs})[1]
    return list(found.flat)


def text(name: object) -> str:
    """A name on one line, short enough for an axis."""
    return shorten(clean(name))


def pictures(axs: Sequence[Axes], pixels: np.ndarray, titles: Sequence[str], heat: np.ndarray | None = None) -> None:
    """Each of pixels (n, H, W, 3 or 1), 0 to 255, on Axes of its own; heat (n, h, w), 0 to 1, is laid over them."""
    for ax in axs:
        ax.set_axis_off()
    for i, (ax, image, title) in enumerate(zip(axs, pixels, titles, strict=False)):
        height, width = image.shape[:2]
        ax.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=255)
        ax.set_title(title, fontsize=9, parse_math=False, fontfamily=fonts())
        if heat is not None:
            level = heat[i]
            ax.imshow(
                level,
                cmap=LOOKED,
                alpha=0.65 * level / max(level.max(), 1e-9),
                extent=(-0.5, width - 0.5, height - 0.5, -0.5),
                interpolation="bicubic",
            )


def confusion(ax: Axes, matrix: np.ndarray, names: Sequence[object], cmap: str, number: str | None) -> None:
    """Rows are labels, columns predictions; number: how a cell's value is written, None for not at all."""
    from sklearn.metrics import ConfusionMatrixDisplay

    display = ConfusionMatrixDisplay(matrix, display_labels=[text(name) for name in names])
    display.plot(
        ax=ax, cmap=cmap, colorbar=False, xticks_rotation=90, include_values=number is not None, values_format=number
    )
    for label in (*ax.get_xticklabels(), *ax.get_yticklabels()):
        label.set_parse_math(False)
        label.set_fontfamily(fonts())
    ax.set_xlabel("predicted")
    ax.set_ylabel("label")


def reliability(
    ax: Axes,
    confidences: Mapping[str, np.ndarray],
    right: np.ndarray,
    colours: Sequence[str] = ("C1", "C0"),
    diagonal: str = "0.5",
) -> None:
    """Accuracy over confidence for each named (n,) confidence; right (n,) booleans. A point's size is its images."""
    ax.plot([0, 1], [0, 1], color=diagonal, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
    styles = (((0, (4, 2)), "s"), ("-", "o"))[-len(confidences) :]
    drawn = zip(confidences.items(), colours[-len(confidences) :], styles, strict=True)
    for (label, confidence), colour, (line, marker) in drawn:
        bins = calibration.binned(confidence, right)
        counts, sums, hits = bins[:, bins[0] > 0]
        x, y = sums / counts, hits / counts
        ax.plot(x, y, color=colour, linestyle=line, linewidth=1.6, label=label, zorder=3)
        ax.scatter(x, y, s=12 + 90 * counts / len(right), color=colour, marker=marker, zorder=4)
    ax.set_xlim(0, 1.02)
    ax.set_ylim(0, 1.05)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
