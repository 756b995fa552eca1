"""fastcls check PATH: everything wrong with a dataset, before the first step."""

from __future__ import annotations

import os
import shutil
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from fastcls.cli import completion
from fastcls.cli.app import JSON, app, progress, verb
from fastcls.cli.completion import argument, option
from fastcls.cli.output import document, table
from fastcls.settings import shell

if TYPE_CHECKING:
    from fastcls.audit.audit import Audit

SERIOUS = 3  # the exit code when there are errors


@app.command()
@verb
def check(
    path: str = argument("PATH", "A folder of images, in a layout that the recipe `folder` supports, or a run."),
    labels: str = option("--labels FILE", "A CSV file of files and labels."),
    label_regex: str = completion.LABEL_REGEX,
    multi_label: str = completion.MULTI_LABEL,
    suspects: bool = option(
        "--suspects", "Also find labels that a pretrained network contradicts; needs torch and weights."
    ),
    arch: str = option("--arch NAME", "Network of --suspects.", "base", offers=completion.architectures),
    weights: str = option(
        "--weights WEIGHTS",
        "Weights of --suspects: 'imagenet', a run folder or a .safetensors file.",
        "imagenet",
        offers=completion.weights,
    ),
    size: int = option("--size PIXELS", "Image size of --suspects, in pixels.", 224, min=8),
    out: str = option("-o --out DIR", "Folder of the page  [default: checks/NAME, or the run]"),
    as_json: bool = JSON,
) -> None:
    """Find problems in a dataset, without changing it.

    \b
    fastcls check photos                     class folders, or train/ and valid/ with class folders
    fastcls check photos --labels labels.csv
    fastcls check last                       the images of the newest run
    fastcls check photos --suspects          also labels that ConvNeXt-Nano's features contradict

    It checks files, copies and leaks, labels and classes, and writes check.html with thumbnails, check.json, and
    findings.csv with one row per image. Measurements of files are cached for later checks and training runs.
    --suspects fits a linear head to a pretrained network's features in five folds, so that every label is tested by a
    head that was not trained on it; it needs one pass over the images.

    Exit code 3 if there are errors: images that cannot be used, one image in two splits or under two labels, classes
    missing from training. With only warnings and notes it is 0.
    """
    from fastcls import api
    from fastcls.audit import check_record, contents
    from fastcls.runfolder import runs

    place = shell.path(path)
    own = place if contents.is_run(path) else Path("checks") / (Path(os.path.realpath(place)).name or "root")
    with document(as_json) as show:
        found = api.check(
            path,
            labels=labels,
            label_regex=label_regex,
            multi_label=multi_label,
            out=out or own,
            suspects=suspects,
            arch=arch,
            weights=weights,
            size=size,
            progress=progress("checked", "files"),
        )
        _show(found.audit)
        print(f"page     {found.page}")
        if as_json and found.page:
            show({**runs.read_json(found.page.parent / check_record.RECORD), "page": found.page})
    if found.errors:
        raise typer.Exit(SERIOUS)


def _show(found: Audit) -> None:
    from fastcls.audit.check_record import relative, summary
    from fastcls.datasets.walk import count
    from fastcls.runfolder.text import clean

    facts, root = summary(found), found.contents.root
    noun = found.contents.target.noun
    print(f"{clean(root)}: {count(facts['images'], 'image')} in {count(facts['classes'], noun)}")
    print(f"layout   {clean(found.contents.layout)}")
    print(f"images   {', '.join(f'{n:,} {split}' for split, n in facts['splits'].items())}\n")
    if not found.findings:
        print("No problems found: every image can be read, there are no duplicates, and the classes are fine.\n")
        return
    rows = [
        [f.severity, f"{f.count:>7,}", f.title, clean(relative(f.example, root) if f.groups else f.example)]
        for f in found.findings
    ]
    print(table(["", "  count", "finding", "for example"], rows) + "\n")
    width = max(shutil.get_terminal_size((100, 24)).columns, 40)
    for finding in found.findings:
        if finding.severity != "note":
            print(f"{finding.severity}: {finding.title}")
            for text in (finding.what, finding.fix):
                print(textwrap.fill(clean(text), width, initial_indent="    ", subsequent_indent="    "))
            print()
