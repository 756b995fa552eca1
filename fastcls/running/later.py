"""A finished run on labelled images that came later: another site, next month's. Needs no torch.

What it writes is a run folder of the images' own, for `report`, `compare` and `Run`, and evaluation.json: how they
stand to those of the run.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import count as counted
from pathlib import Path
from typing import Any

import numpy as np

from fastcls.audit import contents
from fastcls.audit.check_record import precheck, relative
from fastcls.data import copies
from fastcls.datasets import groups
from fastcls.datasets.walk import count, file_size, some
from fastcls.errors import DataError, FastclsError, UsageError
from fastcls.evaluation import grouped, judging, shift
from fastcls.images import check
from fastcls.images.measurements import measure_all
from fastcls.inference.predictor import Features, Prediction
from fastcls.inference.requirements import Wanted, predictor
from fastcls.machine.extras import version
from fastcls.reports import build
from fastcls.runfolder import model_files, predictions, runs, splits
from fastcls.runfolder import target as targets
from fastcls.runfolder.run import HISTORY, HISTORY_FIXED
from fastcls.settings import options, shell

HOME = Path("evaluations")
NEW, UNKNOWN = "new", "unknown"  # splits: images of classes that the network knows, and of others
TAKEN_OVER = ("recipe", "title", "knobs", "extra", "seed", "network", "device")  # of the run's record
MEASURED = ("brightness", "contrast", "sharpness", "width", "height")

Progress = Callable[[int, int], object]
Row = tuple[str, str, str]  # path, label, split


def evaluate(
    run: Path,
    path: str,
    labels: str = "",
    label_regex: str = "",
    split: str = "",
    out: Path | None = None,
    skip_bad: bool = False,
    trust: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Evaluate a run on the images below `path`; gives the folder that is written.

    split: of the images only those. skip_bad: leave out images, and rows of the table, that cannot be read; else
    DataError. trust: without an ONNX file, run the run's recipe.py, with torch.
    """
    record, model = runs.read_json(run / "run.json"), model_files.read(run)
    predictor = _predictor(run, trust)
    target = targets.of(model)
    judge = judging.of(target)
    with options.using(options.Options(skip_bad=skip_bad)) as notes:
        several = "auto" if contents.is_run(path) else "yes" if target.several else "no"  # a run's images have labels
        held = contents.read(path, labels, label_regex, False, several)
        out = out or _folder(held.root.name)
        runs.check_writable(out, "-o ")
        parts = ("train", "valid") if model.get("members") else ("train",)  # a fold's images train the others
        train = [row for part in parts for row in _own(run, record, part)]
        rows, trained = _new_rows(held.rows, split, train, path)
        if gone := sum(part in parts for *_, part in splits.read(run)) - len(train):
            root = (record.get("data") or {}).get("root") or "their folder"
            notes.append(
                f"{count(gone, 'image')} of the run's training {'is' if gone == 1 else 'are'} no longer in {root}: "
                "whether the new ones are among them is not known."
            )
        chosen_on = [] if "valid" in parts else _own(run, record, "valid")
        notes += held.notes
    answers = list(_watched(predictor.predict([row[0] for row in rows]), len(rows), progress))
    if bad := [f"{answer.path}: {answer.error}" for answer in answers if answer.probabilities is None]:
        if not skip_bad or len(bad) == len(rows):
            raise check.broken_images(bad, len(rows))
        left_out = f"{len(bad):,} of {len(rows):,} images cannot be read and were left out: {some(bad, check.NAMED)}."
        notes.append(left_out)
    pairs = zip(rows, answers, strict=True)
    seen = [(row, answer.probabilities) for row, answer in pairs if answer.probabilities is not None]
    place = {name: i for i, name in enumerate(predictor.classes)}
    counts = Counter(name for row, _ in seen for name in target.names(row[1]))
    if target.several:  # an image may have others beside those that the network knows
        if strange := {name: n for name, n in counts.items() if name not in place}:
            listed_names = some(f"{name} ({n:,})" for name, n in strange.items())
            notes.append(f"labels that the network does not know were left out: {listed_names}.")
        known_part = {
            text: target.text(name for name in target.names(text) if name in place) for (_, text, _), _ in seen
        }
        seen = [((row[0], known_part[row[1]], row[2]), p) for row, p in seen]
    unknown = {} if target.several else {name: n for name, n in counts.most_common() if name not in place}
    is_known = np.array([row[1] not in unknown for row, _ in seen])
    if not (is_known.any() and counts.keys() & place.keys()):
        raise DataError(
            f"None of the {len(seen):,} images has a class that {run} knows: their classes are {some(sorted(counts))}.",
            f"It knows {some(predictor.classes)}. Check that these labels belong to this network.",
        )
    known = [row for (row, _), own in zip(seen, is_known, strict=True) if own]
    truth, temperature = judge.truth([row[1] for row in known], predictor.classes), model.get("temperature")
    thresholds = None if predictor.thresholds is None else np.array(predictor.thresholds)
    every = np.stack([p for _, p in seen])
    probabilities = every[is_known]
    group_of, by = _groups(record, held, path, notes)
    trained_on = {name for _, name, part in splits.read_groups(run) if part in parts and name} if by else set()
    leaked, alike = _leaks({row[0] for row in train}, trained_on, [row[0] for row in known], group_of, by, notes)
    if not group_of and (record.get("options") or {}).get("keep_copies_together", True):
        group_of = {file: relative(members[0], held.root) for members in alike for file in members}
    codes = grouped.codes_of([group_of.get(row[0], "") for row in known])
    judged = probabilities, truth, predictor.classes, thresholds
    figures = judge.figures(*judged, temperature, codes)
    figures |= judging.without(judge, ~np.array([row[0] in leaked for row in known]), *judged, codes)
    own = runs.read_json(run / "metrics.json")
    about: dict[str, Any] = {
        "format": runs.FORMAT,
        "run": str(run.absolute()),
        "own": own,
        "unknown": unknown,
        "missing": [name for name in place if name not in counts],
        "trained": trained,
        "chosen_on": len(_same_files(chosen_on, known)),
        **_beside(run, record, known, "test" if "test" in own else "valid", target.several, group_of),
    }
    below = {row[0]: relative(row[0], held.root) for row, _ in seen}
    listed = [(below[row[0]], UNKNOWN if row[1] in unknown else NEW, row[1]) for row, _ in seen]
    further = {t: {below[path]: v for path, v in of.items() if path in below} for t, of in held.further.items()}
    words = shell.flags(labels=labels, label_regex=label_regex, split=split, skip_bad=skip_bad)
    entry = {
        "format": runs.FORMAT,
        **{name: record[name] for name in TAKEN_OVER if name in record},
        "options": {**record.get("options", {}), "limit": None},
        "command": shell.command("evaluate", run, path, *words),
        "folder": str(Path.cwd()),
        "versions": {name: version(name) for name in ("numpy", "pillow", "onnxruntime")},
        "status": "done",
        "started": runs.now(),
        "notes": notes,
        "data": {
            "root": str(held.root),
            "images": dict(Counter(row[1] for row in listed)),
            "classes": len(place),
            "target": target.kind,
            **({"skipped": bad} if bad else {}),
        },
    }
    with runs.whole(out):
        runs.write_json(out / "metrics.json", {NEW: figures})
        runs.write_json(out / "model.json", {name: value for name, value in model.items() if name != "sha256"})
        runs.write_json(out / runs.EVALUATION, about)
        runs.write_csv(out / HISTORY, HISTORY_FIXED[:6], [])
        belongs = {below[path]: name for path, name in group_of.items() if path in below}
        splits.write(out, listed, belongs)
        splits.write_slices(out, listed, further)
        losses = np.full(len(seen), np.nan)
        losses[is_known] = judge.losses(probabilities, truth)
        written = judging.answers(
            judge,
            predictor.classes,
            ((split, path, label) for path, split, label in listed),
            every,
            losses,
            thresholds,
            temperature,
        )
        predictions.write(out / predictions.FILE, predictor.classes, written, target.several, belongs)
        runs.write_json(out / "run.json", entry)
        notes += precheck(out, sizes=False)
        runs.write_json(out / "run.json", entry)
        build.write(out)
    return out


