"""fastcls in Python: every verb takes and gives values; the shell parses words into them and prints.

from fastcls import Run, compare, recipe, save, train
train('digits-cnn', epochs=3)                             # a Run: in a notebook its metrics and curves
compare('digits-cnn', vary={'dropout': [0, 0.3]}, seeds=3)     # a Comparison: its table and figure
Run('last').history                                       # a DataFrame; opening a run needs no torch
recipe('pets-resnet50').get_learner(size=128)             # a fastai Learner
save(learn, 'mine')                                       # a Run from any fastai Learner
"""

from __future__ import annotations

import shlex
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fastcls.errors import OutputError, UsageError
from fastcls.plugins import tracking
from fastcls.runfolder import register, runs, target
from fastcls.running import loading, series
from fastcls.settings import arguments, shell, sources
from fastcls.settings.knobs import as_text, listed
from fastcls.settings.options import DECLARED, checked
from fastcls.settings.request import Request, requested

if TYPE_CHECKING:
    import pandas as pd
    from fastai.learner import Learner

    from fastcls.audit.audit import Audit
    from fastcls.plugins.hub import Pushed
    from fastcls.reports import comparison as compared
    from fastcls.reports.search import Page
    from fastcls.runfolder.run import Run as Files
    from fastcls.running.exporting import Exported
    from fastcls.running.lr_find import Rates

Paths = str | PathLike[str]
EMPTY: Any = {"keep_default_na": False, "na_values": ["", "nan"]}  # of pd.read_csv: a setting may be called NA or None


class Recipe(loading.Recipe):
    """A loaded recipe: `get_learner` and `fit` are its functions, `run` is the whole training."""

    @arguments.checked
    def run(self, *, out: Paths | None = None, quiet: bool = False, **settings: Any) -> Run:
        """Train the recipe from data to report, like `fastcls recipe`; returns the run.

        settings: the recipe's knobs and the options of every run, by their names in `fastcls recipe --help` (seed,
        limit, keep, …; `extra` takes a mapping, like --set). out: the run folder. quiet: print nothing. KnobError
        lists every wrong setting.
        """
        return _trained(self.source, out, quiet, settings)

    def _repr_html_(self) -> str:
        from fastcls.reports import cell

        return cell.of_recipe(self.source.title, {"claim": self.source.claim}, self.source.knobs)


@arguments.checked
def recipe(name: Paths) -> Recipe:
    """Load the recipe with this name or file: `recipe('pets-resnet50').get_learner(size=128)` is a Learner."""
    loaded = loading.load(sources.find(fspath(name)))
    return Recipe(loaded.source, loaded.module)


