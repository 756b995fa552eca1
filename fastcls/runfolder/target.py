"""What the images of a run are labelled with: one class each, or any number of labels. One place knows the difference.

Elsewhere a label is text, as it is written to splits.csv and predictions.csv; a target says which names it holds, what
logits become, and what is decided by probabilities. `of(kind)` gives the target that run.json or model.json names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

SEPARATOR = "|"  # between the labels of an image, in every table of a run
HALF = 0.5


class SingleLabel:
    """An image is of one class: softmax, and the likeliest class is predicted."""

    kind = "single-label"
    several = False
    activation = "Softmax <axis = 1>"  # in ONNX's words
    main, share = "accuracy", "accuracy"  # figures of metrics.json: the first, and the share of images that are right
    without = "accuracy_without_leaks"  # the first, of the images that training has not seen
    noun, plural, right, mean = "class", "classes", "accuracy", "mean accuracy"
    matrix, mistake, down, across = "Confusion matrix", "misclassified as", "label", "predicted"

    def text(self, names: Iterable[str]) -> str:
        """A label as tables have it."""
        (name,) = names
        return name

    def names(self, text: str) -> tuple[str, ...]:
        """The classes that a label names."""
        return (text,)

    def probabilities(self, logits: np.ndarray, temperature: float = 1) -> np.ndarray:
        """(n, classes) of logits divided by a temperature."""
        import numpy as np

        scaled = logits.astype(np.float64) / temperature
        exponentials = np.exp(scaled - scaled.max(1, keepdims=True))
        return exponentials / exponentials.sum(1, keepdims=True)

    def answer(self, p: np.ndarray, thresholds: Sequence[float] | None, threshold: float) -> tuple[list[int], float]:
        """The class that probabilities (classes,) predict, none if it is less likely than `threshold`; its own."""
        best = int(p.argmax())
        return [best] if p[best] >= threshold else [], float(p[best])

    def logits(self, probabilities: np.ndarray) -> np.ndarray:
        """Logits that give these probabilities (n, classes); one of 0 counts as the smallest of its type."""
        import numpy as np

        return np.log(probabilities.clip(np.finfo(probabilities.dtype).tiny))

    def softened(self, probabilities: np.ndarray, temperature: float) -> np.ndarray:
        """What logits give at a temperature, by the probabilities (n, classes) that they give."""
        return self.probabilities(self.logits(probabilities), temperature)


class MultiLabel:
    """An image has any number of labels, none among them: a sigmoid each, predicted from its own threshold on."""

    kind = "multi-label"
    several = True
    activation = "Sigmoid"
    main, share, without = "mAP", "subset_accuracy", "mAP_without_leaks"
    noun, plural, right, mean = "label", "labels", "all labels right", "mean share of images with all labels right"
    matrix, mistake, down, across = (
        "Missed and predicted instead",
        "missed, predicted instead:",
        "missed",
        "predicted instead",
    )

    def text(self, names: Iterable[str]) -> str:
        """Labels as tables have them, sorted."""
        return SEPARATOR.join(re.sub(r"([\\|])", r"\\\1", name) for name in sorted(set(names)))

    def names(self, text: str) -> tuple[str, ...]:
        """The labels that a text names."""
        parts = re.findall(r"(?:\\.|[^\\|])+", text)
        return tuple(re.sub(r"\\(.)", r"\1", part) for part in parts)

    def probabilities(self, logits: np.ndarray, temperature: float = 1) -> np.ndarray:
        """(n, labels) of logits divided by a temperature."""
        import numpy as np

        return np.exp(-np.logaddexp(0, -logits.astype("float64") / temperature))  # no overflow

    def answer(self, p: np.ndarray, thresholds: Sequence[float] | None, threshold: float) -> tuple[list[int], float]:
        """The labels that probabilities (labels,) predict, and that of the least sure decision.

        From `threshold` on, where it is one, else from the labels' own, else from 0.5.
        """
        import numpy as np

        chosen = p >= (threshold or (HALF if thresholds is None else np.asarray(thresholds)))
        return np.flatnonzero(chosen).tolist(), float(np.where(chosen, p, 1 - p).min())

    def logits(self, probabilities: np.ndarray) -> np.ndarray:
        """Logits that give these probabilities (n, labels); one of 0 counts as the smallest of its type."""
        import numpy as np

        p = probabilities.astype("float64").clip(np.finfo(probabilities.dtype).tiny, 1 - np.finfo(float).epsneg)
        return np.log(p) - np.log1p(-p)

    def softened(self, probabilities: np.ndarray, temperature: float) -> np.ndarray:
        """What logits give at a temperature, by the probabilities (n, labels) that they give."""
        return self.probabilities(self.logits(probabilities), temperature)


Target = SingleLabel | MultiLabel


def thresholds(record: Mapping[str, Any], temperature: float = 1) -> list[float] | None:
    """From which probability each label is predicted, by model.json, of probabilities at a temperature."""
    found = record.get("thresholds")
    if not found or len(found) != len(record.get("classes", ())):
        return None
    if temperature == 1:
        return list(found)
    import numpy as np

    return MULTI.softened(np.asarray(found, float), temperature).tolist()


SINGLE, MULTI = SingleLabel(), MultiLabel()


def of(record: Mapping[str, Any]) -> Target:
    """The target that a model.json, or the `data` of a run.json, names: one class an image where it names none."""
    return MULTI if record.get("target") == MULTI.kind else SINGLE


def names_of(label: str | Sequence[str]) -> tuple[str, ...]:
    """The classes of an image's label in memory: text is one, several texts are any number."""
    return (label,) if isinstance(label, str) else tuple(label)
