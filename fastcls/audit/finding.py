"""A finding: one kind of problem in a dataset, where it is, and how to fix it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True, slots=True)
class Item:
    """An image that a finding is about, as its dataset lists it."""

    path: str
    label: str
    split: str  # train, valid or test; empty where a validation split is still to be drawn
    remark: str = ""


@dataclass(frozen=True)
class Finding:
    """What was found, of images (groups of them, where they are copies of each other) or of names.

    error: training stops at it, or its figures would be untrue. warning: it does harm. note: worth knowing.
    """

    kind: str
    severity: Severity
    title: str
    what: str
    fix: str  # how to remove it
    groups: tuple[tuple[Item, ...], ...] = ()
    names: tuple[str, ...] = field(default=())

    @property
    def count(self) -> int:
        return len(self.groups) or len(self.names)

    @property
    def line(self) -> str:
        """The finding in a line."""
        return f"{self.title}: {self.what}"

    @property
    def example(self) -> str:
        """The first image or name."""
        return self.groups[0][0].path if self.groups else self.names[0] if self.names else ""


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Errors first; otherwise in the order they came."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