class Run:
    """A run folder, read without torch and without running any of its code; a notebook shows its metrics and curves."""

    @arguments.checked
    def __init__(self, name: Paths = "last") -> None:
        """name: a folder, a run's name under runs/, a recipe's (its newest run) or 'last'."""
        self.path: Path = runs.find(fspath(name))

    @property
    def record(self) -> dict[str, Any]:
        """run.json: knobs, options, seed, versions, device, status."""
        return self._files.info

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """One row per split and metric, with columns value, low, high (its 95 % interval) and n."""
        import pandas as pd

        from fastcls.reports.scores import scores

        rows = [
            (split, key, score.value, score.low, score.high, score.n)
            for split in self._files.splits()
            for key, score in scores(self._files, split).items()
        ]
        names = ["split", "figure", "value", "low", "high", "n"]
        return pd.DataFrame(rows, columns=names).set_index(["split", "figure"])

    @cached_property
    def history(self) -> pd.DataFrame:
        """One row per epoch: phase, epoch, step, lr, losses, metrics, seconds; empty before the first."""
        table = self._files.history.dropna(axis=1, how="all")
        return table.astype({"epoch": int}) if len(table) else table

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """One row per evaluated image: split, path, label, prediction, confidence, loss, probabilities."""
        from fastcls.runfolder import predictions

        return predictions.of_run(self.path, probabilities=True)

    @cached_property
    def suspects(self) -> pd.DataFrame:
        """Labels that the network contradicts, the clearest first."""
        import pandas as pd

        # all else is text: a class may be called 007 or NA
        numbers = dict.fromkeys(("probability_of_label", "probability_of_other", "margin"), float)
        kinds: Any = defaultdict(lambda: str, numbers)
        try:
            return pd.read_csv(self.path / "suspects.csv", dtype=kinds, keep_default_na=False)
        except (OSError, ValueError) as problem:
            raise OutputError(f"{self.path / 'suspects.csv'} cannot be read: {problem}.") from None

    @cached_property
    def slices(self) -> pd.DataFrame:
        """Accuracy by the columns of a label table, on the most trustworthy split, the worst first.

        One row per slice: column, value, n, accuracy, low, high (95 %), others, expected (accuracy of the others on
        its classes), p (corrected for multiple tests), shown.
        """
        from fastcls.reports import slices

        return slices.frame(slices.of_split(self._files, next(iter(self._files.splits()), "valid")))

    @property
    def evaluation(self) -> dict[str, Any]:
        """evaluation.json of a folder written by `evaluate`: the run's own metrics, and how the images differ."""
        return self._files.evaluation

    @property
    def report(self) -> Path:
        """The path of the report; it may not exist if the run did not finish."""
        return self.path / "report.html"

    @arguments.checked
    def predict(
        self,
        paths: Paths | Iterable[Paths],
        top_k: int = 0,
        calibrated: bool = False,
        tta: bool = False,
        *,
        coverage: float | None = None,
        precision: float | Mapping[str, float] | None = None,
        recall: float | Mapping[str, float] | None = None,
        costs: Paths = "",
        unknown: float | None = None,
        features: bool = False,
    ) -> pd.DataFrame:
        """Label images, folders or patterns, like `fastcls predict`: path, prediction, confidence, error.

        top_k: add this many classes, most likely first. calibrated: divide the logits by the run's temperature. tta:
        average image and mirror image. coverage: add a column of prediction sets. precision, recall: for all classes,
        or class -> share. costs: a CSV of true classes and decisions. unknown: the share of known images that may be
        flagged as unknown. features: add a column of lists, the input of the last layer (embeddings). It uses
        model.onnx; an image that cannot be read has an error.
        """
        import pandas as pd

        from fastcls.datasets.inputs import collect
        from fastcls.inference import deciding, requirements
        from fastcls.inference.answers import Table
        from fastcls.inference.predictor import temperature_of

        names = [fspath(path) for path in ([paths] if isinstance(paths, str | PathLike) else paths)]
        wanted = requirements.Wanted(coverage, precision, recall, fspath(costs), unknown)
        temperature = temperature_of(self.path) if calibrated else 1
        decider = deciding.decider(self.path, wanted, temperature) if wanted else None
        predictor = requirements.predictor(self.path, temperature, tta, wanted, features)
        table = Table(
            predictor.classes,
            top_k,
            decider=decider,
            target=predictor.target,
            thresholds=predictor.thresholds,
            features=predictor.width if features else 0,
        )
        return pd.DataFrame(table.rows(predictor.predict(collect(names))), columns=list(table.columns))

    @cached_property
    def _files(self) -> Files:
        from fastcls.runfolder.run import open_run

        return open_run(self.path)

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        main = target.of(self._files.get("data") or {}).main
        own = self.metrics.query("figure == @main")["value"].items() if len(self.metrics) else ()
        figures = [f"{split} {main} {value:.4f}" for (split, _), value in own]
        return f"Run({str(self.path)!r}): {', '.join([str(self.record.get('status')), *figures])}"

    def _repr_html_(self) -> str:
        from fastcls.reports import cell

        return cell.of_run(self._files, self.report)


