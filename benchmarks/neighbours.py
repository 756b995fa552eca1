"""Whether nearness to known mistakes tells mistakes from right answers: python -m benchmarks.neighbours RUN…

Half of a run's test images, by chance, are known, the others are dropped on the page, as it were. For each of these:
how unsure the network is, how near the nearest of the known mistakes lies, and how many of the 10 nearest known images
are mistakes. Area under the ROC curve for telling its mistakes; where the page warns, how often the network is wrong,
and how often it says that it is.
"""

from __future__ import annotations

import sys
from pathlib import Path
from threading import Event

import numpy as np
from sklearn.metrics import roc_auc_score

from fastcls.inference.explain import Explainer
from fastcls.inference.neighbours import Neighbours
from fastcls.runfolder import known, runs

MOST = 2000  # images dropped
BATCH = 32


def measure(run: Path) -> str:
    """A row of Markdown."""
    images = known.read(run, "test")
    order = np.random.default_rng(0).permutation(len(images)).tolist()
    half = len(order) // 2
    old, new = [images[i] for i in order[:half]], [images[i] for i in order[half:][:MOST]]
    explainer, root = Explainer(run), Path(runs.read_json(run / "run.json")["data"]["root"])
    neighbours = Neighbours(old, root)
    neighbours.look(explainer.features, Event())
    found = []
    for start in range(0, len(new), BATCH):
        features = explainer.features([str(root / image.path) for image in new[start : start + BATCH]])
        assert features is not None, "this network has no features"
        found += [neighbours.near(row) for row in features]
    wrong = np.array([image.wrong for image in new])
    telling = np.array([near.telling for near in found])
    curves = [
        roc_auc_score(wrong, score)
        for score in (
            [-(image.confidence or 0) for image in new],
            [near.mistakes[0][1] for near in found],
            [near.wrong for near in found],
        )
    ]
    stated = found[0].error
    cells = [
        runs.read_json(run / "run.json")["recipe"],
        f"{len(new):,}",
        f"{neighbours.mistakes:,}",
        *(f"{curve:.2f}" for curve in curves),
        f"{telling.mean():.1%}",
        f"{wrong[telling].mean():.1%}",
        "–" if stated is None else f"{stated:.1%}",
        f"{wrong.mean():.1%}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    heads = "recipe, dropped, known mistakes, unsureness, nearest mistake, mistakes among 10, warned of, wrong of these"
    titles = [*heads.split(", "), "as the page says", "wrong of all"]
    print(f"| {' | '.join(titles)} |\n|{' --- |' * len(titles)}", flush=True)
    for name in sys.argv[1:]:
        print(measure(runs.find(name)), flush=True)


if __name__ == "__main__":
    main()
