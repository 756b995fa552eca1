"""fastcls trains image classifiers with fastai and tells its user the truth about them.

from fastcls import Run, compare, recipe, save
learn = recipe('pets-resnet50').get_learner(size=128)      # a fastai Learner
run = recipe('pets-resnet50').run(epochs=2)                # or trained end to end: a Run, with figures and curves
run = save(learn, 'folder')                                # or a Run from any Learner, however it was trained
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # else onnxruntime 1.31 tells its maker of every session

__version__ = "0.1.0"
__all__ = ["Run", "compare", "recipe", "save"]

if TYPE_CHECKING:
    from fastcls.notebook import Run as Run
    from fastcls.notebook import compare as compare
    from fastcls.notebook import recipe as recipe
    from fastcls.notebook import save as save


def __getattr__(name: str) -> Any:
    # pandas and, for recipes, fastai take seconds to import, and `fastcls --help` must not wait for them
    if name in __all__:
        from fastcls import notebook

        return getattr(notebook, name)
    raise AttributeError(f"module 'fastcls' has no attribute {name!r}")
