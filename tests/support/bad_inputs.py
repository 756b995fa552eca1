"""Bad inputs and what becomes of them: the data of test_bad_inputs.py and the source of docs/bad_inputs.md."""

from __future__ import annotations

import bad_datasets
import bad_images
from bad_case import CASES, KINDS, OUTCOMES, Case

__all__ = ["CASES", "KINDS", "OUTCOMES", "Case", "bad_datasets", "bad_images"]
