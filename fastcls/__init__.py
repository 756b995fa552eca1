"""fastcls trains image classifiers with fastai and tells its user the truth about them.

from fastcls import Run, recipe, save, train
learn = recipe('pets-resnet50').get_learner(size=128)      # a fastai Learner
run = train('pets-resnet50', epochs=2)                     # or trained end to end: a Run, with metrics and curves
run = save(learn, 'folder')                                # or a Run from any Learner, however it was trained
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from fastcls.version import __version__

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # else onnxruntime 1.31 tells its maker of every session
if "OMP_WAIT_POLICY" not in os.environ:  # torch's threads spin for milliseconds when another program has their core
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # read when torch is imported; docs/log.md has what it saves

__all__ = [
    "Run",
    "__version__",
    "check",
    "compare",
    "evaluate",
    "export",
    "lr_find",
    "predict",
    "push",
    "recipe",
    "report",
    "resume",
    "save",
    "search",
    "train",
]

if TYPE_CHECKING:
    from fastcls.api import Run as Run
    from fastcls.api import check as check
    from fastcls.api import compare as compare
    from fastcls.api import evaluate as evaluate
    from fastcls.api import export as export
    from fastcls.api import lr_find as lr_find
    from fastcls.api import predict as predict
    from fastcls.api import push as push
    from fastcls.api import recipe as recipe
    from fastcls.api import report as report
    from fastcls.api import resume as resume
    from fastcls.api import save as save
    from fastcls.api import search as search
    from fastcls.api import train as train


def __getattr__(name: str) -> Any:
    # pandas and, for recipes, fastai take seconds to import, and `fastcls --help` must not wait for them
    if name in __all__:
        from fastcls import api

        return getattr(api, name)
    raise AttributeError(f"module 'fastcls' has no attribute {name!r}")
