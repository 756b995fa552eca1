"""Imports put off until they are used: `with lazy.imports(): import fastai.vision.all` takes half the time.

fastai and torchvision import torch._dynamo, timm, scikit-learn and parts of SciPy, of which most runs use nothing.
Inside the block an import of one of them binds a stand-in, which imports the real module when an attribute of it
is asked for. After the block `sys.modules` holds no stand-in, so that whoever imports these modules then has the
real ones; only those who imported inside the block keep theirs, which passes everything on.

FASTCLS_LAZY_IMPORTS=0 switches this off.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# the modules, each after its parent, and their functions that are imported by name and only called
PUT_OFF = {
    "torch._dynamo.utils": ("is_compile_supported",),  # torchvision.ops.roi_align
    "timm": (),  # fastai.vision.learner
    "sklearn": (),
    "sklearn.metrics": (),  # fastai.metrics, fastai.interpret
    "sklearn.model_selection": ("train_test_split",),  # fastai.data.transforms
    "scipy.ndimage": (),  # fastai.imports
    "scipy.stats": (),  # fastai.metrics
}


class StandIn(ModuleType):
    """A module that becomes another one, of the same name, when it is used."""

    def __init__(self, name: str) -> None:
        super().__init__(name, f"Imports {name} when it is used.")
        self.__spec__ = ModuleSpec(name, None)  # so that find_spec finds the module

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            functions = PUT_OFF[self.__name__]
            if name in functions:
                return _function(self.__name__, name)
            # inspect.getmodule asks every module there is for its file, `from module import function` for a path
            if name == "__file__" or (name == "__path__" and functions):
                raise AttributeError(name)
        return getattr(self._real(), name)

    def __dir__(self) -> list[str]:
        return dir(self._real())

    def _real(self) -> ModuleType:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return importlib.import_module(self.__name__)


def _function(module: str, name: str) -> Callable[..., Any]:
    """What `from module import name` gives: a function that imports the module when it is called."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return getattr(importlib.import_module(module), name)(*args, **kwargs)

    call.__name__ = call.__qualname__ = name
    vars(call)["_dynamo_marked_constant"] = True  # torch.compile takes the result and looks no deeper
    return call


@contextlib.contextmanager
def imports() -> Iterator[None]:
    """Put off the imports of PUT_OFF that are made inside; modules that are loaded already stay as they are."""
    stand_ins: dict[str, StandIn] = {}
    for name in PUT_OFF if os.environ.get("FASTCLS_LAZY_IMPORTS") != "0" else ():
        package, _, child = name.rpartition(".")
        if name in sys.modules or not (package or importlib.util.find_spec(name)):
            continue
        stand_ins[name] = sys.modules[name] = StandIn(name)
        if package in stand_ins:
            setattr(stand_ins[package], child, stand_ins[name])
    try:
        yield
    finally:
        for name, stand_in in stand_ins.items():
            if sys.modules.get(name) is stand_in:
                del sys.modules[name]
