"""Pages: the report of a run, of a comparison (`comparison`), of a check (`check`).

write(run)                     -> run/report.html and run/figures/*.png for the test split, else the validation split
write(run, split="valid")      the same for another evaluated split
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["write"]


def write(
    run: Path, split: str | None = None, status: str | None = None, each: int = 0, costs: str = "", odd: str = ""
) -> Path:
    """Write `report.html` and `figures/*.png` into a run folder and return the page's path.

    status: how the run ended, where run.json does not say it yet. each: pictures of a cell of the confusion matrix, at
    least. costs: a table of what decisions cost. odd: pictures that show no class.
    """
    from fastcls.reports import build  # pandas, matplotlib and scikit-learn, which other pages do without

    return build.write(run, split, status, each, costs, odd)
