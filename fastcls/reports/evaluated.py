"""A run on images that came later: its figures beside those of the run's own images, in words and rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastcls.comparison.differences import Difference, independent
from fastcls.datasets.walk import count, some
from fastcls.evaluation.shift import FEATURES, SHARES
from fastcls.reports.scores import Score, leaks, scores
from fastcls.reports.wording import percent
from fastcls.runfolder import target as targets
from fastcls.runfolder.run import Run
from fastcls.runfolder.text import clean

FIGURES = ("accuracy", "top5", "mAP", "macro_f1", "subset_accuracy", "loss", "ece")
WORDS = {
    "brightness": ("darker", "brighter", "{:.0f} of 255"),
    "contrast": ("of less contrast", "of more contrast", "{:.0f}"),
    "sharpness": ("less sharp", "sharper", "{:.2f}"),
    "width": ("narrower", "wider", "{:.0f} pixels"),
    "height": ("less high", "higher", "{:.0f} pixels"),
}


@dataclass(frozen=True)
class Line:
    """A figure on the new images and on a split of the run's own, and how far they lie apart."""

    new: Score
    own: Score
    difference: Difference

    @property
    def gap(self) -> str:
        """The difference with its interval, of shares in points."""
        return self.difference.text(*((100, 1) if self.new.share else (1, 3)))


@dataclass(frozen=True)
class Evaluated:
    """Figures beside those of each own split, what there is to say of them, and rows of unknown classes."""

    lines: dict[str, list[Line]]
    sentences: list[str]
    unknown: list[tuple[str, int, str]]  # class, images, what the network calls most of them


def evaluated(files: Run, split: str = "new") -> Evaluated | None:
    """Of the folder that `evaluate` wrote; None for any other run folder."""
    found = files.evaluation
    if not found:
        return None
    own = Run(files.folder, {}, metrics={clean(name): values for name, values in found.get("own", {}).items()})
    new = scores(files, split)
    lines = {
        name: [
            Line(new[key], theirs[key], independent(vars(new[key]), vars(theirs[key])))
            for key in FIGURES
            if key in new and key in theirs
        ]
        for name in own.splits()
        if (theirs := scores(own, name))
    }
    unknown, seen = _unknown(files), leaks(files, split)
    return Evaluated(
        lines,
        [*_figures(found, lines), *([seen] if seen else []), *_look(found), *_classes(files, new.get("accuracy"))],
        unknown,
    )


def _figures(found: dict[str, Any], lines: dict[str, list[Line]]) -> list[str]:
    """How the accuracy stands to that of the run's own images, and what of it other class shares explain."""
    split = found.get("split", "")
    line = next((line for line in lines.get(split, ()) if line.new.key in ("accuracy", targets.MULTI.main)), None)
    if line is None:
        return []
    gap = line.difference
    images = f"{line.new.n:,} new images" if line.new.n else "new images"
    text = f"{line.new.name} on the {images} is {line.new.text} ({line.new.interval}), on the run's own {split} images "
    text += f"{line.own.text}: {abs(gap.value) * 100:.1f} points {'lower' if gap.value < 0 else 'higher'}"
    if gap.low is not None and gap.high is not None:
        shown = "more than chance explains" if gap.shown else "within chance"
        text += f" (95 % interval {gap.low * 100:+.1f} to {gap.high * 100:+.1f}), {shown}"
    expected = found.get("expected")
    sentences = [f"{text}."]
    if expected is not None and abs(expected - line.own.value) >= 0.005:
        sentences.append(
            f"The different class shares alone would give {percent(expected)}, if each class were as accurate as "
            "before; the rest of the difference is within the classes."
        )
    return sentences


def _look(found: dict[str, Any]) -> list[str]:
    """Whether the new pictures look like those of the run."""
    gaps, own = found.get("gaps"), f"the run's own {found.get('split', '')} images"
    if not gaps:
        return [f"How the images look was not compared: too few of {own} are available in the classes that both have."]
    seen = f"{found.get('compared', 0):,} of each were compared, as many of every class"
    differing = [words for gap in gaps if gap.get("p", 1) < 0.05 and (words := _gap(**gap))]
    if not differing:
        what = f"{', '.join(gap.get('name', '') for gap in gaps)}: no significant difference"
        return [f"The new images look like {own} in {what} ({seen})."]
    return [f"The new images do not look like {own}: {'; '.join(differing)} ({seen})."]


def _gap(name: str = "", old: float | None = None, new: float | None = None, **_: Any) -> str:
    """A difference between old and new images in words."""
    if name == SHARES:
        return "their class shares differ"
    if old is None or new is None:
        return ""
    if name == FEATURES:
        separated = f"a classifier separates new from old in {percent(new, 0)} of cases ({percent(old, 0)} is chance)"
        return f"by the network's features, {separated}"
    less, more, form = WORDS.get(name, ("less", "more", "{:g}"))
    word = less if new < old else more if new > old else "distributed differently"
    return f"they are {word} (median {clean(name)} {form.format(new)}, was {form.format(old)})"


def _classes(files: Run, accuracy: Score | None) -> list[str]:
    """Classes that the network does not know, those without an image, and images that were left out."""
    found, sentences = files.evaluation, []
    unknown, missing = found.get("unknown", {}), found.get("missing", [])
    if n := sum(unknown.values()):
        text = f"{n:,} more images are of {count(len(unknown), 'class')} that this network does not know: "
        text += some(f"{clean(name)} ({k:,})" for name, k in unknown.items())
        text += ". It can only be wrong on them, and they are not counted above"
        if accuracy and accuracy.n:
            text += f"; with them the accuracy is {percent(accuracy.value * accuracy.n / (accuracy.n + n))}"
        sentences.append(f"{text}.")
    if missing:
        of = f"{len(missing):,} of the {len(files.model.get('classes', ())):,} classes"
        sentences.append(f"No new image is of {of}: {some(map(clean, missing))}. These classes were not evaluated.")
    if trained := found.get("trained"):
        sentences.append(f"{trained:,} images were left out: the run was trained on these files.")
    if n := found.get("chosen_on"):
        sentences.append(
            f"{n:,} of the images above are files of the run's own validation split: they are not new, and its weights "
            "and its calibration were chosen on them."
        )
    return sentences


def _unknown(files: Run) -> list[tuple[str, int, str]]:
    table = files.predictions[files.predictions["split"] == "unknown"]
    return [
        (str(label), len(rows), str(rows["prediction"].mode().iloc[0]))
        for label, rows in sorted(table.groupby("label"), key=lambda pair: -len(pair[1]))
    ]
