"""The best settings of a recipe, searched by Optuna: a study whose trials are runs, pruned epoch by epoch.

Every trial is an ordinary run folder, OUT/trial-0007/, evaluated on the validation split alone. The study is the
memory: run again a search continues it, and with the trial that was interrupted.
"""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastcls.comparison.study import Results, Study, Trial, opened, shown
from fastcls.errors import (
    DataError,
    EnvironmentProblem,
    OutputError,
    RecipeError,
    TrainingError,
    did_you_mean,
)
from fastcls.machine.screen import Screen, escape
from fastcls.machine.stop import Ended, Stopped, listening
from fastcls.reports.search import Page
from fastcls.runfolder import runs
from fastcls.running import series
from fastcls.running.loading import import_fastai
from fastcls.settings.knobs import REQUIRED, as_text, refuse
from fastcls.settings.options import budget
from fastcls.settings.request import Request
from fastcls.settings.space import Dimension

if TYPE_CHECKING:
    import optuna

HOME = Path("searches")
TRIALS = 20
BEST_BY = {
    "accuracy": "",
    "macro_f1": "f1",
    "loss": "valid_loss",
    "mAP": "mAP",
}  # which epoch of a trial is best for each metric
METRICS, PRUNERS = tuple(BEST_BY), ("median", "none")
PLAN, STUDY = "search.json", "study.db"
REFRESH = 20.0  # seconds between two looks at all trials, which take some themselves
WORDS = {
    **series.COMMON,
    "metric": "a different metric",
    "space": "a different search space",
    "seed": "a different seed, and so different validation images",
}
HERE = {"storage": "a different storage", "study": "a different study"}
GENERAL = (DataError, EnvironmentProblem, OutputError, RecipeError)  # no other settings would fix these


@dataclass(frozen=True)
class Search:
    """What is searched, and how long: `trials` in the whole study, `seconds` of this call after which none begins."""

    request: Request
    dimensions: Sequence[Dimension]
    out: Path
    metric: str = "accuracy"
    trials: int | None = 20
    seconds: float | None = None
    pruner: str = "median"  # or 'none'
    prune_after_trials: int = 5
    prune_after_epochs: int = 1
    storage: str = ""  # empty: STUDY in `out`
    study: str = ""  # its name

    @property
    def url(self) -> str:
        return self.storage or runs.sqlite_url(self.out / STUDY)

    def make_pruner(self) -> optuna.pruners.BasePruner:
        """Optuna's; its steps count from 0, epochs from 1."""
        from optuna.pruners import MedianPruner, NopPruner

        if self.pruner == "none":
            return NopPruner()
        return MedianPruner(n_startup_trials=self.prune_after_trials, n_warmup_steps=self.prune_after_epochs + 1)

    def folder(self, number: int) -> Path:
        return self.out / f"trial-{number:04d}"

    def command(self, trial: Trial) -> str:
        """The `fastcls recipe` command that makes a trial's run anew, the test split evaluated too."""
        options = replace(self.request.options, precision=trial.run.get("precision") or "auto")
        return series.command(replace(self.request, knobs={**self.request.knobs, **trial.values}, options=options))


def plan(
    request: Request,
    dimensions: Sequence[Dimension],
    *,
    trials: int | None = None,
    time: str | float = "",
    metric: str = METRICS[0],
    pruner: str = "",
    prune_after_trials: int = 5,
    prune_after_epochs: int = 1,
    storage: str = "",
    study: str = "",
    out: Path | None = None,
) -> Search:
    """A search as asked for; one KnobError names all of its own settings that are wrong.

    trials: of the whole study; TRIALS where neither they nor `time` are given. pruner: 'median' or 'none'; by
    default the first, unless epochs are searched.
    """
    problems = [
        f"--{option} {value}: expected one of {', '.join(known)}{did_you_mean(value, known)}"
        for option, value, known in (("metric", metric, METRICS), ("pruner", pruner, PRUNERS))
        if value and value not in known
    ]
    problems += [
        f"--{option} {value}: expected an integer, {least} or more"
        for option, value, least in (
            ("trials", trials, 1),
            ("prune-after-trials", prune_after_trials, 0),
            ("prune-after-epochs", prune_after_epochs, 0),
        )
        if value is not None and value < least
    ]
    seconds = budget(time, problems)
    refuse(problems)
    request = replace(
        request, options=replace(request.options, best_by=request.options.best_by or BEST_BY.get(metric, ""))
    )
    # what every trial has that a plain `fastcls recipe` would not names the folder and the study
    called = study or series.slug([request.source.name, *series.fixed(request)])
    chosen = pruner or ("none" if any(dim.name in ("epochs", "freeze_epochs") for dim in dimensions) else "median")
    return Search(
        request,
        dimensions,
        out or HOME / called.replace("/", "-"),
        metric,
        trials or (None if seconds else TRIALS),
        seconds,
        chosen,
        prune_after_trials,
        prune_after_epochs,
        storage,
        called,
    )


def _about(search: Search) -> dict[str, Any]:
    space = [str(dim) for dim in search.dimensions]
    seed = search.request.options.seed
    return {**series.common(search.request), "metric": search.metric, "space": space, "seed": seed}