@arguments.checked
def save(learn: Learner, folder: Paths, *, quiet: bool = False) -> Run:
    """Save any trained fastai Learner on labelled image files as a run folder; returns the run.

    It is evaluated on its validation images, and on `learn.dls.test_items` if there are any; metrics, predictions,
    network, curves of the last fit and the report are written. UsageError, without writing anything, if its labels are
    not classes, it has no validation images, or the folder is not empty. quiet: print nothing.
    """
    loading.import_fastai()
    from fastcls.machine.screen import Screen
    from fastcls.running import by_hand

    out = by_hand.save(learn, shell.path(folder), Screen(quiet))
    register.add(out)
    return Run(out)


@arguments.checked
def train(name: Paths, *, out: Paths | None = None, quiet: bool = False, **settings: Any) -> Run:
    """Train the recipe with this name or file from data to report, like `fastcls recipe`; returns the run.

    settings: the recipe's knobs and the options of every run, by the names that `fastcls recipe NAME --help` lists,
    and also `time` ('20m', or seconds) and `extra` (keywords of fastai's functions). out: the run folder. quiet:
    print nothing. KnobError lists every wrong setting.
    """
    return _trained(sources.find(fspath(name)), out, quiet, settings)


@arguments.checked
def resume(
    run: Paths = "last", *, extend_epochs: int = 0, path: Paths = "", trust: bool = False, quiet: bool = False
) -> Run:
    """Resume an interrupted run, or train a finished one for `extend_epochs` more epochs; returns the run.

    path: the new location of its images, if they were moved. trust: run the recipe.py in the run folder if it differs
    from the installed recipe.
    """
    folder = runs.find(fspath(run)).absolute()
    loading.import_fastai()
    from fastcls.machine.screen import Screen
    from fastcls.running import runner

    runner.resume(folder, Screen(quiet), extend_epochs, trust, path=fspath(path))
    return Run(folder)


@arguments.checked
def lr_find(name: Paths, *, steps: int = 100, **settings: Any) -> Rates:
    """Find learning rates for a recipe with fastai's finder: `rates` and `losses` of its curve, `suggestions` by name.

    The search starts where the recipe's first training starts: from the solved head, with the same layers frozen.
    settings: as for `train`. steps: mini-batches, 20 or more.
    """
    if steps < 20:
        raise UsageError(f"--steps {steps}: the finder needs at least 20.")
    request = _request(name, **{"keep": "last"} | settings)
    loading.import_fastai()
    from fastcls.running import lr_find as finder

    with (
        loading.prepared(request) as ready,
        finder.first_training(ready.learn, ready.recipe.fit, **request.stage("fit")),
    ):
        return finder.lr_find(ready.learn, steps)


class Check:
    """The result of a check: `findings` as a table, `errors` is their number of errors, `page` if one was written."""

    def __init__(self, audit: Audit, page: Path | None) -> None:
        self.audit, self.page = audit, page

    @property
    def errors(self) -> int:
        return len(self.audit.errors)

    @cached_property
    def findings(self) -> pd.DataFrame:
        """One row per finding, the worst first: severity, title, count, what was found, how to fix it, an example."""
        import pandas as pd

        rows = [(f.severity, f.title, f.count, f.what, f.fix, f.example) for f in self.audit.findings]
        return pd.DataFrame(rows, columns=["severity", "title", "count", "what", "fix", "example"])

    def __repr__(self) -> str:
        return f"Check({str(self.audit.contents.root)!r}): {len(self.audit.findings)} findings, {self.errors} errors"