def _predictor(run: Path, trust: bool) -> Any:
    """Of the run's ONNX file; where there is none and `trust` says so, of its recipe."""
    if trust and not (run / model_files.NETWORK).is_file():
        from fastcls.running.loading import import_fastai

        import_fastai()
        from fastcls.running.replay import RecipePredictor

        return RecipePredictor(run)
    return predictor(run, 1, False, Wanted())


def _folder(name: str) -> Path:
    """A folder of that name that is not there yet."""
    names = (HOME / (f"{name or 'root'}-{i}" if i > 1 else name or "root") for i in counted(1))
    return next(folder for folder in names if not os.path.lexists(folder))


def _own(run: Path, record: dict[str, Any], split: str) -> list[Row]:
    """The images of a run's split that are still where they were."""
    root = str((record.get("data") or {}).get("root") or "")
    found = ((os.path.join(root, path), label, part) for path, label, part in splits.read(run) if part == split)  # noqa: PTH118
    return [row for row in found if os.path.isfile(row[0])]  # noqa: PTH113  a Path a file would take four times as long


def _knob(record: dict[str, Any]) -> str:
    """What --group was for a run."""
    return str(((record.get("knobs") or {}).get("get_learner") or {}).get("group") or "")


def _groups(record: dict[str, Any], held: contents.Contents, path: str, notes: list[str]) -> tuple[dict[str, str], str]:
    """The group of each new image by the column or pattern that the run was split by, and in words what that is.

    Of a run's images the groups that it has; what they are groups by is empty where the two are not by the same.
    """
    group = _knob(record)
    if contents.is_run(path):
        same = group and group == _knob(runs.read_json(shell.path(path) / "run.json"))
        return held.groups, f"--group {group}" if same else ""
    if not group:
        return {}, ""
    files = [file for file, *_ in held.rows]
    columns = {title: [values.get(file, "") for file in files] for title, values in held.further.items()}
    try:
        names, by = groups.known(group, files, held.root, columns)
    except FastclsError:
        names, by = [], ""
    if not any(names):
        notes.append(
            f"the run was split by --group {group}, and the new images have no such groups: whether they belong to "
            "groups that it was trained on is not known, and the intervals are over images."
        )
        return {}, ""
    if alone := names.count(""):
        notes.append(f"{alone:,} of {count(len(names), 'new image')} have no group by {by}, and count as alone.")
    return {file: name for file, name in zip(files, names, strict=True) if name}, by


