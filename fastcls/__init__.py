"""fastcls trains image classifiers with fastai and tells its user the truth about them.

from fastcls import Run, compare, recipe, save
learn = recipe('pets-resnet50').get_learner(size=128)      # a fastai Learner
run = recipe('pets-resnet50').run(epochs=2)                # or trained end to end: a Run, with figures and curves
run = save(learn, 'folder')                                # or a Run from any Learner, however it was trained
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from fastcls.version import __version__

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # else onnxruntime 1.31 tells its maker of every session

__all__ = ["Run", "__version__", "compare", "recipe", "save"]

if TYPE_CHECKING:
    from fastcls.api import Run as Run
    from fastcls.api import compare as compare
    from fastcls.api import recipe as recipe
    from fastcls.api import save as save


def __getattr__(name: str) -> Any:
    # pandas and, for recipes, fastai take seconds to import, and `fastcls --help` must not wait for them
    if name in __all__:
        from fastcls import api

        return getattr(api, name)
    raise AttributeError(f"module 'fastcls' has no attribute {name!r}")
