"""Load a recipe and build its learner: everything up to, but not including, training."""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import inspect
import itertools
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib.machinery import SourceFileLoader
from types import ModuleType
from typing import TYPE_CHECKING, Any

from fastcls import lazy
from fastcls.errors import KnobError, RecipeError, TrainingError, did_you_mean
from fastcls.machine.extras import check_installation
from fastcls.settings import options, sources
from fastcls.settings.knobs import Knob, shown, value_of
from fastcls.settings.request import Request

if TYPE_CHECKING:
    from fastai.learner import Learner

_serial = itertools.count()


@dataclass(frozen=True)
class Recipe:
    """A recipe whose code is loaded: call `get_learner` and `fit` as the fastai functions they are."""

    source: sources.RecipeSource
    module: ModuleType

    @property
    def get_learner(self) -> Any:
        return self.module.get_learner

    @property
    def fit(self) -> Any:
        return self.module.fit

    def __repr__(self) -> str:
        return f"recipe {self.source.name!r}: {self.source.title}\nClaim: {self.source.claim}"


class _Uncached(SourceFileLoader):
    """Python's loader of source files, without a __pycache__ beside them: a run folder holds what it says."""

    def set_data(self, path: str, data: Any, *, _mode: int = 0o666) -> None: ...


def load(source: sources.RecipeSource) -> Recipe:
    """Run a recipe's file as a module of its own; what is wrong with the file is reported as its author's error."""
    import_fastai()
    name = f"fastcls_recipe_{next(_serial)}"
    spec = importlib.util.spec_from_file_location(name, source.path, loader=_Uncached(name, str(source.path)))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # so that loader processes and dataclasses find it
    try:
        spec.loader.exec_module(module)
    except Exception as problem:  # whatever the author's code raises before any stage is called
        line = next((f.lineno for f in traceback.extract_tb(problem.__traceback__) if f.filename == spec.origin), "?")
        raise RecipeError(f"{source.path}, line {line}: {type(problem).__name__}: {problem}.") from problem
    return Recipe(source, module)


def import_fastai() -> None:
    """Check the installation, then import fastai without its own deprecation warnings, which no user can fix."""
    check_installation()
    for module in ("fastai", "fastcore", "torch.jit", "plum", "torch.onnx", "torch.utils.data"):
        warnings.filterwarnings("ignore", module=rf"{module}(\.|$)")
    warnings.filterwarnings("ignore", message=".*torch.jit.script.* is deprecated")
    warnings.filterwarnings("ignore", module=r"PIL(\.|$)")  # of odd metadata: what matters becomes a finding
    with lazy.imports():
        importlib.import_module("fastai.vision.all")
    importlib.import_module("fastcls.images.opening").install()


@dataclass
class Prepared:
    """A recipe with its learner built and nothing trained."""

    recipe: Recipe
    learn: Learner
    request: Request
    notes: list[str]


@contextlib.contextmanager
def prepared(request: Request) -> Iterator[Prepared]:
    """Load the recipe and build its learner under the request's options; everything later happens inside."""
    loaded = load(request.source)
    from fastcls.machine import devices, host
    from fastcls.training import best, step

    extra = resolve_extra(request.source, request.extra)
    with options.using(replace(request.options, extra=extra)) as notes:
        devices.seed_everything(request.options.seed)
        try:
            learn = loaded.get_learner(**request.stage("get_learner"))
        except (RuntimeError, MemoryError) as problem:
            if not host.ran_out(problem):
                raise
            what = str(problem).partition("\n")[0]
            raise TrainingError(
                f"Out of memory while building the network: {what}", "Use a smaller network."
            ) from problem
        if not hasattr(learn, "dls"):
            raise RecipeError(f"{request.source.path}: get_learner returned {type(learn).__name__}, not a Learner.")
        _extend(learn, extra)
        if not hasattr(learn, "precision"):  # a Learner that the recipe built by hand
            step.configure(learn)
        best.ensure(learn, request.options.best_by)
        step.validate_in_fp32(learn)  # whatever the recipe did to it since, as `to_fp16`
        yield Prepared(loaded, learn, request, notes)


def resolve_extra(source: sources.RecipeSource, given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """`--set` keywords checked against the real signatures of the functions that the recipe calls.

    A key may name its function (`fine_tune.div=10`). All wrong ones are reported in a single KnobError. Those that no
    function has go to `transfer_learner`, if the recipe calls it: the network's constructor may have them.
    """
    from fastai.learner import Learner

    from fastcls.models.learners import transfer_learner

    functions = {"transfer_learner": transfer_learner, "Learner": Learner}
    parameters = {
        name: {
            keyword: parameter.default
            for keyword, parameter in inspect.signature(
                functions.get(name) or getattr(Learner, name)
            ).parameters.items()
            if keyword not in ("self", "dls", "model", "arch", "weights", "kwargs")
        }
        for name in source.extensible
    }
    knobs = source.defaults()
    extra: dict[str, dict[str, Any]] = {}
    problems = []
    for key, text in given.items():
        function, _, plain = key.rpartition(".")
        takers = [name for name, keys in parameters.items() if plain in keys and function in ("", name)]
        if not takers and "transfer_learner" in parameters and function in ("", "transfer_learner"):
            takers = ["transfer_learner"]
        if plain in knobs and not function:
            problems.append(f"--set {key}: this is a knob of the recipe; use --{plain.replace('_', '-')} {text}")
        elif not takers:
            known = sorted(set().union(*parameters.values()) if parameters else set())
            where = " or ".join(parameters) or "any function that this recipe calls"
            problems.append(f"--set {key}: not a keyword of {where}{did_you_mean(plain, known)}")
        value = text
        if isinstance(text, str):
            with contextlib.suppress(ValueError, SyntaxError):
                value = ast.literal_eval(text)
        for name in takers:
            default = parameters[name].get(plain)
            if isinstance(default, (bool, int, float)):  # where there is none, or None, fastai's types are not known
                knob = Knob(plain, "", "bool" if isinstance(default, bool) else "float", default)
                value_of(f"--set {key}={shown(text)}", knob, value, problems)
            extra.setdefault(name, {})[plain] = value
    if problems:
        raise KnobError("wrong keywords:\n  " + "\n  ".join(problems), "See the signatures in fastai's documentation.")
    return extra


def _extend(learn: Learner, extra: Mapping[str, Mapping[str, Any]]) -> None:
    """Give the learner's own fit functions the further keywords, whoever calls them."""
    for name, keywords in extra.items():
        if name not in ("transfer_learner", "Learner"):
            setattr(learn, name, partial(getattr(learn, name), **keywords))
