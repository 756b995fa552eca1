"""An Optuna study in our words: opened wherever it is stored, asked for trials, given their ends, read back.

Every trouble with its storage is one of our errors. What a study holds is enough for tables, figures and pages, so
that trials made by other machines are in them.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastcls.errors import EnvironmentProblem, OutputError, UsageError
from fastcls.machine import extras
from fastcls.settings.knobs import as_text
from fastcls.settings.space import Dimension

if TYPE_CHECKING:
    import optuna
    from optuna.importance import FanovaImportanceEvaluator

DRIVERS = {"postgresql": "psycopg2-binary", "mysql": "mysqlclient", "mariadb": "mysqlclient", "redis": "redis"}
JOURNALS = (".journal", ".log")  # a file that needs no database, on a network's file system too
ABOUT = "fastcls"  # the study's attribute that says what all its trials have in common


@dataclass(frozen=True)
class Trial:
    """A trial: 'done', 'pruned', 'failed' or 'running'; its figure (a pruned one's last), the searched knobs' values.

    curve: the figure after each epoch. run: what its run folder said at the end, for those who do not have the folder.
    """

    number: int
    state: str
    value: float | None
    values: dict[str, Any]
    curve: dict[int, float] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    reason: str = ""

    @property
    def settings(self) -> dict[str, str]:
        """The searched knobs as one would type them."""
        return {name: as_text(value) for name, value in self.values.items()}


@dataclass(frozen=True)
class Results:
    """All trials of a study, and how much each knob mattered."""

    metric: str
    dimensions: Sequence[Dimension]
    trials: Sequence[Trial]
    importances: Mapping[str, float]  # shares of one, the largest first; empty where there is no telling
    study: optuna.Study  # a copy in memory, which Optuna's figures are drawn of
    evaluator: Any  # Optuna's, of the importances

    @property
    def maximise(self) -> bool:
        return self.metric != "loss"

    def of(self, state: str) -> list[Trial]:
        return [trial for trial in self.trials if trial.state == state]

    @cached_property
    def ranked(self) -> list[Trial]:
        """The trials that are done, the best first."""
        sign = -1 if self.maximise else 1
        return sorted(self.of("done"), key=lambda trial: (sign * (trial.value or 0), trial.number))

    @property
    def best(self) -> Trial | None:
        return self.ranked[0] if self.ranked else None


@dataclass
class Study:
    """An open study; made by `opened`."""

    inner: optuna.Study
    metric: str
    dimensions: Sequence[Dimension]
    seed: int
    worker: str

    def frozen(self) -> list[optuna.trial.FrozenTrial]:
        return self.inner.get_trials(deepcopy=False)

    def begun(self) -> int:
        """How many trials were ever begun, here or elsewhere."""
        return sum(trial.state.name != "WAITING" for trial in self.frozen())

    def offer(self, values: Mapping[str, Any]) -> None:
        """Have these values tried first, if no trial was made and they are in the space: the recipe's own."""
        if not self.frozen() and all(values[dim.name] in dim for dim in self.dimensions):
            stored = {dim.name: dim.stored(values[dim.name]) for dim in self.dimensions}
            self.inner.enqueue_trial(stored, skip_if_exists=True)

    def ask(self) -> optuna.Trial:
        """A new trial. Its values depend on the seed and on the trials before it, not on when the search was begun."""
        import optuna

        text = f"{self.seed} {self.worker} {self.begun()}"
        seed = int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)
        self.inner.sampler = optuna.samplers.TPESampler(seed=seed)
        return self.inner.ask()

    def cut_off(self, marks: Mapping[str, Any], has: Callable[[int], bool]) -> list[optuna.Trial]:
        """The caller's trials that did not end: begun with these marks, or, by their numbers, those that it has."""
        import optuna

        left = [trial for trial in self.frozen() if trial.state.name == "RUNNING"]
        mine = [t for t in left if has(t.number) or all(t.user_attrs.get(k) == v for k, v in marks.items())]
        return [optuna.Trial(self.inner, trial._trial_id) for trial in mine]

    def values(self, trial: optuna.Trial) -> dict[str, Any]:
        """The knobs' values of a trial, drawn where it has none yet."""
        return {dim.name: dim.value(_suggest(trial, dim)) for dim in self.dimensions}

    def report(self, trial: optuna.Trial, epoch: int, value: float) -> str:
        """Keep an epoch's figure; gives why the trial should end, or nothing."""
        known = self.frozen()[trial.number].intermediate_values
        if epoch not in known:  # one that was interrupted has some epochs twice
            trial.report(value, epoch)
        if not trial.should_prune():
            return ""
        return f"pruned after epoch {epoch}: {self.metric} worse than the median of earlier trials"

    def tell(self, trial: optuna.Trial, value: float | None = None, failed: str = "", **run: Any) -> None:
        """End a trial: with a value; without one as pruned; failed, and of what.

        A training that broke down is reported to the sampler as a pruned one, which it learns from; others are not.
        """
        from optuna.trial import TrialState

        trial.set_user_attr("run", run)
        if failed:
            trial.set_user_attr("failed", failed)
        if value is not None:
            self.inner.tell(trial, value)
        else:
            self.inner.tell(trial, state=TrialState.FAIL if failed and not run.get("broke_down") else TrialState.PRUNED)

    def results(self) -> Results:
        """Everything that the study holds."""
        import optuna
        from optuna.importance import FanovaImportanceEvaluator

        held = [trial for trial in self.frozen() if trial.state.name != "WAITING"]
        copy = optuna.create_study(direction=self.inner.direction)
        copy.add_trials(held)
        evaluator = FanovaImportanceEvaluator(seed=self.seed)
        shares = self._importances(evaluator)
        return Results(self.metric, self.dimensions, [*map(self._trial, held)], shares, copy, evaluator)

    def _trial(self, held: optuna.trial.FrozenTrial) -> Trial:
        states = {"COMPLETE": "done", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}
        reason = str(held.user_attrs.get("failed", ""))
        curve = {epoch: value for epoch, value in sorted(held.intermediate_values.items()) if math.isfinite(value)}
        return Trial(
            held.number,
            "failed" if reason else states[held.state.name],
            held.value if held.state.name == "COMPLETE" else next(reversed(curve.values()), None),
            {dim.name: dim.value(held.params[dim.name]) for dim in self.dimensions if dim.name in held.params},
            curve,
            dict(held.user_attrs.get("run") or {}),
            reason,
        )

    def _importances(self, evaluator: FanovaImportanceEvaluator) -> dict[str, float]:
        """The share of each knob in the variance of the figure, by functional ANOVA (Hutter et al. 2014)."""
        from optuna.importance import get_param_importances

        values = {trial.value for trial in self.frozen() if trial.state.name == "COMPLETE"}
        if len(values) < 2 or len(self.dimensions) < 2:
            return {}
        try:
            found = get_param_importances(self.inner, evaluator=evaluator)
        except (RuntimeError, ValueError):  # no tree of its forest has any variance
            return {}
        return {name: float(share) for name, share in found.items()}