def _new_rows(rows: Sequence[Row], split: str, train: Sequence[Row], path: str) -> tuple[list[Row], int]:
    """The images to evaluate, and how many were left out because the run was trained on these very files."""
    known = {row[2] or contents.UNDRAWN for row in rows}
    if split and split not in known:
        there = "Its images have no splits: omit --split."
        if known != {contents.UNDRAWN}:
            there = f"It has: {some(sorted(known))}."
        raise UsageError(f"--split {split}: {path} has no such images.", there)
    chosen = list(dict.fromkeys(row for row in rows if not split or row[2] == split))
    seen = set(_same_files(train, chosen))
    new = [row for row in chosen if row not in seen]
    if not new:
        raise DataError(
            f"The run was trained on all {len(chosen):,} images of {path}, so they cannot be used to evaluate it.",
            "Use images that are not in its training split.",
        )
    return new, len(chosen) - len(new)


def _same_files(some_rows: Sequence[Row], rows: Sequence[Row]) -> list[Row]:
    """Those of `rows` whose files are, byte for byte, among the others'."""
    size = {file: file_size(file) for file, *_ in (*some_rows, *rows)}
    alike = {size[file] for file, *_ in some_rows} & {size[file] for file, *_ in rows}
    sums = {runs.digest(Path(file)) for file, *_ in some_rows if size[file] in alike}
    return [row for row in rows if size[row[0]] in alike and runs.digest(Path(row[0])) in sums]


