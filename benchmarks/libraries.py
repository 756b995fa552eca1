"""Pieces of ours compared with the libraries that have them: python -m benchmarks.libraries

The same input for both, in turn: what they answer, how long they take. The libraries are not needed otherwise:
    pip install cleanlab torchinfo grad-cam
"""

from __future__ import annotations

import statistics
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torchvision.models import resnet18

from benchmarks.common import arguments, in_turn, show, spread

IMAGES, CLASSES = 10_000, 10


def doubted(probabilities: np.ndarray, labels: np.ndarray) -> tuple[Callable[[], object], ...]:
    """Our suspects and cleanlab's, as sets of rows."""
    from cleanlab.filter import find_label_issues

    from fastcls.evaluation.suspects import suspects

    n, k = probabilities.shape
    rows, classes = np.repeat(np.arange(n), k), np.tile(np.arange(k), n)
    own = probabilities[np.arange(n), labels]

    def ours() -> set[int]:
        return {suspect.row for suspect in suspects(labels, rows, classes, probabilities.ravel(), own, k)}

    def theirs() -> set[int]:
        return set(np.flatnonzero(find_label_issues(labels, probabilities, filter_by="confident_learning", n_jobs=1)))

    return ours, theirs


def planted(seed: int = 0) -> tuple[np.ndarray, np.ndarray, set[int]]:
    """Probabilities of a network that is right nine times in ten; labels, 3 % of them wrong; which these are."""
    random = np.random.default_rng(seed)
    truth = random.integers(CLASSES, size=IMAGES)
    seen = np.where(random.random(IMAGES) < 0.9, truth, random.integers(CLASSES, size=IMAGES))
    logits = random.normal(size=(IMAGES, CLASSES)) + 4 * np.eye(CLASSES)[seen]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    wrong = random.choice(IMAGES, IMAGES * 3 // 100, replace=False)
    labels = truth.copy()
    labels[wrong] = (truth[wrong] + random.integers(1, CLASSES, size=len(wrong))) % CLASSES
    return probabilities, labels, set(map(int, wrong))


def main() -> None:
    rounds = (given := arguments(__doc__ or "", rounds=5)).rounds
    warnings.simplefilter("ignore")
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    from scipy.stats import binomtest
    from torchinfo import summary

    from fastcls.evaluation.gradcam import heatmaps
    from fastcls.evaluation.metrics import wilson
    from fastcls.models.summary import summarize

    rows = []

    def held(what: str, library: str, ours: Callable[[], object], theirs: Callable[[], object], agreement: str) -> None:
        seconds = in_turn({"ours": ours, library: theirs}, rounds)
        ratios = [b / a for a, b in zip(seconds["ours"], seconds[library], strict=True)]
        each = [f"{1000 * statistics.median(seconds[side]):.4g}" for side in ("ours", library)]
        rows.append([what, library, *each, spread(ratios, "{:,.3g}"), agreement])

    probabilities, labels, wrong = planted()
    ours, theirs = doubted(probabilities, labels)
    mine, others = set(ours()), set(theirs())  # type: ignore[call-overload]
    found = [f"{len(wrong & them)} of {len(wrong)} planted, {len(them - wrong)} others" for them in (mine, others)]
    held("labels in doubt, 10,000 images", "cleanlab", ours, theirs, f"ours {found[0]}; theirs {found[1]}")

    torch.manual_seed(0)
    network = resnet18(num_classes=CLASSES).eval()
    images = torch.randn(16, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    layers, info = summarize(network, (3, 128, 128)), summary(network, (1, 3, 128, 128), verbose=0)
    macs = sum(layer["multiply_adds"] for layer in layers)
    held(
        "summary of ResNet-18, 128 px",
        "torchinfo",
        lambda: summarize(network, (3, 128, 128)),
        lambda: summary(network, (1, 3, 128, 128), verbose=0),
        f"multiply-adds {macs / 1e9:.4f} and {info.total_mult_adds / 1e9:.4f} G; theirs has no receptive field",
    )

    def theirs_cam() -> np.ndarray:
        with GradCAM(network, [network.layer4[-1]]) as cam:
            return cam(images, [ClassifierOutputTarget(0)] * len(images))

    maps = torch.nn.functional.interpolate(heatmaps(network, images, [0] * 16)[:, None], 128, mode="bilinear")[:, 0]
    alike = np.corrcoef(maps.numpy().ravel(), theirs_cam().ravel())[0, 1]
    held(
        "Grad-CAM of 16 images, ResNet-18",
        "grad-cam",
        lambda: heatmaps(network, images, [0] * 16),
        theirs_cam,
        f"maps correlate by {alike:.3f}; theirs needs the layer's name",
    )

    bounds = [(wilson(k, 100), binomtest(k, 100).proportion_ci(method="wilson")) for k in range(101)]
    worst = max(abs(a - b) for pair in bounds for a, b in zip(*pair, strict=True))
    held(
        "interval of a proportion, 101 of them",
        "scipy",
        lambda: [wilson(k, 100) for k in range(101)],
        lambda: [binomtest(k, 100).proportion_ci(method="wilson") for k in range(101)],
        f"within {worst:.0e}",
    )
    columns = ["what", "library", "ours, ms", "theirs, ms", "theirs, times as long", "answers"]
    show("libraries", "Our code compared with libraries", columns, rows, rounds, save=given.save)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