def page(search: Search, results: Results, command: str) -> Page:
    """What the files of a search say; `command` made it."""
    source = search.request.source
    own = {name: value for name, value in source.defaults().items() if value is not REQUIRED}
    title = f"{source.name}: {', '.join(dim.name for dim in search.dimensions)}"
    if search.storage:  # whose password belongs on no page
        command = command.replace(search.storage, shown(search.storage))
    best = results.best
    return Page(search.out, title, command, search.command(best) if best else "", own, results)


def run_all(search: Search, screen: Screen, meanwhile: Callable[[Results], object]) -> Results:
    """Make trials until there are enough, or the time is over; gives all that the study holds.

    One that fails does not stop the others, unless no other settings would fix it. `meanwhile` receives all that
    there are, every now and then and when a signal stops it. A number format of 'auto' is decided by the first trial
    for all.
    """
    about, here = _about(search), {"storage": shown(search.storage) or STUDY, "study": search.study}
    series.refuse_others(search.out, PLAN, {**about, **here}, "search", {**WORDS, **HERE})
    if not search.storage:  # then the folder is there, and known, before its study is
        _begin(search, {**about, **here})
    words = {key: text for key, text in WORDS.items() if key != "path"}  # other machines have their images elsewhere
    marks = {"host": socket.gethostname(), "out": str(search.out.resolve())}
    worker = " ".join(marks.values()) if search.storage else ""
    pruner, seed = search.make_pruner(), search.request.options.seed
    held = opened(search.url, search.study, search.metric, search.dimensions, about, words, pruner, seed, worker)
    begun = reported = time.monotonic()
    with listening(), held as study, runs.locked(search.out):
        _begin(search, {**about, **here})
        study.offer({**search.request.source.defaults(), **search.request.knobs})
        waiting = study.cut_off(marks, lambda number: (search.folder(number) / "run.json").is_file())
        if waiting or _goes_on(search, study, begun):
            screen.print("loading torch and fastai …")
            import_fastai()
        try:
            while waiting or _goes_on(search, study, begun):
                trial = waiting.pop(0) if waiting else study.ask()
                for key, value in marks.items():
                    trial.set_user_attr(key, value)
                _make(search, study, trial, screen)
                if time.monotonic() - reported > REFRESH:
                    meanwhile(study.results())
                    reported = time.monotonic()
        except (KeyboardInterrupt, Stopped):
            meanwhile(study.results())
            raise
        return study.results()


def _begin(search: Search, plan: Mapping[str, Any]) -> None:
    if not (search.out / PLAN).is_file():
        runs.write_json(search.out / PLAN, {"format": runs.FORMAT, **plan})


def _goes_on(search: Search, study: Study, begun: float) -> bool:
    if search.seconds is not None and time.monotonic() - begun >= search.seconds:
        return False
    return search.trials is None or study.begun() < search.trials


def _make(search: Search, study: Study, trial: optuna.Trial, screen: Screen) -> None:
    """One trial, from its values to its end."""
    from fastcls.training.best import Prune

    values, folder = study.values(trial), search.folder(trial.number)
    words = "  ".join(f"{name}={as_text(value)}" for name, value in values.items())
    of = f" ({trial.number + 1} of {search.trials})" if search.trials else ""
    screen.print(f"\n[b]trial {trial.number}{of}[/b]  {escape(words)}", soft_wrap=True)
    problem: Exception | None = None
    ended = (folder / "run.json").is_file() and series.is_done(folder)  # then only the study missed it
    if not ended:
        request = search.request
        options = replace(request.options, test=False)
        if options.precision == "auto":
            options = replace(options, precision=study.inner.user_attrs.get("precision", "auto"))
        request = replace(request, knobs={**request.knobs, **values}, options=options, out=folder)
        prune = Prune(lambda epoch, value: study.report(trial, epoch, value), search.metric)
        problem = series.make(request, [prune], said=screen.said)
    if isinstance(problem, GENERAL):
        raise problem
    record = runs.read_json(folder / "run.json") if (folder / "run.json").is_file() else {}
    run = _described(record)
    if problem is None:
        if "precision" not in study.inner.user_attrs:
            study.inner.set_user_attr("precision", series.precision(folder))
        valid = runs.read_json(folder / "metrics.json")["valid"]
        figure = valid[search.metric]
        run |= {"n": valid["n"], "low": figure.get("low"), "high": figure.get("high")}
        study.tell(trial, figure["value"], **run)
        best = study.inner.best_trial
        line = f"trial {trial.number}: {search.metric} {figure['value']:.4f} on valid; the best so far: "
        screen.print(f"{line}{best.value:.4f}, trial {best.number}", markup=False)
    elif isinstance(problem, Ended):
        from fastcls.reports import build

        build.write(folder)
        study.tell(trial, **run)
    else:
        series.show_failure(problem, screen)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # it would fail again
        run["broke_down"] = isinstance(problem, TrainingError)
        study.tell(trial, failed=series.reason(problem), **run)


def _described(record: Mapping[str, Any]) -> dict[str, Any]:
    """What the study keeps of a run, for tables made where its folder is not."""
    network, data, device, options = (record.get(part) or {} for part in ("network", "data", "device", "options"))
    found = {name: record.get(name) for name in ("best_epoch", "train_seconds", "wall_seconds", "started")}
    found |= {"parameters": network.get("parameters"), "images": data.get("fingerprint"), "splits": data.get("images")}
    found |= {"device": device.get("name"), "precision": options.get("precision")}
    return {name: value for name, value in found.items() if value is not None}
