"""Lengths of time as people write them."""

from __future__ import annotations

import re

NUMBER = r"(\d+(?:\.\d*)?)"
TAKEN = "hours, minutes, seconds, as in 2h, 20m, 1h30m or 45s"


def seconds(text: str) -> float:
    """The seconds of '1h30m', '20m' or '45s'; 0 for what is no such time."""
    match = re.fullmatch(f"(?:{NUMBER}h)?(?:{NUMBER}m)?(?:{NUMBER}s)?", text.strip())
    parts = match.groups() if match else ()
    return sum(float(part or 0) * unit for part, unit in zip(parts, (3600.0, 60.0, 1.0), strict=False))


def shown(seconds: float) -> str:
    """'0.4 s', '12 s', '3.5 min' or '2.1 h'."""
    minutes = seconds / 60
    if minutes < 1:
        return f"{seconds:.0f} s" if seconds >= 1 else f"{seconds:.1f} s"
    return f"{minutes:.1f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
