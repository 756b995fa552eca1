"""The quick look at a run's images before its first step: what is wrong with them becomes its notes and check.json."""

from __future__ import annotations

import time
from pathlib import Path

from fastcls.audit import audit, check_record, contents
from fastcls.images.check import broken_images
from fastcls.runfolder import runs
from fastcls.settings import shell


def precheck(run: Path, sizes: bool = True, progress: audit.Progress | None = None) -> list[str]:
    """Look at the images of a run folder that has its splits.csv; gives a line an error or warning.

    Takes audit.SECONDS at most where they were not looked at before. sizes: whether the number of images in a class
    means anything. DataError names the images at which training would stop.
    """
    began, started = time.perf_counter(), runs.now()
    found = audit.quick(contents.read(str(run)), progress, sizes)
    if found.unreadable:
        raise broken_images(found.unreadable, found.files)
    command = shell.command("check", run)
    check_record.write(run, found, command, time.perf_counter() - began, started)
    serious = [finding for finding in found.findings if finding.severity != "note"]
    lines = [finding.line for finding in serious]
    if any(finding.groups for finding in serious):
        lines.append(f"`{command}` shows these images.")
    if (looked := len(found.measured)) < found.files:
        part = f"only {looked:,} of {found.files:,} images were checked for copies and faults, to save time"
        lines.append(f"{part}; `{command}` checks all of them.")
    return lines
