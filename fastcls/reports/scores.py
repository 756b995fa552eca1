"""The figures of a run as the page says them: each with its interval, compared with guessing and with the claim."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from fastcls.comparison import differences
from fastcls.evaluation.grouped import codes_of, proportion
from fastcls.evaluation.metrics import Z, leaked
from fastcls.reports.classes import Outcome
from fastcls.reports.wording import headline, percent
from fastcls.runfolder import runs
from fastcls.runfolder.predictions import GROUP
from fastcls.runfolder.run import Run
from fastcls.runfolder.target import MULTI, SINGLE, Target, of
from fastcls.runfolder.text import clean, number

NAMES = {
    "accuracy": "Accuracy",
    SINGLE.without: "Accuracy without leaked images",
    "top5": "Top-5 accuracy",
    "mAP": "mAP",
    MULTI.without: "mAP without leaked images",
    "macro_f1": "Macro F1",
    "loss": "Loss",
    "micro_f1": "Micro F1",
    "samples_f1": "F1 per image",
    "samples_f2": "F2 per image",
    "subset_accuracy": "All labels right",
    "hamming_loss": "Labels wrong (Hamming loss)",
    "macro_roc_auc": "Macro ROC AUC",
    "lrap": "Ranking precision (LRAP)",
    "ranking_loss": "Ranking loss",
    "coverage_error": "Coverage error",
    "macro_precision": "Macro precision",
    "macro_recall": "Macro recall",
    "brier": "Brier score",
    "ece": "Calibration error (ECE)",
    "loss_calibrated": "Loss after temperature scaling",
    "brier_calibrated": "Brier score after temperature scaling",
    "ece_calibrated": "Calibration error after temperature scaling",
}
NO_SHARES = ("loss", "brier", "loss_calibrated", "brier_calibrated", "coverage_error")  # metrics that are none of one
MANY = 10  # classes from which on a right answer among five says something
CLAIM = re.compile(
    r"(?<!top-5 )(?<!top5 )(?:\b(?P<split>test|valid) )?\b(?P<figure>accuracy|error(?:[ _]rate)?)"
    r"\W{0,4}(?:of |is |= ?)?(?P<value>\d+(?:\.\d+)?)\s*%(?:\s*±\s*(?P<spread>\d+(?:\.\d+)?))?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Score:
    """A metric of a split with its 95 % interval."""

    key: str
    value: float
    low: float | None
    high: float | None
    n: int | None
    groups: int | None = None  # that the interval is over, where it is not over images

    @property
    def name(self) -> str:
        return NAMES.get(self.key, headline(self.key))

    @property
    def share(self) -> bool:
        return self.key not in NO_SHARES and -1 <= self.value <= 1

    @property
    def text(self) -> str:
        return percent(self.value) if self.share else f"{self.value:.3g}"

    @property
    def interval(self) -> str:
        if self.low is None or self.high is None or self.low == self.high:
            return ""  # a bootstrap without a single mistake has no width, which would claim certainty
        if self.share:
            return f"{percent(self.low, unit=False)} to {percent(self.high)}"
        return f"{self.low:.3g} to {self.high:.3g}"


def scores(run: Run, split: str) -> dict[str, Score]:
    """Each metric of a split that has a value, in the order of NAMES, unknown ones last."""
    found = {}
    held = run.metrics.get(split, {})
    for key in [*(key for key in NAMES if key in held), *(key for key in held if key not in NAMES and key != "n")]:
        entry = held[key] if isinstance(held[key], dict) else {"value": held[key]}
        value = number(entry.get("value"))
        if value is not None:
            n = number(entry.get("n", held.get("n")))
            size = None if n is None else int(n)
            groups = number(entry.get("groups"))
            ends = number(entry.get("low")), number(entry.get("high"))
            found[key] = Score(clean(key), value, *ends, size, None if groups is None else int(groups))
    return found


def leaks(run: Run, split: str) -> str:
    """The first figure beside that without the images that training has seen; empty where there are none."""
    target, held, found = of(run.model), run.metrics.get(split, {}), scores(run, split)
    main, clean, rest = found.get(target.main), held.get(target.without), found.get(target.without)
    if not (main and main.n and isinstance(clean, dict)):
        return ""
    seen = leaked(main.n - int(number(clean.get("n")) or 0), f"the {main.n:,} {split} images")
    without = f"{rest.text} ({rest.interval})" if rest and rest.interval else rest.text if rest else "too few are left"
    return f"{seen}. {main.name} with leaks: {main.text}; without: {without}."


def tiles(found: dict[str, Score], classes: int, target: Target) -> list[Score]:
    """The figures at the top."""
    keys: tuple[str, ...] = ("accuracy", target.without, *(["top5"] if classes > MANY else []), "macro_f1", "loss")
    if target.several:
        keys = target.main, target.without, "macro_f1", "micro_f1", target.share, "loss"
    return [found[key] for key in keys if key in found]


def guess_sentence(accuracy: Score | None, outcome: Outcome | None) -> str:
    """The accuracy beside that of always naming the commonest class."""
    if not outcome:
        return ""
    base = f"would be right for {percent(outcome.majority_share)}"
    if accuracy is None:
        return f"{base}."
    ahead = (accuracy.value - outcome.majority_share) * 100
    if accuracy.low is not None and accuracy.low > outcome.majority_share:
        return f"{base}; the network is {ahead:.1f} points better, more than chance explains."
    if ahead > 0:
        luck = f"which on {outcome.n} images may be chance"
        return f"{base}; the network is {ahead:.1f} points better, {luck}."
    return f"{base}; the network is no better than that."


def probe_sentence(run: Run, split: str) -> str:
    """The accuracy of the frozen network with a linear head, and whether this run beats it on the same images."""
    before = run.baseline[run.baseline["split"] == split]
    after = run.predictions[run.predictions["split"] == split]
    test = differences.paired(before, after) if len(before) else None
    if test is None:
        return ""
    right = (before["label"] == before["prediction"]).to_numpy()
    names = dict(zip(after["path"], after[GROUP], strict=True)) if GROUP in after else {}
    low, high = proportion(right, codes_of([names.get(path, "") for path in before["path"]]))
    interval = f"({percent(low, unit=False)} to {percent(high)})"
    reached = f"reaches {percent(float(right.mean()))} {interval} on the same {test.images:,} images"
    alone = (run.history["phase"] == runs.PROBE).all()
    if not test.only_first + test.only_second:
        return f"{reached}: it {'is' if alone else 'makes the same mistakes as'} the network of this run."
    if alone:  # what differs are the thresholds of several labels
        return f"{reached} at a threshold of 0.5; it is the network of this run, which has one threshold per label."
    gain, least, most = differences.images_interval(test)
    word = "more" if gain >= 0 else "fewer"
    sentence = f"{reached}; this run has {abs(gain) * 100:.1f} points {word} ({least * 100:+.1f} to {most * 100:+.1f})"
    if least <= 0 <= most:
        return f"{sentence}, which may be chance: training has not been shown to help."
    return f"{sentence}: " + ("training helped." if gain > 0 else "training made it worse. Use --tune probe.")


def claim_sentence(claim: str, accuracy: Score | None, limited: bool, split: str = "") -> str:
    """Whether the recipe's claim and this run agree, as far as its words can be read.

    A claim's ± is the spread over seeds, which another run has too. One of test images says nothing of others.
    """
    if "itself not measured" in claim.lower():
        return "The claim is for another network than the recipe's own, which has not been measured yet."
    if not claim or "not measured" in claim.lower():
        return "The recipe has not been measured yet, so there is nothing to compare this run with."
    match = CLAIM.search(claim)
    if not match or accuracy is None:
        return "Compare it with the figures above."
    if match["split"] and split and match["split"].lower() != split:
        return (
            f"It is for {match['split'].lower()} images, these metrics are for {split} images: they are not comparable."
        )
    error = match["figure"].lower().startswith("error")
    claimed, spread = float(match["value"]) / 100, float(match["spread"] or 0) / 100
    value, low, high = accuracy.value, accuracy.low, accuracy.high
    if error:
        value, low, high = 1 - value, None if high is None else 1 - high, None if low is None else 1 - low
    here = f"Here the {'error rate' if error else 'accuracy'} is {percent(value)}"
    if low is None or high is None:
        sentence = f"{here}; without an interval it is unknown whether they differ."
    else:
        here = f"{here} ({percent(low, unit=False)} to {percent(high)})"
        room = math.hypot(value - low if value > claimed else high - value, Z * spread)
        if abs(value - claimed) <= room:
            sentence = f"{here}, which agrees with it."
        else:
            sentence = f"{here}, which is {'better' if (value < claimed) == error else 'worse'}."
    return sentence + (" This run used only part of the data, so expect a difference." if limited else "")
