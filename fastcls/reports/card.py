"""The model card of a run: what its report says, as Markdown with the header that the Hugging Face Hub reads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from fastcls.reports import scores
from fastcls.reports.wording import duration, markdown, percent
from fastcls.runfolder import target
from fastcls.runfolder.run import Run
from fastcls.runfolder.text import clean, number

WEAKEST = 5  # classes that are named
NAMED = 100  # classes that are listed
FEW = 1000  # images below which a share has an interval of several points


def card(run: Run, repository: str, in_timm: bool) -> str:
    """README.md of a run's repository OWNER/NAME. in_timm: whether timm loads it from there."""
    library = "timm" if in_timm else "fastcls"
    tags = ["image-classification", "fastcls", *(["timm"] if in_timm else [])]
    head = ["---", f"library_name: {library}", "pipeline_tag: image-classification", f"tags: {json.dumps(tags)}", "---"]
    classes = [clean(name) for name in run.model.get("classes", [])]
    own = target.of(run.get("data") or {})
    what = f"{clean(run.model.get('arch', 'A network'))}, trained on {len(classes):,} {own.plural} of images"
    parts = [
        [f"# {repository.partition('/')[2]}", f"{what} with fastcls {clean(run.get('versions', 'fastcls') or '')}."],
        ["## Use", *_use(repository, in_timm)],
        ["## Classes", ", ".join(classes[:NAMED]) + (f" and {len(classes) - NAMED:,} more" * (len(classes) > NAMED))],
        ["## Data", *_data(run)],
        ["## Metrics", *_metrics(run)],
        ["## Calibration", *_calibration(run)],
        ["## Limits", "\n".join(f"- {line}" for line in _limits(run, own))],
        ["## Training", *_training(run)],
    ]
    return "\n".join(head) + "\n\n" + "\n\n".join(text for part in parts for text in part if text) + "\n"


def _use(repository: str, in_timm: bool) -> Iterator[str]:
    yield f"```bash\nfastcls predict hf://{repository} photos\n```"
    if in_timm:
        yield f'```python\nimport timm\n\nmodel = timm.create_model("hf-hub:{repository}", pretrained=True).eval()\n```'
    yield (
        "`model.onnx` takes images prepared as described by `preprocessing` in `model.json`, and returns logits in the "
        "order of its `classes`."
    )


def _data(run: Run) -> Iterator[str]:
    images = run.get("data", "images") or {}
    yield (
        ", ".join(f"{count:,} {clean(split)}" for split, count in images.items())
        + " images. They are not part of this repository."
    )
    if run.get("options", "limit"):
        yield f"At most {run.get('options', 'limit')} images per class were used."


def _metrics(run: Run) -> Iterator[str]:
    rows = []
    for split in run.splits():
        for score in scores.scores(run, split).values():
            if not score.key.endswith("_calibrated"):
                over = f"{score.groups:,} groups" if score.groups else f"{score.n:,}" if score.n else ""
                rows.append([split, score.name, score.text, score.interval or "–", over])
    yield markdown(["split", "metric", "value", "95 % interval", "n"], rows)
    weak = _weakest(run)
    if weak:
        yield f"Least often recognised ({run.splits()[0]}): {'; '.join(weak)}."


def _weakest(run: Run) -> Sequence[str]:
    """The classes of the lowest recall, where the predictions are known and an image is of one class."""
    if not len(run.predictions) or target.of(run.get("data") or {}).several:
        return []
    table = run.predictions[run.predictions["split"] == run.splits()[0]]
    right = (table["label"] == table["prediction"]).groupby(table["label"]).agg(["mean", "sum", "size"])
    lowest = right[right["mean"] < 1].sort_values("mean", kind="stable")[:WEAKEST]
    return [f"{name} {percent(row['mean'])} of {int(row['size']):,}" for name, row in lowest.iterrows()]


def _calibration(run: Run) -> Iterator[str]:
    temperature = number(run.model.get("temperature"))
    if temperature is None:
        yield "The probabilities were not calibrated."
        return
    yield (
        f"Divide the logits by the temperature {temperature:.3f}, fitted on the validation images, for calibrated "
        "probabilities (`fastcls predict --calibrated`)."
    )
    found = {split: scores.scores(run, split) for split in run.splits()}
    rows = [
        [split, own["ece"].text, own["ece_calibrated"].text]
        for split, own in found.items()
        if {"ece", "ece_calibrated"} <= own.keys()
    ]
    if rows:
        yield markdown(["split", "calibration error (ECE)", "after temperature scaling"], rows)


def _limits(run: Run, own: target.Target) -> Iterator[str]:
    split = next(iter(run.splits()), "valid")
    if split == "valid":
        yield "There was no test split: the metrics are from the validation split."
    if run.get("weights"):
        yield clean(run.get("weights"))
    n = number(run.metrics.get(split, {}).get("n"))
    if n and n < FEW:
        yield f"The metrics are from {int(n):,} images: the intervals show how far chance may have moved them."
    yield "The metrics hold for images like those above. For others (another camera, place or time), evaluate it again."
    if not own.several:
        yield "Every image gets one of the classes, even an image that shows none of them."
    for note in run.get("notes") or []:
        yield clean(note)


def _training(run: Run) -> Iterator[str]:
    yield f"```bash\n{clean(run.get('command') or '')}\n```"
    device = run.get("device") or {}
    versions = ", ".join(f"{clean(name)} {clean(value)}" for name, value in (run.get("versions") or {}).items())
    where = clean(device.get("name", ""))
    yield f"Seed {run.get('seed')}, {duration(run.get('train_seconds'))} on {where}. {versions}."
