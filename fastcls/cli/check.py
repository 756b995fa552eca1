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
from fastcls.cli.documents import document
from fastcls.cli.tables import table
from fastcls.settings import shell

if TYPE_CHECKING:
    from fastcls.audit.audit import Audit

SERIOUS = 3  # the exit code when there are errors


@app.command()
@verb
def check(
    path: str = typer.Argument(
        metavar="PATH", help="A folder of images, laid out as the recipe `folder` takes it, or a run."
    ),
    labels: str = typer.Option("", "--labels", metavar="FILE", help="A CSV file of files and labels."),
    label_regex: str = completion.LABEL_REGEX,
    multi_label: str = completion.MULTI_LABEL,
    suspects: bool = typer.Option(
        False, "--suspects", help="Find labels that a pretrained network contradicts, too: needs torch and weights."
    ),
    arch: str = typer.Option(
        "base", "--arch", metavar="NAME", help="Its network.", autocompletion=completion.architectures
    ),
    weights: str = typer.Option(
        "imagenet",
        "--weights",
        metavar="WEIGHTS",
        help="'imagenet', a run folder or a .safetensors file.",
        autocompletion=completion.weights,
    ),
    size: int = typer.Option(224, "--size", min=8, metavar="PIXELS", help="Its images' side."),
    out: str = typer.Option(
        "", "-o", "--out", metavar="DIR", help="Folder of the page  [default: checks/NAME, or the run]"
    ),
    as_json: bool = JSON,
) -> None:
    """Say what is wrong with a dataset, and change nothing of it.

    \b
    fastcls check photos                     class folders, or train/ and valid/ with class folders
    fastcls check photos --labels labels.csv
    fastcls check last                       the images of the newest run
    fastcls check photos --suspects          and the labels that ConvNeXt-Nano's features contradict

    It looks at files, copies and leaks, labels and classes. Writes check.html with thumbnails, check.json, and
    findings.csv with a row an image. What was measured of a file is kept, so that the next check and every training
    know it already. --suspects fits a linear head to a pretrained network's features in five folds, so that every
    label is judged by a head that has not seen it; one pass over the images.

    Exit code 3 if there are errors: images that cannot be used, one image in two splits or under two labels, classes
    that training lacks. Warnings and notes leave it at 0.
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
            progress=progress("looked at", "files"),
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
        print("Nothing was found: every image can be read, none is there twice, and the classes are sound.\n")
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