def _leaks(
    train: set[str], groups_of_train: set[str], new: Sequence[str], group_of: dict[str, str], by: str, notes: list[str]
) -> tuple[set[str], list[list[str]]]:
    """New images that are near copies of those of train, or of its groups; and the near copies among the new ones."""
    together, _ = copies.alike(list(dict.fromkeys([*train, *new])))
    seen = {file for members in together if not train.isdisjoint(members) for file in members}
    if both := [file for file in new if group_of.get(file) in groups_of_train]:
        are, named = "is" if len(both) == 1 else "are", some(sorted({group_of[file] for file in both}))
        notes.append(f"{count(len(both), 'new image')} {are} of groups, by {by}, that the run was trained on: {named}.")
    rows = set(new)
    among = ([file for file in members if file in rows] for members in together)
    return (seen | set(both)) & rows, [members for members in among if len(members) > 1]


def _watched(answers: Iterator[Prediction], total: int, progress: Progress | None) -> Iterator[Prediction]:
    for done, answer in enumerate(answers, 1):
        p = answer.probabilities
        yield answer if p is None else replace(answer, probabilities=p.astype(np.float32))  # half the memory
        if progress is not None and (done % 64 == 0 or done == total):
            progress(done, total)


def _beside(
    run: Path, record: dict[str, Any], new: Sequence[Row], split: str, several: bool, group_of: dict[str, str]
) -> dict[str, Any]:
    """What the new images are compared with: the run's own of a split, by class shares, pictures and features."""
    table = predictions.of_run(run)
    own = table[table["split"] == split]
    found: dict[str, Any] = {"split": split, "expected": None, "gaps": None, "compared": 0}
    recall = (own["label"] == own["prediction"]).groupby(own["label"]).mean()
    shares = recall.reindex([label for _, label, _ in new]).dropna()
    if len(shares) and not several:
        found["expected"] = float(shares.mean())
    old = _own(run, record, split)
    labels = np.array([label for _, label, _ in old], str), np.array([label for _, label, _ in new], str)
    places = shift.matched(*labels)
    files = [[rows[i][0] for i in at] for rows, at in zip((old, new), places, strict=True)]
    looked = {one.path: one for one in measure_all([*files[0], *files[1]]) if not one.fault}
    features = _features(run, [*files[0], *files[1]])
    sides = [[file for file in side if file in looked and (not features or file in features)] for side in files]
    if min(map(len, sides)) >= shift.FEWEST:
        measured = {
            name: tuple(np.array([getattr(looked[file], name) for file in side], float) for side in sides)
            for name in MEASURED
        }
        deep = tuple(np.stack([features[file] for file in side]) for side in sides) if features else None
        root = str((record.get("data") or {}).get("root") or "")
        group_of = {os.path.join(root, path): name for path, name, _ in splits.read_groups(run)} | group_of  # noqa: PTH118
        every = [[row[0] for row in rows] for rows in (old, new)]
        codes = [_coded(pair, group_of) for pair in (every, sides)]
        found["gaps"] = [asdict(gap) for gap in shift.gaps(labels, measured, deep, *codes)]  # type: ignore[arg-type]
        found["compared"] = min(map(len, sides))
    return found


def _coded(sides: Sequence[Sequence[str]], group_of: dict[str, str]) -> tuple[np.ndarray, np.ndarray] | None:
    """The groups of old and of new files, where any has one."""
    codes = grouped.codes_of([group_of.get(file, "") for side in sides for file in side])
    return None if codes is None else (codes[: len(sides[0])], codes[len(sides[0]) :])


def _features(run: Path, files: Sequence[str]) -> dict[str, np.ndarray]:
    """Features of files; none of a network that has no ONNX file, or no last linear layer."""
    if not (run / model_files.NETWORK).is_file():
        return {}
    return Features(run).of(files)