@arguments.checked
def check(
    path: Paths,
    *,
    labels: Paths = "",
    label_regex: str = "",
    multi_label: str = "auto",
    out: Paths | None = None,
    progress: Callable[[int, int], object] | None = None,
    suspects: bool = False,
    arch: str = "base",
    weights: Paths = "imagenet",
    size: int = 224,
) -> Check:
    """Find problems in a folder of images, or in the images of a run: files, copies, leaks, labels, classes.

    labels: a CSV file of files and labels. label_regex: a pattern whose first group is the label in a file name.
    multi_label: 'yes', 'no' or 'auto', whether an image may have several labels. out: a folder for check.html,
    check.json and findings.csv; None writes nothing. progress: called with the numbers of files checked and of all
    files. suspects: also find labels that a linear head on the features of a pretrained `arch` contradicts; weights:
    'imagenet', a run folder or a .safetensors file. DataError if there are no images, or no labels.
    """
    import time

    from fastcls.audit import contents
    from fastcls.audit.audit import audit
    from fastcls.audit.finding import by_severity
    from fastcls.reports import check as pages

    began, started, folder = time.perf_counter(), runs.now(), _path(out)
    held = contents.read(fspath(path), fspath(labels), label_regex, multi_label=multi_label)
    if folder is not None:
        pages.make_folder(folder)
    found = audit(held, progress)
    given = {"labels": fspath(labels), "label_regex": label_regex}
    given |= {"multi_label": multi_label} if multi_label != "auto" else {}
    if suspects:
        if held.target.several:
            raise UsageError("--suspects: it needs one class per image; for several labels see the report of a run.")
        loading.import_fastai()
        from fastcls.models import probes

        doubtful = probes.doubts(found, arch, fspath(weights), size)
        found = replace(found, findings=by_severity([*found.findings, *([doubtful] if doubtful else [])]))
        given |= {"arch": arch, "weights": fspath(weights), "size": str(size)}
    if folder is None:
        return Check(found, None)
    command = shell.command("check", fspath(path), *shell.flags(**given, suspects=suspects))
    return Check(found, pages.write(folder, found, command, time.perf_counter() - began, started))


@arguments.checked
def predict(run: Paths, paths: Paths | Iterable[Paths], **options: Any) -> pd.DataFrame:
    """Label images, folders or patterns with a run's network, with the options of `Run.predict`."""
    return Run(run).predict(paths, **options)


