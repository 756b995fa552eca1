"""How many processor cores there are to use; without torch."""

from __future__ import annotations

import os


def cores() -> int:
    """Processor cores that this process may use, by its affinity where the system has that."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
