"""The run of all folds: every image as the network predicts it that was not trained on it, in one run folder.

`report`, `compare`, `check --suspects` and `Run` take it as any other; `predict` answers with the mean of its networks.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fastcls.audit import check_record
from fastcls.audit.check_record import precheck
from fastcls.comparison.comparison import Entry, interval_of
from fastcls.datasets.walk import common_root, count
from fastcls.errors import OutputError
from fastcls.evaluation import grouped, judging
from fastcls.reports import build
from fastcls.runfolder import model_files, predictions, runs, splits
from fastcls.runfolder import target as targets
from fastcls.runfolder.run import HISTORY, HISTORY_FIXED

VALID, TEST = "valid", "test"
TAKEN_OVER = ("recipe", "title", "claim", "knobs", "extra", "seed", "versions", "device", "network")


def gather(entries: Sequence[Entry], folds: int, command: str) -> dict[Path, Path]:
    """The run of all folds for each setting whose folds are all done: its folder, and its report; made where it is old.

    folds: of a repeat. A setting that lacks one has none.
    """
    found: dict[Path, Path] = {}
    settings: dict[Path, list[Entry]] = {}
    for entry in entries:
        settings.setdefault(entry.folder.parent.parent, []).append(entry)
    for out, members in settings.items():
        whole = not any(one.failed for one in members) and len(members) == folds * len({one.seed for one in members})
        if not whole:
            continue
        members.sort(key=lambda one: (one.seed, int(one.fold.partition("/")[0])))
        page = out / "report.html"
        before = runs.read_json(out / "run.json").get("folds") if (out / "run.json").is_file() else None
        if not before or before.get("runs") != _runs(members, out) or not page.is_file():
            page = write(members, out, command)
        found[out] = page
    return found


def write(members: Sequence[Entry], out: Path, command: str) -> Path:
    """Write the run folder of these finished folds of one setting, which are below it; gives its report.

    Of several repeats the probabilities of an image are the mean. The test split, where there is one, is predicted by
    the mean of all networks. OutputError where the folds do not know the same classes.
    """
    first = model_files.read(members[0].folder)
    classes, target = list(first.get("classes", ())), targets.of(first)
    judge = judging.of(target)
    if strange := [one.folder for one in members if model_files.read(one.folder).get("classes") != classes]:
        raise OutputError(
            f"{strange[0]} has different classes from {members[0].folder}, so they cannot be averaged.",
            f"Remove {out} and run the folds again.",
        )
    roots = {one.folder: Path((one.record.get("data") or {}).get("root") or ".") for one in members}
    root = common_root([str(path / "x") for path in roots.values()])
    tables = {one.folder: _absolute(one.folder, roots[one.folder], root) for one in members}
    held = {split: _mean([table[table["split"] == split] for table in tables.values()]) for split in (VALID, TEST)}
    truth = {split: judge.truth(table["label"].tolist(), classes) for split, table in held.items() if len(table)}
    p = {split: held[split][[f"p:{name}" for name in classes]].to_numpy(float) for split in truth}
    temperature, thresholds = judge.temperature(p[VALID], truth[VALID]), judge.thresholds(p[VALID], truth[VALID])
    figures, leaked = {}, _leaked(members, roots, root)
    for split in truth:
        codes = grouped.codes_in(held[split])
        judged = p[split], truth[split], classes, thresholds
        figures[split] = judge.figures(*judged, temperature, codes)
        clean = ~held[split]["path"].isin(leaked.get(split, ())).to_numpy()
        figures[split] |= judging.without(judge, clean, *judged, codes)
    listed = [(path, split, label) for split in truth for path, label in held[split][["path", "label"]].to_numpy()]
    groups = {
        path: name
        for split in truth
        if predictions.GROUP in held[split]
        for path, name in held[split][["path", predictions.GROUP]].to_numpy()
        if name
    }
    folds, repeats = len({one.fold for one in members}), len({one.seed for one in members})
    ends = interval_of(members, VALID) or (None, None)
    over = {
        "value": float(np.mean([one.figure("accuracy", VALID) for one in members])),
        "low": ends[0],
        "high": ends[1],
    }
    notes = _notes(members, folds, repeats, over, TEST in truth, target.mean)
    record: dict[str, Any] = {
        "format": runs.FORMAT,
        **{name: members[0].record[name] for name in TAKEN_OVER if name in members[0].record},
        "options": {**members[0].record.get("options", {}), "fold": ""},
        "command": command,
        "folder": str(Path.cwd()),
        "status": "done",
        "started": runs.now(),
        "notes": notes,
        "train_seconds": round(sum(one.record.get("train_seconds", 0) for one in members), 3),
        "weights": f"There are {len(members)} networks, each trained without the images that it predicts here.",
        "folds": {"folds": folds, "repeats": repeats, "accuracy": over, "runs": _runs(members, out)},
        "data": {
            "root": str(root),
            "images": {split: len(truth[split]) for split in truth},
            "classes": len(classes),
            "target": target.kind,
            **({"groups": len(set(groups.values()))} if groups else {}),
        },
    }
    model = {name: value for name, value in first.items() if name != "sha256"}
    model |= {"temperature": temperature, "members": [one["folder"] for one in _runs(members, out)]}
    if target.several:
        model["thresholds"] = None if thresholds is None else thresholds.tolist()
    runs.write_json(out / "metrics.json", figures)
    runs.write_json(out / model_files.RECORD, model)
    runs.write_json(out / "heatmaps.json", _heatmaps(members))
    runs.write_csv(out / HISTORY, HISTORY_FIXED[:6], [])
    splits.write(out, listed, groups)
    splits.write_slices(out, listed, _slices(members))
    rows = chain.from_iterable(
        judging.answers(
            judge,
            classes,
            ((split, path, label) for path, label in held[split][["path", "label"]].to_numpy()),
            p[split],
            judge.losses(p[split], truth[split]),
            thresholds,
            temperature,
        )
        for split in truth
    )
    predictions.write(out / predictions.FILE, classes, rows, dense=True, groups=groups)
    if all((one.folder / predictions.BASELINE).is_file() for one in members):
        _write_baseline(members, out)
    runs.write_json(out / "run.json", record)
    notes += precheck(out, sizes=False)
    runs.write_json(out / "run.json", record)
    return build.write(out)


def _leaked(members: Sequence[Entry], roots: Mapping[Path, Path], common: Path) -> dict[str, set[str]]:
    """Of each split the images that have a copy, or another of their group, among those that a fold was trained on."""
    found: dict[str, set[str]] = defaultdict(set)
    for one in members:
        rows = ((path, split, label) for path, label, split in splits.read(one.folder))
        groups = {path: group for path, group, _ in splits.read_groups(one.folder)}
        for split, paths in check_record.leaked(one.folder, rows, groups).items():
            root = roots[one.folder]
            found[split] |= paths if root == common else {os.path.relpath(root / path, common) for path in paths}
    return found


def _absolute(run: Path, root: Path, common: Path) -> Any:
    """The predictions of a run, with paths below the common folder."""
    table = predictions.of_run(run, probabilities=True)
    if root != common:
        table["path"] = [os.path.relpath(root / path, common) for path in table["path"]]
    return table


def _mean(tables: Sequence[Any]) -> Any:
    """A row an image, in the order of the paths: label, group, and the mean of the probabilities."""
    every = pd.concat(list(tables))
    numbers = [name for name in every if name.startswith("p:")]
    kept = ["label", *([predictions.GROUP] if predictions.GROUP in every else [])]
    found = every.groupby("path", sort=True).agg({**dict.fromkeys(kept, "first"), **dict.fromkeys(numbers, "mean")})
    return found.fillna({predictions.GROUP: ""}).reset_index()


def _runs(members: Sequence[Entry], out: Path) -> list[dict[str, Any]]:
    return [
        {
            "folder": os.path.relpath(one.folder, out),
            "started": str(one.record.get("started")),
            "seed": one.seed,
            "fold": one.fold,
            "accuracy": one.figure("accuracy", VALID),
            "images": (one.record.get("data") or {}).get("images", {}).get(VALID, 0),
            "epoch": one.record.get("best_epoch"),
        }
        for one in members
    ]


def _notes(
    members: Sequence[Entry], folds: int, repeats: int, over: Mapping[str, float | None], tested: bool, mean_of: str
) -> list[str]:
    each = f"the mean over {repeats} repeats" if repeats > 1 else "the prediction of one network"
    found = [f"{folds} folds: every image is predicted by networks that were not trained on it; {each}."]
    if over["low"] is not None:
        mean, low, high = (f"{100 * (over[name] or 0):.1f}" for name in ("value", "low", "high"))
        found.append(f"over {count(len(members), 'fold')} the {mean_of} is {mean} % (95 %: {low} to {high}).")
    chosen = [one for one in members if one.record.get("options", {}).get("keep") != "last"]
    if any((one.record.get("train_seconds") or 0) and one.record.get("best_epoch") for one in chosen):
        found.append(
            "each network's best epoch was chosen on the images that it predicts here, which makes the figures "
            "slightly optimistic (--keep last avoids this)."
        )
    if tested:
        found.append(f"the test images are predicted by the mean of all {len(members)} networks.")
    return found


def _heatmaps(members: Sequence[Entry]) -> dict[str, dict[str, Any]]:
    files = [one.folder / "heatmaps.json" for one in members]
    maps = [runs.read_json(file).get(VALID, {}) for file in files if file.is_file()]
    return {VALID: dict(chain.from_iterable(own.items() for own in maps))} if any(maps) else {}


def _slices(members: Sequence[Entry]) -> Mapping[str, Mapping[str, str]]:
    """What the tables of labels say of the images besides: title -> path -> value."""
    file = members[0].folder / splits.SLICES  # which knows every image, in one split or another
    if not file.is_file():
        return {}
    table = splits.read_slices(file).set_index("path")
    return {title: table[title].to_dict() for title in table if title not in splits.OF_SLICES}


def _write_baseline(members: Sequence[Entry], out: Path) -> None:
    """What each fold's linear probe predicts, of the first repeat."""
    tables = [predictions.of_run(one.folder, predictions.BASELINE) for one in members if one.seed == members[0].seed]
    rows = pd.concat([table[table["split"] == VALID] for table in tables])[list(predictions.NAMES)]
    predictions.write_baseline(out / predictions.BASELINE, rows.drop_duplicates("path").to_numpy().tolist())