@arguments.checked
def evaluate(
    run: Paths,
    path: Paths,
    *,
    labels: Paths = "",
    label_regex: str = "",
    split: str = "",
    out: Paths | None = None,
    skip_bad: bool = False,
    trust: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> Run:
    """Evaluate a finished run on new labelled images, in any layout that training supports; returns the new run folder.

    Its metrics are of the split 'new'; `evaluation`, `slices` and the report compare them with the run's own. split:
    only the train, valid or test images. out: a new folder [evaluations/NAME]. skip_bad: skip images that cannot be
    read. trust: without model.onnx, run the run's recipe.py. DataError if no image has a class that the run knows, or
    the run was trained on all of them.
    """
    from fastcls.running import later

    found = runs.find(fspath(run), done=True)
    words = fspath(path), fspath(labels), label_regex, split
    return Run(later.evaluate(found, *words, _path(out), skip_bad, trust, progress))


@arguments.checked
def export(run: Paths, *kinds: str, out: Paths | None = None, trust: bool = False) -> dict[str, Exported]:
    """Export the network of a run for other programs; returns kind -> file and its difference from the Learner.

    kinds: 'onnx' (the default), 'safetensors', 'torch-export' (needs `trust`, because it runs the run's recipe.py),
    'openvino', 'int8' and 'fp16' (lower precision; `cost` has its effect). out: the folder [RUN/export]. OutputError
    if a file exists, or if a probability on images of the run differs from the Learner's by more than 0.001; then the
    file is not written.
    """
    from fastcls.running import exporting

    return exporting.export(runs.find(fspath(run), done=True), kinds or ("onnx",), _path(out), trust)


@arguments.checked
def push(run: Paths, repository: str, *, private: bool = False, report: bool = False) -> Pushed:
    """Publish a finished run on the Hugging Face Hub as OWNER/NAME, with a model card.

    Returns url, commit, files and in_timm. private: create a private repository. report: also upload report.html,
    predictions and splits, which show the images or their names. It uses huggingface_hub's token. EnvironmentProblem
    if there is none, if it has no permission, or if the Hub cannot be reached; UsageError if the name is not
    OWNER/NAME.
    """
    from fastcls.plugins import hub

    return hub.push(runs.find(fspath(run), done=True), repository, private, report)


@arguments.checked
def report(
    run: Paths = "last",
    split: str | None = None,
    pictures: int | Literal["all"] = 0,
    costs: Paths = "",
    odd: Paths = "",
) -> Path:
    """Rebuild the report and figures of a run, on the test images or, if there are none, the validation images.

    pictures: at least this many images per cell of the confusion matrix, or 'all'; by default only the mistakes and
    correct predictions of highest loss. costs: a CSV of true classes and decisions. odd: a folder of images of no
    known class.
    """
    from fastcls.reports.build import write

    each = sys.maxsize if pictures == "all" else pictures
    return write(runs.find(fspath(run), done=True), split, each=each, costs=fspath(costs), odd=fspath(odd))


class Comparison:
    """A comparison of runs: tables, figures and a page; a notebook shows the table and the figures."""

    def __init__(self, found: compared.Comparison, page: Path) -> None:
        self.found, self.page, self.path = found, page, page.parent

    @property
    def runs(self) -> list[Run]:
        """The runs that finished successfully."""
        return [Run(entry.folder) for entry in self.found.done]

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per setting, the best first: knobs, means, the difference from the baseline with its interval."""
        return self._read("table.csv", [row.setting for row in self.found.rows])

    @cached_property
    def results(self) -> pd.DataFrame:
        """One row per run: knobs, seed, metrics, costs, folder."""
        return self._read("results.csv", [entry.setting for entry in self.found.entries])

    def _read(self, file: str, settings: Sequence[Mapping[str, str]]) -> pd.DataFrame:
        """A table of the comparison, its rows named by their settings."""
        import pandas as pd

        from fastcls.reports.comparison import name

        names = {tuple(row.setting.items()): name(row) for row in self.found.rows}
        index = pd.Index([names[tuple(setting.items())] for setting in settings], name="setting")
        return pd.read_csv(self.path / file, **EMPTY).set_index(index)

    def __repr__(self) -> str:
        return f"Comparison({str(self.path)!r}): {len(self.found.rows)} settings, {len(self.found.done)} runs"

    def _repr_html_(self) -> str:
        from fastcls.reports import cell

        return cell.of_comparison(self.found, self.page)


@arguments.checked
def compare(
    *targets: Paths,
    vary: Mapping[str, Any] | None = None,
    settings: Sequence[Mapping[str, Any]] = (),
    seeds: int = 1,
    one_at_a_time: bool = False,
    out: Paths | None = None,
    folds: int | None = None,
    repeats: int = 1,
    **fixed: Any,
) -> Comparison:
    """Compare settings and seeds of a recipe, or existing runs (Runs, folders, names), like `fastcls compare`.

    vary: knob or option -> its values; the whole grid, or `one_at_a_time` from the baseline (an ablation). settings:
    more settings of several knobs each. fixed: knobs and options of all runs. out: the comparison's folder, in which
    finished runs are kept. folds: this many runs per setting, each image held out once, `repeats` times; the setting's
    folder is then the run of all folds. KnobError lists every wrong setting; failed runs are in `found.failed`.
    """
    from fastcls.machine.screen import Screen
    from fastcls.running import grid

    names = [fspath(target) for target in targets]
    folder = _path(out)
    if not names:
        raise UsageError("No recipe and no runs given.", "compare('digits-cnn', vary={'dropout': [0, 0.3]}, seeds=3)")
    if len(names) == 1 and not any((Path(names[0]) / file).is_file() for file in (grid.PLAN, "run.json")):
        several = {name: listed(values) for name, values in (vary or {}).items()}
        request = _request(names[0], **fixed)
        plan = grid.plan(request, several, settings, seeds, one_at_a_time, folder, folds, repeats)
        words = ["compare", *shlex.split(series.command(request))[2:]]
        words += shell.flags(
            vary=[f"{name}={as_text(value)}" for name, values in several.items() for value in values],
            setting=[shlex.join(f"{name}={as_text(value)}" for name, value in one.items()) for one in settings],
            one_at_a_time=one_at_a_time,
            folds=folds,
            repeats=repeats if folds else None,
            seeds=None if folds else seeds,
            out=plan.out,
        )
        found, page, _ = grid.make(plan, shell.command(*words), Screen(), quiet=True)
        return Comparison(found, page)
    if vary or settings or fixed or folds:
        raise UsageError("vary, settings, folds and knobs need a recipe, not runs.", f"Given: {', '.join(names)}")
    return Comparison(*grid.existing(names, shell.command("compare", *names), folder))


class Search:
    """A search of settings: its trials, the best of them, and a page that shows which knobs matter."""

    def __init__(self, page: Page, file: Path) -> None:
        self.found, self.page, self.path = page, file, file.parent

    @cached_property
    def trials(self) -> pd.DataFrame:
        """One row per trial: number, state, the metric, the searched knobs."""
        import pandas as pd

        return pd.read_csv(self.path / "search.csv", **EMPTY)

    @property
    def best(self) -> dict[str, Any]:
        """The searched knobs of the best trial; empty if none finished."""
        best = self.found.results.best
        return {} if best is None else dict(best.values)

    def __repr__(self) -> str:
        return f"Search({str(self.path)!r}): {self.found.counts}; best {self.best}"


@arguments.checked
def search(
    name: Paths,
    space: Mapping[str, Any],
    *,
    trials: int | None = None,
    time: str | float = "",
    metric: str = "accuracy",
    out: Paths | None = None,
    quiet: bool = False,
    pruner: str = "",
    prune_after_trials: int = 5,
    prune_after_epochs: int = 1,
    storage: str = "",
    study: str = "",
    **fixed: Any,
) -> Search:
    """Search for the best settings of a recipe on its validation images with Optuna, like `fastcls search`.

    space: knob -> a list of values or a `fastcls.settings.space.Range(low, high, log=False, step=None)`. trials: of
    the whole study (20, without `time`). time: start no trial after this time, '2h' or seconds. metric: 'accuracy',
    'macro_f1' or 'loss'. fixed: knobs and options of all trials. The same call continues the study in `out`.
    """
    from fastcls.comparison import study as studies

    studies.require()
    from fastcls.machine.screen import Screen
    from fastcls.reports.search import write
    from fastcls.running import search as searching
    from fastcls.settings.space import dimensions

    request = _request(name, **fixed)
    dims = dimensions(list(space.items()), request.source.knobs, request.knobs)
    plan = searching.plan(
        request,
        dims,
        trials=trials,
        time=time,
        metric=metric,
        pruner=pruner,
        prune_after_trials=prune_after_trials,
        prune_after_epochs=prune_after_epochs,
        storage=storage,
        study=study,
        out=_path(out),
    )
    words = [*shlex.split(series.command(request))[2:], *shell.flags(space=[*map(str, dims)], out=plan.out)]
    command = shell.command("search", *words)
    results = searching.run_all(plan, Screen(quiet), lambda so_far: write(searching.page(plan, so_far, command)))
    page = searching.page(plan, results, command)
    return Search(page, write(page))


@arguments.checked
def _request(
    recipe: Any, /, *, time: str | float = "", extra: Mapping[str, Any] | None = None, **settings: Any
) -> Request:
    """Settings by keyword: the recipe's knobs, the options of every run, `time` and `extra`."""
    source = recipe if isinstance(recipe, sources.RecipeSource) else sources.find(fspath(recipe))
    own = {name: value for name, value in settings.items() if name in DECLARED}
    knobs = {name: value for name, value in settings.items() if name not in own}
    options = checked({**own, "track": own.get("track", "")}, time)
    tracking.refuse_missing(tracking.names(options.track))
    flags = [f"--{name.replace('_', '-')}" for name in DECLARED]
    return requested(source, knobs, options, extra or {}, flags)


def _trained(source: sources.RecipeSource, out: Paths | None, quiet: bool, settings: Mapping[str, Any]) -> Run:
    request = _request(source, **settings)
    request.out = _path(out)
    request.command = series.command(request)
    loading.import_fastai()
    from fastcls.machine.screen import Screen
    from fastcls.running.runner import run

    return Run(run(request, Screen(quiet)))


def _path(name: Paths | None) -> Path | None:
    return None if name is None else shell.path(name)
