"""--json: a verb's result as one JSON document on standard output; everything else goes to standard error."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def document(wanted: bool) -> Iterator[Callable[[Any], None]]:
    """Meanwhile what is printed goes to standard error, if a document is wanted; yields what prints that."""
    out = sys.stdout

    def show(value: Any) -> None:
        if wanted:
            print(json.dumps(_plain(value), indent=1, ensure_ascii=False), file=out, flush=True)

    with contextlib.redirect_stdout(sys.stderr if wanted else out):
        yield show


def _plain(value: Any) -> Any:
    """With null for what is not finite, which JSON has no word for, and text for what it does not know."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float) else str(value)
