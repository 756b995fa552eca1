"""Labels that a pretrained network contradicts, of every image and before any training.

One pass over the images, a linear head on the features, cross-validated: each label is judged by a head that has not
seen it.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from fastcls.audit.audit import Audit
from fastcls.audit.finding import Finding, Item
from fastcls.datasets.walk import count
from fastcls.evaluation.suspects import suspects
from fastcls.models import shortlist
from fastcls.settings import options
from fastcls.training import probe

MOST = 1000  # labels in doubt that are listed, the most doubtful first


def find(audit: Audit, arch: str, weights: str, size: int) -> Finding | None:
    """The labels in doubt, those most likely to be wrong first; None where there are none.

    Of images that can be read, in classes of two or more. WeightsError where the weights cannot be had.
    """
    rows = [row for row in audit.contents.rows if not audit.measured[row[0]].fault]
    table = pd.DataFrame(rows, columns=["path", "label", "drawn"])
    with options.using(options.current()):  # its notes are of a training
        images = shortlist.crossed(table, "--suspects")
        x, y, classes = shortlist.features(images, arch, weights, size)
    together = [audit.together.get(path, "") for path in images["path"]]
    p = probe.out_of_fold(x, y, len(classes), together)
    labels = y.cpu().numpy()
    n = len(labels)
    entries = np.tile(np.arange(n), len(classes)), np.repeat(np.arange(len(classes)), n), p.T.ravel()
    found, noise = suspects(labels, *entries, p[np.arange(n), labels], len(classes))
    if not found:
        return None
    groups = []
    for one in found[:MOST]:
        image, other = images.iloc[one.row], classes[one.looks_like]
        remark = f"looks like {other} ({one.of_other:.0%}), its label {one.of_label:.0%}"
        remark += f"; {one.wrong:.0%} likely wrong" if noise.shown else ""
        groups.append((Item(image.path, image.label, image.drawn, remark),))
    right = int((p.argmax(1) == labels).sum())
    what = (
        f"A linear head on {arch}'s features, with a cross-validated accuracy of {right / n:.1%} on {n:,} images, "
        f"contradicts {count(len(found), 'label')}"
    )
    if noise.shown:
        likely = sum(one.wrong for one in found)
        what += f"; about {likely:.0f} of them are likely to be wrong, most likely those at the top."
    else:
        what += ": about as many as its own mistakes explain, so there is no evidence that any label is wrong."
    fix = "Look at them, starting from the top; correct wrong labels, and keep those that are only difficult."
    return Finding("suspect-labels", "warning" if noise.shown else "note", "Suspect labels", what, fix, tuple(groups))