def _suggest(trial: optuna.Trial, dim: Dimension) -> Any:
    if dim.choices:
        return trial.suggest_categorical(dim.name, [dim.stored(value) for value in dim.choices])
    if dim.whole:
        return trial.suggest_int(dim.name, int(dim.low), int(dim.high), step=int(dim.step or 1), log=dim.log)
    return trial.suggest_float(dim.name, dim.low, dim.high, step=dim.step, log=dim.log)


def require() -> None:
    """EnvironmentProblem where Optuna is not installed; it keeps its own lines off the terminal."""
    extras.require("fastcls search", "search")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)


@contextlib.contextmanager
def opened(
    url: str,
    name: str,
    metric: str,
    dimensions: Sequence[Dimension],
    about: Mapping[str, Any],
    words: Mapping[str, str],
    pruner: Any,
    seed: int,
    worker: str = "",
) -> Iterator[Study]:
    """The study of that name in a storage, made if there is none. OutputError where it is about something else.

    about: what all its trials have in common; words: what is said of it where it differs. worker: makes the draws of
    several machines differ.
    """
    import optuna

    with _troubles(url):
        storage = _storage(url)
        try:
            inner = optuna.create_study(
                storage=storage,
                study_name=name,
                direction="minimize" if metric == "loss" else "maximize",
                pruner=pruner,
                load_if_exists=True,
            )
            _refuse_others(inner, about, words, f"The study {name!r} in {shown(url)}")
            yield Study(inner, metric, dimensions, seed, worker)
        finally:
            if hasattr(storage, "engine"):
                storage.remove_session()
                storage.engine.dispose()


def _refuse_others(study: optuna.Study, about: Mapping[str, Any], words: Mapping[str, str], which: str) -> None:
    before = study.user_attrs.get(ABOUT)
    if before is None:
        if study.get_trials(deepcopy=False):
            raise OutputError(f"{which} was not created by fastcls search.", "Give the study another name.")
        study.set_user_attr(ABOUT, dict(about))
    elif other := " and ".join(text for key, text in words.items() if before.get(key) != about[key]):
        raise OutputError(
            f"{which} was created with {other}.", "Give the study another name, or choose another folder with --out."
        )


def _storage(url: str) -> Any:
    """The storage that Optuna keeps at an address: a database, Redis, or a journal in a file."""
    import optuna
    from optuna.storages import journal

    scheme = url.partition(":")[0].partition("+")[0]
    try:
        if scheme in ("redis", "rediss"):
            return optuna.storages.JournalStorage(journal.JournalRedisBackend(url))
        if url.endswith(JOURNALS):
            Path(url).parent.mkdir(parents=True, exist_ok=True)
            return optuna.storages.JournalStorage(journal.JournalFileBackend(url))
        return optuna.storages.RDBStorage(url)
    except ImportError:
        driver = DRIVERS.get(scheme, "")
        hint = f"Install it:  pip install {driver}" if driver else "See SQLAlchemy's documentation for its name."
        raise EnvironmentProblem(f"--storage {shown(url)}: the driver of {scheme} is not installed.", hint) from None
    except OSError as problem:
        raise OutputError(f"--storage {url}: this file cannot be written: {problem.strerror}.") from None


@contextlib.contextmanager
def _troubles(url: str) -> Iterator[None]:
    """What a storage answers with, as an error of ours; whatever else happens meanwhile passes."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError

    try:
        yield
    except ArgumentError:
        raise UsageError(
            f"--storage {shown(url)}: not a storage that Optuna supports.",
            "For example: sqlite:///study.db, postgresql://user@host/database, redis://host, or a file, study.journal",
        ) from None
    except Exception as problem:
        if not isinstance(problem, SQLAlchemyError | StorageInternalError) and "redis" not in type(problem).__module__:
            raise
        cause = str(problem.__cause__ or problem).splitlines()[0]
        raise OutputError(f"--storage {shown(url)}: the storage cannot be reached: {cause}") from problem


def shown(url: str) -> str:
    """A storage's address without its password, for pages, files and messages."""
    return re.sub(r"(://[^/@:]*):.*@", r"\1:***@", url)
