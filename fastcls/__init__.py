"""fastcls trains image classifiers with fastai and tells its user the truth about them.

from fastcls import recipe
learn = recipe('pets-resnet50').get_learner(size=128)      # a fastai Learner
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["recipe"]

if TYPE_CHECKING:
    from fastcls.loading import recipe as recipe


def __getattr__(name: str) -> Any:
    # the import of fastai takes seconds, and `fastcls --help` must not wait for it
    if name == "recipe":
        from fastcls.loading import recipe

        return recipe
    raise AttributeError(f"module 'fastcls' has no attribute {name!r}")
